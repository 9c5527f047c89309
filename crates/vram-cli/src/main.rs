//! The program `vram`: turns the command line into one call of a command, and its outcome into an
//! exit code.

#![forbid(unsafe_code)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod args;
mod cards;
mod commands;
mod failure;
mod interrupt;
mod model;
mod output;
mod progress;
mod steps;
mod streams;
mod table;
mod usage;

use std::env;
use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Cli, Command};
use crate::commands::operator::{bench, manual, soak, view};
use crate::commands::{demo, devices, image, inspect, keys, load, plan, serve, store, verify};
use crate::output::{Json, Output};

fn main() -> ExitCode {
    let args: Vec<_> = env::args_os().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return usage::answer(&error, &args),
    };
    let json = cli.command.json().map(|json| Json {
        stdout_is_taken: json.stdout_is_taken || streams::stdout_is_named(&args),
        ..json
    });
    let mut output = Output::new(json);
    let _log = match cli.log.start(matches!(cli.command, Command::Serve(_))) {
        Ok(log) => log,
        Err(failure) => return output.fail(failure).exit_code(),
    };
    if !cli.allow_core_dumps
        && let Err(error) = vram_residency::deny_core_dumps()
    {
        output::note(format!("core dumps may hold keys: {error}"));
    }
    if let Err(error) = interrupt::fail_past_file_limit() {
        output::note(format!("a limit on files would end this process: {error}"));
    }
    let outcome = match &cli.command {
        Command::Load(args) => match &args.store {
            Some(from) => store::load(args, from, &mut output),
            None => store::is_not_needed(args).and_then(|()| load::run(args, &mut output)),
        },
        Command::Plan(args) => plan::run(args, &mut output),
        Command::Devices(args) => devices::list(args, &mut output),
        Command::Demo(args) => demo::run(args, &mut output),
        Command::Seal(args) => image::seal(args, &mut output),
        Command::Unseal(args) => image::unseal(args, &mut output),
        Command::Verify(args) => verify::verify(args, &mut output),
        Command::Inspect(args) => inspect::run(args, &mut output),
        Command::Keygen(args) => keys::generate(args, &mut output),
        Command::Push(args) => store::push(args, &mut output),
        Command::Pull(args) => store::pull(args, &mut output),
        Command::Store(args) => store::run(args, &mut output),
        Command::View(args) => view::run(args, &mut output),
        Command::Soak(args) => soak::run(args, &mut output),
        Command::Bench(args) => bench::run(args, &mut output),
        Command::Completions(args) => manual::completions(args, &mut output),
        Command::Man(args) => manual::man(args, &mut output),
        Command::Serve(args) => serve::run(args, &mut output),
        Command::Ps(args) => serve::ps::ps(args, &mut output),
        Command::Top(args) => serve::ps::top(args, &mut output),
        Command::Stop(args) => serve::ctl::stop(args, &mut output),
        Command::Ctl(args) => serve::ctl::run(args, &mut output),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output.fail(failure).exit_code(),
    }
}
