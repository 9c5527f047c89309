//! The copy of the workspace in which the changes are planted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::table::Change;

/// Folders that are not sources.
const NOT_COPIED: &[&str] = &["target", ".git"];

/// Files by their path below the top.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Makes `copy` the workspace with all changes planted in it. Files that are right are not written
/// again, so that a second build is quick.
pub(super) fn make(changes: &[Change], copy: &Path) -> Result<(), String> {
    let mut files = Files::new();
    read(Path::new("."), Path::new(""), &mut files)?;
    plant(changes, &mut files)?;

    fs::create_dir_all(copy).map_err(|error| format!("{}: {error}", copy.display()))?;
    let mut old = Files::new();
    read(copy, Path::new(""), &mut old)?;
    for path in old.keys().filter(|path| !files.contains_key(*path)) {
        let path = copy.join(path);
        fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    for (path, bytes) in files {
        if old.get(&path) != Some(&bytes) {
            let path = copy.join(path);
            let folder = path.parent().unwrap_or(copy);
            fs::create_dir_all(folder)
                .and_then(|()| fs::write(&path, bytes))
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    Ok(())
}

/// Replaces the snippets, and gives each changed package the crate of the switches.
fn plant(changes: &[Change], files: &mut Files) -> Result<(), String> {
    let mut packages = BTreeSet::new();
    for change in changes {
        edit(files, Path::new(&change.file), |text| change.planted(text))?;
        packages.insert(change.package_folder()?);
    }
    for folder in packages {
        let up = "../".repeat(folder.components().count());
        let line = format!("[dependencies]\nvram-planted = {{ path = \"{up}tests/planted\" }}\n");
        edit(files, &folder.join("Cargo.toml"), |text| {
            Ok(text.replacen("[dependencies]\n", &line, 1))
        })?;
    }
    Ok(())
}

fn edit(
    files: &mut Files,
    path: &Path,
    change: impl FnOnce(String) -> Result<String, String>,
) -> Result<(), String> {
    let bytes = files.get_mut(path).ok_or_else(|| format!("there is no {}", path.display()))?;
    let text = String::from_utf8(core::mem::take(bytes))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    *bytes = change(text)?.into_bytes();
    Ok(())
}

/// Reads all files of `folder`, which lies below `top`.
fn read(top: &Path, folder: &Path, files: &mut Files) -> Result<(), String> {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let path = top.join(folder);
    for entry in fs::read_dir(&path).map_err(|error| failed(&path, error))? {
        let entry = entry.map_err(|error| failed(&path, error))?;
        let relative = folder.join(entry.file_name());
        let kind = entry.file_type().map_err(|error| failed(&relative, error))?;
        if kind.is_dir() && !NOT_COPIED.iter().any(|name| entry.file_name() == *name) {
            read(top, &relative, files)?;
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).map_err(|error| failed(&relative, error))?;
            files.insert(relative, bytes);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planted_package_depends_on_the_switches() {
        let change = Change {
            file: "crates/a/src/lib.rs".to_owned(),
            replacements: vec![("one".to_owned(), "two".to_owned())],
            ..Change::default()
        };
        let mut files = Files::from([
            ("crates/a/src/lib.rs".into(), b"one".to_vec()),
            ("crates/a/Cargo.toml".into(), b"[dependencies]\nb = \"1\"\n".to_vec()),
        ]);
        plant(&[change], &mut files).unwrap();
        assert_eq!(files[Path::new("crates/a/src/lib.rs")], b"two");
        let manifest = String::from_utf8(files[Path::new("crates/a/Cargo.toml")].clone()).unwrap();
        let line = "[dependencies]\nvram-planted = { path = \"../../tests/planted\" }\nb = \"1\"\n";
        assert_eq!(manifest, line);
    }
}
