//! `cargo xtask counts`: instructions of hot paths, beside the committed ones.
//!
//! Times of a shared machine say little about one commit; callgrind's counts are nearly the same on
//! every run. They depend on the compiler, which the workspace fixes, and on the vector instructions
//! that valgrind offers: the committed counts are those of AVX2.

use core::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};

use crate::{arguments, shell};

const COMMITTED: &str = "xtask/counts.txt";
const HEAD: &str =
    "# Instructions a call, as `cargo xtask counts` counts them; `--update` writes this file.\n";

/// The package and its example that has the path, and the name of the path.
const PATHS: [(&str, &str, &str); 4] = [
    ("vram-alloc", "counted_places", "arena-pair"),
    ("vram-alloc", "counted_places", "ledger-reserve"),
    ("vram-seal", "counted_seals", "seal-4096"),
    ("vram-seal", "counted_seals", "verify-4096"),
];

/// The path runs this often beyond the calls of the first run.
const TIMES: u64 = 1000;
const FIRST: u64 = 100;

/// How much more than the committed count passes, in per cent.
const TOLERANCE: u64 = 5;

/// The command line of this command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    update: bool,
}

impl Options {
    /// Parses the options.
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { update: false };
        for flag in args {
            match flag.as_str() {
                "--update" => options.update = true,
                _ => return Err(arguments::unknown(&flag)),
            }
        }
        Ok(options)
    }

    /// What CI runs.
    pub(crate) const fn for_ci() -> Self {
        Self { update: false }
    }
}

/// Counts every path, and compares or writes the counts.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    if !starts("valgrind") {
        println!("NOT RUN: no valgrind; install it with `apt-get install valgrind`");
        return Ok(());
    }
    let mut counted = Vec::new();
    for (package, example, path) in PATHS {
        let which = [package, example, path];
        let few = count(which, FIRST)?;
        let many = count(which, FIRST.saturating_add(TIMES))?;
        counted.push((path, many.saturating_sub(few) / TIMES));
    }
    if options.update {
        let mut text = HEAD.to_owned();
        for (path, count) in &counted {
            let _infallible = writeln!(text, "{path} {count}");
        }
        return fs::write(COMMITTED, text).map_err(|error| format!("{COMMITTED}: {error}"));
    }
    let text = fs::read_to_string(COMMITTED).map_err(|error| format!("{COMMITTED}: {error}"))?;
    let (table, grown) = compare(&counted, &text);
    print!("{table}");
    if grown.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} took over {TOLERANCE} % more instructions than {COMMITTED} says; if that is meant: cargo xtask counts --update",
        grown.join(", ")
    ))
}

/// The table, and the paths that take more than they may.
fn compare(counted: &[(&'static str, u64)], committed: &str) -> (String, Vec<&'static str>) {
    let of = |path: &str| {
        let line = committed.lines().find_map(|line| line.strip_prefix(path)?.strip_prefix(' '));
        line.and_then(|count| count.trim().parse::<u64>().ok())
    };
    let (mut table, mut grown) = (String::new(), Vec::new());
    for &(path, count) in counted {
        let allowed = |before: u64| before.saturating_mul(100 + TOLERANCE) / 100;
        let verdict = match of(path) {
            None => "not committed",
            Some(before) if count > allowed(before) => "MORE",
            Some(before) if allowed(count) < before => "fewer: commit them",
            Some(_) => "as before",
        };
        if matches!(verdict, "MORE" | "not committed") {
            grown.push(path);
        }
        let before = of(path).map_or_else(|| "-".to_owned(), |before| before.to_string());
        let _infallible = writeln!(table, "{path:<16} {count:>9} {before:>9}  {verdict}");
    }
    (table, grown)
}

/// Instructions of one run of the example.
fn count([package, example, path]: [&str; 3], times: u64) -> Result<u64, String> {
    // Not `--tool=none`, whose counter is not exact. The log goes where it can be read.
    let runner = r#"target.'cfg(all())'.runner = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--log-fd=1"]"#;
    let line = ["run", "--quiet", "--release", "--package", package, "--example", example];
    let child = shell::cargo(&line).args(&["--config", runner, "--", path, &times.to_string()]);
    let (text, succeeded) = child.run_and_read()?;
    let counted = collected(&text).filter(|_| succeeded);
    counted.ok_or_else(|| format!("no count of {path}\n  repeat with: {}", child.line()))
}

/// The count in callgrind's log.
fn collected(log: &str) -> Option<u64> {
    let count = log.lines().find_map(|line| line.split_once("Collected :"))?.1;
    count.trim().parse().ok()
}

fn starts(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_strangers_refused() {
        let parse = |text: &str| Options::parse(text.split_whitespace().map(str::to_owned));
        assert_eq!(parse(""), Ok(Options { update: false }));
        assert_eq!(parse("--update"), Ok(Options { update: true }));
        assert!(parse("--upgrade").is_err());
    }

    #[test]
    fn a_count_is_found_in_the_log_of_callgrind() {
        let log = "==7== Callgrind, a call-graph generating cache profiler\n==7== \n==7== Collected : 123456\n";
        assert_eq!(collected(log), Some(123_456));
        assert_eq!(collected("==7== Callgrind\n"), None);
    }

    #[test]
    fn more_than_the_tolerance_fails_and_so_does_what_is_not_committed() {
        let committed = "# head\na-path 1000\nb 200\n";
        assert_eq!(compare(&[("a-path", 1050), ("b", 100)], committed).1, Vec::<&str>::new());
        assert_eq!(compare(&[("a-path", 1051), ("b", 200)], committed).1, ["a-path"]);
        assert_eq!(compare(&[("a", 1)], committed).1, ["a"]);
    }

    #[test]
    fn every_path_is_committed() {
        let committed = include_str!("../../counts.txt");
        let counted = PATHS.map(|(_, _, path)| (path, 0));
        assert!(compare(&counted, committed).1.is_empty(), "{committed}");
    }
}
