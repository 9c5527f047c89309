//! Many threads on one manager, each checking every byte that it reads.
//!
//! Threads share shards through a board: one seals, another reads, a third migrates, a fourth
//! frees. An operation may find its shard removed. It must never return other bytes, and at the end
//! no byte of capacity is missing.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "the inputs are the test's own, and a test fails by panicking"
)]

#[macro_use]
extern crate vram_testkit;

use std::sync::Mutex;
use std::thread;

use proptest::prelude::*;
use vram_residency::{SealedShard, Verify, VramError};
use vram_tests::budget::{Budget, Draw};
use vram_tests::reference::bytes;
use vram_tests::rig::Rig;

/// A shard that all threads may use, with the length and the seed of its bytes.
type Posted = (SealedShard, usize, u64);

fn one_thread(rig: &Rig, board: &Mutex<Vec<Posted>>, seed: u64) -> Result<(), String> {
    let manager = &rig.manager;
    let mut draw = Draw::new(seed);
    let action = (0..=9_u8, any::<u16>(), 0..=30_000_usize, any::<u64>());
    for _ in 0..60 {
        let (kind, pick, len, data_seed) = draw.one(&action);
        let gpu = u32::from(pick % 2);
        let posted = {
            let board = board.lock().map_err(|_| "a thread panicked")?;
            (!board.is_empty()).then(|| board[usize::from(pick) % board.len()].clone())
        };
        let taken = |shard: &SealedShard| {
            board.lock().expect("no thread panics").retain(|(posted, ..)| posted != shard);
        };
        let outcome = match (kind, posted) {
            (0..=2, _) | (_, None) => manager
                .seal_model("model", gpu, &bytes(len, data_seed))
                .map(|shard| board.lock().expect("no thread panics").push((shard, len, data_seed))),
            (3..=4, Some((shard, len, seed))) => {
                let (start, end) = (len / 3, len - len / 4);
                manager.read_shard_at_offset(&shard, start, end - start).map(|out| {
                    assert!(out == bytes(len, seed)[start..end], "other bytes came out");
                })
            }
            (5, Some((shard, len, seed))) => manager
                .unseal_model(&shard)
                .map(|out| assert!(out == bytes(len, seed), "other bytes came out")),
            (6, Some((shard, ..))) => manager
                .verify(&shard, Verify::Segments)
                .map(|verdict| assert!(verdict.sound, "{verdict}")),
            (7, Some((shard, ..))) => manager.migrate_shard(&shard, gpu).map(drop),
            (8, Some((shard, len, seed))) => {
                taken(&shard);
                manager
                    .unseal_and_free(&shard)
                    .map(|out| assert!(out == bytes(len, seed), "other bytes came out"))
            }
            (_, Some((shard, ..))) => {
                taken(&shard);
                manager.free_shard(&shard).map(drop)
            }
        };
        match outcome {
            Ok(()) | Err(VramError::InsufficientVram(_) | VramError::ShardFreed { .. }) => {}
            Err(error) => return Err(error.to_string()),
        }
        // One snapshot adds up, while the other threads work.
        let now = manager.capacity(gpu).map_err(|error| error.to_string())?;
        let sum = now.used.get() + now.reserved.get() + now.free.get();
        if sum != now.total.get() {
            return Err(format!("{now:?} does not add up"));
        }
    }
    Ok(())
}

#[test]
fn threads_share_shards_and_lose_nothing() {
    let mut budget = Budget::start("threads");
    while let Some(seed) = budget.next_round() {
        let rig = Rig::new(&[256 * 1024, 256 * 1024], seed).expect("a rig can be made");
        let board = Mutex::new(Vec::new());
        let outcomes: Vec<_> = thread::scope(|scope| {
            let (rig, board) = (&rig, &board);
            let workers: Vec<_> = (0..6_u64)
                .map(|thread| scope.spawn(move || one_thread(rig, board, seed * 100 + thread)))
                .collect();
            workers.into_iter().map(|worker| worker.join().expect("no thread panics")).collect()
        });
        for outcome in outcomes {
            outcome.unwrap_or_else(|why| panic!("VRAM_STRESS_SEED={seed}: {why}"));
        }
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
