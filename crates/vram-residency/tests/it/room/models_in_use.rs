//! Nothing comes between a model's arrival and its use (P60).

use core::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use vram_residency::{
    AdmitRequest, GpuChoice, Lru, ModelHandle, OnEviction, Protection, ReadBack, SealRequest,
    VramError, WakeModelRequest,
};

use super::eviction::shortfall;
use super::hands::{KIB, bytes, hosts};
use super::models::{admit, pieces, request, resident, source};

const GPU: GpuChoice = GpuChoice::One(0);

/// Two threads with room for one model: before, every tenth admission lost its model to the other
/// thread before it could lease it.
#[test]
fn of_two_threads_with_room_for_one_each_leases_what_it_admitted() {
    let manager = hosts(&[32 * KIB]).eviction(Lru).build().unwrap();
    let admitted = AtomicU64::new(0);
    thread::scope(|scope| {
        for name in ["a", "b"] {
            let (manager, admitted) = (&manager, &admitted);
            scope.spawn(move || {
                for _ in 0..100 {
                    let request = AdmitRequest::new(name, GPU).on_eviction(OnEviction::Free);
                    match manager.admit_leased(request, &pieces(3), &source()) {
                        Ok((model, leases)) => {
                            admitted.fetch_add(1, Ordering::Relaxed);
                            assert_eq!(leases.len(), 3);
                            for (lease, shard) in leases.iter().zip(model.shards()) {
                                assert_eq!(lease.shard(), shard);
                                lease.ensure_sound().unwrap();
                            }
                            assert_eq!(resident(manager, &model), 3);
                        }
                        Err(VramError::InsufficientVram(_)) => thread::yield_now(),
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    assert!(admitted.load(Ordering::Relaxed) > 0);
}

#[test]
fn what_is_leased_at_its_arrival_is_counted_once_and_ends_once() {
    let manager = hosts(&[32 * KIB]).eviction(Lru).build().unwrap();
    let (model, leases) = manager.admit_leased(request("a"), &pieces(2), &source()).unwrap();
    let holds = |count| {
        let request = SealRequest::new("big", 0).evicts(false);
        let refused = shortfall(manager.seal(request, &[0; 32 * 1024]));
        refused.holders.iter().map(|holder| holder.leased_count).sum::<u64>() == count
    };
    assert!(holds(2));
    let more = manager.lease_model(&model).unwrap();
    assert!(holds(2));
    let refused = manager.free_model(&model).unwrap_err();
    assert!(matches!(refused, VramError::InUse { leases: 2, .. }), "{refused}");
    drop(leases);
    assert!(holds(2));
    drop(more);
    assert!(holds(0));
    manager.free_model(&model).unwrap();
}

/// Kernels read a leased Authenticated shard unchecked.
#[test]
fn an_authenticated_model_is_read_back_before_it_is_leased() {
    let manager = hosts(&[32 * KIB]).build().unwrap();
    let request = request("a").protection(Protection::Authenticated).read_back(ReadBack::None);
    let (model, leases) = manager.admit_leased(request, &pieces(2), &source()).unwrap();
    assert!(leases.iter().all(|lease| lease.device_pointer().is_some()));
    let again = manager.lease_model(&model).unwrap();
    for (one, other) in leases.iter().zip(&again) {
        assert_eq!(one.device_pointer(), other.device_pointer());
    }
    let report = manager.report();
    assert!(report.shards.iter().all(|shard| shard.last_verified.is_some()), "{report}");
}

#[test]
fn a_refused_admission_or_waking_leaves_no_lease_behind() {
    let manager = hosts(&[32 * KIB]).eviction(Lru).build().unwrap();
    let held = admit(&manager, "held", 3);
    let leases = manager.lease_model(&held).unwrap();
    let refused = manager.admit_leased(request("new"), &pieces(2), &source()).map(drop);
    assert!(matches!(refused, Err(VramError::InsufficientVram(_))));
    let short = vec![vram_residency::SliceSource::new(&[1; 9000])];
    manager.admit_leased(request("new"), &pieces(1), &short).map(drop).unwrap();
    let refused = manager.admit_leased(request("short"), &pieces(2), &short).map(drop);
    assert!(refused.is_err());
    drop(leases);

    let parked = manager.park_model(&held).unwrap();
    let other = admit(&manager, "other", 3);
    let other_leases = manager.lease_model(&other).unwrap();
    let wake = WakeModelRequest::new(GPU).evicts(true);
    let (parked, _) = manager.wake_model_leased(parked, wake).map(drop).unwrap_err().into_parts();
    drop(other_leases);
    let (woken, leases) = manager.wake_model_leased(parked, wake).unwrap();
    assert_eq!((&woken, leases.len()), (&held, 3));
    assert!(matches!(manager.free_model(&held), Err(VramError::InUse { leases: 1, .. })));
    drop(leases);
    manager.free_model(&held).unwrap();
}

#[test]
fn a_reserved_place_is_filled_and_leased_in_one_step() {
    let manager = hosts(&[32 * KIB]).build().unwrap();
    let mut places = manager.reserve_plan(&pieces(3), GPU).unwrap();
    let (model, leases) =
        manager.admit_reserved_leased(&mut places, request("a"), &source()).unwrap();
    assert_eq!((leases.len(), places.remaining()), (3, bytes(0)));
    assert!(matches!(manager.park_model(&model), Err(VramError::InUse { .. })));
}

#[test]
fn a_model_is_pinned_from_its_arrival_until_it_is_unpinned() {
    let manager = hosts(&[32 * KIB]).eviction(Lru).build().unwrap();
    let pinned = manager.admit(request("pinned").pinned(true), &pieces(3), &source()).unwrap();
    let room_for = |model: &ModelHandle, count| {
        let fits = manager.plan_eviction_for(&pieces(count), GPU).is_ok();
        assert_eq!(resident(&manager, model), 3);
        fits
    };
    assert!(!room_for(&pinned, 2));
    manager.unpin_model(&pinned).unwrap();
    assert!(room_for(&pinned, 2));
    manager.pin_model(&pinned).unwrap();
    assert!(!room_for(&pinned, 2));

    // One shard is parked: none of the others is unpinned.
    let parked = manager.park(&pinned.pieces[1].shard).unwrap();
    let refused = manager.unpin_model(&pinned).unwrap_err();
    assert!(matches!(refused, VramError::Parked { .. }), "{refused}");
    assert!(manager.plan_eviction_for(&pieces(4), GPU).is_err());
    manager.wake(parked, 0).unwrap();
    manager.unpin_model(&pinned).unwrap();
    assert!(room_for(&pinned, 4));
}
