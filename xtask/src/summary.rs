//! The table at the end of a command: what ran, the number of tests, and what failed.

use core::time::Duration;
use std::time::Instant;

use crate::shell::Child;

/// Whether a step did what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    Done,
    /// It did not begin, and said why.
    Not,
}

impl From<()> for Ran {
    fn from((): ()) -> Self {
        Self::Done
    }
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) tests: Option<u64>,
    pub(crate) took: Duration,
    pub(crate) ran: Ran,
    /// The error, if it failed.
    pub(crate) failure: Option<String>,
}

impl Row {
    /// Runs tests. Running none is a failure: a suite without tests proves nothing.
    pub(crate) fn of_tests(name: &str, child: &Child) -> Result<Self, String> {
        let started = Instant::now();
        let (output, passed) = child.run_and_read()?;
        let tests = passed_tests(&output);
        let failure = match (passed, tests) {
            (false, _) => Some(format!("repeat with: {}", child.line())),
            (true, 0) => Some(format!("no test in it; see {}", child.line())),
            (true, _) => None,
        };
        let took = started.elapsed();
        Ok(Self { name: name.to_owned(), tests: Some(tests), took, ran: Ran::Done, failure })
    }
}

/// Prints the table and turns any failed row into the command's error.
pub(crate) fn finish(what: &str, rows: &[Row]) -> Result<(), String> {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    println!("\n{what}");
    for row in rows {
        let tests = row.tests.map_or_else(String::new, |count| format!("{count} tests"));
        let verdict = match (&row.failure, row.ran) {
            (Some(_), _) => "FAILED",
            (None, Ran::Done) => "ok",
            (None, Ran::Not) => "NOT RUN",
        };
        let seconds = row.took.as_secs_f64();
        println!("  {:width$}  {tests:>9}  {seconds:7.1} s  {verdict}", row.name);
    }
    let failed: Vec<_> = rows.iter().filter_map(|row| Some((row, row.failure.as_ref()?))).collect();
    for (row, failure) in &failed {
        println!("\nfailed: {}\n  {failure}", row.name);
    }
    match (rows.len(), failed.len()) {
        (0, _) => Err(format!("{what}: nothing ran")),
        (_, 0) => Ok(()),
        (all, failures) => Err(format!("{failures} of {all} failed")),
    }
}

/// How many tests passed, from the lines `test result: ok. N passed; …` of the test harness.
pub(crate) fn passed_tests(output: &str) -> u64 {
    output
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("test result: "))
        .filter_map(|line| line.split_once(". ")?.1.split_once(" passed")?.0.parse::<u64>().ok())
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_tests_are_summed_over_all_targets() {
        let output = "running 2 tests\n\
            test result: ok. 2 passed; 0 failed; 0 ignored\n\
            test result: FAILED. 40 passed; 1 failed; 0 ignored\n";
        assert_eq!(passed_tests(output), 42);
        assert_eq!(passed_tests("nothing here"), 0);
    }

    #[test]
    fn a_table_without_rows_or_with_a_failed_one_is_an_error() {
        let row = |failure: Option<&str>| Row {
            name: "suite".to_owned(),
            tests: Some(1),
            took: Duration::ZERO,
            ran: Ran::Done,
            failure: failure.map(str::to_owned),
        };
        assert!(finish("t", &[]).is_err());
        assert!(finish("t", &[row(None)]).is_ok());
        assert!(finish("t", &[row(None), row(Some("broken"))]).is_err());
    }
}
