//! `cargo xtask bench`: everything that measures, in one report with tables, pictures and ratios, which
//! are compared with those that were accepted last.
//!
//! Absolute figures of a shared machine vary; ratios within one run are comparable.

mod accepted;
mod aims;
pub(crate) mod counts;
mod criterion;
mod machine;
mod parts;
mod report;
mod svg;
mod table;
mod text;
#[cfg(test)]
mod text_tests;

use core::time::Duration;
use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::{arguments, shell, summary, workspace};

use accepted::Parts;
use machine::Machine;
pub(crate) use parts::PEERS;
use parts::{Effort, Figures, PARTS, Part};
use report::{Outcome, Report};
use table::Measured;

/// The command line of this command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    only: Option<String>,
    effort: Effort,
    peers: bool,
    accept: bool,
}

impl Options {
    /// Parses the options.
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { only: None, effort: Effort::Whole, peers: false, accept: false };
        let (mut quick, mut debug) = (false, false);
        while let Some(flag) = args.next() {
            match flag.as_str() {
                "--only" => options.only = Some(arguments::value(&flag, &mut args)?),
                "--quick" => quick = true,
                "--debug" => debug = true,
                "--peers" => options.peers = true,
                "--accept" => options.accept = true,
                _ => return Err(arguments::unknown(&flag)),
            }
        }
        options.effort = match (quick, debug) {
            (false, false) => Effort::Whole,
            (true, false) => Effort::Quick,
            (true, true) => Effort::QuickDebug,
            (false, true) => return Err("--debug is for --quick alone".to_owned()),
        };
        if options.accept && (quick || options.peers || options.only.is_some()) {
            return Err(
                "--accept stands alone: it takes over what the last run has measured".to_owned()
            );
        }
        Ok(options)
    }

    /// What CI runs: nothing that needs a build for speed.
    pub(crate) const fn for_ci() -> Self {
        Self { only: None, effort: Effort::QuickDebug, peers: false, accept: false }
    }

    /// The parts that were asked for.
    fn parts(&self) -> Result<Vec<&'static Part>, String> {
        let is_one = |part: &Part, only: &str| part.name == only || part.package == only;
        let chosen: Vec<_> = PARTS
            .iter()
            .filter(|part| self.peers || !part.is_peers())
            .filter(|part| self.only.as_ref().is_none_or(|only| is_one(part, only)))
            .collect();
        if chosen.is_empty() {
            let names: Vec<_> = PARTS.iter().map(|part| part.name).collect();
            let only = self.only.as_deref().unwrap_or_default();
            return Err(format!(
                "no part or package `{only}`; there are {} (peers: with --peers)",
                names.join(", ")
            ));
        }
        Ok(chosen)
    }

    const fn note(&self) -> Option<&'static str> {
        match self.effort {
            Effort::Whole => None,
            Effort::Quick => {
                Some("**A quick run**: it shows that all of it works; its figures are rough.")
            }
            Effort::QuickDebug => Some(
                "**A quick run, built as the tests are**: it shows that all of it works; its figures say nothing.",
            ),
        }
    }
}

/// Measures, and writes the report after each part, so that a run that is ended early leaves one too.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let target = workspace::target_folder()?;
    let folder = target.join("bench");
    let ratios = folder.join("ratios.json");
    let committed = Path::new(accepted::FILE);
    if options.accept {
        let measured = accepted::read(&ratios)?;
        if measured.is_empty() {
            return Err(format!("no run has left {}; a quick run does not", ratios.display()));
        }
        accepted::write(committed, &measured)?;
        println!("{}: {} parts as they were measured last", committed.display(), measured.len());
        return Ok(());
    }
    let before = accepted::read(committed)?;
    let chosen = options.parts()?;
    // Removed first: what an earlier run has left would otherwise be taken for this one's.
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let machine = Machine::here();
    let begin = machine::load();
    let (mut outcomes, mut measured) = (Vec::new(), Parts::new());
    for part in chosen {
        let outcome = measure(part, options.effort, &target);
        if let Ok(Measured { ratios, .. }) = &outcome.measured {
            let part = accepted::Part::new(machine.name(), machine.commit.clone(), ratios);
            measured.insert(outcome.name.to_owned(), part);
        }
        outcomes.push(outcome);
        let whole = options.effort == Effort::Whole;
        if whole {
            accepted::write(&ratios, &measured)?;
        }
        let report = Report {
            machine: &machine,
            loads: [begin, machine::load()],
            note: options.note(),
            quick: !whole,
            outcomes: &outcomes,
            compared: whole.then(|| accepted::compared(&before, &measured)),
        };
        report.write(&folder)?;
    }
    println!("\n{}", folder.join("report.md").display());
    let mut rows: Vec<summary::Row> = outcomes.into_iter().map(row).collect();
    if options.only.is_none() {
        rows.push(all_are_parts()?);
    }
    summary::finish("benches", &rows)
}

/// Builds and runs one part. What it needs besides the figures is its failure.
fn measure(part: &'static Part, effort: Effort, target: &Path) -> Outcome {
    let (builder, command) = part.commands(effort, target);
    let began = Instant::now();
    let ready = builder.run();
    let built = began.elapsed();
    let began = Instant::now();
    let measured = ready.and_then(|()| figures(part, &command, target));
    Outcome {
        name: part.name,
        what: part.what,
        command: command.line(),
        built,
        ran: began.elapsed(),
        measured,
    }
}

fn figures(part: &Part, command: &shell::Child, target: &Path) -> Result<Measured, String> {
    let home = target.join("criterion");
    if matches!(part.figures, Figures::Criterion) && home.exists() {
        fs::remove_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
    }
    let (text, succeeded) = command.run_and_read()?;
    if !succeeded {
        return Err(format!("it ended with an error\n  repeat with: {}", command.line()));
    }
    let measured = match part.figures {
        Figures::Criterion => criterion::read(&home)?,
        Figures::Printed(reader) => reader(&text),
    };
    if measured.tables.iter().all(|table| table.rows.is_empty()) {
        return Err(format!("no figure in what it printed\n  repeat with: {}", command.line()));
    }
    Ok(measured)
}

fn row(outcome: Outcome) -> summary::Row {
    let took = outcome.built.saturating_add(outcome.ran);
    summary::Row {
        name: outcome.name.to_owned(),
        tests: None,
        took,
        ran: summary::Ran::Done,
        failure: outcome.measured.err(),
    }
}

/// A bench that no part runs would be missing without a word.
fn all_are_parts() -> Result<summary::Row, String> {
    let mut missing = Vec::new();
    for package in workspace::packages()? {
        for target in package.targets.iter().filter(|target| target.kind == "bench") {
            if !PARTS.iter().any(|part| part.is_bench(&package.name, &target.name)) {
                missing.push(format!("{} of {}", target.name, package.name));
            }
        }
    }
    let failure = (!missing.is_empty())
        .then(|| format!("xtask/src/bench/parts.rs does not list {}", missing.join(", ")));
    let name = "every bench is a part".to_owned();
    Ok(summary::Row { name, tests: None, took: Duration::ZERO, ran: summary::Ran::Done, failure })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, String> {
        Options::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_read_and_strangers_refused() {
        assert_eq!(parse("").unwrap().effort, Effort::Whole);
        assert_eq!(parse("--quick").unwrap().effort, Effort::Quick);
        assert_eq!(parse("--quick --debug").unwrap(), Options::for_ci());
        assert!(parse("--accept").unwrap().accept);
        for wrong in ["--slow", "--debug", "--only", "--accept --quick", "--accept --only limits"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn parts_are_chosen_by_their_name_or_package_and_peers_only_on_request() {
        let chosen = |text: &str| -> Vec<&str> {
            parse(text).unwrap().parts().unwrap().iter().map(|part| part.name).collect()
        };
        assert_eq!(chosen("--only limits"), ["limits"]);
        assert_eq!(chosen("--only vram-seal"), ["seal", "limits"]);
        assert!(!chosen("").contains(&"peers") && chosen("--peers").contains(&"peers"));
        assert!(parse("--only strange").unwrap().parts().unwrap_err().contains("limits"));
        assert!(parse("--only peers").unwrap().parts().unwrap_err().contains("--peers"));
    }

    #[test]
    fn a_part_that_cannot_be_built_or_that_prints_nothing_is_a_failure_with_its_command() {
        let part = PARTS.iter().find(|part| part.name == "limits").unwrap();
        let home = tempfile::tempdir().unwrap();
        let why = figures(part, &shell::program("sh", &["-c", "exit 1"]), home.path()).unwrap_err();
        assert!(why.contains("repeat with: sh -c 'exit 1'"), "{why}");
        let why = figures(part, &shell::program("true", &[]), home.path()).unwrap_err();
        assert!(why.contains("no figure"), "{why}");
    }
}
