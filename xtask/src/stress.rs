//! `cargo xtask stress`: runs every test target named `stress_*` for a share of the time, then the
//! models of concurrency.
//!
//! A stress target reads `VRAM_STRESS_SECONDS` (the duration of each of its tests) and
//! `VRAM_STRESS_SEED` (its first seed), so that one printed line repeats a run.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::{arguments, models, shell, summary, workspace};

/// The command line of this command.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    minutes: f64,
    seed: Option<u64>,
    only: Option<String>,
}

impl Options {
    /// Parses the options.
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { minutes: 10.0, seed: None, only: None };
        while let Some(flag) = args.next() {
            match flag.as_str() {
                "--minutes" => options.minutes = arguments::parsed(&flag, &mut args)?,
                "--seed" => options.seed = Some(arguments::parsed(&flag, &mut args)?),
                "--only" => options.only = Some(arguments::value(&flag, &mut args)?),
                _ => return Err(arguments::unknown(&flag)),
            }
        }
        if !(options.minutes > 0.0 && options.minutes <= 100_000.0) {
            return Err(format!("--minutes {}: want more than 0", options.minutes));
        }
        Ok(options)
    }
}

/// Runs the suites, each for its share of the time.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let mut targets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (package, target) in workspace::tests_beginning_with(&["stress_"], None)? {
        // Targets with the same name run together.
        if options.only.as_ref().is_none_or(|only| *only == target) {
            targets.entry(target).or_default().push(package);
        }
    }
    if let (Some(only), true) = (&options.only, targets.is_empty()) {
        return Err(format!("no stress target `{only}`"));
    }
    let models =
        if options.only.is_some() { Vec::new() } else { models::all(models::Effort::Long)? };
    let seed = options.seed.unwrap_or_else(seed_of_now);
    let commit = shell::program("git", &["describe", "--always", "--dirty"])
        .read()
        .unwrap_or_else(|_| "unknown".to_owned());
    println!("stress: seed {seed}, {} minutes, commit {}", options.minutes, commit.trim());
    // Built first, so that the time below belongs to the suites alone.
    let names = targets.keys();
    let build = names.fold(cargo_test(), |child, target| child.arg("--test").arg(target.as_str()));
    build.arg("--no-run").run()?;

    let counts = targets
        .keys()
        .map(|target| Ok(list(target)?.max(1)))
        .collect::<Result<Vec<u32>, String>>()?;
    let tests = counts.iter().fold(0_u32, |sum, count| sum.saturating_add(*count));
    let seconds = options.minutes * 60.0 / f64::from(tests.max(1));

    let mut rows = Vec::new();
    for (target, packages) in &targets {
        // One test at a time: each starts several threads and needs the cores for itself.
        let child = cargo_test()
            .arg("--test")
            .arg(target.as_str())
            .arg("--")
            .arg("--test-threads=1")
            .arg("--nocapture")
            .env("VRAM_STRESS_SECONDS", format!("{seconds:.1}"))
            .env("VRAM_STRESS_SEED", seed.to_string());
        rows.push(summary::Row::of_tests(&format!("{} {target}", packages.join(", ")), &child)?);
    }
    for (name, child) in &models {
        rows.push(summary::Row::of_tests(name, child)?);
    }
    summary::finish(&format!("stress suites, seed {seed}"), &rows)
}

/// `cargo test` over all packages in one command: a single package would have other features and be
/// built again.
fn cargo_test() -> shell::Child {
    shell::cargo(&["test", "--profile", "proptest", "--workspace"])
}

/// The number of tests in the targets with a name.
fn list(target: &str) -> Result<u32, String> {
    let child = cargo_test().arg("-q").arg("--test").arg(target).arg("--").arg("--list");
    let text = child.read()?;
    let tests = text.lines().filter(|line| line.ends_with(": test")).count();
    u32::try_from(tests).map_err(|error| error.to_string())
}

fn seed_of_now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(1, |now| u64::from(now.subsec_nanos()) ^ now.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, String> {
        Options::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_read_and_strangers_refused() {
        let options = parse("--minutes 0.5 --seed 9").unwrap();
        assert_eq!(options, Options { minutes: 0.5, seed: Some(9), only: None });
        for bad in ["--minutes 0", "--minutes NaN", "--minutes -1", "--seed -1", "--hours 1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
