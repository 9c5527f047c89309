//! `cargo xtask store`: stores behind a network, kills in numbers, and speed.

mod engine;

use std::process::Command;
use std::time::Instant;

use crate::{arguments, shell, summary, workspace};
use engine::SeaweedFs;

/// How often a push and a pull are killed.
const KILLS: &str = "50";
const KILLS_QUICK: &str = "5";

/// Both suites, by one selection of packages and features, so that what they share is built once; and by
/// that of the workspace, so that what a test of the workspace has built is not built again. The first of
/// them builds the program as well, with the feature `cloud`.
const SUITES: [&str; 4] = ["test", "--workspace", "--features", "vram-cli/cloud,vram-tests/store"];

/// The command line of this command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// The engine to start; without one, what needs a server is not run.
    engine: Option<Engine>,
    /// Fewer kills, no figures, and a development build: for CI.
    quick: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    SeaweedFs,
}

impl Options {
    /// Reads the options; an option that is not known is an error, never ignored.
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { engine: None, quick: false };
        while let Some(flag) = args.next() {
            match flag.as_str() {
                "--engine" => match args.next().as_deref() {
                    Some("seaweedfs") => options.engine = Some(Engine::SeaweedFs),
                    Some(other) => return Err(format!("no engine `{other}`; there is seaweedfs")),
                    None => return Err("--engine needs a value".to_owned()),
                },
                "--quick" => options.quick = true,
                _ => return Err(arguments::unknown(&flag)),
            }
        }
        Ok(options)
    }

    /// What CI runs: with the engine that `scripts/engines` has brought, if it could.
    fn for_ci() -> Self {
        Self { engine: Some(Engine::SeaweedFs), quick: true }
    }
}

/// Brings the engine, and runs the quick form. Where the engine cannot be had, that is one line NOT RUN,
/// and the rest runs.
pub(crate) fn run_in_ci() -> Result<(), String> {
    let brought = Command::new("bash").arg("scripts/engines").status();
    if brought.is_ok_and(|status| status.success()) {
        return run(&Options::for_ci());
    }
    println!("NOT RUN store::seaweedfs: it cannot be had here (scripts/engines)");
    run(&Options { engine: None, ..Options::for_ci() })
}

/// Runs everything, also after a failure. What needs an engine that is missing is one line NOT RUN, and
/// a failure where `CI=true`.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let mut rows = Vec::new();
    let mut not_run = 0_u32;
    let profile: &[&str] = if options.quick { &[] } else { &["--release"] };
    let folder = if options.quick { "debug/vram" } else { "release/vram" };
    let program = workspace::target_folder()?.join(folder);

    let times = if options.quick { KILLS_QUICK } else { KILLS };
    let kills = shell::cargo(&SUITES).args(profile);
    let kills = kills.args(&["--test", "cli", "--", "is_killed_at_any_moment"]);
    let kills = kills.env("VRAM_STORE_KILLS", times);
    let kills = kills.env(shell::TEST_LIMIT, "600");
    rows.push(summary::Row::of_tests(
        &format!("push and pull, killed {times} times each"),
        &kills,
    )?);

    let mut tests = shell::cargo(&SUITES)
        .args(profile)
        .args(&["--test", "store_engines"])
        .env(shell::TEST_LIMIT, "600")
        .env("VRAM_PROGRAM", program.display().to_string());
    let mut engine = None;
    match options.engine {
        None => {}
        Some(Engine::SeaweedFs) => match SeaweedFs::start()? {
            Some(server) => engine = Some(server),
            None => not_run = 1,
        },
    }
    if let Some(server) = &engine {
        for (name, value) in server.variables() {
            tests = tests.env(name, value);
        }
        tests = tests.args(&["--", "--nocapture", "--test-threads", "1"]);
    } else {
        // The tests of a server are left out rather than passed without one.
        tests = tests.args(&["--", "--nocapture", "--test-threads", "1"]);
        tests = tests.args(&["--skip", "s3", "--skip", "real_server"]);
    }
    if options.quick {
        tests = tests.args(&["--skip", "speed"]);
    }
    let began = Instant::now();
    rows.push(summary::Row::of_tests(
        if options.quick { "over HTTP and S3" } else { "over HTTP and S3, with figures" },
        &tests,
    )?);
    drop(engine);
    println!(
        "\nnetwork tests took {:.0} s; {not_run} engine not run",
        began.elapsed().as_secs_f64()
    );
    if not_run > 0 && std::env::var("CI").as_deref() == Ok("true") {
        return Err("an engine is missing where CI=true: scripts/engines".to_owned());
    }
    summary::finish("stores", &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_strangers_refused() {
        let parse = |text: &str| Options::parse(text.split_whitespace().map(str::to_owned));
        assert_eq!(parse(""), Ok(Options { engine: None, quick: false }));
        let engine = Some(Engine::SeaweedFs);
        assert_eq!(parse("--engine seaweedfs"), Ok(Options { engine, quick: false }));
        assert_eq!(parse("--engine seaweedfs --quick"), Ok(Options::for_ci()));
        for wrong in ["--engine", "--engine minio", "--engines"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
