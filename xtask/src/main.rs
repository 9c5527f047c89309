//! `cargo xtask`: property, stress, bench, layer and CI commands of this workspace.
//!
//! This file contains the help text and the `match`; each command is a file of its own.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program prints")]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod arguments;
mod bench;
mod book;
mod ci;
mod examples;
mod fuzz;
mod gpu;
mod layers;
mod model;
mod models;
mod operator;
mod page;
mod planted;
mod proptest;
mod ptx;
mod python;
mod reuse;
mod shell;
mod store;
mod stress;
mod summary;
mod tour;
mod workspace;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND [OPTIONS]

  proptest [--cases N] [--only CRATE]     every property suite (test targets prop_*, property_*), overflow checks on
  stress [--minutes N] [--seed S] [--only TARGET]
                                          every stress suite (test targets stress_*) for N minutes in all, then the models of concurrency
  fuzz [--minutes N] [--only TARGET [--replay FILE]] [--list] [--plain]
                                          everything that reads bytes of others, under libFuzzer for N minutes in all
                                          (--replay: one input again; --plain: random changes, without coverage)
  bench [--only PART|CRATE] [--quick [--debug]] [--peers] [--accept]
                                          everything that measures, with a report and pictures in target/bench, and ratios beside
                                          those of docs/performance.json (--quick: whether it works; --debug: built as the tests
                                          are; --peers: also age, openssl and others; --accept: commits the ratios of the last run)
  counts [--update]                       instructions of hot paths, counted by valgrind, beside those of xtask/counts.txt
  gpu [--build-only] [--simulated [--debug]] [--report FILE] [--read LOG]
                                          checks and measures the GPUs of this machine, with a report in Markdown
                                          (--build-only: a folder with the checks, to carry elsewhere; --read: the report of
                                          its logs, joined or cut off; --simulated: over the simulated driver, to check the checks;
                                          --debug: built as the tests are)
  ptx [--check]                           the PTX of the kernels from their sources, with clang-19 (--check: whether it is what its
                                          source and the table of kernels say, and what an assembler makes of it, where there is one)
  store [--engine seaweedfs] [--quick]    stores over HTTP and S3, pushes and pulls that are killed, and speed as ratios (not with --quick)
                                          (--engine: a real S3 server, which scripts/engines brings)
  python [--seconds N] [--torch] [--bench | --valgrind]
                                          builds the Python package and runs its tests in a virtual environment of its own
                                          (--seconds: of each stress test; --torch: also what needs torch, which pip
                                          fetches; --bench: measures instead, beside safetensors; --valgrind: the stress
                                          tests alone, under memcheck)
  operator                                alert rules and service unit of docs/operator, by promtool and systemd-analyze
  tour [--check] [--programs FOLDER]      docs/tour.md, made by running what it shows (--check: compared; --programs: built ones)
  book                                    the links of all pages, then docs as a book in target/book, by mdBook
  page                                    the page that people look at, tried in Chromium, with pictures in target/page
  examples                                runs every example, as it is built for the tests
  outside                                 builds and runs a program outside the workspace, as the facade's README says
  package [--verify]                      packs every crate that is published, as a registry would take it (--verify: builds each)
  deny                                    licences and sources of all foreign crates; by cargo-deny too, where it is
  layers                                  who may import whom, crates and files: against what the manifests and sources say
  planted [--only NAME] [--list]          plants faults in a copy of the workspace, and checks that the suites notice each
  ci [--after-tests]                      what CI runs, in the same order (--after-tests leaves the test command out)
  model                                   fetches a real model (90.9 MB) into target/model/ with pip
  help                                    this text
";

fn main() -> ExitCode {
    // Commands use paths from the top of the workspace, wherever they are started.
    if let Err(error) = std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")) {
        eprintln!("xtask: the workspace is not where this program was built: {error}");
        return ExitCode::FAILURE;
    }
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_else(|| "help".to_owned());
    let result = match command.as_str() {
        "proptest" => proptest::Options::parse(args).and_then(|options| proptest::run(&options)),
        "stress" => stress::Options::parse(args).and_then(|options| stress::run(&options)),
        "bench" => bench::Options::parse(args).and_then(|options| bench::run(&options)),
        "counts" => {
            bench::counts::Options::parse(args).and_then(|options| bench::counts::run(&options))
        }
        "gpu" => gpu::Options::parse(args).and_then(|options| gpu::run(&options)),
        "examples" => arguments::none(args).and_then(|()| examples::run()),
        "fuzz" => fuzz::Options::parse(args).and_then(|options| fuzz::run(&options)),
        "ptx" => ptx::Options::parse(args).and_then(|options| ptx::run(&options)),
        "store" => store::Options::parse(args).and_then(|options| store::run(&options)),
        "python" => python::Options::parse(args).and_then(|options| python::run(&options)),
        "operator" => arguments::none(args).and_then(|()| operator::run()),
        "tour" => tour::Options::parse(args).and_then(|options| tour::run(&options)),
        "book" => arguments::none(args).and_then(|()| book::run()),
        "page" => arguments::none(args).and_then(|()| page::run()),
        "outside" => arguments::none(args).and_then(|()| gpu::outside::run()),
        "package" => {
            reuse::package::Options::parse(args).and_then(|options| reuse::package::run(&options))
        }
        "deny" => arguments::none(args).and_then(|()| reuse::deny::run()),
        "layers" => arguments::none(args).and_then(|()| layers::run()),
        "ci" => ci::Options::parse(args).and_then(|options| ci::run(&options)),
        "planted" => planted::Options::parse(args).and_then(|options| planted::run(&options)),
        "model" => arguments::none(args).and_then(|()| model::run()),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(format!("no command `{other}`; see `cargo xtask help`")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
