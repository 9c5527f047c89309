//! A repaired shard that moves away from bad memory: the old place is never used again.

use vram_residency::{MemoryMode, RepairOptions, SliceSource, VramError};

use super::{damaged, is_whole, quarantined, requests};
use vram_test_rigs::{Rig, SEGMENT, content};

const LEN: usize = 3 * SEGMENT + 9;

#[test]
fn the_shard_moves_whole_and_its_old_place_is_wiped_and_never_handed_out_again() {
    let bytes = content(LEN, 1);
    for request in requests() {
        for altered in [&[1_u64][..], &[0, 1, 2, 3]] {
            let rig = Rig::new(&[1 << 16]);
            let shard = damaged(&rig, request.clone(), &bytes, altered);
            let (place, used) = (usize::try_from(rig.written_at(0)).unwrap(), rig.used(0));
            let source = SliceSource::new(&bytes);
            let report = rig.manager.repair_from(&shard, source, RepairOptions::new().relocate());
            let report = report.unwrap();
            assert_eq!((report.segments.first(), report.written.get()), (altered, LEN as u64));
            let footprint = (LEN as u64).next_multiple_of(256);
            assert_eq!(report.set_aside.get(), footprint);
            is_whole(&rig, &shard, &bytes, "elsewhere");
            assert_eq!(rig.used(0), used + footprint);
            assert_eq!(rig.manager.capacity(0).unwrap().unreturned.get(), footprint);
            assert!(rig.region(0)[place..place + LEN].iter().all(|byte| *byte == 0), "wiped");
            assert!(rig.manager.reconcile(0).unwrap().agrees);

            // No later placement uses that place.
            rig.manager.free_shard(&shard).unwrap();
            while rig.manager.seal_model("filler", 0, &content(SEGMENT, 2)).is_ok() {}
            assert!(rig.region(0)[place..place + LEN].iter().all(|byte| *byte == 0), "unused");
            rig.settle(false);
        }
    }
}

#[test]
fn without_room_for_a_second_copy_the_shard_stays_in_quarantine_where_it_is() {
    let bytes = content(LEN, 2);
    let rig = Rig::new(&[(LEN + SEGMENT).next_multiple_of(256)]);
    let shard = damaged(&rig, requests()[0].clone(), &bytes, &[2]);
    let source = SliceSource::new(&bytes);
    let refused = rig.manager.repair_from(&shard, source, RepairOptions::new().relocate());
    assert!(matches!(refused, Err(VramError::InsufficientVram(_))));
    assert!(quarantined(&rig, &shard));
    rig.manager.repair_from(&shard, source, RepairOptions::new()).unwrap();
    is_whole(&rig, &shard, &bytes, "in place");
}

#[test]
fn of_blocks_the_bad_one_is_kept_from_the_driver() {
    let Rig { manager, devices, .. } =
        Rig::in_mode(MemoryMode::Blocks, &[1 << 20], |builder| builder);
    let device = &devices[0];
    let bytes = content(LEN, 3);
    let shard = manager.seal(requests()[0].clone(), &bytes).unwrap();
    let bad = device.live()[0].0;
    device.flip_bit_at(Some(bad), vram_alloc::DeviceOffset::new(5000), 0).unwrap();
    let source = SliceSource::new(&bytes);
    let report = manager.repair_from(&shard, source, RepairOptions::new().relocate()).unwrap();
    assert_eq!((report.segments.first(), report.set_aside.get()), (&[1][..], 12544));
    assert_eq!(manager.unseal_model(&shard).unwrap(), bytes);
    assert_eq!(device.live().len(), 2, "the driver must not give it to somebody else");
    manager.free_shard(&shard).unwrap();
    assert_eq!(device.live().iter().map(|(number, _)| *number).collect::<Vec<_>>(), [bad]);
    let accounts = manager.reconcile(0).unwrap();
    assert!(accounts.agrees && accounts.unreturned == report.set_aside, "{accounts}");
}
