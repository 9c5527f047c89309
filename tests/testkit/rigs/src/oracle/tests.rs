//! The oracle against answers that were right, and answers that never were.

use std::sync::Arc;

use vram_residency::{GpuIndex, SealedShard, VramError};

use super::*;
use crate::{Rig, SEGMENT, content};

const TOTAL: usize = 64 * SEGMENT;

fn watched() -> (Arc<Oracle>, Rig) {
    let total = u64::try_from(TOTAL).unwrap();
    let largest = u64::try_from(SEGMENT).unwrap();
    let oracle =
        Oracle::new(World { totals: vec![total], largest, in_one_piece: true, all_may_go: false });
    let rig = Rig::with(&[TOTAL], |builder| oracle.hears(builder));
    (oracle, rig)
}

fn seal(rig: &Rig, len: usize) -> Result<SealedShard, VramError> {
    rig.manager.seal_model("model", 0, &content(len, 1))
}

#[test]
fn refusals_of_real_calls_are_right() {
    let (oracle, rig) = watched();
    let hand = oracle.hand(0);
    let origin = oracle.now();
    let shard = seal(&rig, SEGMENT).unwrap();
    let on = |name| Doing::of(name).shard(&shard, origin);
    let lease = hand.begin(on("lease").leases());
    let held = rig.manager.lease(&shard).unwrap();
    hand.made(on("free"), || rig.manager.free_shard(&shard)).unwrap_err();
    drop(held);
    drop(lease);
    let parked = hand.made(on("park"), || rig.manager.park(&shard)).unwrap();
    hand.made(on("read"), || rig.manager.unseal_model(&shard)).unwrap_err();
    drop(parked);
    hand.made(on("read"), || rig.manager.unseal_model(&shard)).unwrap_err();
    let much = Doing::of("seal").takes(0, 0);
    hand.made_on(&rig.manager, much, || seal(&rig, 2 * TOTAL)).unwrap_err();
    oracle.judge(&rig.manager).unwrap();
    let codes: Vec<_> = oracle.refusals().into_keys().collect();
    assert_eq!(codes, ["in-use", "insufficient-vram", "parked", "shard-freed"]);
}

#[test]
fn a_refusal_that_was_never_right_is_named_with_its_call() {
    let (oracle, rig) = watched();
    let origin = oracle.now();
    let resident = seal(&rig, SEGMENT).unwrap();
    let shard = resident.shard_id.clone();
    let error = vram_residency::GpuError::driver(GpuIndex::new(0), 214);
    let most = seal(&rig, TOTAL / 2).unwrap();
    let full = seal(&rig, TOTAL / 2).unwrap_err();
    let wrong = [
        VramError::ShardFreed { shard: shard.clone() },
        VramError::Parked { shard: shard.clone(), evicted_for: None },
        VramError::Restoring { shard: shard.clone() },
        VramError::StaleHandle { shard: shard.clone() },
        VramError::InUse { shard: shard.clone(), leases: 0, oldest: None },
        VramError::InUse { shard, leases: 1, oldest: None },
        VramError::DeviceLost { gpu: 0, source: Box::new(error) },
        VramError::GpuInUse { gpu: 0, why: "nothing" },
        VramError::NotLost { gpu: 0, shards: 1 },
        VramError::Closed,
        VramError::UnknownGpu { gpu: 0, count: 1 },
    ];
    for error in wrong {
        let code = error.code();
        let hand = oracle.hand(7);
        let doing = Doing::of("made up").shard(&resident, origin);
        hand.made(doing, || Err::<(), _>(error)).unwrap_err();
        let why = oracle.judge(&rig.manager).unwrap_err();
        assert!(why.contains(code) && why.contains("thread 7") && why.contains("made up"), "{why}");
        oracle.journal().made.clear();
    }
    // There was too little room only while the others lay there.
    rig.manager.free_shard(&resident).unwrap();
    rig.manager.free_shard(&most).unwrap();
    let hand = oracle.hand(7);
    let doing = Doing::of("made up").takes(0, 0);
    let manager = &rig.manager;
    hand.made_on(manager, doing, || Err::<(), _>(full)).unwrap_err();
    let why = oracle.judge(manager).unwrap_err();
    assert!(why.contains("insufficient-vram"), "{why}");
}
