//! Runs targets with random changes alone, where there is no libFuzzer; repeats one input; writes the
//! seeds.
//!
//! ```text
//! fuzz-plain list
//! fuzz-plain seeds
//! fuzz-plain run TARGET SECONDS SEED FOLDER   (a failing input goes to FOLDER)
//! fuzz-plain replay TARGET FILE
//! ```

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a command-line program prints")]

use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use vram_fuzz::mutate::{Dice, mutated};
use vram_fuzz::{TARGETS, Target, seeds, target};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match command(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn command(words: &[&str]) -> Result<(), String> {
    match words {
        ["list"] => {
            for target in TARGETS {
                println!("{}\t{}\t{}", target.name, target.len_max, target.promise);
            }
            Ok(())
        }
        ["seeds"] => seeds::write().map_err(|error| format!("the seeds: {error}")),
        ["run", name, seconds, seed, folder] => {
            let seconds: f64 = seconds.parse().map_err(|_| format!("{seconds} seconds"))?;
            let seed: u64 = seed.parse().map_err(|_| format!("seed {seed}"))?;
            let time = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
            run(named(name)?, time, seed, Path::new(folder))
        }
        ["replay", name, file] => {
            let input = fs::read(file).map_err(|error| format!("{file}: {error}"))?;
            (named(name)?.run)(&input);
            println!("{name}: {} bytes, no failure", input.len());
            Ok(())
        }
        _ => Err("list | seeds | run TARGET SECONDS SEED FOLDER | replay TARGET FILE".to_owned()),
    }
}

fn named(name: &str) -> Result<&'static Target, String> {
    target(name).ok_or_else(|| format!("no target `{name}`"))
}

/// Changes seeds at random until the time is over.
fn run(target: &Target, time: Duration, seed: u64, folder: &Path) -> Result<(), String> {
    let inputs: Vec<Vec<u8>> = (target.seeds)().into_iter().map(|(_, bytes)| bytes).collect();
    let mut dice = Dice::new(seed);
    let (start, mut runs) = (Instant::now(), 0_u64);
    while start.elapsed() < time {
        let input = mutated(&inputs, target.len_max, &mut dice);
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_err() {
            let file = folder.join(format!("crash-plain-{seed}-{runs}"));
            fs::write(&file, &input).map_err(|error| format!("{}: {error}", file.display()))?;
            return Err(format!("Test unit written to {}", file.display()));
        }
        runs = runs.saturating_add(1);
    }
    println!("stat::number_of_executed_units: {runs}");
    Ok(())
}
