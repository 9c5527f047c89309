//! A test that hangs ends its binary with its name, and every test binary of the workspace has this
//! limit.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
extern crate vram_testkit;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const HANG: &str = "VRAM_TEST_HANG";

/// Hangs in a child process of the test below.
#[test]
fn hangs_if_it_is_asked_to() {
    while std::env::var_os(HANG).is_some() {
        std::thread::park();
    }
}

fn run(arguments: &[&str], limit: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["hangs_if_it_is_asked_to", "--exact"])
        .args(arguments)
        .env(HANG, "1")
        .env("VRAM_TEST_LIMIT_SECONDS", limit)
        .env_remove("VRAM_STRESS_SECONDS")
        .env_remove("PROPTEST_CASES")
        .output()
        .unwrap()
}

#[test]
fn a_test_that_hangs_ends_its_binary_and_is_named() {
    for arguments in [&[][..], &["--test-threads=1"], &["--nocapture"], &["--quiet"]] {
        let output = run(arguments, "0.2");
        let text = String::from_utf8_lossy(&output.stderr);
        let message = "test limits::hangs_if_it_is_asked_to did not finish within 0.2 s";
        assert!(text.contains(message), "{arguments:?}: {text}");
        assert!(!output.status.success(), "{arguments:?}: {}", output.status);
    }
}

fn folders(below: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(below).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
}

fn sources(below: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(below).into_iter().flatten();
    let files = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let rust = files.filter(|path| path.extension().is_some_and(|end| end == "rs"));
    rust.chain(folders(below).flat_map(|folder| sources(&folder))).collect()
}

/// The folders of all packages, from the list of members.
fn packages() -> Vec<PathBuf> {
    let top = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let manifest = fs::read_to_string(top.join("Cargo.toml")).unwrap();
    let members = manifest.split_once("members = [").unwrap().1.split_once(']').unwrap().0;
    members.split('"').skip(1).step_by(2).map(|member| top.join(member)).collect()
}

#[test]
fn every_test_binary_of_the_workspace_has_the_limit() {
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    let mut roots = Vec::new();
    for package in packages() {
        let has_tests = |path: &PathBuf| text(path).lines().any(|line| line.trim() == "#[test]");
        if sources(&package.join("src")).iter().any(has_tests) {
            let root = ["lib.rs", "main.rs"].map(|file| package.join("src").join(file));
            roots.extend(root.into_iter().find(|path| path.is_file()));
        }
        let suites = package.join("tests");
        roots.extend(folders(&suites).map(|folder| folder.join("main.rs")));
        roots.extend(sources(&suites).into_iter().filter(|path| path.parent() == Some(&suites)));
    }
    roots.retain(|path| path.is_file());
    assert!(roots.len() > 60, "{roots:?}");
    let line = "#[macro_use]\nextern crate vram_testkit;\n";
    let without: Vec<_> = roots.iter().filter(|path| !text(path).contains(line)).collect();
    assert!(without.is_empty(), "no `#[macro_use] extern crate vram_testkit;` in {without:#?}");
}
