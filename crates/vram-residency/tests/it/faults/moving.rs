//! Rows of the table: shards and models that are parked, woken and compacted.

use std::sync::Mutex;

use vram_residency::device::GpuError;
use vram_residency::device::fault::{Action, Op};
use vram_residency::{
    ByteLen, CompactReport, GpuChoice, GpuIndex, ParkedShard, Protection, SealedShard, Verify,
    VramError,
};
use vram_test_rigs::{Fault, Faults, Outcome, Rig, Row, SEGMENT, content};

use crate::moves::compact::{ALL, Kept, fragment};
use crate::moves::models::{admit, assert_whole};
use crate::moves::park::kinds;

/// P15: every call of the device fails once while a shard is parked.
#[test]
pub(super) fn a_park_that_fails_leaves_the_shard_where_it_was() {
    for request in kinds() {
        let bytes = content(5 * SEGMENT + 9, 5);
        Row {
            operation: "park",
            faults: Faults::every(0),
            set_up: &|| {
                let rig = Rig::new(&[1 << 16]);
                let shard = rig.manager.seal(request.clone(), &bytes).unwrap();
                (rig, shard)
            },
            act: &|rig, shard| rig.manager.park(shard),
            after: &|rig, shard, outcome, what| {
                assert_parked_or_as_before(rig, &shard, &bytes, outcome, what);
            },
            at_least: 11,
        }
        .sweep();
    }
}

fn assert_parked_or_as_before(
    rig: &Rig,
    shard: &SealedShard,
    bytes: &[u8],
    outcome: Outcome<ParkedShard>,
    what: &Fault,
) {
    match outcome {
        Outcome::Done(parked) => {
            assert_eq!(rig.used(0), rig.manager.capacity(0).unwrap().unreturned.get(), "{what}");
            let woken = rig.manager.wake(parked, 0).unwrap();
            assert_eq!(rig.manager.unseal_model(&woken).unwrap(), bytes, "{what}");
        }
        // Damage in a read looks like an altered shard: it is closed to readers.
        Outcome::Refused(VramError::ShardAltered { .. }) => {
            let refused = rig.manager.unseal_model(shard);
            assert!(matches!(refused, Err(VramError::Quarantined { .. })), "{what}");
        }
        Outcome::Refused(_) | Outcome::Panicked => {
            assert_eq!(rig.manager.unseal_model(shard).unwrap(), bytes, "{what}");
        }
    }
    assert_eq!(rig.manager.park_capacity().used, ByteLen::ZERO, "{what}");
    rig.settle(what.op != Op::Fill);
}

/// P15: every call of the device fails once while a shard is woken; the error contains the parked
/// shard.
#[test]
pub(super) fn a_wake_that_fails_hands_the_parked_shard_back() {
    for request in kinds() {
        let bytes = content(5 * SEGMENT + 9, 6);
        Row {
            operation: "wake",
            faults: Faults::every(0),
            set_up: &|| {
                let rig = Rig::new(&[1 << 16]);
                let shard = rig.manager.seal(request.clone(), &bytes).unwrap();
                let parked = Mutex::new(Some(rig.manager.park(&shard).unwrap()));
                (rig, (shard, parked))
            },
            act: &|rig, (_, parked)| {
                let taken = parked.lock().unwrap().take().unwrap();
                rig.manager.wake(taken, 0).map_err(|failed| {
                    let (back, error) = failed.into_parts();
                    *parked.lock().unwrap() = Some(back);
                    error
                })
            },
            after: &|rig, (shard, parked), outcome, what| {
                match (outcome, parked.into_inner().unwrap()) {
                    (Outcome::Done(_), None) => {}
                    (Outcome::Refused(_), Some(parked)) => {
                        assert_eq!(
                            rig.used(0),
                            rig.manager.capacity(0).unwrap().unreturned.get(),
                            "{what}"
                        );
                        assert!(matches!(
                            rig.manager.unseal_model(&shard),
                            Err(VramError::Parked { .. })
                        ));
                        assert_eq!(rig.manager.wake(parked, 0).unwrap(), shard, "{what}");
                    }
                    _ => panic!("the shard was lost: {what}"),
                }
                assert_eq!(rig.manager.unseal_model(&shard).unwrap(), bytes, "{what}");
                rig.settle(what.op != Op::Fill);
            },
            at_least: 11,
        }
        .sweep();
    }
}

/// P15: every call of the device fails once while a model is parked, and while it is woken.
#[test]
pub(super) fn a_model_is_parked_and_woken_as_a_whole_or_not_at_all() {
    for protection in [Protection::Encrypted, Protection::Authenticated] {
        Row {
            operation: "park a model",
            faults: Faults::every(0),
            set_up: &|| {
                let rig = Rig::new(&[1 << 17]);
                let model = admit(&rig.manager, protection, GpuChoice::One(0));
                (rig, model)
            },
            act: &|rig, model| rig.manager.park_model(model),
            after: &|rig, model, outcome, what| {
                match outcome {
                    Outcome::Done(parked) => {
                        rig.manager.wake_model(parked, GpuChoice::One(0)).unwrap();
                        assert_whole(&rig.manager, &model, what);
                    }
                    // Damage in a read looks like an altered shard; the others are as before.
                    Outcome::Refused(VramError::ShardAltered { .. }) => {
                        let verdict = rig.manager.verify_model(&model, Verify::Segments).unwrap();
                        let altered = verdict.shards.iter().filter(|verdict| !verdict.sound);
                        assert_eq!(altered.count(), 1, "{what}");
                    }
                    _ => assert_whole(&rig.manager, &model, what),
                }
                assert_eq!(rig.manager.park_capacity().used, ByteLen::ZERO, "{what}");
                rig.settle(what.op != Op::Fill);
            },
            at_least: 11,
        }
        .sweep();
        Row {
            operation: "wake a model",
            faults: Faults::every(0),
            set_up: &|| {
                let rig = Rig::new(&[1 << 17]);
                let model = admit(&rig.manager, protection, GpuChoice::One(0));
                let parked = Mutex::new(Some(rig.manager.park_model(&model).unwrap()));
                (rig, (model, parked))
            },
            act: &|rig, (_, parked)| {
                let taken = parked.lock().unwrap().take().unwrap();
                rig.manager.wake_model(taken, GpuChoice::One(0)).map_err(|failed| {
                    let (back, error) = failed.into_parts();
                    *parked.lock().unwrap() = Some(back);
                    error
                })
            },
            after: &|rig, (model, parked), outcome, what| {
                match (outcome, parked.into_inner().unwrap()) {
                    (Outcome::Done(_), None) => {}
                    (Outcome::Refused(_), Some(parked)) => {
                        assert_eq!(rig.manager.shards(), [], "{what}");
                        rig.manager.wake_model(parked, GpuChoice::One(0)).unwrap();
                    }
                    _ => panic!("the model was lost: {what}"),
                }
                assert_whole(&rig.manager, &model, what);
                rig.settle(what.op != Op::Fill);
            },
            at_least: 11,
        }
        .sweep();
    }
}

/// Shards that move over each other, and one whose new place overlaps its old one.
const LAYOUTS: [&[usize]; 2] = [&[2048, 9000, 2048, 3 * SEGMENT, 2048], &[2048, 20_480, 2048]];

fn assert_nothing_lost(rig: &Rig, kept: &Kept, report: Option<CompactReport>, what: &Fault) {
    let manager = &rig.manager;
    if let Some(report) = report {
        for parked in report.stranded {
            manager.wake(parked, 0).unwrap();
        }
        for (shard, error) in &report.skipped {
            // Damage in a read looks like an altered shard: it is closed to readers.
            let closed = manager.unseal_model(&kept[shard].0).is_err();
            assert_eq!(closed, matches!(error, VramError::ShardAltered { .. }), "{what}: {error}");
        }
    }
    for (shard, bytes) in kept.values() {
        match manager.unseal_model(shard) {
            Ok(read) => assert_eq!(read, *bytes, "{what}"),
            Err(VramError::Quarantined { .. }) => assert!(what.op == Op::Read, "{what}"),
            Err(other) => panic!("{what}: {other}"),
        }
    }
    assert_eq!(manager.park_capacity().used, ByteLen::ZERO, "{what}");
    rig.settle(what.op != Op::Fill);
}

/// P15, P17: every call of the device fails once; each shard keeps its bytes, in its present place
/// or in the report.
#[test]
pub(super) fn a_compaction_that_meets_a_fault_loses_no_shard() {
    for lens in LAYOUTS {
        let build = || {
            let rig = Rig::new(&[24 << (lens.len() / 5) << 10]);
            let kept = fragment(&rig.manager, lens, |number| number % 2 == 0);
            (rig, kept)
        };
        Row {
            operation: "compact",
            faults: Faults::every(0),
            set_up: &build,
            act: &|rig, _kept| rig.manager.compact(0, ALL),
            after: &|rig, kept, outcome, what| {
                let report = if let Outcome::Done(report) = outcome { Some(report) } else { None };
                assert_nothing_lost(rig, &kept, report, what);
            },
            at_least: 21,
        }
        .sweep();
    }
}

/// The same for copies within the device, which can be damaged like any other.
#[test]
pub(super) fn a_copy_within_the_device_that_fails_or_lies_loses_no_shard() {
    let error = GpuError::driver(GpuIndex::new(0), 1);
    let actions = [
        Action::Fail(error),
        Action::FailAfterwards(error),
        Action::Panic,
        Action::DropCopy,
        Action::ShortCopy { keep: 100 },
        Action::FlipBit { byte: 5, bit: 3 },
    ];
    Row {
        operation: "compact within the device",
        at_least: actions.len(),
        faults: vec![Faults::of(0, Op::Copy, actions).at(1..=2)],
        set_up: &|| {
            let rig = Rig::new(&[48 << 10]);
            let kept = fragment(&rig.manager, LAYOUTS[0], |number| number % 2 == 0);
            (rig, kept)
        },
        act: &|rig, _kept| rig.manager.compact(0, ALL),
        after: &|rig, kept, outcome, what| {
            let report = if let Outcome::Done(report) = outcome { Some(report) } else { None };
            assert_nothing_lost(rig, &kept, report, what);
        },
    }
    .sweep();
}
