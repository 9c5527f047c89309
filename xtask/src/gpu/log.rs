//! Reads the output of the check binary: one log or several in one file, whole or cut off anywhere.

use std::collections::{BTreeMap, BTreeSet};

use super::groups::{BEGINS, ENDED, GROUPS, TIMED_OUT};

/// The tables that the binary prints rows of: name, title and columns.
pub(super) const TABLES: &[(&str, &str, &[&str])] = &[
    ("run", "Run", &["what", "value"]),
    ("device", "Devices", &["GPU", "what", "value"]),
    ("machine", "Machine", &["what", "value"]),
    ("fact", "What the driver does where its manual leaves it open", &["GPU", "what", "answer"]),
    ("residency", "Where memory is, by pointer attributes", &["GPU", "allocation", "answer"]),
    ("shared", "Memory that another process opens", &["GPU", "what", "answer"]),
    ("fault", "Faults provoked", &["GPU", "provoked", "answer"]),
    (
        "transfer",
        "Transfers",
        &["GPU", "size", "path", "GB/s, median", "slowest to fastest", "of the driver's own copy"],
    ),
    (
        "kernel",
        "Kernels: GB/s of the bytes that they read (copies: read and written)",
        &["GPU", "size", "what", "median", "slowest to fastest", "of the copy", "predicted"],
    ),
    (
        "function",
        "What the kernels need",
        &["GPU", "kernel", "registers", "local bytes", "shared bytes", "blocks a multiprocessor"],
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

/// A group of checks, as the script that runs them tells of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GroupRun {
    pub(super) name: String,
    /// Exit status and seconds; nothing if the log has no end of it.
    pub(super) ended: Option<(String, String)>,
}

/// The content of a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    /// Checks in the order in which they began.
    pub(crate) checks: Vec<(String, Outcome)>,
    /// Groups in the order in which they began; none in a log that no script wrote.
    pub(super) groups: Vec<GroupRun>,
    /// Rows by table.
    pub(super) rows: BTreeMap<&'static str, Vec<Vec<String>>>,
    /// Whether a check of the same run has begun.
    in_run: bool,
    /// The checks that are still to begin in the run of the binary that has not ended.
    open: Option<u64>,
    /// Runs of the binary without an end, and how many of their checks never began.
    cut_runs: Vec<u64>,
    /// Checks that a run which ended has no line of.
    lost_checks: u64,
    /// Runs of the binary that say of themselves that they failed.
    failed_runs: u64,
    /// Rows that were cut off.
    cut_rows: u64,
}

impl Log {
    /// Reads logs of `--test-threads=1 --nocapture`, one after another.
    ///
    /// # Errors
    ///
    /// For a log of several threads, and for a row with an unknown table or more cells: the log is
    /// from another version or another program.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut log = Self::default();
        for (number, line) in (1_u64..).zip(text.lines()) {
            log.line(line).map_err(|why| format!("line {number}: {why}"))?;
        }
        log.end_run(false);
        if log.checks.is_empty() {
            return Err("no check ran: this is not the log of the check binary".to_owned());
        }
        Ok(log)
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(count) = line.strip_prefix("running ").and_then(|rest| rest.split_once(" test"))
        {
            self.end_run(false);
            self.open = count.0.parse().ok();
            return Ok(());
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            self.end_run(true);
            self.failed_runs =
                self.failed_runs.saturating_add(u64::from(!result.starts_with("ok")));
            return Ok(());
        }
        if let Some(group) = line.strip_prefix(BEGINS) {
            self.end_run(false);
            let name = group.split(", ").next().unwrap_or_default().to_owned();
            self.groups.push(GroupRun { name, ended: None });
            return Ok(());
        }
        if let Some(group) = line.strip_prefix(ENDED) {
            self.end_run(false);
            self.end_group(group);
            return Ok(());
        }
        // The first output of a check is on the same line as its name.
        let rest = match line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            Some((name, rest)) => {
                self.begin(name)?;
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
        if let (true, Some((_, open @ Outcome::Unfinished))) = (self.in_run, self.checks.last_mut())
        {
            *open = outcome;
        }
        Ok(())
    }

    fn begin(&mut self, name: &str) -> Result<(), String> {
        // A log without its beginning has no number of checks.
        let left = self.open.get_or_insert(0);
        *left = left.saturating_sub(1);
        if let (true, Some((open, Outcome::Unfinished))) = (self.in_run, self.checks.last()) {
            return Err(format!("{name} begins before {open} has ended"));
        }
        self.in_run = true;
        let name = name.trim_end_matches(" - should panic").to_owned();
        self.checks.push((name, Outcome::Unfinished));
        Ok(())
    }

    /// Ends the run of the binary, if one is open.
    fn end_run(&mut self, whole: bool) {
        self.in_run = false;
        match self.open.take() {
            Some(left) if whole => self.lost_checks = self.lost_checks.saturating_add(left),
            Some(left) => self.cut_runs.push(left),
            None => {}
        }
    }

    fn end_group(&mut self, text: &str) {
        let mut parts = text.split(", ");
        let name = parts.next().unwrap_or_default();
        let status = parts.next().and_then(|part| part.strip_prefix("status "));
        let seconds = parts.next().and_then(|part| part.strip_suffix(" s"));
        let open = self.groups.iter_mut().rev().find(|group| group.name == name);
        if let (Some(group), Some(status), Some(seconds)) = (open, status, seconds) {
            group.ended = Some((status.to_owned(), seconds.to_owned()));
        }
    }

    fn row(&mut self, row: &str) -> Result<(), String> {
        let whole = row.strip_suffix(" |");
        let mut cells = whole.unwrap_or(row).split(" | ").map(str::to_owned);
        let name = cells.next().unwrap_or_default();
        let Some((table, _, columns)) = TABLES.iter().find(|(table, ..)| *table == name) else {
            if whole.is_none() {
                self.cut_rows = self.cut_rows.saturating_add(1);
                return Ok(());
            }
            return Err(format!("a row of no known table: {row}"));
        };
        let cells: Vec<String> = cells.collect();
        if cells.len() > columns.len() {
            return Err(format!("{} cells where {} belong: {row}", cells.len(), columns.len()));
        }
        if whole.is_none() || cells.len() < columns.len() {
            self.cut_rows = self.cut_rows.saturating_add(1);
            return Ok(());
        }
        self.rows.entry(table).or_default().push(cells);
        Ok(())
    }

    /// The value with this name in the run.
    pub(super) fn run(&self, what: &str) -> Option<&str> {
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
        let checks = self.checks.iter().filter_map(|(name, outcome)| match outcome {
            Outcome::Passed => None,
            Outcome::Failed => Some(format!("{name} failed")),
            Outcome::Ignored => Some(format!("{name} did not run")),
            Outcome::Unfinished => Some(format!("{name} did not end")),
        });
        let mut failures: Vec<String> = checks.collect();
        for left in &self.cut_runs {
            let begun = if *left == 0 {
                String::new()
            } else {
                format!(": {left} of its checks never began")
            };
            failures.push(format!("a run of the binary was cut short{begun}"));
        }
        for group in &self.groups {
            match &group.ended {
                None => failures.push(format!("the group {} did not end", group.name)),
                Some((status, seconds)) if TIMED_OUT.contains(&status.as_str()) => {
                    failures.push(format!("the group {} was ended after {seconds} s", group.name));
                }
                Some((status, _)) if status != "0" => {
                    failures.push(format!("the group {} has status {status}", group.name));
                }
                Some(_) => {}
            }
        }
        for group in GROUPS {
            let of_group = |(name, _): &(String, Outcome)| {
                name.strip_prefix(group.name).is_some_and(|rest| rest.starts_with("::"))
            };
            if !self.checks.iter().any(of_group) {
                failures.push(format!("no check of the group {}", group.name));
            }
        }
        if self.lost_checks > 0 {
            failures.push(format!("lines of checks that are missing: {}", self.lost_checks));
        }
        if self.failed_runs > 0 {
            failures.push(format!("runs of the binary that failed: {}", self.failed_runs));
        }
        // One report tells of one build on one machine.
        for what in ["commit", "build", "driver"] {
            let rows = self.rows.get("run").into_iter().flatten();
            let of = rows.filter(|row| row.first().is_some_and(|first| first == what));
            let values: BTreeSet<_> = of.filter_map(|row| row.get(1)).collect();
            if values.len() > 1 {
                failures
                    .push(format!("logs of several runs, each with its own {what}: {values:?}"));
            }
        }
        if self.cut_rows > 0 {
            failures.push(format!("rows that were cut off: {}", self.cut_rows));
        }
        for (table, title, _) in TABLES {
            if *table != "peer" && !self.rows.contains_key(table) {
                failures.push(format!("no row of the table \"{title}\""));
            }
        }
        failures
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
