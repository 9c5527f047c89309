//! A fault at every device call of a repair: the shard is repaired, or in quarantine and can be
//! repaired again.

use vram_alloc::DeviceOffset;
use vram_residency::device::fault::{Action, Hook, Op, When};
use vram_residency::{RepairOptions, SliceSource, VramError};

use vram_test_rigs::{Faults, Outcome, Rig, Row, SEGMENT, content};

use crate::repair::{damaged, is_whole, quarantined, requests};

const LEN: usize = 5 * SEGMENT + 9;

#[test]
pub(super) fn whatever_fails_at_whatever_call_the_shard_is_whole_or_in_quarantine() {
    let bytes = content(LEN, 1);
    let mut met = 0;
    for (relocate, request) in [false, true].into_iter().flat_map(|relocate| {
        // One of each: plaintext in place, one tag for all, one for each segment.
        let requests = requests();
        [0, 1, 3].map(|which| (relocate, requests[which].clone()))
    }) {
        let options = move || {
            let options = RepairOptions::new();
            if relocate { options.relocate() } else { options }
        };
        met += Row {
            operation: "repair",
            faults: Faults::every(0),
            set_up: &|| {
                let rig = Rig::new(&[1 << 16]);
                let shard = damaged(&rig, request.clone(), &bytes, &[1, 4]);
                (rig, shard)
            },
            act: &|rig, shard| rig.manager.repair_from(shard, SliceSource::new(&bytes), options()),
            after: &|rig, shard, outcome, what| {
                match outcome {
                    Outcome::Done(report) => {
                        assert!(report.was_altered, "{what}");
                        assert_eq!(report.set_aside.is_zero(), !relocate, "{what}");
                    }
                    refused => {
                        let why = match refused {
                            Outcome::Refused(error) => error.to_string(),
                            _ => "a panic".into(),
                        };
                        assert!(quarantined(rig, &shard), "{what}: {why}");
                        let source = SliceSource::new(&bytes);
                        rig.manager.repair_from(&shard, source, RepairOptions::new()).unwrap();
                    }
                }
                is_whole(rig, &shard, &bytes, what);
                rig.settle(!relocate);
            },
            at_least: 1,
        }
        .count();
    }
    assert!(met > 300, "{met} faults were met");
}

#[test]
pub(super) fn memory_that_keeps_nothing_is_named_and_the_shard_stays_in_quarantine() {
    let bytes = content(LEN, 2);
    for request in requests() {
        let rig = Rig::new(&[1 << 16]);
        let shard = damaged(&rig, request, &bytes, &[1, 4]);
        rig.devices[0].add(Op::Write, When::From(1), Action::FlipBit { byte: 0, bit: 0 }).unwrap();
        let repair =
            || rig.manager.repair_from(&shard, SliceSource::new(&bytes), RepairOptions::new());
        match repair() {
            Err(VramError::WriteNotKept { gpu: 0, segments }) => assert_eq!(segments, [1, 4]),
            other => panic!("{other:?}"),
        }
        assert!(quarantined(&rig, &shard));
        rig.devices[0].clear();
        repair().unwrap();
        is_whole(&rig, &shard, &bytes, "once it keeps what is written");
    }
}

#[test]
pub(super) fn what_is_altered_while_a_repair_is_under_way_is_found_at_its_end() {
    let bytes = content(LEN, 4);
    for request in requests() {
        for (elsewhere, relocate) in [(true, false), (false, false), (false, true)] {
            let rig = Rig::new(&[1 << 16]);
            let shard = damaged(&rig, request.clone(), &bytes, &[1, 4]);
            // After segment 1 was written and read back, flips a bit of it, or of segment 0.
            let (start, device) = (rig.written_at(0), std::sync::Arc::clone(&rig.devices[0]));
            rig.devices[0].clear_log();
            let hook = Hook::new(move || {
                let writes = device.calls().into_iter().filter(|call| call.op == Op::Write);
                let which = usize::from(relocate);
                let written = writes.filter_map(|call| call.offset).nth(which).unwrap().get();
                let at = if elsewhere { start } else { written };
                device.flip_bit_at(None, DeviceOffset::new(at + 3), 1).unwrap();
            });
            let last = if relocate { 5 } else { 2 };
            rig.devices[0].add(Op::Write, When::Nth(last), Action::Run(hook)).unwrap();
            let options = RepairOptions::new();
            let options = if relocate { options.relocate() } else { options };
            let refused = rig.manager.repair_from(&shard, SliceSource::new(&bytes), options);
            match refused {
                Err(VramError::ShardAltered { segments, .. }) if elsewhere => {
                    assert_eq!(segments, [0]);
                }
                Err(VramError::WriteNotKept { segments, .. }) if !elsewhere => {
                    assert_eq!(segments, [1]);
                }
                other => panic!("{other:?}"),
            }
            assert!(quarantined(&rig, &shard));
            let source = SliceSource::new(&bytes);
            rig.manager.repair_from(&shard, source, RepairOptions::new()).unwrap();
            is_whole(&rig, &shard, &bytes, "the second time");
        }
    }
}

#[test]
pub(super) fn on_a_lost_gpu_nothing_is_repaired_and_nothing_is_sent() {
    let bytes = content(LEN, 3);
    let rig = Rig::new(&[1 << 16]);
    let shard = damaged(&rig, requests()[0].clone(), &bytes, &[1]);
    rig.devices[0].next(Op::Write, Action::Driver(700)).unwrap();
    let repair = || rig.manager.repair_from(&shard, SliceSource::new(&bytes), RepairOptions::new());
    for _ in 0..2 {
        assert!(matches!(repair(), Err(VramError::DeviceLost { .. })));
    }
    assert_eq!(rig.devices[0].calls_after_loss(), 0);
}
