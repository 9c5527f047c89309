//! Many threads seal from sources, open, close, migrate, write out and free the same shards, and
//! admit and free whole models meanwhile. Every returned byte and every refusal is checked, and at the
//! end everything that was taken is free again.
//!
//! `VRAM_STRESS_SEED` repeats a run, `VRAM_STRESS_SECONDS` sets for how long rounds follow, each
//! with the next seed; `PROPTEST_CASES` scales the length of a round.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking, and says how to repeat it"
)]

#[macro_use]
extern crate vram_testkit;

use std::sync::Mutex;
use std::thread;

use vram_residency::{
    AdmitRequest, ByteLen, GpuChoice, ModelPlan, Piece, Protection, ReaderSource, SealOptions,
    SealRequest, SealedShard, SegmentSize, SivScope, SliceSource, Threads, Verify, VramError,
    VramManager,
};
use vram_test_rigs::oracle::{Doing, Hand, Oracle, World};
use vram_test_rigs::{Dice, content, for_a_while, setting};

const THREADS: u64 = 4;

const TOTALS: [u64; 2] = [600 << 10, 400 << 10];

const LEN_MAX: usize = 60_000;

/// A shard that all threads may use: its newest known handle, and its content.
#[derive(Clone)]
struct Shared {
    handle: SealedShard,
    /// A tick before the call that returned the handle.
    origin: u64,
    seed: u64,
    len: usize,
}

/// Errors that the work of other threads can cause; the oracle judges each of them.
fn explained(error: &VramError) -> bool {
    matches!(
        error,
        VramError::ShardFreed { .. }
            | VramError::StaleHandle { .. }
            | VramError::InsufficientVram(_)
            | VramError::InUse { .. }
    )
}

fn bytes_of(len: usize) -> u64 {
    ByteLen::from_usize(len).get()
}

fn seal(manager: &VramManager, hand: &Hand<'_>, dice: &mut Dice) -> Result<Shared, VramError> {
    let (seed, len) = (dice.below(1 << 30), dice.index(LEN_MAX));
    let bytes = content(len, seed);
    let protection =
        if dice.index(2) == 0 { Protection::Encrypted } else { Protection::Authenticated };
    let gpu = u32::try_from(dice.index(2)).unwrap();
    let request = SealRequest::new("stress", gpu).protection(protection);
    let origin = hand.oracle().now();
    let doing = Doing::of("seal").takes(gpu, bytes_of(len));
    let handle = hand.made_on(manager, doing, || match dice.index(3) {
        0 => manager.seal(request, &bytes),
        1 => {
            let source = SliceSource::new(&bytes);
            manager.seal_from(request.scope(SivScope::Segment), source, SealOptions::new())
        }
        _ => {
            let reader = ReaderSource::new(&bytes[..], ByteLen::from_usize(len).get());
            manager.seal_from(request, reader, SealOptions::new())
        }
    })?;
    Ok(Shared { handle, origin, seed, len })
}

/// One random operation on one shard; returns a newer handle if there is one, `None` if it was
/// freed.
fn step(
    manager: &VramManager,
    hand: &Hand<'_>,
    shared: &Shared,
    dice: &mut Dice,
) -> Result<Option<Shared>, VramError> {
    let Shared { handle, origin, seed, len } = shared;
    let now = hand.oracle().now();
    let newer = |handle| Ok(Some(Shared { handle, origin: now, ..shared.clone() }));
    let on = |name| Doing::of(name).shard(handle, *origin).waits();
    let anew = |name| on(name).takes(handle.gpu_index, bytes_of(*len));
    match dice.index(8) {
        0 => newer(hand.made(anew("open"), || manager.open_resident(handle))?),
        1 => newer(hand.made(anew("close"), || manager.close_resident(handle))?),
        2 => {
            let gpu = u32::try_from(dice.index(2)).unwrap();
            let doing = on("migrate").takes(gpu, bytes_of(*len));
            newer(hand.made_on(manager, doing, || manager.migrate_shard(handle, gpu))?)
        }
        3 => {
            hand.made(on("free"), || manager.free_shard(handle))?;
            Ok(None)
        }
        4 => {
            let mut out = Vec::new();
            hand.made(on("unseal to"), || manager.unseal_to(handle, &mut out))?;
            assert!(out == content(*len, *seed), "torn or foreign bytes");
            newer(handle.clone())
        }
        5 => {
            let verdict = hand.made(on("verify"), || manager.verify(handle, Verify::Full))?;
            assert!(verdict.sound);
            newer(handle.clone())
        }
        6 => {
            let bytes = content(*len, *seed);
            let start = dice.index(len + 1);
            let count = dice.index(len - start + 1);
            let read = || manager.read_shard_at_offset(handle, start, count);
            let part = hand.made(on("read"), read)?;
            assert!(bytes.get(start..start + count) == Some(&part[..]), "torn or foreign bytes");
            newer(handle.clone())
        }
        _ => {
            let all = hand.made(on("unseal"), || manager.unseal_model(handle))?;
            assert!(all == content(*len, *seed));
            newer(handle.clone())
        }
    }
}

fn admit(manager: &VramManager, hand: &Hand<'_>, dice: &mut Dice) -> Result<(), VramError> {
    let seed = dice.below(1 << 30);
    let bytes = content(30_000, seed);
    let plan = ModelPlan::new([
        Piece::new("a", 0, 0, ByteLen::new(10_000)),
        Piece::new("b", 0, 10_000, ByteLen::new(1)),
        Piece::new("c", 0, 10_001, ByteLen::new(19_999)),
    ]);
    let request = AdmitRequest::new("model", GpuChoice::MostRoomFirst);
    let origin = hand.oracle().now();
    // On whichever GPU has room.
    let admitting = Doing::of("admit").anything();
    let plan = plan.unwrap();
    let model =
        hand.made(admitting, || manager.admit(request, &plan, &vec![SliceSource::new(&bytes)]))?;
    let mut all = Vec::new();
    for shard in model.shards() {
        let doing = Doing::of("unseal a piece").shard(shard, origin).waits();
        hand.made(doing, || manager.unseal_to(shard, &mut all))?;
    }
    assert!(all == bytes, "torn or foreign bytes");
    let doing = Doing::of("free a model").anything().waits();
    assert_eq!(hand.made(doing, || manager.free_model(&model))?.len(), 3);
    Ok(())
}

#[test]
fn threads_that_move_the_same_shards_lose_no_byte_and_no_room() {
    let mut seed: u64 = setting("VRAM_STRESS_SEED").unwrap_or(20_261_123);
    for_a_while(|| {
        round(seed);
        seed = seed.wrapping_add(1);
    });
}

fn round(seed: u64) {
    let cases: u64 = setting("PROPTEST_CASES").unwrap_or(256);
    println!("VRAM_STRESS_SEED={seed} PROPTEST_CASES={cases}");
    let oracle = Oracle::new(World {
        totals: TOTALS.to_vec(),
        largest: bytes_of(LEN_MAX).next_multiple_of(4096),
        in_one_piece: true,
        all_may_go: false,
    });
    let builder = VramManager::builder()
        .host_device(ByteLen::new(TOTALS[0]))
        .host_device(ByteLen::new(TOTALS[1]))
        .segment_size(SegmentSize::MIN)
        .threads(Threads::exactly(2));
    let manager = oracle.hears(builder).build().unwrap();
    let shards: Mutex<Vec<Shared>> = Mutex::default();
    thread::scope(|scope| {
        // All hands are counted before the first begins.
        let hands: Vec<_> = (0..THREADS).map(|number| (number, oracle.hand(number))).collect();
        for (number, hand) in hands {
            let (manager, shards) = (&manager, &shards);
            scope.spawn(move || {
                let mut dice = Dice::new(seed ^ (number << 40));
                for _ in 0..cases {
                    let picked = {
                        let shards = shards.lock().unwrap();
                        let at = dice.index(shards.len().max(8));
                        shards.get(at).cloned()
                    };
                    let outcome = match &picked {
                        None if dice.index(4) == 0 => admit(manager, &hand, &mut dice),
                        None => seal(manager, &hand, &mut dice)
                            .map(|new| shards.lock().unwrap().push(new)),
                        Some(shared) => step(manager, &hand, shared, &mut dice).map(|after| {
                            let mut shards = shards.lock().unwrap();
                            shards.retain(|one| one.handle != shared.handle);
                            shards.extend(after);
                        }),
                    };
                    match (outcome, picked) {
                        (Ok(()), _) => {}
                        (Err(error), picked) if explained(&error) => {
                            let old = matches!(
                                error,
                                VramError::ShardFreed { .. } | VramError::StaleHandle { .. }
                            );
                            // Another thread has the newer handle, or no thread has one.
                            if let Some(shared) = picked.filter(|_| old) {
                                shards.lock().unwrap().retain(|one| one.handle != shared.handle);
                            }
                        }
                        (Err(other), _) => panic!("{other}"),
                    }
                    for gpu in 0..2 {
                        let capacity = manager.capacity(gpu).unwrap();
                        let (used, reserved) = (capacity.used.get(), capacity.reserved.get());
                        assert_eq!(used + reserved + capacity.free.get(), capacity.total.get());
                    }
                }
            });
        }
    });
    oracle.judge(&manager).unwrap_or_else(|why| panic!("VRAM_STRESS_SEED={seed}: {why}"));
    // Every resident shard still has its bytes, and all of them can be freed.
    for shard in manager.shards() {
        manager.ensure_intact(&shard).unwrap();
        manager.free_shard(&shard).unwrap();
    }
    for gpu in 0..2 {
        let capacity = manager.capacity(gpu).unwrap();
        assert_eq!(capacity.free, capacity.total);
        assert_eq!(capacity.largest_hole, capacity.total);
    }
}
