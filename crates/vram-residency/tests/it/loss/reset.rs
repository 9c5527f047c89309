//! P16: what a reset settles, and what it brings back.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use vram_residency::device::fault::{Action, Hook, Op};
use vram_residency::device::{Device, GpuError};
use vram_residency::{
    AdmitRequest, ByteLen, GpuChoice, GpuIndex, ModelPlan, NotRestored, Piece, Protection,
    ReserveRequest, ResetOptions, Restore, SealRequest, SliceSource, Verify, VramError,
};

use super::rig::{ECC, KINDS, LEN, MODES, Rig, TAKEN, TOTAL, content, is_freed, is_lost, is_stale};

#[test]
fn after_a_reset_the_gpu_is_empty_and_all_of_it_can_be_had_again() {
    for mode in MODES {
        for code in [ECC, 700, 719] {
            let rig = Rig::new(mode);
            let gone: Vec<_> = KINDS.map(|kind| rig.seal(0, kind, 1)).into();
            let there = rig.seal(1, Protection::Encrypted, 2);
            rig.devices[0].next(Op::Read, Action::Driver(code)).unwrap();
            assert!(is_lost(rig.manager.unseal_model(&gone[0])));
            assert_eq!(rig.used(0), 2 * TAKEN, "the books stand still while it is lost");

            let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
            assert_eq!((report.gpu, report.restored.len(), report.parked.len()), (0, 0, 0));
            assert_eq!(report.lost.len(), 2);
            for (lost, handle) in report.lost.iter().zip(&gone) {
                assert_eq!(lost.shard_id, handle.shard_id);
                assert_eq!((&*lost.model_id, lost.owner.as_deref()), ("model", Some("me")));
                assert_eq!(lost.bytes, ByteLen::from_usize(LEN));
                assert!(matches!(lost.why, NotRestored::NoCopy));
                assert!(is_freed(rig.manager.unseal_model(handle)));
                assert!(is_freed(rig.manager.free_shard(handle)));
            }
            assert!(rig.manager.report().gpus[0].lost.is_none());
            assert_eq!(rig.devices[0].call_count(Op::Reset), 1);
            rig.is_whole(0);
            assert_eq!(rig.manager.unseal_and_free(&there).unwrap(), content(LEN, 2));
            rig.is_whole(1);
        }
    }
}

#[test]
fn a_shard_comes_back_from_its_backup_as_it_was() {
    for mode in MODES {
        for kind in KINDS {
            for len in [0, 1, LEN, TOTAL / 2] {
                let rig = Rig::new(mode);
                let data = content(len, 3);
                let request = SealRequest::new("model", 0)
                    .protection(kind)
                    .owner("pool-1")
                    .priority(9)
                    .context(b"tenant");
                let shard = rig.manager.seal(request, &data).unwrap();
                let backup = rig.manager.back_up(&shard).unwrap();
                rig.manager.pin(&shard).unwrap();
                let other = rig.seal(0, kind, 4);
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

                // Handles from before are refused, whatever they ask for.
                assert!(is_stale(rig.manager.unseal_model(&shard)));
                assert!(is_stale(rig.manager.free_shard(&shard)));
                assert!(is_stale(rig.manager.lease(&shard)));
                assert_eq!(rig.used(0), len.next_multiple_of(256));
                rig.books_agree("restored");

                // And once more: the backup is still there.
                let probe = rig.seal(0, kind, 4);
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
    let rig = Rig::new(MODES[0]);
    let shard = rig.seal(0, Protection::Encrypted, 1);
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
        let rig = Rig::new(mode);
        let shard = rig.seal(0, Protection::Authenticated, 6);
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
        let rig = Rig::new(mode);
        let shard = rig.seal(0, Protection::Encrypted, 6);
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
fn a_lease_of_a_lost_shard_keeps_nothing() {
    for mode in MODES {
        let rig = Rig::new(mode);
        let shard = rig.seal(0, Protection::Authenticated, 1);
        rig.manager.back_up(&shard).unwrap();
        let unsaved = rig.seal(0, Protection::Authenticated, 2);
        let leases = [rig.manager.lease(&shard).unwrap(), rig.manager.lease(&unsaved).unwrap()];
        assert!(leases[0].device_pointer().is_some());
        rig.lose(&unsaved);
        for lease in &leases {
            assert!(lease.device_pointer().is_none());
            assert!(is_lost(lease.ensure_sound()));
        }
        let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
        let [back] = report.restored.as_slice() else { panic!("{report:?}") };
        for lease in &leases {
            assert!(lease.device_pointer().is_none());
            assert!(is_freed(lease.ensure_sound()));
        }
        // They are leases of what was: the shard that came back is free to go.
        assert_eq!(rig.manager.report().shards[0].leases, 0);
        let fresh = rig.manager.lease(back).unwrap();
        drop(leases);
        assert!(matches!(rig.manager.free_shard(back), Err(VramError::InUse { leases: 1, .. })));
        drop(fresh);
        rig.manager.free_shard(back).unwrap();
        rig.is_whole(0);
    }
}

#[test]
fn reservations_stay_promised_and_can_be_used_after_the_reset() {
    for mode in MODES {
        let rig = Rig::new(mode);
        let shard = rig.seal(0, Protection::Encrypted, 1);
        let request = ReserveRequest::new(0, ByteLen::from_usize(TAKEN));
        let mut bytes = rig.manager.reserve_with(request).unwrap();
        let plan = ModelPlan::new([
            Piece::new("a", 0, 0, ByteLen::from_usize(LEN)),
            Piece::new("b", 0, 0, ByteLen::new(1)),
        ]);
        let plan = plan.unwrap();
        let mut places = rig.manager.reserve_plan(&plan, GpuChoice::One(0)).unwrap();
        let promised = bytes.len().get() + places.len().get();
        rig.lose(&shard);

        let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
        assert_eq!(report.lost.len(), 1);
        assert_eq!((rig.books(0).used.get(), rig.books(0).reserved.get()), (0, promised));
        assert_eq!(rig.books(0).foreign, ByteLen::ZERO);
        // Blocks behind reserved places are gone, and taken again when they are used.
        let live: u64 = rig.devices[0].live().iter().map(|(_, len)| len.get()).sum();
        let region = if mode == MODES[0] { ByteLen::from_usize(TOTAL) } else { ByteLen::ZERO };
        assert_eq!(live, region.get());
        let data = content(LEN, 9);
        let request = SealRequest::new("model", 0);
        let first = rig.manager.seal_reserved(&mut bytes, request, &data).unwrap();
        let source = vec![SliceSource::new(&data)];
        let request = AdmitRequest::new("model", GpuChoice::One(0));
        let model = rig.manager.admit_reserved(&mut places, request, &source).unwrap();
        for shard in [&first, &model.pieces[0].shard] {
            assert_eq!(rig.manager.unseal_model(shard).unwrap(), data);
        }
        drop((bytes, places));
        rig.books_agree("sealed into what was promised");
        rig.manager.free_model(&model).unwrap();
        rig.manager.free_shard(&first).unwrap();
        rig.is_whole(0);
    }
}

#[test]
fn places_that_are_given_up_after_a_reset_go_back_once() {
    for mode in MODES {
        let rig = Rig::new(mode);
        let plan = ModelPlan::new([Piece::new("a", 0, 0, ByteLen::from_usize(LEN))]).unwrap();
        let places = rig.manager.reserve_plan(&plan, GpuChoice::One(0)).unwrap();
        let shard = rig.seal(0, Protection::Encrypted, 1);
        rig.lose(&shard);
        drop(rig.manager.reset_gpu(0, ResetOptions::new()).unwrap());
        drop(places);
        rig.is_whole(0);
    }
}

#[test]
fn bytes_that_could_not_be_given_back_can_be_had_again() {
    for mode in MODES {
        let rig = Rig::new(mode);
        let stuck = rig.seal(0, Protection::Encrypted, 1);
        let other = rig.seal(0, Protection::Encrypted, 2);
        let refuse = Action::Fail(GpuError::driver(GpuIndex::new(0), 1));
        rig.devices[0].next(Op::Fill, refuse).unwrap();
        let refused = rig.manager.free_shard(&stuck).unwrap_err();
        assert!(matches!(refused, VramError::NotReturned { .. }), "{refused}");
        assert_eq!(rig.books(0).unreturned, ByteLen::from_usize(TAKEN));
        rig.lose(&other);
        let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
        assert_eq!(report.given_back, ByteLen::from_usize(TAKEN));
        assert_eq!(rig.books(0).unreturned, ByteLen::ZERO);
        assert!(rig.manager.report().gpus[0].unreturned.is_none());
        rig.is_whole(0);
    }
}

#[test]
fn a_parked_shard_is_not_concerned_and_wakes_on_the_reset_gpu() {
    for mode in MODES {
        let rig = Rig::new(mode);
        let shard = rig.seal(0, Protection::Encrypted, 1);
        let parked = rig.manager.park(&shard).unwrap();
        let other = rig.seal(0, Protection::Encrypted, 2);
        rig.lose(&other);
        let (parked, error) = rig.manager.wake(parked, 0).unwrap_err().into_parts();
        assert!(matches!(error, VramError::DeviceLost { gpu: 0, .. }), "{error}");
        drop(rig.manager.reset_gpu(0, ResetOptions::new()).unwrap());
        let woken = rig.manager.wake(parked, 0).unwrap();
        assert_eq!(woken, shard, "its handle was good all the time");
        assert_eq!(rig.manager.unseal_and_free(&shard).unwrap(), content(LEN, 1));
        rig.is_whole(0);
    }
}

#[test]
fn a_model_that_came_back_is_refreshed() {
    let rig = Rig::new(MODES[0]);
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
fn other_gpus_go_on_while_one_is_reset_and_nothing_is_placed_on_it() {
    for mode in MODES {
        let rig = Arc::new(Rig::new(mode));
        let shard = rig.seal(0, Protection::Encrypted, 1);
        let there = rig.seal(1, Protection::Encrypted, 2);
        rig.lose(&shard);
        let seen = Arc::new(AtomicUsize::new(0));
        let hook = {
            let (rig, seen) = (Arc::downgrade(&rig), Arc::clone(&seen));
            let (shard, there) = (shard.clone(), there.clone());
            Hook::new(move || {
                let rig = rig.upgrade().unwrap();
                assert_eq!(rig.manager.unseal_model(&there).unwrap(), content(LEN, 2));
                let more = rig.manager.seal_model("more", 1, b"more").unwrap();
                rig.manager.free_shard(&more).unwrap();
                assert!(is_lost(rig.manager.unseal_model(&shard)));
                assert!(is_lost(rig.manager.seal_model("more", 0, b"more")));
                assert!(is_lost(rig.manager.reserve(0, ByteLen::new(1))));
                assert!(is_lost(rig.manager.migrate_shard(&there, 0)));
                let again = rig.manager.reset_gpu(0, ResetOptions::new());
                assert!(matches!(again, Err(VramError::GpuInUse { gpu: 0, .. })));
                seen.fetch_add(1, Ordering::Relaxed);
            })
        };
        rig.devices[0].next(Op::Reset, Action::Run(hook)).unwrap();
        drop(rig.manager.reset_gpu(0, ResetOptions::new()).unwrap());
        assert_eq!(seen.load(Ordering::Relaxed), 1);
        rig.is_whole(0);
    }
}

#[test]
fn a_gpu_that_works_is_reset_if_it_is_empty_or_by_force_and_never_under_a_lease() {
    for mode in MODES {
        let rig = Rig::new(mode);
        drop(rig.manager.reset_gpu(0, ResetOptions::new()).unwrap());
        let shard = rig.seal(0, Protection::Authenticated, 1);
        rig.manager.back_up(&shard).unwrap();
        let gone = rig.seal(0, Protection::Authenticated, 2);

        let refused = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap_err();
        assert!(matches!(refused, VramError::NotLost { gpu: 0, shards: 2 }), "{refused}");
        let lease = rig.manager.lease(&shard).unwrap();
        let refused = rig.manager.reset_gpu(0, ResetOptions::new().force()).unwrap_err();
        assert!(matches!(refused, VramError::InUse { leases: 1, .. }), "{refused}");
        assert!(lease.device_pointer().is_some());
        drop(lease);
        assert_eq!(rig.manager.unseal_model(&gone).unwrap(), content(LEN, 2), "all is as it was");
        assert_eq!(rig.devices[0].call_count(Op::Reset), 1);

        // P18: what it held is not left readable for whoever comes after the reset.
        let device = Arc::clone(&rig.devices[0]);
        let look = Hook::new(move || {
            for (number, len) in device.live() {
                let bytes = device.inspect(Some(number), vram_alloc::DeviceOffset::START, len);
                let held = content(LEN, 2);
                assert!(!bytes.unwrap().windows(64).any(|part| part == &held[..64]));
            }
        });
        rig.devices[0].next(Op::Reset, Action::Run(look)).unwrap();
        let report = rig.manager.reset_gpu(0, ResetOptions::new().force()).unwrap();
        assert_eq!((report.restored.len(), report.lost.len()), (1, 1));
        assert_eq!(rig.manager.unseal_and_free(&report.restored[0]).unwrap(), content(LEN, 1));
        rig.is_whole(0);
    }
}

#[test]
fn a_gpu_that_somebody_else_has_reset_counts_as_lost_and_is_not_reset_again() {
    for mode in MODES {
        let rig = Rig::new(mode);
        let shard = rig.seal(0, Protection::Encrypted, 1);
        rig.manager.back_up(&shard).unwrap();
        rig.devices[0].reset().unwrap();
        assert!(is_lost(rig.manager.unseal_model(&shard)));
        assert!(is_lost(rig.manager.seal_model("model", 0, b"more")));
        let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
        assert_eq!(rig.devices[0].call_count(Op::Reset), 1);
        assert_eq!(rig.manager.unseal_and_free(&report.restored[0]).unwrap(), content(LEN, 1));
        rig.is_whole(0);
    }
}

#[test]
fn a_shard_that_came_back_needs_no_second_seat_though_its_old_lease_lives() {
    let limits = vram_residency::Limits::default().shard_count_max(1);
    let rig = Rig::with(MODES[0], |builder| builder.limits(limits));
    let shard = rig.seal(0, Protection::Authenticated, 1);
    rig.manager.back_up(&shard).unwrap();
    let lease = rig.manager.lease(&shard).unwrap();
    let full = rig.manager.seal_model("more", 1, b"more").unwrap_err();
    assert!(matches!(full, VramError::LimitExceeded { .. }), "{full}");
    rig.lose(&shard);
    let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
    rig.manager.free_shard(&report.restored[0]).unwrap();
    // And one that did not come back gives its seat up, whoever holds a lease of it.
    let more = rig.seal(0, Protection::Authenticated, 1);
    let second = rig.manager.lease(&more).unwrap();
    rig.lose(&more);
    assert_eq!(rig.manager.reset_gpu(0, ResetOptions::new()).unwrap().lost.len(), 1);
    rig.seal(0, Protection::Authenticated, 1);
    drop((lease, second));
}
