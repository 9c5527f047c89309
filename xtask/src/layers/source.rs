//! The source files of a package in the form that the checks use.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::strip;
use crate::workspace::Package;

/// One source file of a library or program.
#[derive(Debug)]
pub(super) struct Source {
    /// Its path below the package's `src`, with `/`.
    pub(super) path: String,
    /// Lines, all of them.
    pub(super) lines: usize,
    /// Its code: no comments, no literals, no test modules.
    pub(super) code: String,
    /// The same, test modules included.
    pub(super) with_tests: String,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let with_tests = strip::literals(text);
        Self {
            path: path.to_owned(),
            lines: text.lines().count(),
            code: strip::tests(&with_tests),
            with_tests,
        }
    }

    /// The path of its module from the crate's root; empty for the root.
    pub(super) fn module(&self) -> Vec<String> {
        let mut parts: Vec<String> = self.path.split('/').map(str::to_owned).collect();
        let file = parts.pop().unwrap_or_default();
        let stem = file.strip_suffix(".rs").unwrap_or(&file);
        let root = parts.is_empty() && ["lib", "main"].contains(&stem);
        if !root && stem != "mod" {
            parts.push(stem.to_owned());
        }
        parts
    }

    /// The folder that contains it; empty for `src` itself.
    pub(super) fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}

/// All source files of a package's library and programs, in the order of their paths.
pub(super) fn of(package: &Package) -> Result<Vec<Source>, String> {
    let beside = ["test", "bench", "example", "custom-build"];
    let roots: BTreeSet<PathBuf> = package
        .targets
        .iter()
        .filter(|target| !beside.contains(&target.kind.as_str()))
        .filter_map(|target| target.source.parent().map(Path::to_path_buf))
        .collect();
    let mut sources = Vec::new();
    for root in roots {
        let mut files = Vec::new();
        collect(&root, &mut files)?;
        files.sort();
        for file in files {
            let text = fs::read_to_string(&file).map_err(|error| told(&file, &error))?;
            let below = file.strip_prefix(&root).unwrap_or(&file);
            let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
            sources.push(Source::new(&parts.join("/"), &text));
        }
    }
    Ok(sources)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    for entry in fs::read_dir(folder).map_err(|error| told(folder, &error))? {
        let path = entry.map_err(|error| told(folder, &error))?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn told(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}
