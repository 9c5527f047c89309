//! Limits on the size of folders and files, so that both stay easy to read.

use std::collections::BTreeMap;

use super::source::Source;

/// The maximum number of source files in one folder, without its subfolders.
const FILES_MAX: usize = 12;
/// The maximum number of lines in one file.
const LINES_MAX: usize = 400;

/// Crates whose sources are not measured: other limits apply to tests.
const NOT_MEASURED: &[&str] =
    &["vram-tests", "cuda-sim", "cuda-sim-engine", "cuda-sim-so", "nvml-sim-so"];

/// Files and folders (`crate path`) that may be larger, with the reason.
const EXCEPTIONS: &[(&str, &str)] =
    &[("cuda-shim trampolines.rs", "generated: one function for each of the driver's")];

/// Every folder and file that exceeds a limit.
pub(super) fn breaches(name: &str, sources: &[Source]) -> Vec<String> {
    if NOT_MEASURED.contains(&name) {
        return Vec::new();
    }
    let excepted = |path: &str| {
        EXCEPTIONS.iter().any(|(excepted, _)| *excepted == format!("{name} {path}").trim_end())
    };
    let mut breaches = Vec::new();
    let mut folders: BTreeMap<&str, usize> = BTreeMap::new();
    for source in sources {
        let count = folders.entry(source.folder()).or_default();
        *count = count.saturating_add(1);
        if source.lines > LINES_MAX && !excepted(&source.path) {
            let (path, lines) = (&source.path, source.lines);
            breaches
                .push(format!("{name}: {path} has {lines} lines, and {LINES_MAX} are the most"));
        }
    }
    for (folder, count) in folders {
        if count > FILES_MAX && !excepted(folder) {
            let place = if folder.is_empty() { "src" } else { folder };
            breaches
                .push(format!("{name}: {place} holds {count} files, and {FILES_MAX} are the most"));
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_too_many_lines_is_a_breach_unless_it_is_excepted() {
        let long = "//\n".repeat(LINES_MAX + 1);
        let fits = Source::new("a.rs", "//\n".repeat(LINES_MAX).as_str());
        assert!(breaches("vram-seal", &[fits]).is_empty());
        let found = |name, path| breaches(name, &[Source::new(path, &long)]).len();
        assert_eq!(found("vram-seal", "a.rs"), 1);
        assert_eq!(found("cuda-shim", "trampolines.rs"), 0);
        assert_eq!(found("cuda-shim", "call.rs"), 1);
        assert_eq!(found("vram-tests", "a.rs"), 0);
    }

    #[test]
    fn a_folder_of_too_many_files_is_a_breach() {
        let files = |folder: &str, count: usize| -> Vec<_> {
            (0..count).map(|at| Source::new(&format!("{folder}f{at}.rs"), "")).collect()
        };
        assert!(breaches("any", &files("", FILES_MAX)).is_empty());
        let nested: Vec<_> = files("", FILES_MAX).into_iter().chain(files("a/", 5)).collect();
        assert!(breaches("any", &nested).is_empty());
        let found = breaches("any", &files("a/", FILES_MAX + 1));
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("a holds 13 files"), "{found:?}");
    }
}
