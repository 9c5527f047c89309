//! The machine: processor, memory, kernel, and what the tools of the driver say.

use std::fs;
use std::process::Command;

use crate::rows::row;

fn say(what: &str, answer: &str) {
    row("machine", &[&what, &answer.trim()]);
}

/// The first value of a line `name : value` of a file of the system.
fn value(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Runs a program that may not be there; its first lines, or why there are none.
fn ask(program: &str, args: &[&str]) -> String {
    match Command::new(program).args(args).output() {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).lines().take(16).collect::<Vec<_>>().join("; ")
        }
        Ok(output) => format!("{program}: {}", output.status),
        Err(error) => format!("{program}: {error}"),
    }
}

#[test]
fn the_machine_says_what_it_is() {
    let unknown = || "unknown".to_owned();
    say("processor", &value("/proc/cpuinfo", "model name").unwrap_or_else(unknown));
    let threads = std::thread::available_parallelism().unwrap();
    say("host threads", &threads.to_string());
    say("memory", &value("/proc/meminfo", "MemTotal").unwrap_or_else(unknown));
    say("memory available", &value("/proc/meminfo", "MemAvailable").unwrap_or_else(unknown));
    // Page-locked memory counts against this limit where one is set.
    let locked = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let locked = locked.lines().find(|line| line.starts_with("Max locked memory"));
    say("limit of locked memory", locked.unwrap_or("unknown"));
    say("system", &fs::read_to_string("/proc/version").unwrap_or_else(|_| unknown()));
    let module = fs::read_to_string("/proc/driver/nvidia/version");
    let module = module.unwrap_or_else(|error| format!("/proc/driver/nvidia/version: {error}"));
    say("kernel module", module.lines().next().unwrap_or_default());
    let query = "--query-gpu=name,driver_version,pcie.link.gen.current,pcie.link.width.current,\
                 clocks.sm,power.draw,temperature.gpu,ecc.errors.uncorrected.volatile.total,\
                 mig.mode.current,persistence_mode";
    say("nvidia-smi", &ask("nvidia-smi", &[query, "--format=csv"]));
}
