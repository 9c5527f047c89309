//! Shards that a reset restores from backups, and where they are placed.

use vram_residency::{
    AdmitRequest, ByteLen, GpuChoice, ModelPlan, NotRestored, Piece, Protection, ResetOptions,
    Restore, SealRequest, SliceSource, Verify, VramError,
};

use vram_test_rigs::content;

use super::{KINDS, LEN, MODES, TAKEN, TOTAL, is_stale, seal, two_gpus, two_gpus_with};

#[test]
fn a_shard_comes_back_from_its_backup_as_it_was() {
    for mode in MODES {
        for kind in KINDS {
            for len in [0, 1, LEN, TOTAL / 2] {
                let rig = two_gpus(mode);
                let data = content(len, 3);
                let request = SealRequest::new("model", 0)
                    .protection(kind)
                    .owner("pool-1")
                    .priority(9)
                    .context(b"tenant");
                let shard = rig.manager.seal(request, &data).unwrap();
                let backup = rig.manager.back_up(&shard).unwrap();
                rig.manager.pin(&shard).unwrap();
                let other = seal(&rig, 0, kind, 4);
                rig.lose(&other);

                let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
                let [back] = report.restored.as_slice() else { panic!("{report:?}") };
                assert_eq!((report.lost.len(), report.parked.len()), (1, 0));
                assert_eq!(back.shard_id, shard.shard_id);
                assert_eq!(back.sealed_data, shard.sealed_data);
                assert_eq!((back.gpu_index, back.protection), (0, kind));
                assert_eq!(rig.manager.shards(), core::slice::from_ref(back));
                assert_eq!(rig.manager.unseal_model(back).unwrap(), data);
                assert!(rig.manager.verify(back, Verify::Full).unwrap().sound);
                let listed = &rig.manager.report().shards[0];
                assert_eq!(listed.owner.as_deref(), Some("pool-1"));
                assert_eq!((listed.priority, listed.pinned), (9, true));
                assert!(listed.backed_up && listed.last_verified.is_some());
                assert_eq!(rig.manager.park_capacity().used, backup.host_len);

                // Handles from before are refused by every call.
                assert!(is_stale(rig.manager.unseal_model(&shard)));
                assert!(is_stale(rig.manager.free_shard(&shard)));
                assert!(is_stale(rig.manager.lease(&shard)));
                assert_eq!(rig.used(0), (len as u64).next_multiple_of(256));
                rig.books_agree("restored");

                // A second time: the backup still exists.
                let probe = seal(&rig, 0, kind, 4);
                rig.lose(&probe);
                let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
                assert_eq!(rig.manager.unseal_and_free(&report.restored[0]).unwrap(), data);
                assert_eq!(rig.manager.park_capacity().used, ByteLen::ZERO);
                rig.is_whole(0);
            }
        }
    }
}

#[test]
fn what_is_not_asked_for_is_not_restored() {
    let rig = two_gpus(MODES[0]);
    let shard = seal(&rig, 0, Protection::Encrypted, 1);
    rig.manager.back_up(&shard).unwrap();
    rig.lose(&shard);
    let options = ResetOptions::new().restore(Restore::Nothing);
    let report = rig.manager.reset_gpu(0, options).unwrap();
    assert!(matches!(report.lost[0].why, NotRestored::NotAsked));
    assert_eq!(rig.manager.park_capacity().used, ByteLen::ZERO, "its backup went with it");
    rig.is_whole(0);
}

#[test]
fn a_backup_that_finds_no_room_is_parked_and_wakes_where_there_is() {
    for mode in MODES {
        let rig = two_gpus(mode);
        let shard = seal(&rig, 0, Protection::Authenticated, 6);
        rig.manager.back_up(&shard).unwrap();
        rig.lose(&shard);
        rig.manager.set_budget(0, ByteLen::new(256)).unwrap();
        let mut report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
        assert!(report.lost.is_empty() && report.restored.is_empty());
        let (parked, error) = report.parked.pop().unwrap().into_parts();
        assert!(matches!(error, VramError::InsufficientVram(_)), "{error}");
        assert!(is_stale(rig.manager.unseal_model(&shard)));
        let woken = rig.manager.wake(parked, 1).unwrap();
        assert_eq!(woken.shard_id, shard.shard_id);
        assert_eq!(rig.manager.unseal_and_free(&woken).unwrap(), content(LEN, 6));
        rig.books_agree("woken elsewhere");
    }
}

#[test]
fn a_backup_comes_back_on_another_gpu_if_that_is_allowed() {
    for mode in MODES {
        let rig = two_gpus(mode);
        let shard = seal(&rig, 0, Protection::Encrypted, 6);
        rig.manager.back_up(&shard).unwrap();
        rig.lose(&shard);
        rig.manager.set_budget(0, ByteLen::ZERO).unwrap();
        let report = rig.manager.reset_gpu(0, ResetOptions::new().elsewhere()).unwrap();
        let [back] = report.restored.as_slice() else { panic!("{report:?}") };
        assert_eq!(back.gpu_index, 1);
        assert_eq!(rig.manager.unseal_model(back).unwrap(), content(LEN, 6));
        assert_eq!((rig.used(0), rig.used(1)), (0, TAKEN));
        rig.books_agree("elsewhere");
    }
}

#[test]
fn a_model_that_came_back_is_refreshed() {
    let rig = two_gpus(MODES[0]);
    let data = content(2 * LEN, 1);
    let pieces = [("a", 0), ("b", LEN)].map(|(name, at)| {
        Piece::new(name, 0, u64::try_from(at).unwrap(), ByteLen::from_usize(LEN))
    });
    let plan = ModelPlan::new(pieces).unwrap();
    let source = vec![SliceSource::new(&data)];
    let request = AdmitRequest::new("model", GpuChoice::One(0));
    let model = rig.manager.admit(request, &plan, &source).unwrap();
    rig.manager.migrate_shard(&model.pieces[1].shard, 1).unwrap();
    for shard in model.shards() {
        rig.manager.back_up(shard).unwrap();
    }
    rig.lose(model.shards().next().unwrap());
    assert_eq!(rig.manager.reset_gpu(0, ResetOptions::new()).unwrap().restored.len(), 1);
    let fresh = rig.manager.refresh_model(&model).unwrap();
    for (piece, part) in fresh.pieces.iter().zip(data.chunks(LEN)) {
        assert_eq!(rig.manager.unseal_model(&piece.shard).unwrap(), part);
    }
}

#[test]
fn a_shard_that_came_back_needs_no_second_seat_though_its_old_lease_lives() {
    let limits = vram_residency::Limits::default().shard_count_max(1);
    let rig = two_gpus_with(MODES[0], |builder| builder.limits(limits));
    let shard = seal(&rig, 0, Protection::Authenticated, 1);
    rig.manager.back_up(&shard).unwrap();
    let lease = rig.manager.lease(&shard).unwrap();
    let full = rig.manager.seal_model("more", 1, b"more").unwrap_err();
    assert!(matches!(full, VramError::LimitExceeded { .. }), "{full}");
    rig.lose(&shard);
    let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
    rig.manager.free_shard(&report.restored[0]).unwrap();
    // A shard that was not restored releases its slot, even if it is still leased.
    let more = seal(&rig, 0, Protection::Authenticated, 1);
    let second = rig.manager.lease(&more).unwrap();
    rig.lose(&more);
    assert_eq!(rig.manager.reset_gpu(0, ResetOptions::new()).unwrap().lost.len(), 1);
    seal(&rig, 0, Protection::Authenticated, 1);
    drop((lease, second));
}
