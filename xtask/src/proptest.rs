//! `cargo xtask proptest`: every test target named `prop_*` or `property_*`, overflow checks on.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::{arguments, shell, summary, workspace};

/// The command line of this command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    cases: u32,
    only: Option<String>,
    profile: &'static str,
}

/// Optimized, with the checks that a release build omits.
const PROFILE: &str = "proptest";

impl Options {
    /// Parses the options.
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { cases: 1000, only: None, profile: PROFILE };
        while let Some(flag) = args.next() {
            match flag.as_str() {
                "--cases" => options.cases = arguments::parsed(&flag, &mut args)?,
                "--only" => options.only = Some(arguments::value(&flag, &mut args)?),
                _ => return Err(arguments::unknown(&flag)),
            }
        }
        if options.cases == 0 {
            return Err("--cases 0: no case proves nothing".to_owned());
        }
        Ok(options)
    }

    /// For CI: few cases, all crates, with the output of `cargo test`. Both profiles have overflow
    /// checks and debug assertions enabled; a build of its own would take longer than all suites.
    pub(crate) fn short() -> Self {
        Self { cases: 64, only: None, profile: "dev" }
    }

    /// `cargo test` over the packages of the requested suites. All of them in one command, since a
    /// single package would have other features and be built again.
    fn cargo_test(&self) -> shell::Child {
        let child = shell::cargo(&["test", "--profile", self.profile]);
        match &self.only {
            Some(only) => child.arg("-p").arg(only.as_str()),
            None => child.arg("--workspace"),
        }
    }
}

/// Runs the suites, and fails if any test fails or if no test was found.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let found = workspace::tests_beginning_with(&["prop_", "property_"], options.only.as_deref())?;
    // Targets with the same name run together.
    let mut targets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (package, target) in found {
        targets.entry(target).or_default().push(package);
    }
    let mut rows = Vec::new();
    let started = Instant::now();
    let build = targets.keys().fold(options.cargo_test().arg("--no-run"), |child, target| {
        child.arg("--test").arg(target.as_str())
    });
    build.run()?;
    let took = started.elapsed();
    rows.push(summary::Row {
        name: "build".to_owned(),
        tests: None,
        took,
        ran: summary::Ran::Done,
        failure: None,
    });
    for (target, packages) in targets {
        let child = options
            .cargo_test()
            .arg("--test")
            .arg(target.as_str())
            .env("PROPTEST_CASES", options.cases.to_string())
            .env("QUICKCHECK_TESTS", options.cases.to_string());
        rows.push(summary::Row::of_tests(&format!("{} {target}", packages.join(", ")), &child)?);
    }
    summary::finish(&format!("property suites, {} cases a property", options.cases), &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, String> {
        Options::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_read_and_strangers_refused() {
        assert_eq!(
            parse("--cases 7 --only vram-alloc"),
            Ok(Options { cases: 7, only: Some("vram-alloc".to_owned()), profile: PROFILE })
        );
        for bad in ["--case 7", "--cases", "--cases x", "--cases 0", "extra"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_profile_of_these_suites_leaves_the_checks_out() {
        let manifest = include_str!("../../Cargo.toml");
        for check in ["overflow-checks", "debug-assertions"] {
            assert!(!manifest.contains(&format!("{check} = false")), "{check}");
            assert!(manifest.contains(&format!("{check} = true")), "{check}");
        }
        assert_eq!(Options::short().profile, "dev");
    }
}
