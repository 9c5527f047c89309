//! Small shards that are verified together: each has the verdict that it has alone.

use core::sync::atomic::{AtomicBool, Ordering};

use vram_gpu::fault::{Action, FaultPlan, Op};
use vram_residency::{
    ByteLen, CancelToken, Checked, Limits, MemoryMode, ModelHandle, Protection, SealedShard,
    Threads, Verdict, Verify, VramError,
};
use vram_test_rigs::{Dice, Rig, devices, setting};

use super::batches::{model_of, request, rig};
use super::models::sources;

const LEVELS: [Verify; 3] = [Verify::Segments, Verify::Full, Verify::Fingerprint];
const SEGMENT: u64 = 1 << 16;

fn offset(rig: &Rig, shard: &SealedShard) -> u64 {
    let report = rig.manager.report();
    let row = report.shards.iter().find(|row| row.shard_id == shard.shard_id).unwrap();
    row.offset.unwrap().get()
}

fn reads(rig: &Rig) -> u64 {
    rig.devices[0].call_count(Op::Read)
}

/// All of a verdict but its moment.
fn said(verdict: &Verdict) -> (SealedShardSaid, Vec<u64>) {
    let altered = verdict.altered.iter().map(|span| span.segment).collect();
    let flags = [verdict.sound, verdict.content, verdict.content_differs];
    ((verdict.shard_id.to_string(), flags, verdict.checked_bytes, verdict.checked), altered)
}

type SealedShardSaid = (String, [bool; 3], ByteLen, Option<Checked>);

/// P165: whatever lengths the shards have, and whatever bits are altered, in shards or between them:
/// each verdict names exactly the altered segments of its shard, and says what the shard's own
/// verification says afterwards; nothing else is in quarantine.
#[test]
fn neighbours_that_are_verified_together_have_the_verdicts_that_each_has_alone() {
    const LENS: [usize; 8] = [0, 1, 255, 256, 257, 4 << 10, 64 << 10, (64 << 10) + 1];
    let mut dice = Dice::new(165);
    for round in 0..setting("VRAM_BATCH_ROUNDS").unwrap_or(18) {
        let lens: Vec<_> = (0..=dice.index(120)).map(|_| LENS[dice.index(LENS.len())]).collect();
        let (files, plan) = model_of(&lens, round);
        let protection =
            if round % 2 == 0 { Protection::Encrypted } else { Protection::Authenticated };
        let level = LEVELS[dice.index(3)];
        let rig = rig(MemoryMode::Region);
        let model = rig.manager.admit(request(protection), &plan, &sources(&files)).unwrap();
        let mut expected = vec![Vec::new(); lens.len()];
        for _ in 0..dice.index(6) {
            let at = dice.index(lens.len());
            let shard = &model.pieces[at].shard;
            let granules = lens[at].next_multiple_of(256);
            if granules > 0 {
                let byte = dice.index(granules);
                let start = offset(&rig, shard);
                // Twice the same bit would be none.
                let segment = u64::try_from(byte).unwrap() / SEGMENT;
                if !expected[at].contains(&segment) {
                    rig.flip(0, start + u64::try_from(byte).unwrap(), 1);
                    if byte < lens[at] {
                        expected[at].push(segment);
                    }
                }
            }
        }
        for segments in &mut expected {
            segments.sort_unstable();
        }
        let before = reads(&rig);
        let verdict = rig.manager.verify_model(&model, level).unwrap();
        let some = lens.iter().filter(|len| **len > 0).count();
        assert!(reads(&rig) - before <= u64::try_from(some).unwrap());
        assert_eq!(verdict.sound, expected.iter().all(Vec::is_empty));
        for ((verdict, shard), altered) in verdict.shards.iter().zip(model.shards()).zip(&expected)
        {
            let (one, found) = said(verdict);
            assert_eq!(found, *altered, "{one:?}");
            assert_eq!(verdict.checked_bytes.get(), shard.plaintext_len);
            assert_eq!(verdict.content, altered.is_empty() && level == Verify::Full);
            let alone = rig.manager.verify(shard, level).unwrap();
            assert_eq!((one, found), said(&alone));
            let read = rig.manager.unseal_model(shard);
            assert_eq!(matches!(read, Err(VramError::Quarantined { .. })), !altered.is_empty());
            assert_eq!(read.is_ok(), altered.is_empty());
        }
        rig.settle(false);
    }
}

fn small(rig: &Rig, count: usize) -> ModelHandle {
    let (files, plan) = model_of(&vec![4096; count], 9);
    rig.manager.admit(request(Protection::Encrypted), &plan, &sources(&files)).unwrap()
}

/// P165: a copy that fails ends the call with the device's error, and nothing is in quarantine; a copy
/// that lies puts the shard into quarantine that it is of.
#[test]
fn a_copy_of_many_that_fails_or_lies_is_of_its_shards_alone() {
    let rig = rig(MemoryMode::Region);
    let model = small(&rig, 100);
    for level in LEVELS {
        rig.devices[0].next(Op::Read, Action::Driver(999)).unwrap();
        let failed = rig.manager.verify_model(&model, level).unwrap_err();
        assert!(matches!(failed, VramError::Device { .. }), "{failed}");
        rig.clear();
        assert!(rig.manager.verify_model(&model, level).unwrap().sound);
    }
    rig.devices[0].next(Op::Read, Action::FlipBit { byte: 0, bit: 0 }).unwrap();
    let verdict = rig.manager.verify_model(&model, Verify::Segments).unwrap();
    let altered: Vec<_> = verdict.shards.iter().filter(|verdict| !verdict.sound).collect();
    assert_eq!(altered.len(), 1, "{altered:?}");
    rig.clear();
    rig.settle(true);
}

/// P165: a shard of the model that cannot be verified ends the call with its own error, and every gate is
/// free again.
#[test]
fn one_of_many_that_is_gone_is_named_and_holds_nothing_up() {
    let rig = rig(MemoryMode::Region);
    let model = small(&rig, 100);
    let gone = &model.pieces[57].shard;
    rig.manager.free_shard(gone).unwrap();
    let (first, last) = (&model.pieces[0].shard, &model.pieces[56].shard);
    for shard in [first, last] {
        rig.flip(0, offset(&rig, shard), 0);
    }
    let refused = rig.manager.verify_model(&model, Verify::Segments).unwrap_err();
    assert!(matches!(&refused, VramError::ShardFreed { shard } if *shard == gone.shard_id));
    for shard in [first, last] {
        let read = rig.manager.unseal_model(shard);
        assert!(matches!(read, Err(VramError::Quarantined { .. })), "those before it were found");
    }
    let token = CancelToken::new();
    token.cancel();
    let stopped = rig.manager.verify_model_until(&model, Verify::Segments, &token).unwrap_err();
    assert!(matches!(stopped, VramError::Cancelled { done: ByteLen::ZERO, .. }), "{stopped}");
    for piece in model.pieces.iter().filter(|piece| piece.shard.shard_id != gone.shard_id) {
        rig.manager.free_shard(&piece.shard).unwrap();
    }
    rig.settle(true);
}

/// P165: what is read together follows from where the shards lie: not from what a changed handle of the
/// model says, which names a shard twice, shards of two GPUs in turns, and lengths that are none.
#[test]
fn a_model_handle_that_was_changed_is_verified_shard_by_shard() {
    let devices = devices(&[1 << 20, 1 << 20], &FaultPlan::new(1));
    let rig = Rig::over(devices, MemoryMode::Region, |builder| builder);
    let mut model = small(&rig, 40);
    for piece in model.pieces.iter_mut().skip(1).step_by(2) {
        piece.shard = rig.manager.migrate_shard(&piece.shard, 1).unwrap();
    }
    for piece in &mut model.pieces {
        piece.piece.len = ByteLen::ZERO;
    }
    let twice = model.pieces[4].clone();
    model.pieces.insert(5, twice);
    let verdict = rig.manager.verify_model(&model, Verify::Full).unwrap();
    assert!(verdict.sound && verdict.shards.len() == 41);
    for (verdict, shard) in verdict.shards.iter().zip(model.shards()) {
        assert_eq!((&verdict.shard_id, verdict.checked_bytes.get()), (&shard.shard_id, 4096));
    }
    rig.settle(true);
}

/// P165: threads that verify a model over and over hold nobody up who wants one of its shards alone.
#[test]
fn a_shard_of_a_model_that_is_verified_all_the_time_is_freed_within_its_time() {
    let rig = rig(MemoryMode::Region);
    let model = small(&rig, 64);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let done = rig.manager.verify_model(&model, Verify::Segments);
                    assert!(!matches!(done, Err(VramError::InUse { .. })), "{done:?}");
                }
            });
        }
        for piece in model.pieces.iter().skip(1) {
            rig.manager.free_shard(&piece.shard).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    rig.settle(true);
}

/// P165: as many are read at once as half of the staging memory of a call holds, and each alone where
/// that is less than one.
#[test]
fn what_is_read_at_once_keeps_to_the_staging_memory_of_a_call() {
    for (staging, copies) in [(4096, 64), (8192, 64), (16_384, 32), (65_536, 8), (1 << 20, 1)] {
        let limits = Limits::default()
            .staging_bytes(ByteLen::new(staging))
            .staging_total(ByteLen::new(staging));
        let rig =
            Rig::over(devices(&[1 << 20], &FaultPlan::new(1)), MemoryMode::Region, |builder| {
                builder.limits(limits).threads(Threads::exactly(2))
            });
        let model = small(&rig, 64);
        let before = reads(&rig);
        assert!(rig.manager.verify_model(&model, Verify::Segments).unwrap().sound);
        assert_eq!(reads(&rig) - before, copies, "{staging}");
        rig.settle(true);
    }
}
