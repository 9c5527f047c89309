//! Many threads run every operation of the facade on the same shards concurrently: seal, read,
//! verify, lease, pin, move, park, wake, open, close, seal under another key, export, import,
//! reserve, evict, compact, shrink budgets, lose and reset GPUs; in every other round one thread
//! closes the manager among the others. Some sinks wait for another thread's progress, and some
//! sources read another shard. Every call answers in time, and every refusal is judged: it must have
//! been right at some moment of the call. No returned byte is ever wrong, the ledger adds up at every
//! check, and at the end every byte that was taken is free again.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the inputs are the test's own, and a test fails by panicking"
)]

#[macro_use]
extern crate vram_testkit;

mod worker;

use core::time::Duration;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use vram_gpu::{Device as _, DeviceState};
use vram_residency::{
    ByteLen, Lru, MemoryMode, ParkedShard, ResetOptions, SealedShard, VramManager,
};
use vram_test_rigs::oracle::{Doing, Oracle, World};
use vram_tests::budget::{Budget, Draw};
use vram_tests::reference::bytes;
use vram_tests::rig::{Rig, keys};

use self::worker::Worker;

const THREADS: u64 = 6;
const TOTALS: [u64; 2] = [192 * 1024, 160 * 1024];
const PARK_LIMIT: u64 = 160 * 1024;
const STEPS: u32 = 60;
const LEN_MAX: usize = 30_000;

/// Shards in host memory, for any thread to wake.
type Yard = Mutex<Vec<ParkedShard>>;

/// A shard's name encodes its content.
fn named(seed: u64) -> String {
    format!("seed-{seed}")
}

/// The memory of a GPU.
const fn total(gpu: u32) -> u64 {
    if gpu == 0 { TOTALS[0] } else { TOTALS[1] }
}

fn key(gpu: u32) -> vram_residency::KeyId {
    let [first, second] = keys();
    if gpu == 0 { first.id() } else { second.id() }
}

fn content(shard: &SealedShard) -> Vec<u8> {
    let seed = shard.model_id.strip_prefix("seed-").and_then(|seed| seed.parse().ok());
    let len = usize::try_from(shard.plaintext_len).expect("a length of this test");
    bytes(len, seed.expect("a name of this test"))
}

fn oracle(mode: MemoryMode) -> Arc<Oracle> {
    Oracle::new(World {
        totals: TOTALS.to_vec(),
        largest: 32 * 1024,
        in_one_piece: mode == MemoryMode::Region,
        // Shards that are to be parked stay where the host has no room for them.
        all_may_go: false,
    })
}

fn round(mode: MemoryMode, seed: u64) {
    let oracle = oracle(mode);
    let rig = Rig::with(&TOTALS, seed, |builder| {
        let builder = builder.eviction(Lru).park_limit(ByteLen::new(PARK_LIMIT));
        oracle.hears(builder.memory(0, mode).memory(1, mode))
    })
    .expect("a rig can be made");
    let yard = Yard::default();
    let closes = seed.is_multiple_of(2);
    let outcomes: Vec<_> = thread::scope(|scope| {
        let (rig, yard, oracle) = (&rig, &yard, &*oracle);
        // All hands are counted before the first begins.
        let hands: Vec<_> = (0..THREADS).map(|number| (number, oracle.hand(number))).collect();
        let workers: Vec<_> = hands
            .into_iter()
            .map(|(number, hand)| {
                let draw = Draw::new(seed * 1000 + number);
                let closes_at = (closes && number == 0).then_some(STEPS / 2);
                let worker = Worker { rig, yard, hand, draw, closes_at };
                scope.spawn(move || worker.run(STEPS))
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("no thread panics")).collect()
    });
    for outcome in outcomes {
        outcome.unwrap_or_else(|why| panic!("VRAM_STRESS_SEED={seed}, {mode:?}: {why}"));
    }
    let parked = yard.into_inner().unwrap_or_else(PoisonError::into_inner);
    if closes {
        drop(parked);
        is_closed(&rig, &oracle);
    } else {
        empty(&rig, &oracle, parked);
    }
    if let Err(why) = oracle.judge(&rig.manager) {
        panic!("VRAM_STRESS_SEED={seed}, {mode:?}: {why}");
    }
    is_whole(&rig, if closes { None } else { Some(mode) }, seed);
}

/// Takes out everything that is left, and compares it.
fn empty(rig: &Rig, oracle: &Oracle, mut parked: Vec<ParkedShard>) {
    let manager: &VramManager = &rig.manager;
    let hand = oracle.hand(THREADS);
    for gpu in [0, 1] {
        if manager.report().gpus[usize::try_from(gpu).expect("one of two")].lost.is_some() {
            let doing = Doing::of("the last reset").resets(gpu, false);
            let report = hand.made(doing, || manager.reset_gpu(gpu, ResetOptions::new()));
            let report = report.expect("the devices work again");
            parked.extend(report.parked.into_iter().map(vram_residency::WakeError::into_parked));
            let models = report.parked_models.into_iter();
            let pieces = models.flat_map(|failed| failed.into_parked().pieces);
            parked.extend(pieces.map(|piece| piece.parked));
        }
    }
    assert!(manager.flush_events(Duration::from_secs(20)));
    for shard in manager.shards() {
        let out = manager.unseal_and_free(&shard);
        let out = out.unwrap_or_else(|error| panic!("{error}: {}", oracle.about(&shard.shard_id)));
        assert_eq!(out, content(&shard));
    }
    parked.extend(manager.take_evicted());
    for parked in parked {
        let id = parked.shard_id().clone();
        let woken = manager.wake(parked, 0);
        let shard = woken.unwrap_or_else(|error| panic!("{error}: {}", oracle.about(&id)));
        assert_eq!(manager.unseal_and_free(&shard).expect("devices work"), content(&shard));
    }
}

fn is_closed(rig: &Rig, oracle: &Oracle) {
    let hand = oracle.hand(THREADS);
    let _closing = hand.begin(Doing::of("close again").closes());
    let report = rig.manager.close(Duration::from_secs(20));
    assert!(report.complete, "{report:?}");
}

/// Everything that was taken is free again: `mode` of a manager that still has its memory.
fn is_whole(rig: &Rig, mode: Option<MemoryMode>, seed: u64) {
    let manager: &VramManager = &rig.manager;
    let park = manager.park_capacity();
    assert_eq!((park.used.get(), park.shard_count), (0, 0), "VRAM_STRESS_SEED={seed}");
    for (gpu, total) in (0..).zip(TOTALS) {
        let device = &rig.devices[usize::try_from(gpu).expect("one of two")];
        if let Some(mode) = mode {
            let accounts = manager.reconcile(gpu).expect("it works");
            assert!(accounts.agrees && accounts.steady, "VRAM_STRESS_SEED={seed}: {accounts}");
            let now = manager.capacity(gpu).expect("it is there");
            let figures =
                (now.used.get(), now.reserved.get(), now.free.get(), now.largest_hole.get());
            assert_eq!(figures, (0, 0, total, total), "VRAM_STRESS_SEED={seed}, {mode:?}");
        }
        // Nothing is sent to a device that is lost: its memory went with it.
        if matches!(device.state(), DeviceState::Lost { .. }) {
            continue;
        }
        let live: u64 = device.live().iter().map(|(_, len)| len.get()).sum();
        let held = if mode == Some(MemoryMode::Region) { total } else { 0 };
        assert_eq!(live, held, "VRAM_STRESS_SEED={seed}, {mode:?}: the driver's own count");
    }
}

#[test]
fn threads_that_do_everything_lose_no_byte_and_no_room() {
    let mut budget = Budget::start("everything, by many threads");
    while let Some(seed) = budget.next_round() {
        round(MemoryMode::Region, seed);
        round(MemoryMode::Blocks, seed);
    }
}
