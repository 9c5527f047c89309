//! `cargo xtask gpu`: one small binary that checks and measures a real GPU, and its report.

mod elf;
mod groups;
mod log;
pub(crate) mod outside;
mod report;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use self::log::Log;
use crate::{arguments, shell, workspace};

/// The largest folder that is still convenient to copy to a machine with a GPU.
const SIZE_MAX: u64 = 60_000_000;

/// The binary in that folder, and the script that runs it.
const BINARY: &str = "vram-gpu-checks";
const SCRIPT: &str = "run.sh";

/// The only libraries that the binary may need to start; the driver is loaded at run time.
const LIBRARIES: &[&str] =
    &["libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"];

/// The simulated devices: two that reach each other, one of them in use. They take memory for
/// themselves and give it out as an H100 does, and give no context again after a sticky error.
const SIMULATED_DEVICES: &str = "\
    name=Simulated GPU,capacity=1100MiB,group=1,\
    context=64MiB,overhead=2MiB,granularity=2MiB,heals=false;\
    name=Simulated GPU,capacity=1200MiB,foreign=32MiB,group=1,\
    context=64MiB,overhead=2MiB,granularity=2MiB,heals=false";

/// The command line of this command.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Builds and checks the folder to carry, and runs nothing.
    build_only: bool,
    /// Runs over the simulated driver: shows that the checks work, and says nothing about a GPU.
    simulated: bool,
    /// Builds with the profile of the tests, most of which CI has already built: quick, but not for
    /// copying to another machine.
    debug: bool,
    /// Where to write the report instead of standard output.
    report: Option<PathBuf>,
    /// Creates the report from a log of another machine; builds and runs nothing.
    read: Option<PathBuf>,
}

impl Options {
    /// Parses the options.
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(flag) = args.next() {
            match flag.as_str() {
                "--build-only" => options.build_only = true,
                "--simulated" => options.simulated = true,
                "--debug" => options.debug = true,
                "--report" => options.report = Some(arguments::value(&flag, &mut args)?.into()),
                "--read" => options.read = Some(arguments::value(&flag, &mut args)?.into()),
                _ => return Err(arguments::unknown(&flag)),
            }
        }
        if options.read.is_some() && (options.build_only || options.simulated || options.debug) {
            return Err("--read builds and runs nothing; see `cargo xtask help`".to_owned());
        }
        if options.build_only && (options.simulated || options.debug || options.report.is_some()) {
            return Err("--build-only runs nothing; see `cargo xtask help`".to_owned());
        }
        Ok(options)
    }

    /// The command line that repeats this command.
    fn line(&self) -> String {
        let simulated = if self.simulated { " --simulated" } else { "" };
        let debug = if self.debug { " --debug" } else { "" };
        format!("cargo xtask gpu{simulated}{debug}")
    }

    /// The options of CI: over the simulated driver, with the report shown.
    pub(crate) fn for_ci() -> Self {
        Self { simulated: true, debug: true, ..Self::default() }
    }

    /// The profile to build with, and the folder of its output.
    fn profile(&self) -> (&'static str, &'static str) {
        if self.debug { ("dev", "debug") } else { ("gpu", "gpu") }
    }
}

/// Builds the binary, checks it, runs it, and reports.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    if let Some(path) = &options.read {
        // A log that was cut anywhere may end within a character.
        let text = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let log = Log::read(&String::from_utf8_lossy(&text))
            .map_err(|e| format!("{}: {e}", path.display()))?;
        let command = log_command(path);
        return finish(options, &log, &command, &log.failures());
    }

    let folder = build(options)?;
    let size_max = if options.debug { u64::MAX } else { SIZE_MAX };
    println!("{}: {}", folder.display(), sound(&folder, size_max)?);
    let longest = groups::longest().as_secs();
    if options.build_only {
        println!("carry the folder to the machine with the GPU; there, for {longest} s at most:");
        println!("  sh {SCRIPT} gpu.log");
        println!("then here, with all logs in one file: cargo xtask gpu --read gpu.log");
        return Ok(());
    }

    let log = folder.with_file_name("gpu.log");
    let [script, log_text] = [&folder.join(SCRIPT), &log].map(|path| path.display().to_string());
    let mut checks = shell::program("sh", &[&script, &log_text]);
    if options.simulated {
        checks = over(checks, &simulated_driver(options)?);
    }
    // A log of an earlier run is never taken for one of this run.
    let _nothing_there = fs::remove_file(&log);
    let (shown, passed) = checks.run_and_read()?;
    if shown.contains("no CUDA device") {
        return Err("no GPU to check: the line above says why. `--build-only` builds the checks \
                    for another machine, `--simulated` runs them over the simulated driver"
            .to_owned());
    }
    let text = fs::read(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let log = Log::read(&String::from_utf8_lossy(&text))?;
    let mut failures = log.failures();
    if !passed && failures.is_empty() {
        failures.push("a group failed after its checks".to_owned());
    }
    if options.simulated != log.is_simulated() {
        failures.push("the driver is not the one that was asked for".to_owned());
    }
    finish(options, &log, &options.line(), &failures)
}

/// Writes the report to the requested place, and turns failures into the command's error.
fn finish(options: &Options, log: &Log, command: &str, failures: &[String]) -> Result<(), String> {
    let report = log.markdown(command);
    match &options.report {
        None => println!("\n{report}"),
        Some(path) => {
            fs::write(path, report).map_err(|e| format!("{}: {e}", path.display()))?;
            println!("the report is in {}", path.display());
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n  ")) }
}

/// The command that creates a log on another machine: the only form that the report can be read
/// from.
fn log_command(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("sh {SCRIPT}; cargo xtask gpu --read {name}")
}

/// Builds the binary, and puts it with the script into a folder that can be carried.
fn build(options: &Options) -> Result<PathBuf, String> {
    let (profile, folder) = options.profile();
    // `--workspace` enables the features that other members request of the same crates, so the
    // output of its tests can be reused.
    let of = if options.debug { "--workspace" } else { "--package=vram-tests" };
    let commit = shell::program("git", &["describe", "--always", "--dirty", "--abbrev=40"]).read();
    // A source tree without a repository can be built too.
    let commit = commit.unwrap_or_else(|_no_git| "unknown".to_owned());
    let text = shell::cargo(&["test", "--profile", profile, of])
        .arg("--test=gpu_checks")
        .arg("--no-run")
        .arg("--message-format=json-render-diagnostics")
        .env("VRAM_GPU_COMMIT", commit.trim())
        .read_shown()?;
    let built = executable(&text).ok_or("cargo built no test `gpu_checks`")?;
    let target = workspace::target_folder()?.join(folder).join("gpu-checks");
    let failed = |error| format!("{}: {error}", target.display());
    // Nothing of an earlier build is carried.
    if target.exists() {
        fs::remove_dir_all(&target).map_err(failed)?;
    }
    fs::create_dir_all(&target).map_err(failed)?;
    fs::copy(&built, target.join(BINARY)).map_err(failed)?;
    fs::write(target.join(SCRIPT), groups::script(shell::TEST_LIMIT)).map_err(failed)?;
    Ok(target)
}

/// The executable among cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter(|message| {
            message.pointer("/target/name").and_then(Value::as_str) == Some("gpu_checks")
        })
        .find_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
}

/// A description of a folder that can be carried, or the reason why it cannot.
fn sound(folder: &Path, size_max: u64) -> Result<String, String> {
    let failed = |error| format!("{}: {error}", folder.display());
    let mut size = 0_u64;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let len = entry.and_then(|entry| entry.metadata()).map_err(failed)?.len();
        size = size.saturating_add(len);
    }
    if size >= size_max {
        return Err(format!("the folder has {size} bytes; it is to be below {size_max}"));
    }
    let needed = elf::needed(&fs::read(folder.join(BINARY)).map_err(failed)?)?;
    let strange: Vec<_> =
        needed.iter().filter(|name| !LIBRARIES.contains(&name.as_str())).cloned().collect();
    if strange.is_empty() {
        Ok(format!("{size} bytes, needs {}", needed.join(", ")))
    } else {
        Err(format!("the binary needs {} to start", strange.join(", ")))
    }
}

/// The shared object of the simulated driver, built with the same profile as the binary.
fn simulated_driver(options: &Options) -> Result<String, String> {
    let (profile, folder) = options.profile();
    shell::cargo(&["build", "--profile", profile, "-p", "cuda-sim-so"]).run()?;
    let library = workspace::target_folder()?.join(folder).join("libcuda_sim_so.so");
    if library.is_file() {
        Ok(library.to_string_lossy().into_owned())
    } else {
        Err(format!("cargo built no {}", library.display()))
    }
}

/// The binary with the simulated driver, at sizes that suit it.
fn over(child: shell::Child, library: &str) -> shell::Child {
    child
        .env("VRAM_CUDA_DRIVER", library)
        .env("CUDA_SIM_DEVICES", SIMULATED_DEVICES)
        .env("VRAM_GPU_SIZES", "2MiB,8MiB")
        .env("VRAM_GPU_KERNEL_BYTES", "1MiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, String> {
        Options::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_read_and_those_that_exclude_each_other_refused() {
        assert_eq!(parse(""), Ok(Options::default()));
        assert_eq!(parse("--simulated --debug"), Ok(Options::for_ci()));
        let report = parse("--simulated --report r.md").unwrap();
        assert_eq!((report.report, report.simulated), (Some("r.md".into()), true));
        assert_eq!(parse("--read gpu.log").unwrap().read, Some("gpu.log".into()));
        for wrong in [
            "--fast",
            "--read",
            "--report",
            "--read l --simulated",
            "--read l --build-only",
            "--build-only --report r",
            "--build-only --debug",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_executable_is_found_among_cargos_messages() {
        let messages = "\
            {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"vram_tests\"},\"executable\":null}\n\
            not json\n\
            {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"gpu_checks\"},\"executable\":\"/t/gpu_checks-1\"}\n";
        assert_eq!(executable(messages), Some("/t/gpu_checks-1".into()));
        assert_eq!(executable("{}\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_binary_that_needs_more_than_libc_or_is_too_large_is_refused() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let sound_with = |file: &[u8], size_max| {
            fs::write(folder.path().join(BINARY), file).unwrap();
            sound(folder.path(), size_max)
        };
        assert!(sound_with(&own, u64::MAX).unwrap().contains("libc.so.6"));
        // The name of one of its libraries is changed to one that no machine has.
        let mut strange = own.clone();
        let name = b"libc.so.6\0";
        for place in 0..strange.len() - name.len() {
            if strange[place..].starts_with(name) {
                strange[place..place + 4].copy_from_slice(b"libq");
            }
        }
        assert!(sound_with(&strange, u64::MAX).unwrap_err().contains("libq.so.6"));
        // Whatever else lies there counts too.
        fs::write(folder.path().join("more"), [0; 10]).unwrap();
        let limit = u64::try_from(own.len()).unwrap() + 10;
        assert!(sound_with(&own, limit).unwrap_err().contains("bytes"));
        assert!(sound_with(&own, limit + 1).is_ok());
        fs::remove_file(folder.path().join(BINARY)).unwrap();
        assert!(sound(folder.path(), u64::MAX).is_err(), "no binary");
    }
}
