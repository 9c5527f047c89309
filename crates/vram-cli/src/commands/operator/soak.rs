//! `vram soak`: a burn-in of devices for a set time, and a verdict.

mod found;
mod live;
mod rounds;
mod tally;
#[cfg(test)]
mod tests;

use core::hash::BuildHasher as _;
use core::time::Duration;
use std::fs;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use vram_residency::device::fault::FaultDevice;
use vram_residency::{Budget, ByteLen, CancelToken, DeviceInfo, DeviceKind, VramManager};

pub(super) use self::found::content;
use self::live::{CHECKED, Live, WRITTEN, clock};
use self::rounds::{ALTERATIONS_MAX, Rounds};
use self::tally::{Alteration, Step, Tally};
use crate::args::{SEED_MAX, SoakArgs};
use crate::commands::devices::Devices;
use crate::failure::{Failure, Kind};
use crate::output::{Output, note};
use crate::{interrupt, table};

/// The size of the host device where the user names none.
const DEFAULT_LEN: ByteLen = ByteLen::new(256 << 20);
/// The smallest device that a soak fills in a sensible way.
const LEN_MIN: ByteLen = ByteLen::new(1 << 20);

/// The result, as JSON shows it. Lengths are in bytes, times in seconds.
#[derive(Debug, Serialize)]
struct Report {
    /// `sound`, `altered`, `failed` or `interrupted`.
    verdict: &'static str,
    seed: u64,
    seconds: f64,
    wanted_seconds: f64,
    rounds: u64,
    devices: Vec<Tested>,
    steps: Vec<Tally>,
    flips_made: u64,
    flips_found: u64,
    altered_count: usize,
    alterations: Vec<Alteration>,
    /// Whether every device's figures are what they were before.
    capacity_restored: bool,
    next: String,
}

/// A device that was tested.
#[derive(Debug, Serialize)]
struct Tested {
    name: String,
    uuid: String,
    total: u64,
    /// Bytes of it that the soak may use.
    budget: u64,
    /// The most bytes of it that shards took at one time, in whole granules.
    filled: u64,
}

/// Runs the soak, and prints its verdict.
pub(crate) fn run(args: &SoakArgs, output: &mut Output) -> Result<(), Failure> {
    let token = interrupt::token()?;
    let mut devices = Devices::open(&args.devices, args.size.unwrap_or(DEFAULT_LEN))?;
    if let Some(why) = &devices.why {
        output.line(why)?;
    }
    let flips = if args.flip { devices.wrap_hosts() } else { Vec::new() };
    if args.flip && flips.iter().all(Option::is_none) {
        return Err(Failure::usage("--flip changes the memory of host devices, and there is none")
            .hint("leave --flip out, or add a host device, such as --device host:1GiB"));
    }
    let infos = devices.infos();
    output.set_cards(infos.clone());
    let mut builder = devices.builder(args.size.unwrap_or(ByteLen::new(!255)))?;
    let mut of_host = ByteLen::ZERO;
    for (gpu, info) in (0..).zip(&infos).filter(|(_, info)| info.kind == DeviceKind::Host) {
        let len = args.size.unwrap_or(info.total).min(info.total);
        of_host = of_host.saturating_add(len);
        builder = builder.budget(gpu, Budget::Bytes(ByteLen::new(len.get() & !255)));
    }
    fits_into_the_host(of_host)?;
    let manager = builder.build()?;
    for gpu in 0..manager.gpu_count() {
        let total = manager.capacity(gpu)?.total;
        if total < LEN_MIN {
            return Err(Failure::usage(format!(
                "gpu {gpu} has {} for the soak, and {} are the least",
                table::size(total),
                table::size(LEN_MIN)
            ))
            .hint("give a larger --device or --size"));
        }
    }
    let seed = args.seed.unwrap_or_else(|| RandomState::new().hash_one(0_u8) & SEED_MAX);
    note(format!(
        "soak of {} for {}, seed {seed}; Ctrl-C ends it with the verdict so far",
        table::count(manager.gpu_count(), "device"),
        clock(args.time)
    ));
    let soaked = soak(&manager, &flips, &token, args.time, seed);
    print(soaked, (args, &infos, seed), output)
}

/// What a soak did, and the failure that ended it early.
struct Soaked {
    report: Report,
    table: String,
    failure: Option<Failure>,
}

/// Runs the rounds, on a manager that holds nothing.
fn soak(
    manager: &VramManager,
    flips: &[Option<Arc<FaultDevice>>],
    token: &CancelToken,
    time: Duration,
    seed: u64,
) -> Soaked {
    let began = Instant::now();
    let before = figures(manager);
    let until = began.checked_add(time).unwrap_or(began);
    let mut rounds = Rounds::new(manager, flips, token, (until, Live::new(time)), seed);
    let failure = rounds.run().err();
    let altered_count = rounds.alterations.len();
    let verdict = match (&failure, altered_count) {
        (_, 1..) => "altered",
        (Some(_), 0) => "failed",
        (None, 0) if token.is_cancelled() => "interrupted",
        (None, 0) => "sound",
    };
    let capacity_restored = figures(manager) == before;
    let of = manager.gpus().into_iter().zip(&rounds.filled).zip(0..);
    let devices = of.map(|((info, filled), gpu)| Tested {
        budget: manager.capacity(gpu).map_or(0, |capacity| capacity.total.get()),
        name: info.name,
        uuid: info.uuid.to_string(),
        total: info.total.get(),
        filled: filled.get(),
    });
    let report = Report {
        verdict,
        seed,
        seconds: began.elapsed().as_secs_f64(),
        wanted_seconds: time.as_secs_f64(),
        rounds: rounds.whole,
        devices: devices.collect(),
        steps: rounds.tallies.made(),
        flips_made: rounds.tallies.count(Step::Flip),
        flips_found: rounds.flips_found,
        altered_count,
        alterations: rounds.alterations.clone(),
        capacity_restored,
        next: next(verdict, rounds.whole).to_owned(),
    };
    let (written, checked) = (rounds.tallies.bytes(&WRITTEN), rounds.tallies.bytes(&CHECKED));
    let table = format!(
        "{}  bytes: content of the shards; what was filled was freed\n\n{} written (fill, move, wake) and {} \
         checked (verify, fingerprint, read), in {} after {}\n",
        rounds.tallies.table(),
        table::size(written),
        table::size(checked),
        table::count(rounds.whole, "whole round"),
        clock(began.elapsed()),
    );
    Soaked { report, table, failure }
}

/// What to do after a verdict.
const fn next(verdict: &str, rounds: u64) -> &'static str {
    match (verdict.as_bytes(), rounds) {
        (b"altered", _) => {
            "take the device out of service: look at its ECC counters and Xid messages (`nvidia-smi -q -d ECC`, \
             `dmesg`); for host memory run a memory test; repeat with the same --seed after a change"
        }
        (b"failed", _) => {
            "see `vram devices`, and `dmesg` for errors of the driver; then run it again"
        }
        (b"interrupted", _) => "run it again for the whole time",
        (_, 0) => "give it more time: no round was completed, so not every step was tested",
        _ => "nothing; before a new card is trusted, let it run for hours: --for 12h",
    }
}

/// Used and free bytes of each GPU.
fn figures(manager: &VramManager) -> Vec<Option<(ByteLen, ByteLen)>> {
    let of = |gpu| manager.capacity(gpu).ok().map(|capacity| (capacity.used, capacity.free));
    (0..manager.gpu_count()).map(of).collect()
}

/// Prints the verdict; the outcome of the command follows from it.
fn print(
    soaked: Soaked,
    (args, infos, seed): (&SoakArgs, &[DeviceInfo], u64),
    output: &mut Output,
) -> Result<(), Failure> {
    let Soaked { report, table, failure } = soaked;
    output.write(&table)?;
    for (gpu, (tested, info)) in report.devices.iter().zip(infos).enumerate() {
        output.line(format!(
            "gpu {gpu}: {} ({}), shards took up to {} of the {} that the soak may use of {}",
            tested.name,
            info.uuid,
            table::size(ByteLen::new(tested.filled)),
            table::size(ByteLen::new(tested.budget)),
            table::size(ByteLen::new(tested.total)),
        ))?;
    }
    if args.flip {
        output.line(format!(
            "flipped on purpose: {}, of which {} found",
            table::count(report.flips_made, "bit"),
            report.flips_found
        ))?;
    }
    for one in report.alterations.iter().take(20) {
        let place = one.offset.map_or_else(String::new, |offset| format!(" at byte {offset}"));
        output.line(format!(
            "ALTERED on gpu {}{place}: round {}, {}: {}",
            one.gpu, one.round, one.step, one.what
        ))?;
    }
    let stopped = match &failure {
        Some(failure) if failure.kind() == Kind::Interrupted => None,
        other => other.as_ref(),
    };
    if let Some(failure) = stopped {
        output.line(format!("ended early: {failure}"))?;
    }
    let words = match report.verdict {
        "altered" => "ALTERED: bytes changed in device memory that nobody changed on purpose",
        "failed" => "FAILED: the soak could not go on",
        "interrupted" => "interrupted: sound so far",
        _ => "sound: nothing was altered",
    };
    output.line(format!("verdict: {words}"))?;
    output.line(format!("next: {}", report.next))?;

    let outcome = match report.verdict {
        "altered" => {
            let more = if report.altered_count >= ALTERATIONS_MAX { " at least" } else { "" };
            let gpu = report.alterations.first().map(|one| one.gpu);
            let count = u64::try_from(report.altered_count).unwrap_or(u64::MAX);
            Some(
                Failure::integrity(format!(
                    "{}{more} in device memory, with seed {seed}",
                    table::count(count, "alteration")
                ))
                .detail(|details| details.gpu = gpu)
                .hint(report.next.clone()),
            )
        }
        "interrupted" => Some(Failure::interrupted()),
        _ if failure.is_some() => failure,
        _ if !report.capacity_restored => {
            Some(Failure::new(Kind::Device, "not all capacity came back after the soak"))
        }
        _ => None,
    };
    match outcome {
        None => output.json(&report),
        Some(failure) => {
            output.json_failed(&report, &failure)?;
            Err(failure)
        }
    }
}

/// Refuses host devices that the host has no memory for: the kernel would end this program, or another.
fn fits_into_the_host(wanted: ByteLen) -> Result<(), Failure> {
    let Some(available) = available(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
    else {
        return Ok(());
    };
    if wanted <= available {
        return Ok(());
    }
    Err(Failure::new(
        Kind::NoRoom,
        format!(
            "host devices of {} are asked for, and this host has {} available",
            table::size(wanted),
            table::size(available)
        ),
    )
    .code("host-memory")
    .hint("give a smaller --device host:SIZE, or --size"))
}

/// The memory that a host has available, from the text of `/proc/meminfo`.
fn available(meminfo: &str) -> Option<ByteLen> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024).map(ByteLen::new)
}
