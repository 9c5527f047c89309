//! `cargo xtask planted`: plants faults in a copy of the workspace, and checks that the suites
//! notice each of them.

mod copy;
mod suites;
mod table;

use core::time::Duration;
use std::collections::BTreeSet;
use std::time::Instant;

use self::suites::{Outcome, Suites};
use self::table::{Change, Try};
use crate::{arguments, workspace};

/// The command line of this command.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    only: Option<String>,
    list: bool,
}

impl Options {
    /// Parses the options.
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(flag) = args.next() {
            match flag.as_str() {
                "--only" => options.only = Some(arguments::value(&flag, &mut args)?),
                "--list" => options.list = true,
                _ => return Err(arguments::unknown(&flag)),
            }
        }
        Ok(options)
    }
}

/// Runs every change against its suites.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let all = table::read()?;
    let wanted = |change: &&Change| {
        options.only.as_ref().is_none_or(|only| change.name.contains(only.as_str()))
    };
    let chosen: Vec<&Change> = all.iter().filter(wanted).collect();
    if chosen.is_empty() {
        return Err(format!("no planted change `{}`", options.only.as_deref().unwrap_or_default()));
    }
    if options.list {
        for change in chosen {
            println!("{}: {} ({})", change.name, change.why, change.file);
        }
        return Ok(());
    }
    let home = workspace::target_folder()?.join("planted");
    // All of them, whichever run: the copy and its build stay the same.
    copy::make(&all, &home.join("src"))?;
    let started = Instant::now();
    let suites = Suites::build(&home, all.iter().flat_map(|change| &change.tries))?;
    println!("built in {:.0} s", started.elapsed().as_secs_f64());
    pass_without(&suites, &chosen)?;

    let mut unnoticed = 0_usize;
    for change in &chosen {
        let started = Instant::now();
        let verdict = notice(&suites, change)?;
        println!("{}", verdict.line(&change.name, started.elapsed()));
        match (&change.open, verdict.is_good()) {
            (None, false) => unnoticed = unnoticed.saturating_add(1),
            (Some(why), false) => println!("    known: {why}"),
            (Some(_), true) => println!("    its line `open` can go"),
            (None, true) => {}
        }
    }
    match unnoticed {
        0 => Ok(()),
        _ => Err(format!("{unnoticed} of {} planted changes are not noticed", chosen.len())),
    }
}

/// Every suite passes with no change on, and finds a test for each name that it is asked for.
fn pass_without(suites: &Suites, chosen: &[&Change]) -> Result<(), String> {
    let tries: BTreeSet<&Try> = chosen.iter().flat_map(|change| &change.tries).collect();
    let mut failures = Vec::new();
    for suite in tries {
        match suites.run(suite, None)? {
            Outcome::Passed(0) => failures.push(format!("{}: no test of this name", suite.line())),
            Outcome::Passed(_) => {}
            Outcome::Failed(test) => {
                failures.push(format!("{}: {test} failed", suite.line()));
                println!("{}", suites.last_output());
            }
            Outcome::Hung(test) => {
                failures.push(format!("{}: {test} hung", suite.line()));
                println!("{}", suites.last_output());
            }
        }
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(format!("with no change on:\n  {}", failures.join("\n  ")))
    }
}

/// What became of one change.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Noticed(String),
    OnlyHung(String),
    NotNoticed,
}

/// Runs the suites of a change until one fails. A hang is remembered, but another may do better.
fn notice(suites: &Suites, change: &Change) -> Result<Verdict, String> {
    let mut verdict = Verdict::NotNoticed;
    for suite in &change.tries {
        let place = |test: &str| format!("{} {}: {test}", suite.package, suite.target);
        match suites.run(suite, Some(&change.name))? {
            Outcome::Failed(test) => return Ok(Verdict::Noticed(place(&test))),
            Outcome::Hung(test) => verdict = Verdict::OnlyHung(place(&test)),
            Outcome::Passed(_) => {}
        }
    }
    Ok(verdict)
}

impl Verdict {
    fn is_good(&self) -> bool {
        matches!(self, Self::Noticed(_))
    }

    fn line(&self, change: &str, took: Duration) -> String {
        let seconds = took.as_secs_f64();
        match self {
            Self::Noticed(by) => format!("  {change:42} {seconds:6.1} s  {by}"),
            Self::OnlyHung(by) => format!("  {change:42} {seconds:6.1} s  ONLY A HANG of {by}"),
            Self::NotNoticed => format!("  {change:42} {seconds:6.1} s  NOT NOTICED"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_strangers_refused() {
        let parse = |text: &str| Options::parse(text.split_whitespace().map(str::to_owned));
        assert_eq!(parse("--list"), Ok(Options { only: None, list: true }));
        assert_eq!(parse("--only a").unwrap().only.as_deref(), Some("a"));
        assert!(parse("--all").is_err() && parse("--only").is_err());
    }

    #[test]
    fn only_a_failed_test_counts_as_notice() {
        let line = |verdict: &Verdict| verdict.line("name", Duration::ZERO);
        let noticed = Verdict::Noticed("a it: b".to_owned());
        assert!(noticed.is_good() && line(&noticed).ends_with("a it: b"));
        for verdict in [Verdict::OnlyHung("a it: b".to_owned()), Verdict::NotNoticed] {
            assert!(!verdict.is_good() && line(&verdict).contains('N'));
        }
    }
}
