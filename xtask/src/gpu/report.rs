//! Turns what was read from the output of the check binary into a report in Markdown.

use core::fmt::Write as _;

use super::log::{Log, Outcome, TABLES};

impl Log {
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
        if !self.groups.is_empty() {
            text.push_str("### Groups\n\n| group | exit status | seconds |\n|---|---|---|\n");
            for group in &self.groups {
                let (status, seconds) = match &group.ended {
                    Some((status, seconds)) => (status.as_str(), seconds.as_str()),
                    None => ("**did not end**", ""),
                };
                let _ = writeln!(text, "| {} | {status} | {seconds} |", group.name);
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
