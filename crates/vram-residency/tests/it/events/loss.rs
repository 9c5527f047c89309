//! Events of a GPU that is lost and reset, of a repair, and of the manager's close.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::sync::{Arc, Barrier};
use std::thread;

use vram_residency::device::fault::{Action, Hook, Op};
use vram_residency::{
    ByteLen, DeviceOffset, EventKind, ExportOptions, NotRestored, Protection, RepairOptions,
    ResetOptions, SealRequest, SealedShard, ShardId, SliceSource, VramError,
};

use vram_test_rigs::{CallingClock, SEGMENT, weights};

use super::{Telling, rig, rig_with};

const KINDS: [Protection; 2] = [Protection::Encrypted, Protection::Authenticated];
/// Uncorrectable ECC.
const ECC: u32 = 214;

fn kinds(rig: &Telling) -> Vec<EventKind> {
    rig.told().into_iter().map(|event| event.kind).collect()
}

fn ids(shards: &[&SealedShard]) -> Vec<ShardId> {
    shards.iter().map(|shard| shard.shard_id.clone()).collect()
}

fn refused(call: &str, shard: Option<&SealedShard>, gpu: Option<u32>, code: &str) -> EventKind {
    let shard = shard.map(|shard| shard.shard_id.clone());
    EventKind::Refused { call: call.into(), shard, gpu, code: code.into() }
}

/// Seals under names that identify the kind.
fn sealed(rig: &Telling, gpu: u32, kind: Protection) -> SealedShard {
    let request = SealRequest::new("m", gpu).protection(kind).owner("me");
    rig.manager.seal(request, &weights(3 * SEGMENT)).unwrap()
}

fn lose(rig: &Telling, shard: &SealedShard) {
    rig.devices[0].next(Op::Read, Action::Driver(ECC)).unwrap();
    rig.manager.unseal_model(shard).unwrap_err();
}

#[test]
fn a_loss_names_all_shards_and_a_reset_those_that_are_gone_and_those_that_came_back() {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let rig = rig(&[32 * SEGMENT, 32 * SEGMENT]);
        let manager = &rig.manager;
        let [gone, kept, written] = [0, 0, 0].map(|gpu| sealed(&rig, gpu, kind));
        sealed(&rig, 1, kind);
        manager.back_up(&kept).unwrap();
        manager.export_to(&written, &path, ExportOptions::new()).unwrap();
        rig.told();

        lose(&rig, &gone);
        let told = kinds(&rig);
        let EventKind::DeviceLost { gpu: 0, error, shards } = &told[0] else { panic!("{told:?}") };
        assert!(error.contains("214"), "{error}");
        assert_eq!(**shards, ids(&[&gone, &kept, &written]), "of this GPU, in ascending order");
        assert_eq!(told[1..], [refused("unseal", Some(&gone), None, "device-lost")]);

        let report = manager.reset_gpu(0, ResetOptions::new()).unwrap();
        assert_eq!((report.lost.len(), report.restored.len()), (1, 2), "{report:?}");
        let bytes = ByteLen::from_usize(3 * SEGMENT);
        let expected = [
            EventKind::Woken { shard: kept.shard_id.clone(), gpu: 0, bytes },
            EventKind::Woken { shard: written.shard_id.clone(), gpu: 0, bytes },
            EventKind::DeviceReset {
                gpu: 0,
                lost: ids(&[&gone]).into(),
                restored: ids(&[&kept, &written]).into(),
            },
        ];
        assert_eq!(kinds(&rig), expected, "{kind:?}");
    }
}

#[test]
fn a_shard_that_finds_no_place_after_a_reset_is_told_to_be_in_host_memory() {
    for kind in KINDS {
        let rig = rig(&[32 * SEGMENT]);
        let shard = sealed(&rig, 0, kind);
        let backup = rig.manager.back_up(&shard).unwrap();
        lose(&rig, &shard);
        rig.manager.set_budget(0, ByteLen::new(256)).unwrap();
        rig.told();
        let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
        assert_eq!(report.parked.len(), 1);
        let expected = [
            EventKind::Parked { shard: shard.shard_id.clone(), gpu: 0, bytes: backup.host_len },
            EventKind::DeviceReset { gpu: 0, lost: [].into(), restored: [].into() },
        ];
        assert_eq!(kinds(&rig), expected);
        let state = rig.manager.snapshot().state;
        assert_eq!(state.parked[0].shard_id, shard.shard_id);
        assert_eq!(state.parked[0].host_len, backup.host_len, "also where figures are listed");
    }
}

/// Resetting a working GPU is no loss, unless the GPU does not return.
#[test]
fn a_reset_by_force_is_no_loss_unless_the_device_refuses_it() {
    let rig = rig(&[32 * SEGMENT]);
    let shard = sealed(&rig, 0, Protection::Encrypted);
    rig.manager.back_up(&shard).unwrap();
    rig.told();
    let force = ResetOptions::new().force();
    let report = rig.manager.reset_gpu(0, force).unwrap();
    let mut shard = report.restored.into_iter().next().unwrap();
    let names: Vec<_> = kinds(&rig).iter().map(EventKind::name).collect();
    assert_eq!(names, ["woken", "device_reset"]);

    for op in [Op::Reset, Op::Allocate] {
        rig.devices[0].next(op, Action::Driver(1)).unwrap();
        let error = rig.manager.reset_gpu(0, force).unwrap_err();
        let told = kinds(&rig);
        let EventKind::DeviceLost { gpu: 0, shards, .. } = &told[0] else { panic!("{told:?}") };
        assert_eq!(**shards, ids(&[&shard]));
        assert_eq!(told[1..], [refused("reset", None, Some(0), error.code())]);
        // The stored cause is the driver's error, not the request for a reset.
        let error = rig.manager.unseal_model(&shard).unwrap_err();
        let VramError::DeviceLost { source, .. } = &error else { panic!("{error}") };
        assert!(source.to_string().contains("driver error 1"), "{source}");
        rig.manager.unseal_model(&shard).unwrap_err();
        assert_eq!(rig.names(), ["refused"; 2]);
        let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
        assert_eq!(report.restored.len(), 1);
        assert_eq!(rig.names(), ["woken", "device_reset"]);
        shard = report.restored.into_iter().next().unwrap();
        rig.manager.unseal_model(&shard).unwrap();
    }
}

#[test]
fn a_clock_that_panics_during_a_restoration_costs_one_shard_at_most_and_the_reset_is_told() {
    for asked in 1..40 {
        let left = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&left);
        // Panics when the given time is read.
        let on_monotonic = move || {
            let left = counted.load(Ordering::Relaxed);
            if left > 0 {
                counted.store(left - 1, Ordering::Relaxed);
            }
            assert!(left != 1, "no time");
        };
        let clock = CallingClock { on_now: || {}, on_monotonic };
        let rig = rig_with(&[32 * SEGMENT], |builder| builder.clock(Arc::new(clock)));
        let shards = [0, 0, 0].map(|gpu| sealed(&rig, gpu, Protection::Authenticated));
        for shard in &shards {
            rig.manager.back_up(shard).unwrap();
        }
        lose(&rig, &shards[0]);
        rig.told();
        left.store(asked, Ordering::Relaxed);
        let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
        let over = left.swap(0, Ordering::Relaxed) > 0;
        let back = report.restored.len() + report.parked.len();
        assert!(back >= 2 && back + report.lost.len() == 3, "{asked}: {report:?}");
        for lost in &report.lost {
            assert!(matches!(lost.why, NotRestored::Failed(_)));
        }
        let told = kinds(&rig);
        assert_eq!(told.iter().filter(|kind| kind.name() == "device_reset").count(), 1);
        let EventKind::DeviceReset { lost, restored, .. } = &told[told.len() - 1] else {
            panic!("{told:?}")
        };
        assert_eq!((lost.len(), restored.len()), (report.lost.len(), report.restored.len()));
        for shard in &report.restored {
            assert!(rig.manager.unseal_and_free(shard).unwrap() == weights(3 * SEGMENT));
        }
        drop(report);
        let books = rig.manager.capacity(0).unwrap();
        assert_eq!((books.used.get(), books.reserved.get()), (0, 0), "{asked}");
        assert!(rig.manager.park_capacity().used.is_zero(), "{asked}");
        if over {
            return;
        }
    }
    panic!("more times are asked for than were tried");
}

#[test]
fn a_repair_tells_what_it_wrote_once_and_where() {
    let bytes = weights(3 * SEGMENT);
    for relocate in [false, true] {
        let rig = rig(&[32 * SEGMENT]);
        let shard = sealed(&rig, 0, Protection::Encrypted);
        let device = &rig.devices[0];
        let writes = device.calls().into_iter().filter(|call| call.op == Op::QueueWrite);
        let start = writes.filter_map(|call| call.offset).min().unwrap();
        let at = start.get() + u64::try_from(SEGMENT).unwrap();
        device.flip_bit_at(None, DeviceOffset::new(at), 3).unwrap();
        rig.manager.unseal_model(&shard).unwrap_err();
        rig.told();

        let options = RepairOptions::new();
        let options = if relocate { options.relocate() } else { options };
        let report = rig.manager.repair_from(&shard, SliceSource::new(&bytes), options).unwrap();
        let shard_id = shard.shard_id.clone();
        let repaired =
            EventKind::Repaired { shard: shard_id, gpu: 0, segments: report.segments.clone() };
        let told = kinds(&rig);
        if relocate {
            let aside = EventKind::NotReturned { gpu: 0, bytes: ByteLen::from_usize(3 * SEGMENT) };
            // In its new place it is sound at once; then the old place goes out of use.
            assert_eq!(told, [repaired, aside]);
        } else {
            assert_eq!(told, [repaired]);
        }
        assert_eq!(report.segments.count(), 1);
        // Nothing to repair, so no event.
        let again = rig.manager.repair_from(&shard, SliceSource::new(&bytes), RepairOptions::new());
        assert!(!again.unwrap().was_altered);
        assert_eq!(rig.names(), [""; 0]);
    }
}

#[test]
fn an_end_is_told_once_with_what_is_left_and_again_once_that_is_gone() {
    let rig = rig(&[32 * SEGMENT]);
    let (leased, free) = (sealed(&rig, 0, KINDS[0]), sealed(&rig, 0, KINDS[0]));
    let lease = rig.manager.lease(&leased).unwrap();
    rig.told();
    assert!(!rig.manager.close(Duration::ZERO).complete);
    let bytes = ByteLen::from_usize(3 * SEGMENT);
    let freed = |shard: &SealedShard| EventKind::Freed {
        shard: shard.shard_id.clone(),
        gpu: 0,
        bytes,
        wiped: true,
    };
    assert_eq!(kinds(&rig), [freed(&free), EventKind::Closed { left: 1 }]);
    assert!(!rig.manager.close(Duration::ZERO).complete);
    drop(lease);
    assert!(rig.manager.close(Duration::ZERO).complete);
    assert!(rig.manager.close(Duration::ZERO).complete);
    assert_eq!(kinds(&rig), [freed(&leased), EventKind::Closed { left: 0 }]);
}

#[test]
fn of_several_who_close_at_once_one_tells_of_it() {
    for round in 0..50 {
        let rig = rig(&[32 * SEGMENT]);
        if round % 2 == 0 {
            sealed(&rig, 0, KINDS[0]);
        }
        let start = Barrier::new(3);
        thread::scope(|scope| {
            for timeout in [Duration::ZERO, Duration::MAX, Duration::ZERO] {
                let (rig, start) = (&rig, &start);
                scope.spawn(move || {
                    start.wait();
                    let _report = rig.manager.close(timeout);
                });
            }
        });
        let closed = kinds(&rig).into_iter().filter(|kind| kind.name() == "closed");
        assert_eq!(closed.collect::<Vec<_>>(), [EventKind::Closed { left: 0 }], "round {round}");
    }
}

/// A thread that gives up waiting for another thread's close does not emit the event.
#[test]
fn who_could_not_close_leaves_it_to_the_other_to_tell() {
    let rig = Arc::new(rig(&[32 * SEGMENT]));
    sealed(&rig, 0, KINDS[0]);
    rig.told();
    let inner = Arc::downgrade(&rig);
    let hook = Hook::new(move || {
        let rig = inner.upgrade().unwrap();
        let other = thread::spawn(move || rig.manager.close(Duration::ZERO));
        assert_eq!(other.join().unwrap().under_way, 1);
    });
    rig.devices[0].next(Op::Fill, Action::Run(hook)).unwrap();
    assert!(rig.manager.close(Duration::ZERO).complete);
    assert_eq!(rig.names(), ["freed", "closed"]);
}
