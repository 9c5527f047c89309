//! `cargo xtask store`: stores behind a network, kills in numbers, and speed.

mod engine;

use std::time::Instant;

use crate::{arguments, shell, summary, workspace};
use engine::SeaweedFs;

/// How often a push and a pull are killed.
const KILLS: &str = "50";

/// The command line of this command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// The engine to start; without one, what needs a server is not run.
    engine: Option<Engine>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    SeaweedFs,
}

impl Options {
    /// Reads the options; an option that is not known is an error, never ignored.
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { engine: None };
        while let Some(flag) = args.next() {
            match flag.as_str() {
                "--engine" => match args.next().as_deref() {
                    Some("seaweedfs") => options.engine = Some(Engine::SeaweedFs),
                    Some(other) => return Err(format!("no engine `{other}`; there is seaweedfs")),
                    None => return Err("--engine needs a value".to_owned()),
                },
                _ => return Err(arguments::unknown(&flag)),
            }
        }
        Ok(options)
    }
}

/// Runs everything, also after a failure. What needs an engine that is missing is one line NOT RUN, and
/// a failure where `CI=true`.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let mut rows = Vec::new();
    let mut not_run = 0_u32;
    let build = ["build", "--release", "-p", "vram-cli", "--features", "cloud"];
    shell::cargo(&build).run()?;
    let program = workspace::target_folder()?.join("release/vram");

    let kills = ["test", "-p", "vram-cli", "--test", "cli", "--", "is_killed_at_any_moment"];
    let kills = shell::cargo(&kills).env("VRAM_STORE_KILLS", KILLS);
    let kills = kills.env(shell::TEST_LIMIT, "600");
    rows.push(summary::Row::of_tests("push and pull, killed 50 times each", &kills)?);

    let mut tests = shell::cargo(&[
        "test",
        "--release",
        "-p",
        "vram-tests",
        "--features",
        "store",
        "--test",
        "store_engines",
    ])
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
    let began = Instant::now();
    rows.push(summary::Row::of_tests("over HTTP and S3, with figures", &tests)?);
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
        assert_eq!(parse(""), Ok(Options { engine: None }));
        assert_eq!(parse("--engine seaweedfs"), Ok(Options { engine: Some(Engine::SeaweedFs) }));
        for wrong in ["--engine", "--engine minio", "--engines"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
