//! P16: the state after a reset, and the shards that it restores.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use vram_residency::device::fault::{Action, Hook, Op};
use vram_residency::device::{Device, GpuError};
use vram_residency::{
    AdmitRequest, ByteLen, GpuChoice, GpuIndex, ModelPlan, NotRestored, Piece, Protection,
    ReserveRequest, ResetOptions, SealRequest, SliceSource, VramError,
};

use vram_test_rigs::content;

use super::{ECC, KINDS, LEN, MODES, TAKEN, TOTAL, is_freed, is_lost, seal, two_gpus};

#[test]
fn after_a_reset_the_gpu_is_empty_and_all_of_it_can_be_had_again() {
    for mode in MODES {
        for code in [ECC, 700, 719] {
            let rig = two_gpus(mode);
            let gone: Vec<_> = KINDS.map(|kind| seal(&rig, 0, kind, 1)).into();
            let there = seal(&rig, 1, Protection::Encrypted, 2);
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
fn a_lease_of_a_lost_shard_keeps_nothing() {
    for mode in MODES {
        let rig = two_gpus(mode);
        let shard = seal(&rig, 0, Protection::Authenticated, 1);
        rig.manager.back_up(&shard).unwrap();
        let unsaved = seal(&rig, 0, Protection::Authenticated, 2);
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
            let stale = lease.ensure_sound();
            assert!(matches!(stale, Err(VramError::StaleHandle { .. })), "{stale:?}");
        }
        // These leases belong to the lost shards: the restored shard is not leased.
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
        let rig = two_gpus(mode);
        let shard = seal(&rig, 0, Protection::Encrypted, 1);
        let request = ReserveRequest::new(0, ByteLen::new(TAKEN));
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
        // Blocks behind reserved places are gone, and are allocated again on use.
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
        let rig = two_gpus(mode);
        let plan = ModelPlan::new([Piece::new("a", 0, 0, ByteLen::from_usize(LEN))]).unwrap();
        let places = rig.manager.reserve_plan(&plan, GpuChoice::One(0)).unwrap();
        let shard = seal(&rig, 0, Protection::Encrypted, 1);
        rig.lose(&shard);
        drop(rig.manager.reset_gpu(0, ResetOptions::new()).unwrap());
        drop(places);
        rig.is_whole(0);
    }
}

#[test]
fn bytes_that_could_not_be_given_back_can_be_had_again() {
    for mode in MODES {
        let rig = two_gpus(mode);
        let stuck = seal(&rig, 0, Protection::Encrypted, 1);
        let other = seal(&rig, 0, Protection::Encrypted, 2);
        let refuse = Action::Fail(GpuError::driver(GpuIndex::new(0), 1));
        rig.devices[0].next(Op::Fill, refuse).unwrap();
        let refused = rig.manager.free_shard(&stuck).unwrap_err();
        assert!(matches!(refused, VramError::NotReturned { .. }), "{refused}");
        assert_eq!(rig.books(0).unreturned, ByteLen::new(TAKEN));
        rig.lose(&other);
        let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
        assert_eq!(report.given_back, ByteLen::new(TAKEN));
        assert_eq!(rig.books(0).unreturned, ByteLen::ZERO);
        assert!(rig.manager.report().gpus[0].unreturned.is_none());
        rig.is_whole(0);
    }
}

#[test]
fn a_parked_shard_is_not_concerned_and_wakes_on_the_reset_gpu() {
    for mode in MODES {
        let rig = two_gpus(mode);
        let shard = seal(&rig, 0, Protection::Encrypted, 1);
        let parked = rig.manager.park(&shard).unwrap();
        let other = seal(&rig, 0, Protection::Encrypted, 2);
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
fn other_gpus_go_on_while_one_is_reset_and_nothing_is_placed_on_it() {
    for mode in MODES {
        let rig = Arc::new(two_gpus(mode));
        let shard = seal(&rig, 0, Protection::Encrypted, 1);
        let there = seal(&rig, 1, Protection::Encrypted, 2);
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
        let rig = two_gpus(mode);
        drop(rig.manager.reset_gpu(0, ResetOptions::new()).unwrap());
        let shard = seal(&rig, 0, Protection::Authenticated, 1);
        rig.manager.back_up(&shard).unwrap();
        let gone = seal(&rig, 0, Protection::Authenticated, 2);

        let refused = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap_err();
        assert!(matches!(refused, VramError::NotLost { gpu: 0, shards: 2 }), "{refused}");
        let lease = rig.manager.lease(&shard).unwrap();
        let refused = rig.manager.reset_gpu(0, ResetOptions::new().force()).unwrap_err();
        assert!(matches!(refused, VramError::InUse { leases: 1, .. }), "{refused}");
        assert!(lease.device_pointer().is_some());
        drop(lease);
        assert_eq!(rig.manager.unseal_model(&gone).unwrap(), content(LEN, 2), "all is as it was");
        assert_eq!(rig.devices[0].call_count(Op::Reset), 1);

        // P18: its bytes are not readable by a later user of the device.
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
        let rig = two_gpus(mode);
        let shard = seal(&rig, 0, Protection::Encrypted, 1);
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
