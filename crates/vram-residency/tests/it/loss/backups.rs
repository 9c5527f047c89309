//! Backups: when they are kept, when they are dropped, and the host memory they take.

use vram_residency::device::fault::{Action, Op};
use vram_residency::{
    ByteLen, NotRestored, Protection, ResetOptions, SealKey, SealRequest, Verify, VramError,
};

use vram_test_rigs::content;

use super::{KINDS, LEN, MODES, is_lost, seal, two_gpus, two_gpus_with};

#[test]
fn a_backup_counts_as_long_as_the_shard_is_sealed_as_it_was() {
    for mode in MODES {
        for kind in KINDS {
            let rig = two_gpus(mode);
            let manager = &rig.manager;
            let used = || manager.park_capacity().used;
            let backed_up = || manager.report().shards[0].backed_up;
            let shard = seal(&rig, 0, kind, 1);
            assert!(!backed_up());
            assert!(!manager.drop_backup(&shard).unwrap());
            let backup = manager.back_up(&shard).unwrap();
            assert_eq!((&backup.shard_id, backup.host_len), (&shard.shard_id, used()));
            assert!(used() >= ByteLen::from_usize(LEN) && backed_up());
            assert_eq!(manager.park_capacity().shard_count, 0, "it is not parked");
            assert_eq!(manager.unseal_model(&shard).unwrap(), content(LEN, 1));

            // A second backup replaces the first.
            assert_eq!(manager.back_up(&shard).unwrap().host_len, used());
            // The backup moves with its shard, and still exists after parking and waking.
            let shard = manager.migrate_shard(&shard, 1).unwrap();
            let parked = manager.park(&shard).unwrap();
            assert_eq!(used().get(), 2 * backup.host_len.get());
            let shard = manager.wake(parked, 0).unwrap();
            assert!(backed_up() && used() == backup.host_len);

            assert!(manager.drop_backup(&shard).unwrap());
            assert!(used().is_zero() && !backed_up());

            // A new seal differs from the one that was backed up.
            manager.back_up(&shard).unwrap();
            let other = match kind {
                Protection::Encrypted => manager.open_resident(&shard),
                _ => manager.close_resident(&shard),
            };
            let shard = other.unwrap();
            assert!(used().is_zero() && !backed_up());
            manager.back_up(&shard).unwrap();
            let key = SealKey::from_bytes(&[9; 32]);
            let id = key.id();
            manager.add_key(key).unwrap();
            let shard = manager.reseal_shard(&shard, &id).unwrap();
            assert!(used().is_zero() && !backed_up());

            manager.back_up(&shard).unwrap();
            manager.free_shard(&shard).unwrap();
            assert!(used().is_zero());
            let shard = seal(&rig, 0, kind, 1);
            manager.back_up(&shard).unwrap();
            drop(manager.park(&shard).unwrap());
            assert!(used().is_zero(), "given up with the parked shard");
            rig.is_whole(0);
        }
    }
}

#[test]
fn a_backup_needs_room_and_a_sound_shard_and_is_none_otherwise() {
    let rig = two_gpus_with(MODES[0], |builder| builder.park_limit(ByteLen::from_usize(LEN)));
    let shard = seal(&rig, 0, Protection::Encrypted, 1);
    rig.manager.back_up(&shard).unwrap();
    let other = seal(&rig, 0, Protection::Encrypted, 2);
    let refused = rig.manager.back_up(&other).unwrap_err();
    assert!(matches!(refused, VramError::ParkLimit { .. }), "{refused}");
    // There is no room for the new backup beside the old one: the old one stays.
    let refused = rig.manager.back_up(&shard).unwrap_err();
    assert!(matches!(refused, VramError::ParkLimit { .. }), "{refused}");
    assert!(rig.manager.report().shards[0].backed_up);
    assert!(rig.manager.drop_backup(&shard).unwrap());

    rig.devices[0].next(Op::Read, Action::FlipBit { byte: 5, bit: 1 }).unwrap();
    let refused = rig.manager.back_up(&other).unwrap_err();
    assert!(matches!(refused, VramError::ShardAltered { .. }), "{refused}");
    let refused = rig.manager.back_up(&other).unwrap_err();
    assert!(matches!(refused, VramError::Quarantined { .. }), "{refused}");
    assert!(rig.manager.park_capacity().used.is_zero());
    assert!(rig.manager.report().shards.iter().all(|shard| !shard.backed_up));

    rig.lose(&shard);
    assert!(is_lost(rig.manager.back_up(&shard)));
    assert!(matches!(
        rig.manager.reset_gpu(0, ResetOptions::new()).unwrap().lost[0].why,
        NotRestored::NoCopy
    ));
}

#[test]
fn a_shard_that_was_altered_later_comes_back_sound_from_its_backup() {
    let rig = two_gpus(MODES[0]);
    let shard = seal(&rig, 0, Protection::Authenticated, 1);
    rig.manager.back_up(&shard).unwrap();
    rig.devices[0].next(Op::Read, Action::FlipBit { byte: 5, bit: 1 }).unwrap();
    assert!(!rig.manager.verify_shard_integrity(&shard).unwrap());
    let other = seal(&rig, 0, Protection::Encrypted, 2);
    rig.lose(&other);
    let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
    let back = &report.restored[0];
    assert!(rig.manager.verify(back, Verify::Full).unwrap().sound);
    assert_eq!(rig.manager.unseal_model(back).unwrap(), content(LEN, 1));
}

/// A card that never works again: shards with a backup can still leave it.
#[test]
fn a_backup_is_parked_in_place_of_a_shard_that_is_out_of_reach() {
    for mode in MODES {
        let rig = two_gpus(mode);
        let shard = seal(&rig, 0, Protection::Authenticated, 1);
        let unsaved = seal(&rig, 0, Protection::Authenticated, 2);
        rig.manager.back_up(&shard).unwrap();
        rig.lose(&unsaved);
        assert!(is_lost(rig.manager.park(&unsaved)));
        let parked = rig.manager.park(&shard).unwrap();
        let woken = rig.manager.wake(parked, 1).unwrap();
        assert_eq!(woken.shard_id, shard.shard_id);
        assert_eq!(rig.manager.unseal_model(&shard).unwrap(), content(LEN, 1));
        assert_eq!(rig.devices[0].calls_after_loss(), 0);
        assert_eq!(rig.manager.reset_gpu(0, ResetOptions::new()).unwrap().lost.len(), 1);
        rig.is_whole(0);
    }
}

#[test]
fn the_key_of_a_backup_is_in_use() {
    let rig = two_gpus(MODES[0]);
    let request = SealRequest::new("model", 0).protection(Protection::Authenticated);
    let shard = rig.manager.seal(request, b"weights").unwrap();
    rig.manager.back_up(&shard).unwrap();
    let (old, key) = (rig.manager.active_key(), SealKey::from_bytes(&[9; 32]));
    let id = key.id();
    rig.manager.add_key(key).unwrap();
    rig.manager.set_active_key(&id).unwrap();
    assert!(matches!(rig.manager.retire_key(&old), Err(VramError::KeyInUse { .. })));
    rig.lose(&shard);
    // Also while its shard cannot be reached, and after the backup was parked in its place.
    assert!(matches!(rig.manager.retire_key(&old), Err(VramError::KeyInUse { .. })));
    let parked = rig.manager.park(&shard).unwrap();
    assert!(matches!(rig.manager.retire_key(&old), Err(VramError::KeyInUse { .. })));
    drop(parked);
    rig.manager.retire_key(&old).unwrap();
}
