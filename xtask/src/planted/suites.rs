//! The suites of the copy: built once, then run as often as there are changes.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use serde_json::Value;

use super::table::{Kind, Try};
use crate::shell;

/// The time limit of one test while a change is on: what hangs is told soon.
const TEST_SECONDS: u64 = 40;
/// The time limit of one suite, should its own limit fail.
const SUITE: Duration = Duration::from_mins(10);

/// What a run of tests came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All passed, this many.
    Passed(u64),
    /// The first test that failed.
    Failed(String),
    /// A test, or the whole suite, did not end.
    Hung(String),
}

/// The test binaries of the copy.
#[derive(Debug)]
pub(super) struct Suites {
    /// By kind, package and target: the binary, and the folder to run it in.
    binaries: BTreeMap<(Kind, String, String), (PathBuf, PathBuf)>,
    output: PathBuf,
}

impl Suites {
    /// Builds all suites that `tries` name from the copy of the workspace in `home`.
    pub(super) fn build<'a>(
        home: &Path,
        tries: impl Iterator<Item = &'a Try>,
    ) -> Result<Self, String> {
        let mut wanted: BTreeMap<Kind, BTreeSet<(&str, &str)>> = BTreeMap::new();
        for one in tries {
            wanted.entry(one.kind).or_default().insert((&one.package, &one.target));
        }
        let mut binaries = BTreeMap::new();
        for (kind, wanted) in wanted {
            let messages = build_command(home, kind, &wanted).read_shown()?;
            for message in messages.lines() {
                if let Some((package, target, binary, folder)) = test_binary(message) {
                    binaries.insert((kind, package, target), (binary, folder));
                }
            }
        }
        Ok(Self { binaries, output: home.join("output.txt") })
    }

    /// What the last suite printed.
    pub(super) fn last_output(&self) -> String {
        fs::read(&self.output).map_or_else(
            |error| error.to_string(),
            |text| String::from_utf8_lossy(&text).into_owned(),
        )
    }

    /// Runs the tests of one suite, with the change `on` or none.
    pub(super) fn run(&self, suite: &Try, on: Option<&str>) -> Result<Outcome, String> {
        let Try { kind, package, target, filter } = suite;
        let (binary, folder) = self
            .binaries
            .get(&(*kind, package.clone(), target.clone()))
            .ok_or_else(|| format!("there is no suite {package} {target}"))?;
        let failed = |error: std::io::Error| format!("{}: {error}", binary.display());
        let output = File::create(&self.output).map_err(failed)?;
        let mut command = Command::new(binary);
        command
            .args((!filter.is_empty()).then_some(filter))
            .current_dir(folder)
            .env("CARGO_MANIFEST_DIR", folder)
            .env("VRAM_MODEL_SCHEDULES", "2000")
            .env_remove("VRAM_PLANTED")
            // A failed case is not kept, and not made small: that it failed is enough.
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(output);
        if let Some(name) = on {
            command.env("VRAM_PLANTED", name).env(shell::TEST_LIMIT, TEST_SECONDS.to_string());
        }
        let mut child = command.spawn().map_err(failed)?;
        let started = Instant::now();
        let status = loop {
            match child.try_wait().map_err(failed)? {
                Some(status) => break Some(status),
                None if started.elapsed() > SUITE => {
                    child.kill().and_then(|()| child.wait()).map_err(failed)?;
                    break None;
                }
                None => thread::sleep(Duration::from_millis(10)),
            }
        };
        let text = fs::read(&self.output).map_err(failed)?;
        Ok(outcome(&String::from_utf8_lossy(&text), status.map(|status| status.success())))
    }
}

/// The command that builds the suites of one kind.
fn build_command(home: &Path, kind: Kind, wanted: &BTreeSet<(&str, &str)>) -> shell::Child {
    let folder = |name: &str| home.join(name).display().to_string();
    let mut child = shell::cargo(&["test", "--no-run", "--message-format=json-render-diagnostics"])
        .arg(format!("--manifest-path={}", folder("src/Cargo.toml")));
    child = match kind {
        // With the features of `cargo test --workspace`.
        Kind::Plain => child.arg("--workspace").env("CARGO_TARGET_DIR", folder("build")),
        Kind::Loom => child
            .arg("--release")
            .env("RUSTFLAGS", "--cfg loom")
            .env("CARGO_TARGET_DIR", folder("loom")),
        Kind::Shuttle => child
            .arg("--profile=proptest")
            .env("RUSTFLAGS", "--cfg shuttle")
            .env("CARGO_TARGET_DIR", folder("shuttle")),
    };
    if kind != Kind::Plain {
        let packages: BTreeSet<_> = wanted.iter().map(|(package, _)| package).collect();
        child = packages.iter().fold(child, |child, package| child.arg(format!("-p={package}")));
    }
    let targets: BTreeSet<_> = wanted.iter().map(|(_, target)| *target).collect();
    targets.into_iter().fold(child, |child, target| match target {
        "lib" => child.arg("--lib"),
        _ => child.arg(format!("--test={target}")),
    })
}

/// Package, target, binary and folder of a test that cargo tells to have built.
fn test_binary(message: &str) -> Option<(String, String, PathBuf, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let text = |path: &str| message.pointer(path).and_then(Value::as_str);
    let binary = PathBuf::from(text("/executable")?);
    let folder = Path::new(text("/manifest_path")?).parent()?.to_path_buf();
    let package = match text("/package_id")?.rsplit_once('#')?.1.split_once('@') {
        Some((name, _version)) => name.to_owned(),
        None => folder.file_name()?.to_str()?.to_owned(),
    };
    let target = if text("/target/kind/0")? == "test" { text("/target/name")? } else { "lib" };
    let is_test = message.pointer("/profile/test").and_then(Value::as_bool)?;
    is_test.then(|| (package, target.to_owned(), binary, folder))
}

/// What the output of a test binary says; `passed` is its exit status, if it ended.
fn outcome(text: &str, passed: Option<bool>) -> Outcome {
    let failed = text
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.split_once(" ... "))
        .find(|(_, result)| result.starts_with("FAILED"));
    let late =
        text.lines().find_map(|line| line.strip_prefix("test ")?.split_once(" did not finish"));
    match (failed, late, passed) {
        (Some((name, _)), ..) => {
            Outcome::Failed(name.trim_end_matches(" - should panic").to_owned())
        }
        (None, Some((name, _)), _) => Outcome::Hung(name.to_owned()),
        (None, None, None) => Outcome::Hung("the whole suite".to_owned()),
        (None, None, Some(true)) => Outcome::Passed(crate::summary::passed_tests(text)),
        (None, None, Some(false)) => Outcome::Failed("(the process ended)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_test_that_failed_is_named_also_if_another_hangs() {
        let text = "test a ... ok\ntest b::c ... FAILED\ntest d ... FAILED\n";
        assert_eq!(outcome(text, Some(false)), Outcome::Failed("b::c".to_owned()));
        let late = "test k::h did not finish within 40 s (X)\n";
        assert_eq!(outcome(late, Some(false)), Outcome::Hung("k::h".to_owned()));
        let both = format!("{text}{late}");
        assert_eq!(outcome(&both, Some(false)), Outcome::Failed("b::c".to_owned()));
        let passed = "test a ... ok\ntest result: ok. 1 passed; 0 failed\n";
        assert_eq!(outcome(passed, Some(true)), Outcome::Passed(1));
        assert!(matches!(outcome(passed, None), Outcome::Hung(_)));
    }

    #[test]
    fn a_test_binary_is_found_among_cargos_messages() {
        let message = r#"{"manifest_path":"/w/xtask/Cargo.toml","package_id":"path+file:///w/xtask#0.1.0",
            "target":{"kind":["test"],"name":"it"},"profile":{"test":true},"executable":"/t/it-1"}"#;
        let (package, target, binary, folder) = test_binary(message).unwrap();
        assert_eq!((package.as_str(), target.as_str()), ("xtask", "it"));
        assert_eq!((binary, folder), ("/t/it-1".into(), "/w/xtask".into()));
        let named = message.replace("xtask#0.1.0", "tests#vram-tests@0.1.0");
        assert_eq!(test_binary(&named).unwrap().0, "vram-tests");
        assert_eq!(test_binary(&message.replace("true", "false")), None);
    }
}
