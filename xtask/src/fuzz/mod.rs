//! `cargo xtask fuzz`: the targets of `vram-fuzz`, guided by coverage where there is a C++ compiler.
//!
//! libFuzzer is linked into an instrumented build of the workspace, on the stable toolchain: the flags
//! are those of cargo-fuzz without a sanitizer. Without a compiler, or where the compiler of Rust does
//! not know the flags, the same targets run with random changes alone, and the output says so.

mod build;
mod report;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{fs, thread};

use crate::{arguments, shell, workspace};
use report::Row;

pub(crate) use build::cxx;

/// The package of the targets.
pub(crate) const PACKAGE: &str = "vram-fuzz";

/// Targets that run at once.
const AT_ONCE: usize = 2;

/// The command line of this command.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    minutes: f64,
    only: Option<String>,
    list: bool,
    replay: Option<String>,
    plain: bool,
}

impl Options {
    /// Parses the options.
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options =
            Self { minutes: 5.0, only: None, list: false, replay: None, plain: false };
        while let Some(flag) = args.next() {
            match flag.as_str() {
                "--minutes" => options.minutes = arguments::parsed(&flag, &mut args)?,
                "--only" => options.only = Some(arguments::value(&flag, &mut args)?),
                "--list" => options.list = true,
                "--replay" => options.replay = Some(arguments::value(&flag, &mut args)?),
                "--plain" => options.plain = true,
                _ => return Err(arguments::unknown(&flag)),
            }
        }
        if !(options.minutes > 0.0 && options.minutes <= 100_000.0) {
            return Err(format!("--minutes {}: want more than 0", options.minutes));
        }
        if options.replay.is_some() && options.only.is_none() {
            return Err("--replay needs --only TARGET".to_owned());
        }
        Ok(options)
    }
}

/// A target, as the program lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    name: String,
    len_max: String,
    promise: String,
}

/// How inputs are chosen, and the program that does it.
enum Engine {
    Coverage(PathBuf),
    Plain(PathBuf),
}

/// Runs the targets, each for its share of the time.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    if let (Some(file), Some(target)) = (&options.replay, &options.only) {
        let replay = program().arg("replay").arg(target.as_str()).arg(file.as_str());
        return replay.env("RUST_BACKTRACE", "1").run();
    }
    let mut targets = listed(&program().arg("list").read()?)?;
    if options.list {
        for Target { name, promise, .. } in targets {
            println!("{name:8} {promise}");
        }
        return Ok(());
    }
    if let Some(only) = &options.only {
        targets.retain(|target| target.name == *only);
        if targets.is_empty() {
            return Err(format!("no target `{only}`; see `cargo xtask fuzz --list`"));
        }
    }
    let home = workspace::target_folder()?.join("fuzz");
    let engine = engine(options, &home)?;
    let seconds = share(options.minutes, targets.len());
    println!("fuzz: {} targets, {seconds} s each, {AT_ONCE} at once", targets.len());
    let rows = all(&engine, &home, &targets, seconds)?;
    report::finish(&rows, matches!(engine, Engine::Plain(_)))
}

/// Whole seconds of each target, at least one.
fn share(minutes: f64, targets: usize) -> u64 {
    let at_once = u32::try_from(AT_ONCE.min(targets)).unwrap_or(1);
    let targets = u32::try_from(targets.max(1)).unwrap_or(u32::MAX);
    let seconds = minutes * 60.0 * f64::from(at_once) / f64::from(targets);
    core::time::Duration::try_from_secs_f64(seconds).map_or(1, |share| share.as_secs().max(1))
}

/// The program without libFuzzer, as the tests build it.
fn program() -> shell::Child {
    shell::cargo(&["run", "-q", "-p", PACKAGE, "--bin", "fuzz-plain", "--"])
}

fn listed(text: &str) -> Result<Vec<Target>, String> {
    let targets: Vec<Target> = text
        .lines()
        .filter_map(|line| {
            let mut columns = line.split('\t').map(str::to_owned);
            let (name, len_max, promise) = (columns.next()?, columns.next()?, columns.next()?);
            Some(Target { name, len_max, promise })
        })
        .collect();
    if targets.is_empty() { Err(format!("{PACKAGE} lists no target")) } else { Ok(targets) }
}

fn engine(options: &Options, home: &Path) -> Result<Engine, String> {
    let refused = if options.plain {
        "--plain was given".to_owned()
    } else {
        match build::coverage(home) {
            Ok(program) => return Ok(Engine::Coverage(program)),
            Err(error) => error,
        }
    };
    println!("fuzz: NO COVERAGE: {refused}\nfuzz: the same targets run with random changes alone");
    build::plain(home).map(Engine::Plain)
}

/// Runs all targets, a few at once.
fn all(engine: &Engine, home: &Path, targets: &[Target], seconds: u64) -> Result<Vec<Row>, String> {
    let queue = Mutex::new(targets.iter());
    let rows = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(target) = next else { return };
                    let row = one(engine, home, target, seconds);
                    rows.lock().unwrap_or_else(PoisonError::into_inner).push(row);
                }
            });
        }
    });
    let rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut rows = rows.into_iter().collect::<Result<Vec<Row>, String>>()?;
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(rows)
}

/// Runs one target; a failure of it is in the row.
fn one(engine: &Engine, home: &Path, target: &Target, seconds: u64) -> Result<Row, String> {
    let name = target.name.as_str();
    let folder = |kind: &str| -> Result<String, String> {
        let path = home.join(kind).join(name);
        fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path.display().to_string())
    };
    let (corpus, crashes) = (folder("corpus")?, folder("artifacts")?);
    let child = match engine {
        Engine::Coverage(program) => shell::program(&program.display().to_string(), &[])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={}", target.len_max))
            .arg("-rss_limit_mb=1024")
            .arg("-timeout=20")
            .arg("-print_final_stats=1")
            .arg(format!("-artifact_prefix={crashes}/"))
            // New inputs go to the first folder; the seeds are only read.
            .arg(corpus.as_str())
            .arg(format!("tests/fuzz/seeds/{name}"))
            .env("VRAM_FUZZ_TARGET", name),
        Engine::Plain(program) => {
            let seed = std::process::id().to_string();
            let seconds = seconds.to_string();
            let words = ["run", name, &seconds, &seed, &crashes];
            shell::program(&program.display().to_string(), &words)
        }
    };
    let log = home.join(format!("{name}.log"));
    let passed = child.run_into(&log)?;
    let text = fs::read(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let size = fs::read_dir(&corpus).map_or(0, Iterator::count);
    Ok(Row::of(name, &String::from_utf8_lossy(&text), passed, size, seconds, &log))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, String> {
        Options::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_read_and_strangers_refused() {
        let options = parse("--minutes 0.5 --only record --replay crash").unwrap();
        let wanted = Options {
            minutes: 0.5,
            only: Some("record".to_owned()),
            list: false,
            replay: Some("crash".to_owned()),
            plain: false,
        };
        assert_eq!(options, wanted);
        assert!(parse("--list").unwrap().list && parse("--plain").unwrap().plain);
        for bad in
            ["--minutes 0", "--minutes NaN", "--minutes", "--replay f", "--hours 1", "record"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_time_is_shared_by_what_runs_at_once() {
        assert_eq!(share(9.0, 9), 120);
        assert_eq!(share(1.0, 1), 60);
        assert_eq!(share(0.001, 9), 1);
    }

    #[test]
    fn targets_are_read_from_the_programs_list() {
        let targets = listed("record\t400\tit holds\nother\t7\tit holds too\n").unwrap();
        assert_eq!(targets.len(), 2);
        assert_eq!((&*targets[1].name, &*targets[1].len_max), ("other", "7"));
        assert!(listed("").is_err());
    }

    /// Every folder of seeds is that of a target in the sources, and the reverse.
    #[test]
    fn every_target_has_seeds() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz");
        let names = |folder: &str| -> std::collections::BTreeSet<String> {
            let entries = fs::read_dir(fuzz.join(folder)).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.map(|name| name.trim_end_matches(".rs").to_owned()).collect()
        };
        let mut targets = names("src/targets");
        targets.remove("mod");
        assert_eq!(targets, names("seeds"));
    }
}
