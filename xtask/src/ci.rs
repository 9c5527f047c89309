//! `cargo xtask ci`: the steps of CI, in the same order, each step timed.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::{
    arguments,
    bench::{self, counts},
    examples, fuzz, gpu, layers, models, operator, page, proptest, ptx, python, reuse, shell,
    store,
    summary::{self, Ran},
    tour, workspace,
};

/// The command line of this command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Skips the test command: the caller has run it.
    after_tests: bool,
}

impl Options {
    /// Parses the options.
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { after_tests: false };
        for flag in args {
            match flag.as_str() {
                "--after-tests" => options.after_tests = true,
                _ => return Err(arguments::unknown(&flag)),
            }
        }
        Ok(options)
    }
}

/// One step: its name in the table and what it does.
type Step = (String, Box<dyn Fn() -> Result<Ran, String>>);

/// Runs every step, also after one has failed, so that one run reports all failures.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let mut steps: Vec<Step> = Vec::new();
    if !options.after_tests {
        push(&mut steps, "tests", || {
            shell::cargo(&["test", "--workspace", "--no-fail-fast"]).run()
        });
    }
    push(&mut steps, "examples", examples::run);
    push(&mut steps, "the tour", || tour::run(&tour::Options::for_ci()));
    push(&mut steps, "format", || shell::cargo(&["fmt", "--all", "--", "--check"]).run());
    push(&mut steps, "layers", layers::run);
    push(&mut steps, "packages", || reuse::package::run(&reuse::package::Options::for_ci()));
    // Prints NOT RUN for the part that needs cargo-deny.
    push(&mut steps, "licences and sources", reuse::deny::run);
    // Prints NOT RUN for what needs a tool that is not there.
    push(&mut steps, "PTX of the kernels", || ptx::run(&ptx::Options::for_ci()));
    push(&mut steps, "lints", || {
        shell::cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]).run()
    });
    // Not part of `--all-targets`: a plain test run must not build it.
    push(&mut steps, "lints of the GPU checks", || {
        let target = ["clippy", "--workspace", "--test", "gpu_checks", "--", "-D", "warnings"];
        shell::cargo(&target).run()
    });
    // `--workspace` enables every feature that any member requests. Each library is therefore also
    // checked alone, as another project would use it.
    for package in workspace::packages()? {
        if !package.targets.iter().any(|target| target.kind == "lib") {
            continue;
        }
        let mut variants = vec!["--no-default-features"];
        // libFuzzer is C++, which nothing else here needs.
        // Those of vram-store and of its suite bring a client and a server for HTTP: if there is time,
        // below.
        let buildable = !["vram-store", "vram-tests"].contains(&package.name.as_str())
            && (package.name != fuzz::PACKAGE || fuzz::cxx().is_some());
        if !package.features.is_empty() && buildable {
            variants.push("--all-features");
        }
        for variant in variants {
            let name = package.name.clone();
            push(&mut steps, &format!("{name} {variant}"), move || {
                let clippy = ["clippy", "-p", &name, variant, "--", "-D", "warnings"];
                in_time(&format!("cargo {}", clippy.join(" ")), || shell::cargo(&clippy).run())
            });
        }
    }
    push(&mut steps, "docs", || {
        shell::cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings").run()
    });
    push(&mut steps, "properties", || proptest::run(&proptest::Options::short()));
    push(&mut steps, "GPU checks, simulated", || gpu::run(&gpu::Options::for_ci()));
    push(&mut steps, "vram with CUDA", || {
        let target = ["test", "--workspace", "--features", "vram-cli/cuda", "--test", "cli"];
        shell::cargo(&target).args(&["--", "cuda", "program"]).run()
    });
    let mut late = late_steps()?;
    let day = usize::try_from(now() / DAY).unwrap_or(0);
    let first = day.checked_rem(late.len()).unwrap_or(0);
    late.rotate_left(first);
    steps.append(&mut late);

    let mut rows = Vec::new();
    for (name, step) in steps {
        println!("\n=== {name}");
        let started = Instant::now();
        let (ran, failure) = match step() {
            Ok(ran) => (ran, None),
            Err(failure) => (Ran::Done, Some(failure)),
        };
        rows.push(summary::Row { name, tests: None, took: started.elapsed(), ran, failure });
    }
    summary::finish("CI", &rows)
}

/// What takes long builds of its own comes last, and only while there is time. Each day another step is the
/// first of them, so that none is always left out.
fn late_steps() -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    push(&mut steps, "main job", || {
        let demo = ["run", "--release", "-p", "vram-cli", "--", "demo"];
        in_time("cargo run --release -p vram-cli -- demo", || shell::cargo(&demo).run())
    });
    push(&mut steps, "a program outside the workspace", || {
        in_time("cargo xtask outside", gpu::outside::run)
    });
    push_models(&mut steps)?;
    push(&mut steps, "vram-store --all-features", || {
        let clippy = ["clippy", "-p", "vram-store", "--all-features", "--", "-D", "warnings"];
        in_time("cargo clippy -p vram-store --all-features", || shell::cargo(&clippy).run())
    });
    // Prints NOT RUN where there is no Python.
    push(&mut steps, "the Python package", || {
        in_time("cargo xtask python", || python::run(&python::Options::for_ci()))
    });
    // Prints NOT RUN for each program that is not there.
    push(&mut steps, "files for operators", operator::run);
    // Prints NOT RUN without chromedriver.
    push(&mut steps, "the page", || in_time("cargo xtask page", page::run));
    // Not how fast it is, but whether all that measures still does.
    push(&mut steps, "benches", || {
        in_time("cargo xtask bench --quick", || bench::run(&bench::Options::for_ci()))
    });
    push(&mut steps, "vram-tests --features store", || {
        let suite = ["clippy", "-p", "vram-tests", "--features", "store", "--all-targets"];
        let clippy = shell::cargo(&suite).args(&["--", "-D", "warnings"]);
        in_time(&clippy.line(), || clippy.run())
    });
    // Prints NOT RUN for the part that needs a server which cannot be had.
    push(&mut steps, "stores over HTTP and S3", || {
        in_time("cargo xtask store --engine seaweedfs --quick", store::run_in_ci)
    });
    // Prints NOT RUN without valgrind.
    push(&mut steps, "instruction counts", || {
        in_time("cargo xtask counts", || counts::run(&counts::Options::for_ci()))
    });
    Ok(steps)
}

/// Runs a step, unless CI has run for so long that it might not end in its half hour. `.ci/run` says in
/// a variable when it began.
fn in_time(command: &str, step: impl FnOnce() -> Result<(), String>) -> Result<Ran, String> {
    let now = now();
    let began = std::env::var("VRAM_CI_BEGAN").ok().and_then(|text| text.parse().ok());
    let minutes = now.saturating_sub(began.unwrap_or(now)) / 60;
    if minutes < LATEST_MINUTES {
        return step().map(Ran::from);
    }
    println!("NOT RUN: CI has taken {minutes} minutes already; `{command}` runs it");
    Ok(Ran::Not)
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

const DAY: u64 = 24 * 60 * 60;

/// No long step begins after this.
const LATEST_MINUTES: u64 = 21;

fn push_models(steps: &mut Vec<Step>) -> Result<(), String> {
    for (name, child) in models::all(models::Effort::Short)? {
        push(steps, &format!("models, {name}"), move || {
            in_time("cargo xtask stress", || {
                summary::Row::of_tests(&name, &child)?.failure.map_or(Ok(()), Err)
            })
        });
    }
    Ok(())
}

fn push<T: Into<Ran>>(
    steps: &mut Vec<Step>,
    name: &str,
    step: impl Fn() -> Result<T, String> + 'static,
) {
    steps.push((name.to_owned(), Box::new(move || step().map(Into::into))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_strangers_refused() {
        let parse = |text: &str| Options::parse(text.split_whitespace().map(str::to_owned));
        assert_eq!(parse("--after-tests"), Ok(Options { after_tests: true }));
        assert!(parse("--skip").is_err());
    }
}
