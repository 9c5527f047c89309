//! The groups of checks, each a process of its own under a time limit, and the script that runs
//! them: here, and on a machine that has neither Rust nor this workspace.

use core::fmt::Write as _;
use core::time::Duration;

/// A module of the check binary.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    /// Seconds until it is ended.
    limit: u64,
    /// Whether its checks run only on request: they end the process's use of the GPU.
    on_request: bool,
}

const fn group(name: &'static str, limit: u64) -> Group {
    Group { name, limit, on_request: false }
}

/// In the order of their worth: a machine may be gone after ten minutes. The last one destroys
/// contexts.
pub(crate) const GROUPS: &[Group] = &[
    group(FIRST, 20),
    group("facts", 55),
    group("residency", 25),
    // Before what else loads kernels: a driver compiles them once.
    group("kernels", 75),
    group("contract", 65),
    group("transfers", 60),
    group("seals", 90),
    group("faults", 45),
    group("guide", 60),
    Group { name: "ending", limit: 40, on_request: true },
];

/// The group that finds the devices. Without a device, no other runs.
const FIRST: &str = "devices";

/// Seconds that a group has to end after it was asked to.
const GRACE: u64 = 5;

/// The longest run: every group at its limit.
pub(crate) fn longest() -> Duration {
    let all = GROUPS.iter().map(|group| group.limit.saturating_add(GRACE));
    Duration::from_secs(all.fold(0, u64::saturating_add))
}

/// The line in the log before a group: its name and limit follow.
pub(crate) const BEGINS: &str = "# group begins: ";
/// The line in the log after a group: its name, exit status and seconds follow.
pub(crate) const ENDED: &str = "# group ended: ";
/// The exit status of `timeout` for what it ended.
pub(crate) const TIMED_OUT: &[&str] = &["124", "137"];

/// The script, for any POSIX shell with the `timeout` of coreutils or busybox.
pub(crate) fn script(test_limit: &str) -> String {
    let mut calls = String::new();
    for Group { name, limit, on_request } in GROUPS {
        let option = if *on_request { " --ignored" } else { "" };
        // Writing to a `String` cannot fail.
        let _ = writeln!(calls, "group {limit} {name}{option}");
        if *name == FIRST {
            let _ = writeln!(calls, "grep -h 'no CUDA device' \"$log\" && exit 3");
        }
    }
    let longest = longest().as_secs();
    format!(
        r#"#!/bin/sh
# Checks the GPUs of this machine, group by group, in at most {longest} s. It takes all free memory of each
# GPU for moments, and resets it: run it where nothing else uses them.
# sh run.sh [LOG]   the log, gpu.log without one, is for `cargo xtask gpu --read LOG`. VRAM_GPU_SIZES=256MiB,1GiB
# sets the sizes of the measurements, VRAM_GPU_KERNEL_BYTES=8GiB those of kernels. Beside it, smi.csv has what nvidia-smi saw meanwhile, where there is one.
here=$(cd "$(dirname "$0")" && pwd) || exit 1
log=${{1:-gpu.log}}
: > "$log" || exit 1
failed=0
if command -v nvidia-smi > /dev/null; then
    nvidia-smi --query-gpu=timestamp,clocks.sm,power.draw,temperature.gpu,memory.used --format=csv -lms 500 \
        > "$(dirname "$log")/smi.csv" 2> /dev/null &
    smi=$!
    trap 'kill "$smi" 2> /dev/null' EXIT
fi
group() {{
    limit=$1 name=$2
    shift 2
    begun=$(date +%s)
    # An empty line before: what ran before may have been cut off within a line.
    printf '\n{BEGINS}%s, at most %s s\n' "$name" "$limit" >> "$log"
    {test_limit}=$limit timeout -k {GRACE} "$limit" \
        "$here/vram-gpu-checks" --test-threads=1 --nocapture "$name::" "$@" >> "$log" 2>&1
    status=$?
    [ "$status" = 0 ] || failed=1
    seconds=$(($(date +%s) - begun))
    printf '\n{ENDED}%s, status %s, %s s\n' "$name" "$status" "$seconds" >> "$log"
    echo "$name: status $status, $seconds s"
}}
{calls}exit "$failed"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_groups_fit_into_ten_minutes() {
        assert!(longest() < Duration::from_secs(590), "{:?}", longest());
    }

    #[test]
    fn the_script_runs_each_group_once_and_stops_without_a_device() {
        let script = script("LIMIT");
        for group in GROUPS {
            let option = if group.on_request { " --ignored" } else { "" };
            let call = format!("\ngroup {} {}{option}\n", group.limit, group.name);
            assert_eq!(script.matches(&call).count(), 1, "{call}");
        }
        assert!(script.contains("\ngroup 20 devices\ngrep"), "{script}");
        assert!(!script.contains("{{"), "{script}");
    }

    /// Every module of the binary with checks is in a group: what is not would never run.
    #[test]
    fn every_module_with_checks_is_a_group() {
        let folder = std::path::Path::new("../tests/tests/gpu_checks");
        let mut modules = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if text.contains("#[test]") {
                modules.push(path.file_stem().unwrap().to_string_lossy().into_owned());
            }
        }
        // Its checks are those of a file of the facade; and three groups are a folder.
        modules.extend(["guide", "facts", "ending", "kernels"].map(str::to_owned));
        modules.sort();
        let mut groups: Vec<_> = GROUPS.iter().map(|group| group.name).collect();
        groups.sort_unstable();
        assert_eq!(modules, groups);
    }
}
