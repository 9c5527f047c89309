//! `cargo xtask bench`: criterion benches, then medians as ratios against the reference of each
//! group.
//!
//! A group's reference is its benchmark whose name begins with `memcpy` or `reference` (with the
//! same parameter, if there is one). Absolute figures of a shared machine vary; ratios within one
//! run are comparable.

pub(crate) mod counts;

use core::fmt::Write as _;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::{arguments, shell, workspace};

/// The command line of this command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    only: Option<String>,
    quick: bool,
}

impl Options {
    /// Parses the options.
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { only: None, quick: false };
        while let Some(flag) = args.next() {
            match flag.as_str() {
                "--only" => options.only = Some(arguments::value(&flag, &mut args)?),
                "--quick" => options.quick = true,
                _ => return Err(arguments::unknown(&flag)),
            }
        }
        Ok(options)
    }
}

/// One benchmark's result.
#[derive(Debug, Clone, PartialEq)]
struct Figure {
    group: String,
    function: String,
    parameter: String,
    median_ns: f64,
    bytes: Option<f64>,
}

/// Runs the benches and prints the table.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let packages: Vec<_> = workspace::packages()?
        .into_iter()
        .filter(|package| options.only.as_ref().is_none_or(|only| package.name == *only))
        .filter(|package| package.targets.iter().any(|target| target.kind == "bench"))
        .collect();
    if packages.is_empty() {
        return Err(format!("no bench in {}", options.only.as_deref().unwrap_or("this workspace")));
    }
    let home = workspace::target_folder()?.join("criterion");
    // Removed first: results of an earlier run would otherwise be printed as this one's.
    if home.exists() {
        std::fs::remove_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
    }
    for package in &packages {
        let mut child = shell::cargo(&["bench", "-p", &package.name]);
        for target in package.targets.iter().filter(|target| target.kind == "bench") {
            child = child.arg("--bench").arg(target.name.as_str());
        }
        if options.quick {
            child = child.arg("--").arg("--quick");
        }
        child.run()?;
    }
    let mut figures = Vec::new();
    collect(&home, &mut figures)?;
    print!("{}", table(&figures));
    if figures.is_empty() { Err("the benches left no result".to_owned()) } else { Ok(()) }
}

/// Reads every `new/benchmark.json` below `folder`.
fn collect(folder: &Path, figures: &mut Vec<Figure>) -> Result<(), String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry.map_err(|error| format!("{}: {error}", folder.display()))?.path();
        if !path.is_dir() {
            continue;
        }
        if path.file_name().is_some_and(|name| name == "new") {
            let about = json(&path.join("benchmark.json"))?;
            let estimates = json(&path.join("estimates.json"))?;
            let text = |field: &str| about.get(field).and_then(Value::as_str).unwrap_or_default();
            figures.push(Figure {
                group: text("group_id").to_owned(),
                function: text("function_id").to_owned(),
                parameter: text("value_str").to_owned(),
                median_ns: estimates
                    .pointer("/median/point_estimate")
                    .and_then(Value::as_f64)
                    .unwrap_or(f64::NAN),
                bytes: about.pointer("/throughput/Bytes").and_then(Value::as_f64),
            });
        } else {
            collect(&path, figures)?;
        }
    }
    Ok(())
}

fn json(path: &Path) -> Result<Value, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The table: median, rate, and the rate as a share of the reference's.
fn table(figures: &[Figure]) -> String {
    let mut groups: BTreeMap<&str, Vec<&Figure>> = BTreeMap::new();
    for figure in figures {
        groups.entry(&figure.group).or_default().push(figure);
    }
    let mut lines = String::new();
    for (group, mut figures) in groups {
        figures.sort_by(|a, b| (&a.parameter, &a.function).cmp(&(&b.parameter, &b.function)));
        let _ = writeln!(lines, "\n{group}");
        for figure in &figures {
            let reference = figures.iter().find(|other| {
                other.parameter == figure.parameter
                    && ["memcpy", "reference"].iter().any(|r| other.function.starts_with(r))
            });
            let rate = figure
                .bytes
                .map_or_else(String::new, |bytes| format!("{:8.2} GB/s", bytes / figure.median_ns));
            let ratio = reference.map_or_else(String::new, |reference| {
                format!("{:6.3} x reference", reference.median_ns / figure.median_ns)
            });
            let name = format!("{} {}", figure.function, figure.parameter);
            let median = figure.median_ns;
            let _ = writeln!(lines, "  {name:44} {median:14.1} ns {rate:>14}  {ratio}");
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_compares_with_the_reference_of_the_same_parameter() {
        let figure = |function: &str, parameter: &str, median_ns: f64| Figure {
            group: "seal".to_owned(),
            function: function.to_owned(),
            parameter: parameter.to_owned(),
            median_ns,
            bytes: Some(1000.0),
        };
        let text = table(&[
            figure("memcpy", "1MiB", 100.0),
            figure("seal", "1MiB", 400.0),
            figure("memcpy", "2MiB", 300.0),
        ]);
        assert!(text.contains("0.250 x reference"), "{text}");
        assert!(text.contains("2.50 GB/s"), "{text}");
    }

    #[test]
    fn options_are_read_and_strangers_refused() {
        let parse = |text: &str| Options::parse(text.split_whitespace().map(str::to_owned));
        assert_eq!(parse("--quick"), Ok(Options { only: None, quick: true }));
        assert!(parse("--slow").is_err());
    }
}
