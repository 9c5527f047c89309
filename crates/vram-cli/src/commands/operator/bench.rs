//! `vram bench`: what this machine does, beside its own memcpy.
//!
//! Everything takes turns in one run, since a shared machine changes its speed from one second to the next;
//! the figure is the median of the turns.

use core::hint::black_box;
use core::time::Duration;
use std::time::Instant;

use serde::Serialize;
use vram_residency::device::{DeviceRange, DeviceSpec, GpuError};
use vram_residency::{
    Budget, ByteLen, CancelToken, Device, DeviceKind, Protection, SealRequest, SealedShard, Verify,
    VramManager,
};

use super::soak::content;
use crate::args::BenchArgs;
use crate::commands::devices::Devices;
use crate::failure::{Failure, Kind};
use crate::output::{Output, note};
use crate::{interrupt, table};

/// Bytes and turns of a whole run, and of a quick one.
const WHOLE: (ByteLen, usize) = (ByteLen::new(256 << 20), 9);
const QUICK: (ByteLen, usize) = (ByteLen::new(64 << 20), 3);
/// Bytes that are read from the middle of a shard.
const RANGE: usize = 1 << 20;
/// The most bytes that each figure is measured with.
const LEN_MAX: ByteLen = ByteLen::new(4 << 30);

/// The result, as JSON shows it. Lengths are in bytes, rates in units of 10⁹ bytes a second.
#[derive(Debug, Serialize)]
struct Report {
    device: String,
    uuid: String,
    len: u64,
    turns: usize,
    /// Whether the device's kernels compute checks.
    kernels: bool,
    /// Whether this build is optimised: the figures of another one mean nothing.
    optimised: bool,
    figures: Vec<Figure>,
}

/// One figure.
#[derive(Debug, Serialize)]
struct Figure {
    what: &'static str,
    gb_per_s: f64,
    /// How many times as fast as memcpy of one thread.
    of_memcpy: f64,
}

/// Measures, and prints the figures.
pub(crate) fn run(args: &BenchArgs, output: &mut Output) -> Result<(), Failure> {
    let token = interrupt::token()?;
    let (len, turns) = if args.quick { QUICK } else { WHOLE };
    let len = args.size.unwrap_or(len);
    if len > LEN_MAX || len.is_zero() {
        return Err(Failure::usage(format!("--size {} is not between 1 and {LEN_MAX}", len.get()))
            .hint("leave it out"));
    }
    // Two shards, one that is sealed meanwhile, and the bytes of the plain copy.
    let room = ByteLen::new(len.get().saturating_mul(4).saturating_add(16 << 20));
    let spec = args.device.unwrap_or(DeviceSpec::Host(room));
    let mut devices = Devices::open(&[spec], room)?;
    let device = devices.first().ok_or_else(|| Failure::new(Kind::Device, "there is no device"))?;
    output.set_cards(devices.infos());
    let budget = ByteLen::new(len.get().saturating_mul(3).saturating_add(8 << 20));
    let mut builder = devices.builder(budget)?;
    if device.info().kind == DeviceKind::Host {
        if device.info().total < room {
            let (has, needs) = (table::size(device.info().total), table::size(room));
            return Err(Failure::usage(format!(
                "--device {spec} has {has}, and a measurement takes {needs}"
            ))
            .hint("leave --device out, or give a larger one; --quick takes less"));
        }
        // The rest is for the plain copy.
        builder = builder.budget(0, Budget::Bytes(ByteLen::new(budget.get() & !255)));
    }
    let manager = builder.build()?;
    if cfg!(debug_assertions) {
        note("this build is not optimised: its figures mean nothing (cargo build --release)");
    }
    let kernels = manager.metrics().gpus.first().is_some_and(|gpu| gpu.kernels.used);
    let took = Bench::new(&manager, device.as_ref(), len)?.run(turns, &token)?;
    let info = device.info();
    let memcpy = took.first().map_or(0.0, |(_, time, bytes)| table::gb_per_s(*bytes, *time));
    let figures = took.into_iter().map(|(what, time, bytes)| {
        let gb_per_s = table::gb_per_s(bytes, time);
        Figure { what, gb_per_s, of_memcpy: if memcpy > 0.0 { gb_per_s / memcpy } else { 0.0 } }
    });
    let report = Report {
        device: info.name.clone(),
        uuid: info.uuid.to_string(),
        len: len.get(),
        turns,
        kernels,
        optimised: !cfg!(debug_assertions),
        figures: figures.collect(),
    };
    let mut shown = table::Table::new(1, &["what", "GB/s", "of memcpy"]);
    for figure in &report.figures {
        shown.row([
            figure.what.to_owned(),
            format!("{:.2}", figure.gb_per_s),
            format!("{:.2}", figure.of_memcpy),
        ]);
    }
    output.line(format!(
        "{}, {}; the median of {}",
        report.device,
        table::size(len),
        table::count(u64::try_from(turns).unwrap_or(u64::MAX), "turn")
    ))?;
    output.write(&shown.render())?;
    output.json(&report)
}

/// What is measured, with all that it needs.
struct Bench<'a> {
    manager: &'a VramManager,
    device: &'a dyn Device,
    data: Vec<u8>,
    target: Vec<u8>,
    encrypted: SealedShard,
    authenticated: SealedShard,
}

/// A name, the time of its median turn, and its bytes.
type Took = (&'static str, Duration, ByteLen);

impl<'a> Bench<'a> {
    fn new(
        manager: &'a VramManager,
        device: &'a dyn Device,
        len: ByteLen,
    ) -> Result<Self, Failure> {
        let data = content(1, len.get())?;
        let target = content(2, len.get())?;
        let seal = |protection| manager.seal(request(protection), &data);
        let encrypted = seal(Protection::Encrypted)?;
        let authenticated = seal(Protection::Authenticated)?;
        Ok(Self { manager, device, data, target, encrypted, authenticated })
    }

    fn run(&mut self, turns: usize, token: &CancelToken) -> Result<Vec<Took>, Failure> {
        let mut all: Vec<(&'static str, Vec<Duration>, ByteLen)> = Vec::new();
        for turn in 0..turns {
            for (at, (what, took, bytes)) in self.turn(token)?.into_iter().enumerate() {
                if turn == 0 {
                    all.push((what, Vec::new(), bytes));
                }
                if let Some((_, times, _)) = all.get_mut(at) {
                    times.push(took);
                }
            }
        }
        Ok(all
            .into_iter()
            .map(|(what, mut times, bytes)| {
                times.sort_unstable();
                let median = times.get(times.len() / 2).copied().unwrap_or_default();
                (what, median, bytes)
            })
            .collect())
    }

    /// Everything once.
    fn turn(&mut self, token: &CancelToken) -> Result<Vec<Took>, Failure> {
        let len = ByteLen::from_usize(self.data.len());
        let mut took = Vec::new();
        let mut add = |what, time, bytes| {
            took.push((what, time, bytes));
            interrupt::check(token)
        };
        let began = Instant::now();
        self.target.copy_from_slice(black_box(&self.data));
        add("memcpy, one thread", began.elapsed(), len)?;

        add("copy to the device", self.copy_to_the_device(len)?, len)?;
        add("seal, encrypted", self.seal(Protection::Encrypted)?, len)?;
        add("seal, authenticated", self.seal(Protection::Authenticated)?, len)?;
        for (what, shard, level) in [
            ("verify by proof, encrypted", &self.encrypted, Verify::Full),
            ("verify by proof, authenticated", &self.authenticated, Verify::Full),
            ("verify by fingerprint", &self.encrypted, Verify::Fingerprint),
        ] {
            let began = Instant::now();
            let verdict = self.manager.verify(shard, level)?;
            let time = began.elapsed();
            if !verdict.sound {
                return Err(Failure::integrity("a shard was altered while it was measured")
                    .hint("`vram soak` tests the device"));
            }
            add(what, time, len)?;
        }
        let began = Instant::now();
        self.manager.unseal_into(&self.encrypted, &mut self.target)?;
        add("unseal", began.elapsed(), len)?;

        let range = RANGE.min(self.data.len());
        let start = self.data.len().saturating_sub(range) / 2;
        let target = self.target.get_mut(..range).unwrap_or_default();
        let began = Instant::now();
        self.manager.read_into(&self.encrypted, ByteLen::from_usize(start).get(), target)?;
        add("read 1 MiB from the middle", began.elapsed(), ByteLen::from_usize(range))?;
        Ok(took)
    }

    fn seal(&self, protection: Protection) -> Result<Duration, Failure> {
        let began = Instant::now();
        let shard = self.manager.seal(request(protection), black_box(&self.data))?;
        let time = began.elapsed();
        self.manager.free_shard(&shard)?;
        Ok(time)
    }

    /// A plain copy, without a check: what the bus and the device's memory can do.
    fn copy_to_the_device(&self, len: ByteLen) -> Result<Duration, Failure> {
        let failed = |error: GpuError| Failure::new(Kind::Device, error.to_string());
        let memory = self.device.allocate(len).map_err(failed)?;
        let whole = DeviceRange::whole(len);
        // The first time, the system finds the pages: that is no copy.
        memory.write(whole, &self.data).map_err(failed)?;
        let began = Instant::now();
        memory.write(whole, &self.data).map_err(failed)?;
        let time = began.elapsed();
        memory.free().map_err(|error| Failure::new(Kind::Device, error.to_string()))?;
        Ok(time)
    }
}

fn request(protection: Protection) -> SealRequest {
    SealRequest::new("bench", 0).protection(protection)
}
