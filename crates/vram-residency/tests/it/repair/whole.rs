//! A repaired shard has exactly its former bytes, and no other bytes were written.

use core::slice::from_ref;

use vram_residency::device::fault::{Action, Op};
use vram_residency::{RepairOptions, SealRequest, SliceSource, Verify, VramError};

use super::{alter, damaged, is_whole, quarantined, requests};
use vram_test_rigs::{Rig, SEGMENT, acts_at, content};

#[test]
fn every_segment_altered_in_turn_comes_back_and_no_other_is_written() {
    for len in [1, SEGMENT, SEGMENT + 1, 3 * SEGMENT + 77] {
        let bytes = content(len, 1);
        for request in requests() {
            for segment in 0..len.div_ceil(SEGMENT) as u64 {
                let rig = Rig::new(&[1 << 16]);
                let sealed = rig.manager.seal(request.clone(), &bytes).unwrap();
                let before = rig.region(0);
                alter(&rig, rig.written_at(0), segment);
                assert!(!rig.manager.verify(&sealed, Verify::Segments).unwrap().sound);
                rig.devices[0].clear_log();

                let source = SliceSource::new(&bytes);
                let report = rig.manager.repair_from(&sealed, source, RepairOptions::new());
                let report = report.unwrap();
                assert_eq!(
                    (report.was_altered, report.segments.first()),
                    (true, from_ref(&segment))
                );
                let left = len as u64 - segment * SEGMENT as u64;
                assert_eq!(report.written.get(), left.min(SEGMENT as u64));
                assert_eq!(rig.devices[0].call_count(Op::Write), 1);
                assert_eq!(rig.devices[0].call_count(Op::QueueWrite), 0);
                assert_eq!(rig.region(0), before, "to the bit, everywhere");
                is_whole(&rig, &sealed, &bytes, "the handle from before");
                assert_eq!(rig.manager.shards(), [sealed]);
                rig.settle(true);
            }
        }
    }
}

#[test]
fn a_shard_of_which_nothing_is_left_comes_back() {
    let len = 9 * SEGMENT + 5;
    let bytes = content(len, 2);
    for request in requests() {
        let rig = Rig::new(&[1 << 16]);
        let all: Vec<u64> = (0..10).collect();
        let shard = damaged(&rig, request, &bytes, &all);
        let used = rig.used(0);
        let report =
            rig.manager.repair_from(&shard, SliceSource::new(&bytes), RepairOptions::new());
        assert_eq!(report.unwrap().segments, all);
        is_whole(&rig, &shard, &bytes, "all of it");
        assert_eq!(rig.used(0), used);
        let report = rig.manager.report();
        assert!(report.shards[0].last_verified.is_some() && report.shards[0].quarantine.is_none());
    }
}

#[test]
fn what_is_sound_is_not_written_and_its_source_is_not_read() {
    let unread = acts_at(9000, 0, || panic!("it was read"));
    for request in requests() {
        let rig = Rig::new(&[1 << 16]);
        let shard = rig.manager.seal(request.clone(), &content(9000, 3)).unwrap();
        let report = rig.manager.repair_from(&shard, &unread, RepairOptions::new().relocate());
        let report = report.unwrap();
        assert!(!report.was_altered && report.segments.is_empty() && report.written.is_zero());
        assert_eq!(rig.devices[0].call_count(Op::Write), 0);
        assert!(rig.manager.report().shards[0].last_verified.is_some(), "all of it was looked at");

        let empty = rig.manager.seal(request, &[]).unwrap();
        let report = rig.manager.repair_from(&empty, SliceSource::new(&[]), RepairOptions::new());
        assert!(!report.unwrap().was_altered);
    }
}

#[test]
fn what_nobody_had_found_yet_is_found_and_repaired() {
    let bytes = content(5 * SEGMENT, 4);
    for request in requests() {
        let rig = Rig::new(&[1 << 16]);
        let shard = rig.manager.seal(request, &bytes).unwrap();
        alter(&rig, rig.written_at(0), 3);
        let report =
            rig.manager.repair_from(&shard, SliceSource::new(&bytes), RepairOptions::new());
        assert_eq!(report.unwrap().segments, [3]);
        is_whole(&rig, &shard, &bytes, "found on the way");
    }
}

#[test]
fn a_quarantine_for_what_the_bus_did_is_lifted_and_nothing_is_written() {
    let bytes = content(5 * SEGMENT, 5);
    for request in requests() {
        let rig = Rig::new(&[1 << 16]);
        let shard = rig.manager.seal(request, &bytes).unwrap();
        rig.devices[0].next(Op::Read, Action::FlipBit { byte: 7, bit: 7 }).unwrap();
        assert!(!rig.manager.verify(&shard, Verify::Segments).unwrap().sound);
        assert!(quarantined(&rig, &shard));
        rig.devices[0].clear_log();
        let wrong = content(5 * SEGMENT, 6);
        let refused =
            rig.manager.repair_from(&shard, SliceSource::new(&wrong), RepairOptions::new());
        assert!(matches!(refused, Err(VramError::DigestMismatch { .. })));
        assert!(quarantined(&rig, &shard), "only its own content lifts it");
        let report =
            rig.manager.repair_from(&shard, SliceSource::new(&bytes), RepairOptions::new());
        assert_eq!(report.unwrap().segments, [0_u64; 0]);
        assert_eq!(rig.devices[0].call_count(Op::Write), 0);
        is_whole(&rig, &shard, &bytes, "it was never altered");
    }
}

#[test]
fn a_leased_shard_is_not_written_under_its_readers() {
    let bytes = content(9000, 7);
    let rig = Rig::new(&[1 << 16]);
    let request =
        SealRequest::new("model", 0).protection(vram_residency::Protection::Authenticated);
    let shard = rig.manager.seal(request, &bytes).unwrap();
    let lease = rig.manager.lease(&shard).unwrap();
    alter(&rig, rig.written_at(0), 0);
    let repair = || rig.manager.repair_from(&shard, SliceSource::new(&bytes), RepairOptions::new());
    assert!(matches!(repair(), Err(VramError::InUse { leases: 1, .. })));
    drop(lease);
    assert!(repair().unwrap().was_altered);
    is_whole(&rig, &shard, &bytes, "after the lease");
}

#[test]
fn a_repaired_shard_counts_as_found_sound_by_the_repair() {
    let bytes = content(3 * SEGMENT, 1);
    for request in requests() {
        let rig = Rig::new(&[1 << 16]);
        let request = request.read_back(vram_residency::ReadBack::None);
        let shard = damaged(&rig, request, &bytes, &[1]);
        assert_eq!(rig.manager.report().shards[0].last_verified, None);
        let source = SliceSource::new(&bytes);
        let report = rig.manager.repair_from(&shard, source, RepairOptions::new()).unwrap();
        let verified = rig.manager.report().shards[0].last_verified;
        assert!(verified.is_some_and(|when| when <= report.at), "{verified:?}");
    }
}
