//! Many threads on one manager, each checking every byte that it reads, and every refusal.
//!
//! Threads share shards through a board: one seals, another reads, a third migrates, a fourth
//! frees. Some sinks take bytes only once another thread has made progress, and some sources read
//! another shard of the manager. An operation may find its shard removed. It must never return other
//! bytes, be refused without a reason, or fail to answer; at the end no byte of capacity is missing.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "the inputs are the test's own, and a test fails by panicking"
)]

#[macro_use]
extern crate vram_testkit;

use std::sync::{Arc, Mutex};
use std::thread;

use proptest::prelude::*;
use vram_residency::{
    Lru, OnEviction, SealOptions, SealRequest, SealedShard, Verify, VramError, VramManager,
};
use vram_test_rigs::oracle::{Doing, Hand, Oracle, World};
use vram_test_rigs::{ActingSource, ActingWriter};
use vram_tests::budget::{Budget, Draw};
use vram_tests::reference::bytes;
use vram_tests::rig::Rig;

const TOTAL: u64 = 256 * 1024;
const LEN_MAX: usize = 30_000;

/// A shard that all threads may use.
#[derive(Clone)]
struct Posted {
    shard: SealedShard,
    len: usize,
    seed: u64,
    /// The tick at which its seal began.
    origin: u64,
}

struct Worker<'a> {
    manager: &'a VramManager,
    board: &'a Mutex<Vec<Posted>>,
    hand: Hand<'a>,
}

impl Worker<'_> {
    fn run(&self, seed: u64) -> Result<(), String> {
        let mut draw = Draw::new(seed);
        let action = (0..=11_u8, any::<u16>(), 0..=LEN_MAX, any::<u64>());
        for _ in 0..60 {
            let (kind, pick, len, data_seed) = draw.one(&action);
            let gpu = u32::from(pick % 2);
            let posted = {
                let board = self.board.lock().map_err(|_| "a thread panicked")?;
                (!board.is_empty()).then(|| board[usize::from(pick) % board.len()].clone())
            };
            let outcome = match (kind, posted) {
                (0..=2, _) | (_, None) => self.seal(gpu, len, data_seed, None),
                (3, Some(posted)) => self.seal(gpu, len, data_seed, Some(&posted)),
                (_, Some(posted)) => self.with(kind, &posted, gpu),
            };
            match outcome {
                Ok(()) | Err(VramError::InsufficientVram(_) | VramError::ShardFreed { .. }) => {}
                Err(error) => return Err(error.to_string()),
            }
            // One snapshot adds up, while the other threads work.
            let now = self.manager.capacity(gpu).map_err(|error| error.to_string())?;
            let sum = now.used.get() + now.reserved.get() + now.free.get();
            if sum != now.total.get() {
                return Err(format!("{now:?} does not add up"));
            }
        }
        Ok(())
    }

    /// Seals a slice, or a source that reads another shard whenever it is read.
    fn seal(
        &self,
        gpu: u32,
        len: usize,
        seed: u64,
        other: Option<&Posted>,
    ) -> Result<(), VramError> {
        let (manager, origin) = (self.manager, self.hand.oracle().now());
        let doing = Doing::of("seal").takes(gpu, as_u64(len));
        let sealed = self.hand.made_on(manager, doing, || match other {
            None => manager.seal_model("model", gpu, &bytes(len, seed)),
            Some(other) => {
                let source = ActingSource::new(bytes(len, seed), |_offset, _target: &mut [u8]| {
                    // Refused, where it was freed meanwhile; judged like all others.
                    let _freed = self.read(other);
                    Ok(())
                });
                let request = SealRequest::new("model", gpu);
                manager.seal_from(request, source, SealOptions::new())
            }
        });
        let shard = sealed?;
        let posted = Posted { shard, len, seed, origin };
        self.board.lock().expect("no thread panics").push(posted);
        Ok(())
    }

    fn read(&self, posted: &Posted) -> Result<(), VramError> {
        let Posted { shard, len, seed, origin } = posted;
        let (start, end) = (len / 3, len - len / 4);
        let doing = Doing::of("read").shard(shard, *origin).waits();
        let part = self
            .hand
            .made(doing, || self.manager.read_shard_at_offset(shard, start, end - start))?;
        assert!(part == bytes(*len, *seed)[start..end], "other bytes came out");
        Ok(())
    }

    fn with(&self, kind: u8, posted: &Posted, gpu: u32) -> Result<(), VramError> {
        let Posted { shard, len, seed, origin } = posted;
        let (manager, hand) = (self.manager, &self.hand);
        let on = |name| Doing::of(name).shard(shard, *origin).waits();
        let check = |out: Vec<u8>| assert!(out == bytes(*len, *seed), "other bytes came out");
        let taken = || {
            let mut board = self.board.lock().expect("no thread panics");
            board.retain(|other| other.shard != *shard);
        };
        match kind {
            4 | 5 => self.read(posted),
            6 => hand.made(on("unseal"), || manager.unseal_model(shard)).map(check),
            7 => {
                let mut out = Vec::new();
                let sink = ActingWriter(|part: &[u8]| {
                    hand.oracle().wait_for_progress();
                    out.extend_from_slice(part);
                    Ok(part.len())
                });
                hand.made(on("unseal to a slow sink"), || manager.unseal_to(shard, sink))?;
                check(out);
                Ok(())
            }
            8 => {
                let verdict = hand.made(on("verify"), || manager.verify(shard, Verify::Segments));
                verdict.map(|verdict| assert!(verdict.sound, "{verdict}"))
            }
            9 => {
                let doing = on("migrate").takes(gpu, as_u64(*len));
                hand.made_on(manager, doing, || manager.migrate_shard(shard, gpu)).map(drop)
            }
            10 => {
                taken();
                hand.made(on("unseal and free"), || manager.unseal_and_free(shard)).map(check)
            }
            _ => {
                taken();
                hand.made(on("free"), || manager.free_shard(shard)).map(drop)
            }
        }
    }
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).expect("a length of this test")
}

/// Footprints are whole granules.
fn world() -> World {
    let largest = as_u64(LEN_MAX).next_multiple_of(4096);
    World { totals: vec![TOTAL; 2], largest, in_one_piece: true, all_may_go: false }
}

#[test]
fn threads_share_shards_and_lose_nothing() {
    let mut budget = Budget::start("threads");
    while let Some(seed) = budget.next_round() {
        let oracle = Oracle::new(world());
        let rig = Rig::with(&[TOTAL, TOTAL], seed, |builder| oracle.hears(builder));
        let rig = rig.expect("a rig can be made");
        let board = Mutex::new(Vec::new());
        let outcomes: Vec<_> = thread::scope(|scope| {
            let (rig, board) = (&rig, &board);
            // All hands are counted before the first begins.
            let hands: Vec<_> = (0..6_u64).map(|number| (number, oracle.hand(number))).collect();
            let workers: Vec<_> = hands
                .into_iter()
                .map(|(number, hand)| {
                    let worker = Worker { manager: &rig.manager, board, hand };
                    scope.spawn(move || worker.run(seed * 100 + number))
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().expect("no thread panics")).collect()
        });
        for outcome in outcomes {
            outcome.unwrap_or_else(|why| panic!("VRAM_STRESS_SEED={seed}: {why}"));
        }
        settle(&oracle, &rig.manager, seed);
        for shard in rig.manager.shards() {
            assert!(rig.manager.verify_shard_integrity(&shard).expect("devices work"));
            rig.manager.free_shard(&shard).expect("devices work");
        }
        for gpu in 0..2 {
            let now = rig.manager.capacity(gpu).expect("it is there");
            assert_eq!((now.used.get(), now.free), (0, now.total), "VRAM_STRESS_SEED={seed}");
            assert_eq!(now.largest_hole, now.total, "VRAM_STRESS_SEED={seed}");
        }
    }
}

fn settle(oracle: &Arc<Oracle>, manager: &VramManager, seed: u64) {
    oracle.judge(manager).unwrap_or_else(|why| panic!("VRAM_STRESS_SEED={seed}: {why}"));
}

/// Bytes of every shard, and shards that a GPU holds, in the suite below.
const EQUAL: usize = 8192;
const PLACES: u64 = 24;

/// Six threads use or replace at most a dozen of the 24 places at any moment, whoever is slow: a
/// request that may evict is therefore never refused.
#[test]
fn whoever_may_evict_one_of_many_equal_shards_is_never_refused() {
    let mut budget = Budget::start("makers of room");
    while let Some(seed) = budget.next_round() {
        let total = PLACES * as_u64(EQUAL);
        let largest = as_u64(EQUAL);
        let oracle = Oracle::new(World {
            totals: vec![total],
            largest,
            in_one_piece: false,
            all_may_go: true,
        });
        let rig = Rig::with(&[total], seed, |builder| {
            oracle.hears(builder.eviction(Lru).on_eviction(OnEviction::Free))
        });
        let rig = rig.expect("a rig can be made");
        thread::scope(|scope| {
            let (manager, oracle) = (&*rig.manager, &*oracle);
            let hands: Vec<_> = (0..6_u64).map(|number| (number, oracle.hand(number))).collect();
            for (number, hand) in hands {
                scope.spawn(move || make_room(manager, &hand, seed * 100 + number));
            }
        });
        settle(&oracle, &rig.manager, seed);
        let refusals = oracle.refusals();
        assert!(!refusals.contains_key("insufficient-vram"), "VRAM_STRESS_SEED={seed}");
        assert!(rig.manager.shards().len() > 12, "it was never full");
    }
}

/// Seals shards of one length, each of which may push out another, and reads some to a slow sink.
fn make_room(manager: &VramManager, hand: &Hand<'_>, seed: u64) {
    let mut draw = Draw::new(seed);
    for round in 0..40_u64 {
        let data = bytes(EQUAL, seed * 1000 + round);
        let origin = hand.oracle().now();
        let doing = Doing::of("seal").takes(0, as_u64(EQUAL)).evicts(true);
        let shard = hand.made(doing, || manager.seal_model("equal", 0, &data));
        let shard = shard.expect("others can go");
        if !draw.one(&any::<bool>()) {
            continue;
        }
        let mut out = Vec::new();
        let sink = ActingWriter(|part: &[u8]| {
            hand.oracle().wait_for_progress();
            out.extend_from_slice(part);
            Ok(part.len())
        });
        let doing = Doing::of("unseal to a slow sink").shard(&shard, origin).waits();
        match hand.made(doing, || manager.unseal_to(&shard, sink)) {
            Ok(()) => assert!(out == data, "other bytes came out"),
            // Pushed out meanwhile.
            Err(VramError::ShardFreed { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}
