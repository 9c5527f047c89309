//! Where `unsafe` may stand: most crates forbid it, vram-gpu has one folder and two files for it, and
//! vram-py has one folder.

use super::crates;
use super::source::Source;
use super::strip;
use crate::workspace::Package;

/// Crates that may be unsafe in some folders and files (below `src`) alone, and deny it at their root.
const PLACES: &[(&str, &[&str])] = &[
    ("vram-gpu", &["cuda/", "host/map.rs", "kernels/fingerprint/wide.rs"]),
    ("vram-py", &["raw/"]),
];

/// Programs (`crate program`) of crates that forbid `unsafe`, which cannot say so, with the reason.
const PROGRAMS: &[(&str, &str)] =
    &[("vram-fuzz fuzz-coverage", "a macro defines the function that libFuzzer calls by its name")];

/// Roots of libraries, programs and build scripts that should say `forbid(unsafe_code)` and do not.
pub(super) fn missing_forbid(package: &Package) -> Result<Vec<String>, String> {
    let beside = ["test", "bench", "example"];
    let mut breaches = Vec::new();
    for target in &package.targets {
        let root = format!("{} {}", package.name, target.name);
        if PROGRAMS.iter().any(|(excepted, _)| *excepted == root) {
            continue;
        }
        if beside.contains(&target.kind.as_str()) || crates::may_be_unsafe(&package.name) {
            continue;
        }
        let source = std::fs::read_to_string(&target.source)
            .map_err(|error| format!("{}: {error}", target.source.display()))?;
        if !says(&strip::literals(&source), "#![forbid(unsafe_code)]") {
            breaches.push(format!("{root} lacks forbid(unsafe_code)"));
        }
    }
    Ok(breaches)
}

/// `unsafe` outside the places that a crate has for it, and a root of such a crate without `deny`.
pub(super) fn breaches(name: &str, sources: &[Source]) -> Vec<String> {
    let Some((_, places)) = PLACES.iter().find(|(krate, _)| *krate == name) else {
        return Vec::new();
    };
    let mut breaches = Vec::new();
    let root = sources.iter().find(|source| source.path == "lib.rs");
    if !root.is_some_and(|root| says(&root.with_tests, "#![deny(unsafe_code)]")) {
        breaches.push(format!("{name}: lib.rs lacks deny(unsafe_code)"));
    }
    // A folder ends in a slash; a file is named in full.
    let allowed = |path: &str| {
        places.iter().any(|place| path == *place || place.ends_with('/') && path.starts_with(place))
    };
    for source in sources.iter().filter(|source| !allowed(&source.path)) {
        let word = |letter: char| letter.is_alphanumeric() || letter == '_';
        if source.with_tests.split(|letter| !word(letter)).any(|found| found == "unsafe") {
            let path = &source.path;
            breaches
                .push(format!("{name}: {path} says unsafe, which may stand in {places:?} alone"));
        }
    }
    breaches
}

/// Whether code without comments says an inner attribute of the whole file.
fn says(code: &str, attribute: &str) -> bool {
    // What stands in a block speaks of that block alone.
    let head = code.split('{').next().unwrap_or_default();
    head.split_whitespace().collect::<String>().contains(attribute)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::workspace::Target;

    #[test]
    fn only_an_attribute_of_the_whole_file_counts() {
        let forbids = |text| says(&strip::literals(text), "#![forbid(unsafe_code)]");
        assert!(forbids("//! Why.\n#![forbid(unsafe_code)]\nfn main() {}"));
        assert!(forbids("#![ forbid( unsafe_code ) ]"));
        for text in [
            "// #![forbid(unsafe_code)]\nfn main() {}",
            "/* #![forbid(unsafe_code)] */",
            "const SAID: &str = \"#![forbid(unsafe_code)]\";",
            "mod within { #![forbid(unsafe_code)] }",
            "#![deny(unsafe_code)]",
            "",
        ] {
            assert!(!forbids(text), "{text}");
        }
    }

    #[test]
    fn roots_of_every_kind_are_read() {
        let found = |name: &str, kind: &str, file: &str| {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
            let target = Target { name: "root".to_owned(), kind: kind.to_owned(), source };
            let package = Package {
                name: name.to_owned(),
                targets: vec![target],
                dependencies: Vec::new(),
                features: BTreeSet::new(),
            };
            missing_forbid(&package).unwrap().len()
        };
        for kind in ["lib", "bin", "rlib", "cdylib", "proc-macro", "custom-build"] {
            assert_eq!(found("xtask", kind, "main.rs"), 0, "{kind}");
            assert_eq!(found("xtask", kind, "shell.rs"), 1, "{kind}");
            assert_eq!(found("cuda-shim", kind, "shell.rs"), 0, "{kind}");
        }
        assert_eq!(found("xtask", "test", "shell.rs"), 0);
    }

    #[test]
    fn unsafe_code_has_its_places_and_is_denied_elsewhere() {
        let found = |name: &str, root: &str, path: &str, text: &str| {
            breaches(name, &[Source::new("lib.rs", root), Source::new(path, text)]).len()
        };
        let denied = "#![deny(unsafe_code)]\n#[expect(unsafe_code)] mod cuda;";
        let block = "fn f() { unsafe { g() } } // unsafe";
        assert_eq!(found("vram-gpu", denied, "cuda/lane.rs", block), 0);
        assert_eq!(found("vram-gpu", denied, "kernels/fingerprint/wide.rs", block), 0);
        assert_eq!(found("vram-gpu", denied, "kernels/fingerprint/wide.rs/x.rs", block), 1);
        assert_eq!(found("vram-gpu", denied, "kernels/fingerprint/sums.rs", block), 1);
        assert_eq!(found("vram-gpu", denied, "host/map.rs", block), 0);
        assert_eq!(found("vram-gpu", denied, "host/chunk.rs", block), 1);
        assert_eq!(found("vram-gpu", denied, "host.rs", "fn f() {} // unsafe"), 0);
        assert_eq!(found("vram-gpu", denied, "host.rs", block), 1);
        assert_eq!(found("vram-gpu", denied, "cuda.rs", block), 1);
        let in_tests = "#[cfg(test)] mod tests { fn f() { unsafe { g() } } }";
        assert_eq!(found("vram-gpu", denied, "host.rs", in_tests), 1);
        assert_eq!(found("vram-gpu", "// #![deny(unsafe_code)]", "cuda/lane.rs", block), 1);
        assert_eq!(found("vram-py", denied, "raw/dlpack.rs", block), 0);
        assert_eq!(found("vram-py", denied, "view.rs", block), 1);
        assert_eq!(found("cuda-shim", "", "call.rs", block), 0);
    }
}
