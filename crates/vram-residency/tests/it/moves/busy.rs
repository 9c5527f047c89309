//! Compaction beside readers: it waits for none of them.

use core::time::Duration;
use std::sync::{Arc, Mutex};

use vram_residency::device::FaultDevice;
use vram_residency::device::fault::{Action, FaultPlan, Hook, Op};
use vram_residency::{
    CompactBudget, CompactEnd, SealedShard, SegmentSize, Threads, VramError, VramManager,
};
use vram_test_rigs::{SlowReader, devices, in_time};

use super::compact::ALL;

/// A full GPU of shards of these lengths in KiB, the first at its high end. Those for which `free`
/// says so were freed; the others are returned.
fn holed(
    lens: &[usize],
    free: impl Fn(usize) -> bool,
) -> (Arc<VramManager>, Arc<FaultDevice>, Vec<SealedShard>) {
    let total = lens.iter().sum::<usize>() << 10;
    let device = devices(&[total], &FaultPlan::new(1)).remove(0);
    let builder = VramManager::builder().device(Arc::<FaultDevice>::clone(&device));
    let builder = builder.segment_size(SegmentSize::MIN).threads(Threads::ONE);
    let manager = Arc::new(builder.build().unwrap());
    let seal = |len: &usize| manager.seal_model("shard", 0, &vec![1; len << 10]).unwrap();
    let shards: Vec<_> = lens.iter().map(seal).collect();
    let mut kept = Vec::new();
    for (number, shard) in shards.into_iter().enumerate() {
        if free(number) {
            manager.free_shard(&shard).unwrap();
        } else {
            kept.push(shard);
        }
    }
    (manager, device, kept)
}

#[test]
fn a_compaction_ends_in_its_time_though_readers_are_slow() {
    let (manager, _device, shards) = holed(&[4; 4], |number| number % 2 == 0);
    let readers: Vec<_> = shards.iter().map(|shard| SlowReader::of(&manager, shard)).collect();
    let compacting = Arc::clone(&manager);
    let report = in_time("the compaction", move || {
        let budget = CompactBudget::new().max_time(Duration::from_secs(10));
        compacting.compact(0, budget).unwrap()
    });
    assert_eq!((report.moves, report.end), (0, CompactEnd::Finished), "{report:?}");
    // Each shard that was passed over is named.
    assert!(!report.skipped.is_empty());
    for (shard, error) in &report.skipped {
        assert!(shards.iter().any(|one| one.shard_id == *shard));
        assert!(matches!(error, VramError::InUse { leases: 0, .. }), "{error}");
    }
    for reader in readers {
        reader.end().unwrap();
    }
    let report = manager.compact(0, ALL).unwrap();
    assert_eq!((report.hole_count, report.skipped.len()), (1, 0));
}

/// From the low end: 8 free, shard, 8 free, leased, 4 free, other, 4 free. The shard is worth most,
/// and is read until the other moves.
#[test]
fn a_shard_in_use_is_tried_again_at_the_end_of_a_compaction() {
    let (manager, device, shards) =
        holed(&[4, 4, 4, 4, 8, 4, 8], |number| [0, 2, 4, 6].contains(&number));
    let [other, wall, shard] = shards.try_into().unwrap();
    let lease = manager.lease(&wall).unwrap();
    let reader = Mutex::new(Some(SlowReader::of(&manager, &shard)));
    let hook = Hook::new(move || drop(reader.lock().unwrap().take().map(SlowReader::end)));
    device.next(Op::Read, Action::Run(hook)).unwrap();
    let compacting = Arc::clone(&manager);
    let report = in_time("the compaction", move || compacting.compact(0, ALL).unwrap());
    assert!(report.moves >= 2 && report.skipped.is_empty(), "{report:?}");
    for shard in [other, wall, shard] {
        assert_eq!(manager.unseal_model(&shard).unwrap(), [1; 4096]);
    }
    drop(lease);
}
