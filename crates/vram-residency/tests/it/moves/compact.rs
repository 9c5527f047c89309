//! Compaction: holes join, bytes stay the same, and a leased shard keeps its place.

use core::time::Duration;
use std::collections::BTreeMap;

use vram_residency::device::fault::{Action, Op, When};
use vram_residency::device::{DeviceAddress, GpuError};
use vram_residency::{
    ByteLen, CompactBudget, CompactEnd, GpuIndex, Protection, SealKey, SealRequest, SealedShard,
    SegmentSize, ShardId, Verify, VramError, VramManager,
};
use vram_test_rigs::{Rig, content};

pub(crate) const ALL: CompactBudget = CompactBudget::new();

/// The resident shards, and their bytes.
pub(crate) type Kept = BTreeMap<ShardId, (SealedShard, Vec<u8>)>;

fn seal_all(manager: &VramManager, lens: &[usize]) -> Vec<(SealedShard, Vec<u8>)> {
    let kinds = [Protection::Encrypted, Protection::Authenticated];
    let seal = |(number, len): (usize, &usize)| {
        let bytes = content(*len, number as u64);
        let request = SealRequest::new("tensor", 0).protection(kinds[number % 2]);
        (manager.seal(request, &bytes).unwrap(), bytes)
    };
    lens.iter().enumerate().map(seal).collect()
}

/// Seals pieces of these lengths and frees every one whose number `free` picks.
pub(crate) fn fragment(
    manager: &VramManager,
    lens: &[usize],
    free: impl Fn(usize) -> bool,
) -> Kept {
    let mut kept = Kept::new();
    for (number, (shard, bytes)) in seal_all(manager, lens).into_iter().enumerate() {
        if free(number) {
            manager.free_shard(&shard).unwrap();
        } else {
            kept.insert(shard.shard_id.clone(), (shard, bytes));
        }
    }
    kept
}

fn assert_kept(manager: &VramManager, kept: &Kept, what: &str) {
    assert_eq!(manager.shards().len(), kept.len(), "{what}");
    for (shard, bytes) in kept.values() {
        assert_eq!(manager.unseal_model(shard).unwrap(), *bytes, "{what}");
        assert!(manager.verify(shard, Verify::Full).unwrap().sound, "{what}");
    }
}

/// Reproduces the allocation that failed with half the card free.
#[test]
fn a_model_that_fits_into_what_is_free_fits_after_compaction() {
    let rig = Rig::new(&[64 << 10]);
    let manager = &rig.manager;
    let kept = fragment(manager, &[4096; 16], |number| number % 2 == 0);
    let half = content(32 << 10, 99);
    match manager.seal_model("big", 0, &half) {
        Err(VramError::InsufficientVram(shortfall)) => {
            assert!(shortfall.room.get() >= 32 << 10, "half the card is free");
        }
        other => panic!("{other:?}"),
    }
    let report = manager.compact(0, ALL).unwrap();
    assert_eq!(report.end, CompactEnd::Finished);
    assert_eq!((report.hole_count_before, report.hole_count), (8, 1));
    assert_eq!(report.largest_hole_before.get(), 4096);
    assert_eq!(report.largest_hole.get(), 32 << 10);
    assert!(report.moves <= 8, "{} moves for seven shards", report.moves);
    let big = manager.seal_model("big", 0, &half).unwrap();
    assert_eq!(manager.unseal_model(&big).unwrap(), half);
    manager.free_shard(&big).unwrap();
    assert_kept(manager, &kept, "after");
    rig.settle(true);
}

#[test]
fn pieces_of_all_sizes_end_with_one_hole_also_where_they_slide_over_themselves() {
    let lens = [300, 9000, 1, 5000, 4096, 256, 12_000, 700, 8192, 2000, 3000, 511];
    for pick in 0..3 {
        for total in [64 << 10, 50_000] {
            let rig = Rig::new(&[total]);
            let kept = fragment(&rig.manager, &lens, |number| number % 3 == pick);
            let used = rig.used(0);
            let report = rig.manager.compact(0, ALL).unwrap();
            assert_eq!((report.end, report.hole_count), (CompactEnd::Finished, 1), "{report:?}");
            let capacity = rig.manager.capacity(0).unwrap();
            assert_eq!(capacity.largest_hole, capacity.free, "P2");
            assert!(report.skipped.is_empty() && report.stranded.is_empty());
            assert_eq!(rig.used(0), used);
            assert_eq!(rig.manager.park_capacity().used, ByteLen::ZERO);
            assert_kept(&rig.manager, &kept, "after");
            // Nothing is left to do.
            assert_eq!(rig.manager.compact(0, ALL).unwrap().moves, 0);
            rig.settle(true);
        }
    }
}

/// P18: no byte of a shard can be read in its old place.
#[test]
fn what_a_shard_leaves_behind_is_wiped() {
    let rig = Rig::new(&[32 << 10]);
    let before = rig.region(0);
    let shards = seal_all(&rig.manager, &[1024, 1024, 20_000, 1024]);
    for number in [1, 3] {
        rig.manager.free_shard(&shards[number].0).unwrap();
    }
    let report = rig.manager.compact(0, ALL).unwrap();
    assert!(report.moves > 0);
    let left = rig.region(0);
    let written = left.iter().zip(&before).filter(|(now, then)| now != then && **now != 0);
    assert!(written.count() <= 1024 + 20_224, "more than the shards is there");
    rig.settle(true);
}

/// P14.
#[test]
fn leased_and_quarantined_shards_stay_where_they_are() {
    let rig = Rig::new(&[64 << 10]);
    let manager = &rig.manager;
    let shards = seal_all(manager, &[4096; 16]);
    for (shard, _) in shards.iter().step_by(2) {
        manager.free_shard(shard).unwrap();
    }
    // All but one are leased: only that one can move, and it does not move twice.
    let leases: Vec<_> =
        shards.iter().skip(3).step_by(2).map(|(shard, _)| manager.lease(shard).unwrap()).collect();
    let where_they_are = |leases: &[vram_residency::Lease]| -> Vec<_> {
        leases.iter().map(|lease| lease.device_pointer().map(DeviceAddress::get)).collect()
    };
    let before = where_they_are(&leases);
    let report = manager.compact(0, ALL).unwrap();
    assert_eq!(report.moves, 1);
    assert!(report.skipped.is_empty(), "{:?}", report.skipped);
    assert_eq!(where_they_are(&leases), before);
    drop(leases);

    let altered = &shards[5].0;
    let region = rig.region(0);
    let sealed = manager.unseal_model(altered).unwrap();
    let at = region.windows(64).position(|part| part == &sealed[..64]).unwrap();
    rig.flip(0, at as u64 + 9, 1);
    assert!(!manager.verify_shard_integrity(altered).unwrap());
    let report = manager.compact(0, ALL).unwrap();
    assert!(report.skipped.is_empty(), "{:?}", report.skipped);
    let now = rig.region(0);
    assert_eq!(now[at + 64..at + 4096], region[at + 64..at + 4096], "evidence is kept");
}

#[test]
fn a_budget_ends_it_and_the_state_is_good_at_any_stop() {
    let lens = [4096; 16];
    let kept = |manager: &VramManager| fragment(manager, &lens, |number| number % 2 == 0);
    for max in [0, 1, 4095, 4096, 9000, 20_000] {
        let rig = Rig::new(&[64 << 10]);
        let kept = kept(&rig.manager);
        let budget = CompactBudget::new().max_bytes(ByteLen::new(max));
        let report = rig.manager.compact(0, budget).unwrap();
        assert!(report.moved_bytes.get() <= max, "{report:?}");
        assert_eq!(report.end, CompactEnd::OutOfBytes);
        assert_eq!(report.moves, max / 4096);
        assert_kept(&rig.manager, &kept, "after");
        rig.settle(true);
    }
    let rig = Rig::new(&[64 << 10]);
    let kept = kept(&rig.manager);
    let none = rig.manager.compact(0, CompactBudget::new().max_time(Duration::ZERO)).unwrap();
    assert_eq!((none.end, none.moves), (CompactEnd::OutOfTime, 0));
    let enough = CompactBudget::new().until_hole(ByteLen::new(8192));
    let report = rig.manager.compact(0, enough).unwrap();
    assert_eq!((report.end, report.moves), (CompactEnd::Enough, 1));
    assert_eq!(rig.manager.compact(0, enough).unwrap().moves, 0);
    assert_kept(&rig.manager, &kept, "after");
    let unknown = rig.manager.compact(1, ALL);
    assert!(matches!(unknown, Err(VramError::UnknownGpu { .. })));
}

#[test]
fn without_host_memory_a_shard_that_slides_over_itself_is_skipped_and_named() {
    let manager = VramManager::builder()
        .host_device(ByteLen::new(24 << 10))
        .segment_size(SegmentSize::MIN)
        .key(SealKey::from_bytes(&[7; 32]))
        .park_limit(ByteLen::new(1000))
        .build()
        .unwrap();
    let shards = seal_all(&manager, &[2048, 20_480, 2048]);
    manager.free_shard(&shards[0].0).unwrap();
    manager.free_shard(&shards[2].0).unwrap();
    let report = manager.compact(0, ALL).unwrap();
    assert_eq!((report.moves, report.hole_count), (0, 2));
    match report.skipped.as_slice() {
        [(shard, VramError::ParkLimit { .. })] => assert_eq!(shard, &shards[1].0.shard_id),
        other => panic!("{other:?}"),
    }
    assert_eq!(manager.unseal_model(&shards[1].0).unwrap(), shards[1].1);
    assert_eq!(manager.capacity(0).unwrap().used.get(), 20_480);
}

/// The device refuses writes from some call on: the shard that was moving then is not lost.
#[test]
fn a_shard_that_the_device_takes_at_no_place_stays_in_host_memory() {
    let rig = Rig::new(&[24 << 10]);
    let shards = seal_all(&rig.manager, &[2048, 20_480, 2048]);
    rig.manager.free_shard(&shards[0].0).unwrap();
    rig.manager.free_shard(&shards[2].0).unwrap();
    let error = GpuError::driver(GpuIndex::new(0), 1);
    rig.devices[0].add(Op::QueueWrite, When::From(2), Action::Fail(error)).unwrap();
    let mut report = rig.manager.compact(0, ALL).unwrap();
    rig.devices[0].clear();
    assert_eq!(report.skipped.len(), 1);
    let parked = report.stranded.pop().unwrap();
    assert_eq!(parked.shard_id(), &shards[1].0.shard_id);
    assert!(matches!(rig.manager.unseal_model(&shards[1].0), Err(VramError::Parked { .. })));
    assert_eq!(rig.used(0), 0);
    rig.manager.wake(parked, 0).unwrap();
    assert_eq!(rig.manager.unseal_model(&shards[1].0).unwrap(), shards[1].1);
    rig.settle(true);
}

/// P19: other threads read, seal and free meanwhile.
#[test]
fn others_go_on_while_a_gpu_is_compacted() {
    let manager = VramManager::builder()
        .host_device(ByteLen::new(256 << 10))
        .segment_size(SegmentSize::MIN)
        .build()
        .unwrap();
    let kept = fragment(&manager, &[3000; 40], |number| number % 2 == 0);
    std::thread::scope(|scope| {
        for worker in 0..2_u64 {
            let (manager, kept) = (&manager, &kept);
            scope.spawn(move || {
                for round in 0..150 {
                    let own = content(1000 + round * 37, worker);
                    let shard = manager.seal_model("own", 0, &own).unwrap();
                    let (other, bytes) = kept.values().nth(round % kept.len()).unwrap();
                    assert_eq!(manager.unseal_model(other).unwrap(), *bytes);
                    assert_eq!(manager.unseal_model(&shard).unwrap(), own);
                    manager.free_shard(&shard).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..20 {
                let report = manager.compact(0, ALL).unwrap();
                // A shard that is being read stays where it is.
                let busy = |(_, error): &(_, VramError)| matches!(error, VramError::InUse { .. });
                assert!(report.skipped.iter().all(busy), "{report:?}");
                assert!(report.stranded.is_empty(), "{report:?}");
            }
        });
    });
    let report = manager.compact(0, ALL).unwrap();
    assert_eq!((report.end, report.hole_count), (CompactEnd::Finished, 1));
    assert_kept(&manager, &kept, "after");
    assert_eq!(manager.capacity(0).unwrap().used.get(), 20 * 3072);
}
