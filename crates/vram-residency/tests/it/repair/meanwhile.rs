//! A shard that changes between the survey of a repair and its writes.

use core::sync::atomic::{AtomicBool, Ordering};

use vram_residency::{RepairOptions, SliceSource, Verify, VramError};

use super::{alter, damaged, is_whole, requests};
use vram_test_rigs::{Rig, SEGMENT, content};

const LEN: usize = 3 * SEGMENT;

/// Runs `change` once, after the survey and before the first write: no gate is held then.
fn repaired_while(
    rig: &Rig,
    shard: &vram_residency::SealedShard,
    bytes: &[u8],
    change: impl Fn() + Send + Sync,
) -> Result<vram_residency::RepairReport, VramError> {
    let done = AtomicBool::new(false);
    let options = RepairOptions::new().progress(|progress| {
        if progress.done == progress.total && !done.swap(true, Ordering::SeqCst) {
            change();
        }
    });
    let outcome = rig.manager.repair_from(shard, SliceSource::new(bytes), options);
    assert!(done.into_inner(), "nothing changed");
    outcome
}

/// Its old place belongs to another shard by now.
#[test]
fn a_repair_of_a_shard_that_moved_meanwhile_writes_at_its_new_place_alone() {
    let (bytes, others) = (content(LEN, 1), content(LEN, 2));
    for request in requests() {
        let rig = Rig::new(&[1 << 16, 1 << 16]);
        let shard = damaged(&rig, request.clone(), &bytes, &[1]);
        let start = rig.written_at(0);
        let report = repaired_while(&rig, &shard, &bytes, || {
            let source = SliceSource::new(&bytes);
            let _mended = rig.manager.repair_from(&shard, source, RepairOptions::new()).unwrap();
            let moved = rig.manager.migrate_shard(&shard, 1).unwrap();
            let other = rig.manager.seal(request.clone(), &others).unwrap();
            assert_eq!((other.gpu_index, rig.written_at(0)), (0, start));
            let at = rig.written_at(1) + u64::try_from(SEGMENT).unwrap();
            rig.flip(1, at, 3);
            assert!(!rig.manager.verify(&moved, Verify::Segments).unwrap().sound);
        });
        let report = report.unwrap();
        assert_eq!((report.gpu, report.segments.first()), (1, &[1][..]));
        for shard in rig.manager.shards() {
            let bytes = if shard.gpu_index == 1 { &bytes } else { &others };
            is_whole(&rig, &shard, bytes, shard.gpu_index);
        }
    }
}

#[test]
fn what_is_found_altered_after_the_survey_of_a_repair_is_repaired_with_the_rest() {
    let bytes = content(LEN, 1);
    for request in requests() {
        let rig = Rig::new(&[1 << 16]);
        let shard = damaged(&rig, request, &bytes, &[0]);
        let start = rig.written_at(0);
        let report = repaired_while(&rig, &shard, &bytes, || {
            alter(&rig, start, 2);
            assert!(!rig.manager.verify(&shard, Verify::Segments).unwrap().sound);
        });
        assert_eq!(report.unwrap().segments, [0, 2]);
        is_whole(&rig, &shard, &bytes, "both");
    }
}
