//! `cargo xtask proptest`: every test target named `prop_*` or `property_*`, overflow checks on.

use std::time::Instant;

use crate::{arguments, shell, summary, workspace};

/// The command line of this command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    cases: u32,
    only: Option<String>,
}

impl Options {
    /// Reads the options.
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { cases: 1000, only: None };
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

    /// For CI: few cases, all crates.
    pub(crate) fn short() -> Self {
        Self { cases: 64, only: None }
    }
}

/// Runs the suites, and fails if any test fails or if no test was found.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let targets =
        workspace::tests_beginning_with(&["prop_", "property_"], options.only.as_deref())?;
    let mut rows = Vec::new();
    for (package, target) in targets {
        let child =
            shell::cargo(&["test", "--profile", "proptest", "-p", &package, "--test", &target])
                .env("PROPTEST_CASES", options.cases.to_string())
                .env("QUICKCHECK_TESTS", options.cases.to_string());
        let started = Instant::now();
        let (output, passed) = child.run_and_read()?;
        let tests = summary::passed_tests(&output);
        let failure = match (passed, tests) {
            (false, _) => Some(format!("repeat with: {}", child.line())),
            (true, 0) => Some(format!("no test in it; see {}", child.line())),
            (true, _) => None,
        };
        rows.push(summary::Row {
            name: format!("{package} {target}"),
            tests: Some(tests),
            took: started.elapsed(),
            failure,
        });
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
            Ok(Options { cases: 7, only: Some("vram-alloc".to_owned()) })
        );
        for bad in ["--case 7", "--cases", "--cases x", "--cases 0", "extra"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
