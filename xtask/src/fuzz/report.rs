//! What a run of a target printed, as a table.

use std::path::Path;

/// One target after its run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: String,
    runs: u64,
    seconds: u64,
    /// Edges and features that were reached; none without coverage.
    cov: Option<u64>,
    ft: Option<u64>,
    /// Inputs that were kept.
    corpus: usize,
    failure: Option<String>,
}

impl Row {
    /// Reads the output of libFuzzer, or of the program without it.
    pub(super) fn of(
        name: &str,
        text: &str,
        passed: bool,
        corpus: usize,
        seconds: u64,
        log: &Path,
    ) -> Self {
        let runs = number_after(text, "stat::number_of_executed_units:").unwrap_or(0);
        let failure = match (passed, runs) {
            (true, 0) => Some(format!("it ran nothing; see {}", log.display())),
            (true, _) => None,
            (false, _) => Some(failure(name, text, log)),
        };
        Self {
            name: name.to_owned(),
            runs,
            seconds,
            cov: number_after(text, " cov:"),
            ft: number_after(text, " ft:"),
            corpus,
            failure,
        }
    }

    fn line(&self) -> String {
        let shown =
            |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |it| it.to_string());
        let speed = self.runs.checked_div(self.seconds).unwrap_or(0);
        let verdict = if self.failure.is_some() { "FAILED" } else { "ok" };
        format!(
            "  {:8} {:>11} {speed:>9} {:>7} {:>7} {:>7}  {verdict}",
            self.name,
            self.runs,
            shown(self.cov),
            shown(self.ft),
            self.corpus
        )
    }
}

/// The last number behind a word.
fn number_after(text: &str, word: &str) -> Option<u64> {
    let behind = text.rsplit_once(word)?.1.trim_start();
    let digits = behind.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(behind.len());
    behind.get(..digits)?.parse().ok()
}

/// Why a run failed, and how to repeat it.
fn failure(name: &str, text: &str, log: &Path) -> String {
    let said = text.lines().find(|line| line.contains("panicked at"));
    let said = said.unwrap_or("no panic: the process ended (time, memory or a signal)");
    let repeat = match text.lines().find_map(|line| line.split_once("Test unit written to ")) {
        Some((_, file)) => {
            format!("repeat with: cargo xtask fuzz --only {name} --replay {}", file.trim())
        }
        None => "it left no input".to_owned(),
    };
    format!("{said}\n  {repeat}\n  all of its output: {}", log.display())
}

/// Prints the table and turns any failed row into the command's error.
pub(super) fn finish(rows: &[Row], plain: bool) -> Result<(), String> {
    let how = if plain { "random changes, NO COVERAGE" } else { "guided by coverage" };
    println!("\nfuzz, {how}");
    println!("  target          runs  a second     cov      ft  corpus");
    for row in rows {
        println!("{}", row.line());
    }
    let failed: Vec<_> = rows.iter().filter_map(|row| Some((row, row.failure.as_ref()?))).collect();
    for (row, failure) in &failed {
        println!("\nfailed: {}\n  {failure}", row.name);
    }
    match (rows.len(), failed.len()) {
        (0, _) => Err("fuzz: nothing ran".to_owned()),
        (_, 0) => Ok(()),
        (all, failures) => Err(format!("fuzz: {failures} of {all} targets failed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: &str = "#2\tINITED cov: 8 ft: 9 corp: 1/1b\n\
        #99\tDONE   cov: 576 ft: 1304 corp: 290/11Kb lim: 10 exec/s: 30 rss: 34Mb\n\
        stat::number_of_executed_units: 120\n";

    fn row(text: &str, passed: bool) -> Row {
        Row::of("record", text, passed, 5, 4, Path::new("record.log"))
    }

    #[test]
    fn the_last_figures_are_read() {
        let row = row(PASSED, true);
        assert_eq!(
            (row.runs, row.cov, row.ft, row.failure.as_deref()),
            (120, Some(576), Some(1304), None)
        );
        assert!(row.line().contains(" 30 ") && row.line().ends_with("ok"), "{}", row.line());
        assert!(finish(&[row], false).is_ok());
    }

    #[test]
    fn a_crash_is_a_failure_that_says_how_to_repeat_it() {
        let text =
            "thread panicked at a.rs:1\nArtifact_prefix='x'; Test unit written to x/crash-1\n";
        let row = row(text, false);
        let failure = row.failure.clone().unwrap();
        assert!(failure.contains("panicked at a.rs:1"), "{failure}");
        assert!(failure.contains("cargo xtask fuzz --only record --replay x/crash-1"), "{failure}");
        assert!(finish(&[row], true).is_err());
    }

    #[test]
    fn a_run_of_nothing_is_a_failure() {
        assert!(row("", true).failure.is_some() && row("", false).failure.is_some());
        assert!(finish(&[], false).is_err());
    }
}
