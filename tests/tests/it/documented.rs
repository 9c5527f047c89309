//! docs/properties.md names the test of each property: checks that every named test and file
//! exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// All Rust and Python sources below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "py") {
            found.push(path);
        }
    }
}

/// The names of all functions.
fn functions() -> BTreeSet<String> {
    let mut files = Vec::new();
    for folder in ["crates", "tests", "xtask"] {
        sources(&root().join(folder), &mut files);
    }
    assert!(files.len() > 300, "only {} sources were found", files.len());
    let mut names = BTreeSet::new();
    for file in files {
        let python = file.extension().is_some_and(|extension| extension == "py");
        let word = if python { "def " } else { "fn " };
        for rest in fs::read_to_string(file).unwrap().split(word).skip(1) {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            names.insert(rest[..end.unwrap_or(rest.len())].to_owned());
        }
    }
    names
}

/// The folders behind short paths.
const FOLDERS: &[(&str, &str)] = &[
    ("seal:", "crates/vram-seal/tests/"),
    ("alloc:", "crates/vram-alloc/tests/"),
    ("gpu:", "crates/vram-gpu/tests/"),
    ("facade:", "crates/vram-residency/tests/"),
    ("store:", "crates/vram-store/tests/"),
    ("serve:", "crates/vram-serve/tests/"),
    ("suite:", "tests/tests/"),
    ("rigs:", "tests/testkit/rigs/src/"),
    ("python:", "crates/vram-py/tests/"),
];

#[test]
fn every_test_that_the_properties_name_is_there() {
    let functions = functions();
    let text = fs::read_to_string(root().join("docs/properties.md")).unwrap();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).collect();
    let (mut tests, mut files) = (0, 0);
    for row in rows {
        // The text between backticks is every second part.
        for word in row.split('`').skip(1).step_by(2).flat_map(str::split_whitespace) {
            let short = FOLDERS.iter().find(|(short, _)| word.starts_with(short));
            let path = match short {
                Some((short, folder)) => Some(word.replacen(short, folder, 1)),
                None => word.starts_with("crates/").then(|| word.to_owned()),
            };
            if let Some(path) = path {
                assert!(root().join(&path).exists(), "there is no {path}, named in: {row}");
                files += 1;
            } else if word.contains('_')
                && word.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
            {
                assert!(functions.contains(word), "there is no test {word}, named in: {row}");
                tests += 1;
            }
        }
    }
    assert!(tests > 100 && files > 60, "only {tests} tests and {files} files are named");
}

/// G1 to G13 and P1 to P20 each have a row.
#[test]
fn every_property_has_a_row() {
    let text = fs::read_to_string(root().join("docs/properties.md")).unwrap();
    let has = |name: &str| text.lines().any(|line| line.starts_with(&format!("| {name} |")));
    let guide = (1..=14).map(|number| format!("G{number}"));
    let ours = (1..=33).map(|number| format!("P{number}")).chain(["P10a".to_owned()]);
    for name in guide.chain(ours) {
        assert!(has(&name), "{name} has no row");
    }
}
