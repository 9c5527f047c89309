//! Shards in use when a manager is closed: the close leaves them, or waits for as long as
//! requested.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;

use vram_residency::device::fault::{Action, Hook, Op};
use vram_residency::{
    ByteLen, GpuChoice, MemoryMode, ModelPlan, Piece, Protection, ReaderSource, ReserveRequest,
    ScrubCursor, ScrubOptions, ScrubRate, SealOptions, SealRequest, VramError,
};
use vram_test_rigs::{ActingReader, weights};

use super::{LEN, MODES, is_complete, is_gone, seal, two_gpus, two_gpus_with};

#[test]
fn what_is_leased_is_left_and_the_next_close_finishes() {
    for mode in MODES {
        let rig = two_gpus(mode);
        let shard = seal(&rig, 0, Protection::Authenticated);
        seal(&rig, 0, Protection::Encrypted);
        let lease = rig.manager.lease(&shard).unwrap();
        let report = rig.manager.close(Duration::ZERO);
        assert_eq!((report.freed, report.complete), (1, false));
        let [(left, why)] = report.left.as_slice() else { panic!("{report:?}") };
        assert_eq!(left, &shard.shard_id);
        assert!(matches!(why, VramError::InUse { leases: 1, .. }), "{why}");
        let [held] = report.unreturned.as_slice() else { panic!("{report:?}") };
        assert_eq!((held.gpu, held.error), (0, None));
        // The lease stays as valid as before.
        assert!(lease.device_pointer().is_some() && lease.ensure_sound().is_ok());
        let books = rig.manager.capacity(0).unwrap();
        assert_eq!(books.used.to_usize().unwrap(), LEN.next_multiple_of(256));

        // With a time limit, the close waits for it.
        let (go, gone) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                gone.recv().unwrap();
                drop(lease);
            });
            let closer = scope.spawn(|| rig.manager.close(Duration::MAX));
            go.send(()).unwrap();
            is_complete(&closer.join().unwrap());
        });
        is_gone(&rig, "the lease has ended");
    }
}

#[test]
fn reservations_are_waited_for_until_they_end_or_expire() {
    for mode in MODES {
        let rig = two_gpus(mode);
        let plan = ModelPlan::new([Piece::new("a", 0, 0, ByteLen::from_usize(LEN))]).unwrap();
        let bytes = rig.manager.reserve(0, ByteLen::new(1000)).unwrap();
        let places = rig.manager.reserve_plan(&plan, GpuChoice::One(1)).unwrap();
        let request = ReserveRequest::new(1, ByteLen::new(512));
        let expiring =
            rig.manager.reserve_with(request.expires_in(Duration::from_millis(1))).unwrap();
        let report = rig.manager.close(Duration::ZERO);
        assert!(report.reservations >= 2 && !report.complete, "{report:?}");
        drop((bytes, places));
        is_complete(&rig.manager.close(Duration::MAX));
        assert!(expiring.remaining().is_zero());
        is_gone(&rig, "reservations ended");

        // Nothing expires here: the end of the last lease wakes the close.
        let rig = two_gpus(mode);
        let bytes = rig.manager.reserve(0, ByteLen::new(1000)).unwrap();
        thread::scope(|scope| {
            let closer = scope.spawn(|| rig.manager.close(Duration::MAX));
            while rig.manager.reserve(0, ByteLen::new(1)).is_ok() {
                thread::yield_now();
            }
            (0..100).for_each(|_| thread::yield_now());
            drop(bytes);
            is_complete(&closer.join().unwrap());
        });
        is_gone(&rig, "the last reservation ended");
    }
}

#[test]
fn a_seal_that_is_under_way_is_named_and_freed_by_the_next_close() {
    for mode in MODES {
        let rig = two_gpus(mode);
        let data = weights(LEN);
        let (told, started) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let may_go = Mutex::new(may_go);
        thread::scope(|scope| {
            let sealer = scope.spawn(|| {
                let mut first = Some(told);
                let wait = || {
                    if let Some(told) = first.take() {
                        told.send(()).unwrap();
                        may_go.lock().unwrap().recv().unwrap();
                    }
                };
                let source =
                    ReaderSource::new(ActingReader::new(&data, wait), u64::try_from(LEN).unwrap());
                rig.manager.seal_from(SealRequest::new("model", 0), source, SealOptions::new())
            });
            started.recv().unwrap();
            let report = rig.manager.close(Duration::ZERO);
            assert_eq!((report.under_way, report.complete), (1, false));
            assert_eq!(report.unreturned.len(), 1, "the other gpu is given back");
            go.send(()).unwrap();
            drop(sealer.join().unwrap());
        });
        is_complete(&rig.manager.close(Duration::ZERO));
        is_gone(&rig, "the seal has ended");
    }
}

#[test]
fn a_close_that_cannot_wait_for_another_one_says_what_is_there() {
    let rig = Arc::new(two_gpus(MemoryMode::Region));
    seal(&rig, 0, Protection::Encrypted);
    let (inner, seen) = (Arc::downgrade(&rig), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&seen);
    let hook = Hook::new(move || {
        let rig = inner.upgrade().unwrap();
        let other = thread::spawn(move || rig.manager.close(Duration::ZERO));
        let report = other.join().unwrap();
        assert!(!report.complete && report.under_way == 1 && report.freed == 0, "{report:?}");
        told.store(true, Ordering::Release);
    });
    rig.devices[0].next(Op::Fill, Action::Run(hook)).unwrap();
    is_complete(&rig.manager.close(Duration::ZERO));
    assert!(seen.load(Ordering::Acquire));
}

#[test]
fn a_running_scrubber_ends_with_the_manager_that_is_closed() {
    let rig = two_gpus(MemoryMode::Region);
    let shard = seal(&rig, 0, Protection::Encrypted);
    let lease = rig.manager.lease(&shard).unwrap();
    let options = ScrubOptions::new(ScrubRate::BytesPerSecond(u64::MAX));
    let scrubber = rig.manager.start_scrubber(options.pass_at_least(Duration::ZERO)).unwrap();
    while scrubber.status().passes == 0 {
        thread::yield_now();
    }
    let report = rig.manager.close(Duration::ZERO);
    assert_eq!(report.left.len(), 1, "it is leased");
    while scrubber.status().running {
        thread::yield_now();
    }
    // Remaining shards are not checked any more.
    let reads = rig.devices[0].call_count(Op::Read);
    let step = rig.manager.scrub_step(&mut ScrubCursor::new(), ByteLen::MIB);
    assert!(step.idle && step.bytes.is_zero() && matches!(step.error, Some(VramError::Closed)));
    assert_eq!(rig.devices[0].call_count(Op::Read), reads);
    drop((lease, scrubber));
    is_complete(&rig.manager.close(Duration::MAX));
    is_gone(&rig, "scrubbed");
}

#[test]
fn a_scrubber_that_is_started_while_the_manager_is_closed_ends_too() {
    for round in 0..200_u32 {
        let rig = two_gpus(MemoryMode::Region);
        let start = Barrier::new(2);
        thread::scope(|scope| {
            let scrubber = scope.spawn(|| {
                start.wait();
                rig.manager.start_scrubber(ScrubOptions::new(ScrubRate::Share(1.0)))
            });
            start.wait();
            for _ in 0..round {
                core::hint::spin_loop();
            }
            is_complete(&rig.manager.close(Duration::MAX));
            if let Ok(scrubber) = scrubber.join().unwrap() {
                while scrubber.status().running {
                    thread::yield_now();
                }
            }
        });
    }
}

#[test]
fn a_close_waits_for_a_slow_sink_no_longer_than_asked() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let rig = two_gpus_with(MemoryMode::Region, |builder| {
        builder.event_sink(move |_event: &vram_residency::Event| {
            let _ended = released.lock().unwrap().recv();
        })
    });
    seal(&rig, 0, Protection::Encrypted);
    let report = rig.manager.close(Duration::from_millis(20));
    assert!(report.complete && !report.events_flushed, "{report:?}");
    assert!(rig.devices[0].live().is_empty(), "nothing waits for it");
    drop(release);
    assert!(rig.manager.close(Duration::MAX).events_flushed);
}
