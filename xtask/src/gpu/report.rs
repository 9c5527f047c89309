//! Turns the output of the check binary into a report in Markdown.

use core::fmt::Write as _;
use std::collections::BTreeMap;

/// The tables that the binary prints rows of: name, title and columns.
const TABLES: &[(&str, &str, &[&str])] = &[
    ("run", "Run", &["what", "value"]),
    ("device", "Devices", &["GPU", "what", "value"]),
    ("residency", "Where memory is, by pointer attributes", &["GPU", "allocation", "answer"]),
    ("fault", "Faults provoked", &["GPU", "provoked", "answer"]),
    (
        "transfer",
        "Transfers",
        &["GPU", "size", "path", "GB/s, median", "slowest to fastest", "of the driver's own copy"],
    ),
    ("peer", "Copies between devices", &["from", "to", "answer"]),
    (
        "seal",
        "Sealing, verifying, opening",
        &["GPU", "size", "what", "GB/s, median", "slowest to fastest", "of a plain pinned copy"],
    ),
];

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    Ignored,
    /// It began, and the log does not contain its end.
    Unfinished,
}

/// The content of a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    /// Checks in the order in which they began.
    pub(crate) checks: Vec<(String, Outcome)>,
    /// Rows by table.
    rows: BTreeMap<&'static str, Vec<Vec<String>>>,
    /// Whether the log contains the last line of a run.
    ended: bool,
}

impl Log {
    /// Reads a log of `--test-threads=1 --nocapture`.
    ///
    /// # Errors
    ///
    /// For a log of several threads, and for a row with an unknown table or another width: the log
    /// is from another version or another program.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut log = Self::default();
        for (number, line) in (1_u64..).zip(text.lines()) {
            log.line(line).map_err(|why| format!("line {number}: {why}"))?;
        }
        if log.checks.is_empty() {
            return Err("no check ran: this is not the log of the check binary".to_owned());
        }
        Ok(log)
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        if line.starts_with("test result: ") {
            self.ended = true;
            return Ok(());
        }
        // The first output of a check is on the same line as its name.
        let rest = match line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            Some((name, rest)) => {
                if let Some((open, Outcome::Unfinished)) = self.checks.last() {
                    return Err(format!("{name} begins before {open} has ended"));
                }
                let name = name.trim_end_matches(" - should panic").to_owned();
                self.checks.push((name, Outcome::Unfinished));
                rest
            }
            None => line,
        };
        if let Some(row) = rest.strip_prefix("| ") {
            return self.row(row);
        }
        let outcome = match rest.split(", ").next() {
            Some("ok") => Outcome::Passed,
            Some("FAILED") => Outcome::Failed,
            Some("ignored") => Outcome::Ignored,
            _ => return Ok(()),
        };
        if let Some((_, open @ Outcome::Unfinished)) = self.checks.last_mut() {
            *open = outcome;
        }
        Ok(())
    }

    fn row(&mut self, row: &str) -> Result<(), String> {
        let cells = row.strip_suffix(" |").ok_or_else(|| format!("a row cut short: {row}"))?;
        let mut cells = cells.split(" | ").map(str::to_owned);
        let name = cells.next().unwrap_or_default();
        let Some((table, _, columns)) = TABLES.iter().find(|(table, ..)| *table == name) else {
            return Err(format!("a row of no known table: {row}"));
        };
        let cells: Vec<String> = cells.collect();
        if cells.len() != columns.len() {
            return Err(format!("{} cells where {} belong: {row}", cells.len(), columns.len()));
        }
        self.rows.entry(table).or_default().push(cells);
        Ok(())
    }

    /// The value with this name in the run.
    fn run(&self, what: &str) -> Option<&str> {
        let rows = self.rows.get("run")?;
        let row = rows.iter().find(|row| row.first().is_some_and(|first| first == what))?;
        row.get(1).map(String::as_str)
    }

    /// Whether a simulated driver answered, judged by its name.
    pub(crate) fn is_simulated(&self) -> bool {
        self.run("driver").is_some_and(|driver| driver.contains("cuda_sim"))
            || self.rows.get("device").is_some_and(|rows| {
                rows.iter().flatten().any(|cell| cell.contains("Simulated GPU"))
            })
    }

    /// Every reason why this run is not a success.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut failures: Vec<String> = self
            .checks
            .iter()
            .filter_map(|(name, outcome)| match outcome {
                Outcome::Passed => None,
                Outcome::Failed => Some(format!("{name} failed")),
                Outcome::Ignored => Some(format!("{name} did not run")),
                Outcome::Unfinished => Some(format!("{name} did not end")),
            })
            .collect();
        if !self.ended {
            failures.push("the log has no last line: the run was cut short".to_owned());
        }
        for (table, title, _) in TABLES {
            if *table != "peer" && !self.rows.contains_key(table) {
                failures.push(format!("no row of the table \"{title}\""));
            }
        }
        failures
    }

    /// The report.
    ///
    /// # Arguments
    ///
    /// * `command`: the command that was run.
    pub(crate) fn markdown(&self, command: &str) -> String {
        let mut text = String::new();
        let date = self.run("unix time").and_then(|seconds| seconds.parse().ok()).map(date);
        let date = date.unwrap_or_else(|| "unknown date".to_owned());
        let devices = self.rows.get("device").map(Vec::as_slice).unwrap_or_default();
        let mut names: Vec<&str> = devices
            .iter()
            .filter(|row| row.get(1).is_some_and(|what| what == "name"))
            .filter_map(|row| row.get(2).map(String::as_str))
            .collect();
        names.dedup();
        let what = if names.is_empty() { "no device".to_owned() } else { names.join(", ") };
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "## {date}: {what}\n");
        if self.is_simulated() {
            text.push_str(
                "**A simulated driver.** This shows that the checks work, and nothing of a GPU: \
                 its figures are those of host memory.\n\n",
            );
        }
        let _ = writeln!(
            text,
            "Commit {}. Command: `{command}`\n",
            self.run("commit").unwrap_or("unknown")
        );

        let failures = self.failures();
        let passed = self.checks.iter().filter(|(_, outcome)| *outcome == Outcome::Passed).count();
        let _ = writeln!(text, "{passed} of {} checks passed.\n", self.checks.len());
        for failure in &failures {
            let _ = writeln!(text, "- **{failure}**");
        }
        if !failures.is_empty() {
            text.push('\n');
        }
        for (table, title, columns) in TABLES {
            let Some(rows) = self.rows.get(table) else { continue };
            let _ = writeln!(text, "### {title}\n\n| {} |", columns.join(" | "));
            let _ = writeln!(text, "|{}", "---|".repeat(columns.len()));
            for row in rows {
                let _ = writeln!(text, "| {} |", row.join(" | "));
            }
            text.push('\n');
        }
        text.push_str("### Checks\n\n| check | outcome |\n|---|---|\n");
        for (name, outcome) in &self.checks {
            let outcome = match outcome {
                Outcome::Passed => "passed",
                Outcome::Failed => "**failed**",
                Outcome::Ignored => "**not run**",
                Outcome::Unfinished => "**did not end**",
            };
            let _ = writeln!(text, "| `{name}` | {outcome} |");
        }
        text
    }
}

/// A day of the Gregorian calendar and the time, from seconds since 1970, in UTC.
fn date(seconds: u64) -> String {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    // No clock shows a year beyond 9999; a later time is shown as that year.
    while year < 9999 && days >= 365_u64.saturating_add(u64::from(leap(year))) {
        days = days.saturating_sub(365_u64.saturating_add(u64::from(leap(year))));
        year = year.saturating_add(1);
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1_u64;
    for len in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < len {
            break;
        }
        days = days.saturating_sub(len);
        month = month.saturating_add(1);
    }
    let day = days.saturating_add(1);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", rest / 3600, rest % 3600 / 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log as the test harness writes it, with rows on the line of the name and on lines of their
    /// own.
    const SOUND: &str = "\
running 4 tests
test contract::fill ... ok
test devices::there_is ... | run | unix time | 951782400 |
| run | commit | abc |
| run | driver | CUDA driver libcuda.so.1, loaded from /usr/lib/libcuda.so.1 |
| device | cuda:0 | name | NVIDIA H200 |
| residency | cuda:0 | 1 bytes | device memory |
ok
test faults::full ... 16 cases in real MiB
| fault | cuda:0 | an allocation \\| of all | out of memory |
ok
test seals::quick ... | transfer | cuda:0 | 1 MiB | write | 1.00 | 0.9 to 1.1 | 0.500 |
| seal | cuda:0 | 1 MiB | seal | 1.00 | 0.9 to 1.1 | 0.500 |
ok

test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s
";

    #[test]
    fn a_sound_log_becomes_a_report_with_every_row_and_check() {
        let log = Log::read(SOUND).unwrap();
        assert_eq!(log.failures(), Vec::<String>::new());
        assert!(!log.is_simulated());
        let report = log.markdown("cargo xtask gpu");
        for part in [
            "## 2000-02-29 00:00 UTC: NVIDIA H200",
            "Commit abc. Command: `cargo xtask gpu`",
            "4 of 4 checks passed.",
            "| cuda:0 | an allocation \\| of all | out of memory |",
            "| cuda:0 | 1 MiB | write | 1.00 | 0.9 to 1.1 | 0.500 |",
            "| `faults::full` | passed |",
        ] {
            assert!(report.contains(part), "{part} is not in\n{report}");
        }
        assert!(!report.contains("simulated"));
    }

    #[test]
    fn a_check_that_failed_or_never_ended_is_never_passed() {
        let failed = SOUND.replacen("... ok", "... FAILED", 1);
        assert_eq!(Log::read(&failed).unwrap().failures(), ["contract::fill failed"]);
        let ignored = SOUND.replacen("... ok", "... ignored, why not", 1);
        assert_eq!(Log::read(&ignored).unwrap().failures(), ["contract::fill did not run"]);

        let cut = SOUND.split("| seal").next().unwrap();
        let failures = Log::read(cut).unwrap().failures();
        assert_eq!(failures[0], "seals::quick did not end");
        assert!(failures[1].contains("cut short"), "{failures:?}");
        assert!(failures[2].contains("Sealing"), "{failures:?}");
        let report = Log::read(cut).unwrap().markdown("x");
        assert!(report.contains("3 of 4 checks passed") && report.contains("**did not end**"));
    }

    #[test]
    fn a_simulated_driver_is_told_from_a_real_one_by_either_name() {
        for (real, simulated) in [
            ("/usr/lib/libcuda.so.1", "/target/libcuda_sim_so.so"),
            ("NVIDIA H200", "Simulated GPU"),
        ] {
            let log = Log::read(&SOUND.replace(real, simulated)).unwrap();
            assert!(log.is_simulated(), "{simulated}");
            assert!(log.markdown("x").contains("**A simulated driver.**"));
        }
    }

    #[test]
    fn what_is_no_log_of_the_checks_is_refused_with_its_line() {
        assert!(Log::read("").is_err());
        assert!(Log::read("hello\n").is_err());
        for (row, why) in [
            ("| made | up |", "no known table"),
            ("| fault | cuda:0 | two |", "2 cells where 3 belong"),
            ("| fault | cuda:0 | a | cut", "cut short"),
        ] {
            let error = Log::read(&format!("test a ... {row}\n")).unwrap_err();
            assert!(error.contains("line 1") && error.contains(why), "{error}");
        }
        let mixed = "test a ... test b ... ok\nok\n";
        assert!(Log::read(mixed).is_ok(), "a check may print what it likes");
        let threads = "test a ... \ntest b ... ok\nok\n";
        assert!(Log::read(threads).unwrap_err().contains("b begins before a has ended"));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, shown) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_868_800, "2000-03-01 00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(date(seconds), shown);
        }
        assert!(date(u64::MAX).starts_with("9999"));
    }
}
