//! Adding and retiring keys, and moving shards from one key to another.

use vram_residency::{
    KeyError, Protection, SealError, SealKey, SealRequest, SivScope, Verify, VramError,
};
use vram_test_rigs::{Rig, SEGMENT, content};

pub(crate) fn other() -> SealKey {
    SealKey::from_bytes(&[9; 32])
}

pub(crate) fn requests() -> [SealRequest; 3] {
    let base = SealRequest::new("model", 0).context(b"tenant").revision(4);
    [
        base.clone().scope(SivScope::Shard),
        base.clone().scope(SivScope::Segment),
        base.protection(Protection::Authenticated),
    ]
}

/// Room for a second copy, and for only one copy, so that resealing works in place.
pub(crate) fn rigs(len: usize) -> [Rig; 2] {
    [Rig::new(&[1 << 16]), Rig::new(&[len.next_multiple_of(256).max(256)])]
}

#[test]
fn a_resealed_shard_keeps_id_and_bytes_and_the_old_handle_is_stale() {
    for len in [0, 1, SEGMENT, 5 * SEGMENT + 9] {
        let bytes = content(len, 1);
        for request in requests() {
            for rig in rigs(len) {
                let manager = &rig.manager;
                let before = manager.active_key();
                let shard = manager.seal(request.clone(), &bytes).unwrap();
                manager.add_key(other()).unwrap();
                let resealed = manager.reseal_shard(&shard, &other().id()).unwrap();
                assert_eq!(resealed.shard_id, shard.shard_id);
                assert_eq!(resealed.protection, shard.protection);
                assert_ne!(resealed.sealed_data, shard.sealed_data);
                let fields = resealed.sealed_data.parse_unauthenticated().unwrap();
                assert_eq!((fields.key_id(), fields.revision()), (other().id(), 4));
                assert_eq!(manager.unseal_model(&resealed).unwrap(), bytes);
                assert!(manager.verify(&resealed, Verify::Full).unwrap().sound);
                let stale = manager.unseal_model(&shard);
                assert!(matches!(stale, Err(VramError::StaleHandle { .. })));

                // And back: sealing is deterministic, so the first record appears again.
                let back = manager.reseal_shard(&resealed, &before).unwrap();
                assert_eq!(back.sealed_data, shard.sealed_data);
                assert_eq!(manager.reseal_shard(&back, &before).unwrap(), back, "nothing to do");
                rig.settle(true);
            }
        }
    }
}

#[test]
fn a_key_is_retired_when_nothing_is_sealed_under_it_any_more() {
    let rig = Rig::new(&[1 << 16]);
    let manager = &rig.manager;
    let old = manager.active_key();
    let resident = manager.seal_model("model", 0, b"resident").unwrap();
    let parked = manager.seal_model("model", 0, b"parked").unwrap();
    let parked = manager.park(&parked).unwrap();
    manager.add_key(other()).unwrap();
    assert!(matches!(manager.retire_key(&old), Err(VramError::Key(KeyError::ActiveKey { .. }))));
    let twice = manager.add_key(other());
    assert!(matches!(twice, Err(VramError::Key(KeyError::DuplicateId { .. }))));
    manager.set_active_key(&other().id()).unwrap();

    match manager.retire_key(&old) {
        Err(error @ VramError::KeyInUse { seals: 2, .. }) => assert_eq!(error.code(), "key-in-use"),
        refused => panic!("{refused:?}"),
    }
    let resident = manager.reseal_shard(&resident, &other().id()).unwrap();
    assert!(matches!(manager.retire_key(&old), Err(VramError::KeyInUse { seals: 1, .. })));
    let woken = manager.wake(parked, 0).unwrap();
    assert!(matches!(manager.retire_key(&old), Err(VramError::KeyInUse { seals: 1, .. })));
    manager.free_shard(&woken).unwrap();
    manager.retire_key(&old).unwrap();
    assert_eq!(manager.key_ids(), [other().id()]);

    let gone = manager.reseal_shard(&resident, &old);
    assert!(matches!(gone, Err(VramError::Seal(SealError::UnknownKey { .. }))), "{gone:?}");
    assert!(matches!(manager.retire_key(&old), Err(VramError::Key(KeyError::UnknownId { .. }))));
    assert_eq!(manager.unseal_model(&resident).unwrap(), b"resident");
}

/// P10a: sealing an altered byte under another key does not give it a valid record.
#[test]
fn an_altered_shard_is_not_resealed() {
    let len = 3 * SEGMENT + 9;
    for request in requests() {
        for segment in 0..4_u64 {
            for rig in rigs(len) {
                let shard = rig.manager.seal(request.clone(), &content(len, 2)).unwrap();
                rig.manager.add_key(other()).unwrap();
                let offset = rig.written_at(0) + segment * 4096 + 3;
                rig.flip(0, offset, 1);
                match rig.manager.reseal_shard(&shard, &other().id()) {
                    Err(VramError::ShardAltered { segments, .. }) => {
                        assert_eq!(segments, [segment]);
                    }
                    refused => panic!("{refused:?}"),
                }
                rig.settle(true);
            }
        }
    }
}
