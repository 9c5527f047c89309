//! Small shards that are sealed together: the same as one by one, whatever their lengths, and whatever
//! fails.

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::panic::catch_unwind;
use std::sync::OnceLock;

use vram_gpu::fault::{Action, FaultPlan, Op};
use vram_residency::{
    AdmitRequest, ByteLen, CancelToken, Checked, GpuChoice, Limits, MemoryMode, ModelHandle,
    ModelPiece, ModelPlan, ModelSource, Piece, Protection, ReadBack, SealedShard, SegmentSize,
    SivScope, SourceError, Threads, Verify, VramError,
};

use vram_test_rigs::{Dice, Rig, content, devices, setting};

use super::models::{bytes_of, sources};

const TOTAL: usize = 16 << 20;

pub(super) fn rig(mode: MemoryMode) -> Rig {
    let devices = devices(&[TOTAL], &FaultPlan::new(1));
    let size = SegmentSize::from_log2(16).unwrap();
    Rig::over(devices, mode, |builder| builder.segment_size(size).threads(Threads::exactly(2)))
}

/// One file, and pieces of it of these lengths, one after the other.
pub(super) fn model_of(lens: &[usize], seed: u64) -> (Vec<Vec<u8>>, ModelPlan) {
    let mut at = 0;
    let pieces: Vec<_> = (0..)
        .zip(lens)
        .map(|(number, len): (usize, &usize)| {
            let offset = u64::try_from(at).unwrap();
            at += len;
            Piece::new(format!("t{number}"), 0, offset, ByteLen::from_usize(*len))
        })
        .collect();
    (vec![content(at, seed)], ModelPlan::new(pieces).unwrap())
}

pub(super) fn request(protection: Protection) -> AdmitRequest<'static> {
    AdmitRequest::new("model", GpuChoice::One(0)).protection(protection)
}

/// Content, verdicts and books of a model.
fn is_whole(rig: &Rig, model: &ModelHandle, files: &[Vec<u8>]) {
    let mut footprint = 0;
    for ModelPiece { piece, shard, .. } in &model.pieces {
        assert_eq!(rig.manager.unseal_model(shard).unwrap(), bytes_of(files, piece));
        let verdict = rig.manager.verify(shard, Verify::Full).unwrap();
        assert!(verdict.sound && verdict.content, "{piece:?}: {verdict}");
        footprint += piece.len.get().next_multiple_of(256);
    }
    assert_eq!(rig.used(0), footprint);
}

/// What the manager knows of each shard of a model since it was sealed.
fn checks(rig: &Rig, model: &ModelHandle) -> Vec<Option<Checked>> {
    let report = rig.manager.report();
    let known = |shard: &SealedShard| {
        report.shards.iter().find(|row| row.shard_id == shard.shard_id).unwrap().last_checked
    };
    model.shards().map(known).collect()
}

/// P162: any mix of lengths, in both protections and scopes, with every way of reading back: sealed in
/// one region, where neighbours share copies, each shard has the record, the tags and the content that
/// it has block by block, where none does.
#[test]
fn shards_that_are_sealed_together_are_as_if_sealed_alone() {
    const LENS: [usize; 9] = [0, 1, 255, 256, 257, 4 << 10, 64 << 10, (64 << 10) + 1, 5 << 20];
    let mut dice = Dice::new(160);
    for round in 0..setting("VRAM_BATCH_ROUNDS").unwrap_or(24) {
        let mut large = 0;
        let lens: Vec<_> = (0..=dice.index(120))
            .map(|_| match LENS[dice.index(LENS.len())] {
                len if len > 1 << 20 && (large == 1 || round % 4 > 0) => len >> 12,
                len => {
                    large += usize::from(len > 1 << 20);
                    len
                }
            })
            .collect();
        let (files, plan) = model_of(&lens, round);
        let protection =
            if round % 2 == 0 { Protection::Encrypted } else { Protection::Authenticated };
        let read_back = [
            ReadBack::Default,
            ReadBack::Full,
            ReadBack::Sample,
            ReadBack::None,
            ReadBack::Fingerprint,
        ][dice.index(5)];
        let scope = if round % 5 == 4 { SivScope::Shard } else { SivScope::Segment };
        let request = || request(protection).read_back(read_back).scope(scope);
        let [together, alone] = [MemoryMode::Region, MemoryMode::Blocks].map(|mode| {
            let rig = rig(mode);
            let model = rig.manager.admit(request(), &plan, &sources(&files)).unwrap();
            let checked = checks(&rig, &model);
            is_whole(&rig, &model, &files);
            (rig, model, checked)
        });
        assert_eq!(together.2, alone.2, "{read_back:?}, {protection:?}");
        let writes = |rig: &Rig| rig.devices[0].call_count(Op::QueueWrite);
        assert!(writes(&together.0) <= writes(&alone.0));
        for (one, other) in together.1.shards().zip(alone.1.shards()) {
            assert_eq!(one.sealed_data, other.sealed_data, "{one:?}");
        }
        for (rig, model, _) in [together, alone] {
            rig.manager.free_model(&model).unwrap();
            rig.settle(false);
        }
    }
}

/// Pieces of many lengths, of which all lie in one batch.
const MIX: [usize; 8] = [100, 256, 4096, 1, 3000, 70_000, 257, 20];

/// P161: whatever bit of a batch is altered on its way, the shard is named that it is of, and nothing of
/// the model stays. A bit between two shards is none of theirs.
#[test]
fn a_bit_altered_in_a_batch_is_found_in_its_shard_and_nothing_stays() {
    let (files, plan) = model_of(&MIX, 3);
    for protection in [Protection::Encrypted, Protection::Authenticated] {
        let rig = rig(MemoryMode::Region);
        let mut start = 0_u64;
        // Small shards are placed from the high end of a region down.
        for (piece, len) in MIX.into_iter().enumerate().rev() {
            let len = u64::try_from(len).unwrap();
            for byte in [0, len / 2, len - 1] {
                let flip = Action::FlipBit { byte: start + byte, bit: 5 };
                rig.devices[0].next(Op::QueueWrite, flip).unwrap();
                let failed_at = OnceLock::new();
                let asked = request(protection).failed_at(&failed_at);
                let refused = rig.manager.admit(asked, &plan, &sources(&files)).unwrap_err();
                let VramError::WriteNotKept { gpu: 0, segments } = refused else {
                    panic!("{refused}")
                };
                assert_eq!(segments, [byte >> 16], "byte {byte} of piece {piece}");
                assert_eq!(failed_at.get(), Some(&piece));
                rig.clear();
                assert!(rig.manager.shards().is_empty());
                rig.settle(true);
            }
            let next = (start + len).next_multiple_of(256);
            if next > start + len && piece > 0 {
                let flip = Action::FlipBit { byte: next - 1, bit: 0 };
                rig.devices[0].next(Op::QueueWrite, flip).unwrap();
                let model = rig.manager.admit(request(protection), &plan, &sources(&files));
                let model = model.unwrap();
                rig.clear();
                is_whole(&rig, &model, &files);
                rig.settle(true);
            }
            start = next;
        }
    }
}

/// P161: a copy of a batch that fails, at once, late or in the middle, or panics, leaves nothing.
#[test]
fn a_copy_of_a_batch_that_fails_leaves_nothing() {
    let (files, plan) = model_of(&MIX, 4);
    let actions = [
        (Op::QueueWrite, Action::Driver(999)),
        (Op::QueueWrite, Action::LateDriver(999)),
        (Op::QueueWrite, Action::ShortCopy { keep: 700 }),
        (Op::QueueWrite, Action::DropCopy),
        (Op::Read, Action::Driver(999)),
        (Op::Read, Action::FlipAnyBit),
        (Op::Staging, Action::Driver(2)),
        (Op::QueueWrite, Action::Panic),
        (Op::Read, Action::Panic),
    ];
    for (op, action) in actions {
        let rig = rig(MemoryMode::Region);
        let panics = matches!(action, Action::Panic);
        rig.devices[0].next(op, action.clone()).unwrap();
        let failed_at = OnceLock::new();
        let admitted = catch_unwind(AssertUnwindSafe(|| {
            let asked = request(Protection::Authenticated).failed_at(&failed_at);
            rig.manager.admit(asked, &plan, &sources(&files)).map(drop)
        }));
        match admitted {
            Ok(answer) => assert!(answer.is_err() && failed_at.get().is_some(), "{action:?}"),
            Err(_payload) => assert!(panics, "{action:?}"),
        }
        rig.clear();
        assert!(rig.manager.shards().is_empty());
        let model = rig.manager.admit(request(Protection::Encrypted), &plan, &sources(&files));
        is_whole(&rig, &model.unwrap(), &files);
        rig.settle(true);
    }
}

/// What a source does at one of its pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Fails,
    IsShort,
    Panics,
    Cancels,
}

/// A source that does something at its n-th read.
struct Acting<'a> {
    bytes: &'a [u8],
    does: At,
    at: usize,
    reads: AtomicUsize,
    token: &'a CancelToken,
}

impl ModelSource for Acting<'_> {
    fn read_at(&self, _file: u32, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        if self.reads.fetch_add(1, Ordering::Relaxed) == self.at {
            match self.does {
                At::Fails => return Err(std::io::Error::other("away").into()),
                At::IsShort => {
                    return Err(SourceError::NoSuchBytes {
                        name: "file".into(),
                        offset,
                        len: 1,
                        declared: 0,
                    });
                }
                At::Panics => panic!("the source"),
                At::Cancels => self.token.cancel(),
            }
        }
        let start = usize::try_from(offset).unwrap();
        target.copy_from_slice(&self.bytes[start..start + target.len()]);
        Ok(())
    }
}

/// P161: a source that fails, is short, panics or cancels at any piece of a batch ends the call at that
/// piece: no later one is read, nothing is copied, and nothing stays.
#[test]
fn a_source_that_fails_within_a_batch_leaves_nothing() {
    let (files, plan) = model_of(&MIX, 5);
    let rig = rig(MemoryMode::Region);
    for does in [At::Fails, At::IsShort, At::Panics, At::Cancels] {
        for at in 0..MIX.len() {
            let token = CancelToken::new();
            let reads = AtomicUsize::new(0);
            let source = Acting { bytes: &files[0], does, at, reads, token: &token };
            let failed_at = OnceLock::new();
            let copies = rig.devices[0].call_count(Op::QueueWrite);
            let admitted = catch_unwind(AssertUnwindSafe(|| {
                let asked = request(Protection::Authenticated).cancel(token.clone());
                rig.manager.admit(asked.failed_at(&failed_at), &plan, &source).map(drop)
            }));
            match admitted {
                Ok(Err(VramError::Cancelled { .. })) => assert_eq!(does, At::Cancels),
                Ok(refused) => {
                    assert!(refused.is_err(), "{does:?} at {at}");
                    assert_eq!(failed_at.get(), Some(&at), "{does:?}");
                }
                Err(_payload) => assert_eq!(does, At::Panics),
            }
            assert_eq!(source.reads.load(Ordering::Relaxed), at + 1, "{does:?}");
            assert_eq!(rig.devices[0].call_count(Op::QueueWrite), copies, "{does:?} at {at}");
            assert!(rig.manager.shards().is_empty());
            rig.settle(true);
        }
    }
}

/// P162: pieces that fill the holes between other shards are sealed in as many parts as they lie in, and
/// touch none of the others.
#[test]
fn pieces_in_the_holes_between_others_are_sealed_and_touch_none_of_them() {
    let rig = rig(MemoryMode::Region);
    let mut dice = Dice::new(161);
    let mut others: Vec<_> = (0..200)
        .map(|seed| {
            let data = content(1 + dice.index(3000), seed);
            (rig.manager.seal_model("other", 0, &data).unwrap(), data)
        })
        .collect();
    for index in (0..200).rev().filter(|_| dice.index(2) == 0).collect::<Vec<_>>() {
        rig.manager.free_shard(&others.remove(index).0).unwrap();
    }
    let lens: Vec<_> = (0..150).map(|_| dice.index(3000)).collect();
    let (files, plan) = model_of(&lens, 6);
    let before = rig.used(0);
    let writes = rig.devices[0].call_count(Op::QueueWrite);
    let model = rig.manager.admit(request(Protection::Encrypted), &plan, &sources(&files)).unwrap();
    let writes = rig.devices[0].call_count(Op::QueueWrite) - writes;
    assert!((10..140).contains(&writes), "{writes}: holes, and some that hold several");
    for (piece, shard) in plan.pieces().iter().zip(model.shards()) {
        assert_eq!(rig.manager.unseal_model(shard).unwrap(), bytes_of(&files, piece));
    }
    for (other, data) in &others {
        assert_eq!(rig.manager.unseal_model(other).unwrap(), *data);
    }
    rig.manager.free_model(&model).unwrap();
    assert_eq!(rig.used(0), before);
    rig.settle(true);
}

/// P163: no batch takes more staging memory than half of what a call may hold, and a model is admitted
/// whatever little that is.
#[test]
fn batches_keep_to_the_staging_memory_of_a_call() {
    let (files, plan) = model_of(&[4096; 64], 7);
    for (staging, batches) in [(4096, 64), (8192, 64), (16_384, 32), (65_536, 8), (1 << 20, 1)] {
        let limits = Limits::default()
            .staging_bytes(ByteLen::new(staging))
            .staging_total(ByteLen::new(staging));
        let rig =
            Rig::over(devices(&[1 << 20], &FaultPlan::new(1)), MemoryMode::Region, |builder| {
                builder.limits(limits)
            });
        let asked = request(Protection::Encrypted);
        let model = rig.manager.admit(asked, &plan, &sources(&files)).unwrap();
        assert_eq!(rig.devices[0].call_count(Op::QueueWrite), batches, "{staging}");
        is_whole(&rig, &model, &files);
        rig.settle(true);
    }
}
