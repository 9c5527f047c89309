//! Calls on whole models of many small shards, of few large ones, and of what lies between, beside
//! each other in one run: as GB/s, as µs a shard, and as a share of the rate of the largest shards.
//!
//! ```text
//! cargo bench -p vram-residency --bench mixes -- [--quick] [--threads N] [--mix N [--shards N]] [--rounds N]
//! ```
//!
//! Two host devices, their pages touched before; Encrypted; medians of 5 rounds, of 3 with `--quick`.
//! `--mix 0` runs the smallest shards alone, for a profiler.
//!
//! Fixed costs: the time of a call on 4 KiB, less what 4 KiB take at the rate at which one thread does
//! the same call on the largest shards.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and may panic"
)]

use core::hint::black_box;
use core::time::Duration;
use std::time::Instant;

use vram_residency::{
    AdmitRequest, ByteLen, GpuChoice, ModelPlan, Piece, ReadBack, SealRequest, SliceSource,
    Threads, Verify, VramManager,
};

const KIB: u64 = 1 << 10;

/// The number of shards, and the bytes of each. The last is what the others are compared with.
const MIXES: [(u64, u64); 6] = [
    (10_000, 4 * KIB),
    (10_000, 16 * KIB),
    (1_000, 256 * KIB),
    (250, 1024 * KIB),
    (64, 4096 * KIB),
    (4, 64 << 20),
];

const CALLS: [&str; 9] = [
    "seal each",
    "admit",
    "verify each",
    "verify_model",
    "unseal each",
    "migrate",
    "park",
    "wake",
    "free",
];

/// The calls on one shard after the other, and where each stands in [`CALLS`].
const EACH: [(&str, usize); 3] = [("seal", 0), ("verify", 2), ("unseal", 4)];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let value = |flag: &str| {
        let mut after = arguments.iter().skip_while(|argument| *argument != flag).skip(1);
        after.next().map(|value| value.parse::<usize>().unwrap())
    };
    let rounds = value("--rounds").unwrap_or(if quick { 3 } else { 5 });
    let room = ByteLen::new(300 << 20);
    let mut builder = VramManager::builder().host_device(room).host_device(room);
    if let Some(threads) = value("--threads") {
        builder = builder.threads(Threads::exactly(threads));
    }
    let manager = builder.build().unwrap();
    let mixes = MIXES.map(|(count, len)| Mix::new(count, len));
    if let Some(mix) = value("--mix") {
        let (count, len) = MIXES[mix];
        let count = value("--shards").map_or(count, |count| u64::try_from(count).unwrap());
        let mix = Mix::new(count, len);
        for _ in 0..rounds {
            let _timed = mix.round(&manager);
        }
        return;
    }

    let largest = &mixes[MIXES.len() - 1];
    let single = VramManager::builder().host_device(room).threads(Threads::ONE).build().unwrap();
    // The pages of all devices are touched before anything is timed.
    let _touched = (largest.round(&manager), largest.each(&single));
    let mut took = vec![vec![Vec::new(); CALLS.len()]; mixes.len()];
    let mut of_one_thread = [const { Vec::new() }; EACH.len()];
    for _ in 0..rounds {
        for (took, call) in of_one_thread.iter_mut().zip(largest.each(&single)) {
            took.push(call);
        }
        for (mix, took) in mixes.iter().zip(&mut took) {
            for (call, took) in mix.round(&manager).into_iter().zip(took) {
                took.push(call);
            }
        }
    }
    let median = |took: &Vec<Duration>| {
        let mut took = took.clone();
        took.sort_unstable();
        took[took.len() / 2].as_secs_f64()
    };
    let bytes = |mix: usize| {
        let (count, len) = MIXES[mix];
        f64::from(u32::try_from(count * len).unwrap())
    };
    println!("GB/s (share of the last column's rate), µs a shard; medians of {rounds} rounds");
    print!("{:14}", "");
    for (count, len) in MIXES {
        print!("{:>22}", format!("{count} x {} KiB", len / KIB));
    }
    println!();
    for (at, call) in CALLS.iter().enumerate() {
        print!("{call:14}");
        let rate = |mix: usize| bytes(mix) / median(&took[mix][at]) / 1e9;
        for (mix, (count, _)) in MIXES.iter().enumerate() {
            let each = median(&took[mix][at]) * 1e6 / f64::from(u32::try_from(*count).unwrap());
            let share = rate(mix) / rate(MIXES.len() - 1);
            print!("{:>22}", format!("{:.2} ({share:.2}) {each:.1}", rate(mix)));
        }
        println!();
    }
    for ((name, at), large) in EACH.iter().zip(&of_one_thread) {
        let (count, len) = MIXES[0];
        let call = median(&took[0][*at]) * 1e6 / f64::from(u32::try_from(count).unwrap());
        let rate = bytes(MIXES.len() - 1) / median(large);
        let of_bytes = f64::from(u32::try_from(len).unwrap()) / rate * 1e6;
        println!(
            "fixed cost of {name}: {:.2} us, of {call:.2}; one thread takes {of_bytes:.2} for 4 KiB at {:.2} GB/s",
            call - of_bytes,
            rate / 1e9
        );
    }
}

/// A model of shards of one length.
struct Mix {
    plan: ModelPlan,
    file: Vec<u8>,
    len: u64,
}

impl Mix {
    fn new(count: u64, len: u64) -> Self {
        let piece = |at| Piece::new(format!("t{at}"), 0, at * len, ByteLen::new(len));
        let plan = ModelPlan::new((0..count).map(piece)).unwrap();
        let file = (0..count * len).map(|at| (at ^ (at >> 9)).to_le_bytes()[0]).collect();
        Self { plan, file, len }
    }

    /// How long each of [`EACH`] takes.
    fn each(&self, manager: &VramManager) -> [Duration; EACH.len()] {
        let mut parts = self.file.chunks(usize::try_from(self.len).unwrap());
        let request = SealRequest::new("mix", 0).read_back(ReadBack::None);
        let mut seal = || manager.seal(request.clone(), black_box(parts.next().unwrap())).unwrap();
        let (shards, sealed) =
            timed(|| self.plan.pieces().iter().map(|_| seal()).collect::<Vec<_>>());
        let mut out = vec![1; usize::try_from(self.len).unwrap()];
        let ((), verified) = timed(|| {
            for shard in &shards {
                assert!(manager.verify(shard, Verify::Segments).unwrap().sound);
            }
        });
        let ((), unsealed) = timed(|| {
            for shard in &shards {
                manager.unseal_into(shard, black_box(&mut out)).unwrap();
            }
        });
        for shard in &shards {
            manager.free_shard(shard).unwrap();
        }
        [sealed, verified, unsealed]
    }

    /// How long each of [`CALLS`] takes.
    fn round(&self, manager: &VramManager) -> [Duration; CALLS.len()] {
        let [sealed, verified, unsealed] = self.each(manager);
        let source = vec![SliceSource::new(&self.file)];
        let request = || AdmitRequest::new("mix", GpuChoice::One(0)).read_back(ReadBack::None);
        let (model, admitted) = timed(|| manager.admit(request(), &self.plan, &source).unwrap());
        let (verdict, verified_all) =
            timed(|| manager.verify_model(&model, Verify::Segments).unwrap());
        assert!(verdict.sound);
        let (model, migrated) = timed(|| manager.migrate_model(&model, 1).unwrap());
        let (parked, parking) = timed(|| manager.park_model(&model).unwrap());
        let (model, waking) = timed(|| manager.wake_model(parked, GpuChoice::One(0)).unwrap());
        let (receipts, freed) = timed(|| manager.free_model(&model).unwrap());
        assert_eq!(receipts.len(), self.plan.pieces().len());
        [sealed, admitted, verified, verified_all, unsealed, migrated, parking, waking, freed]
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}
