//! Closing from inside a call, and while other calls begin.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{Arc, Barrier, Mutex, Weak, mpsc};
use std::thread;

use vram_residency::device::fault::{Action, Hook, Op};
use vram_residency::{
    ByteLen, Protection, ReaderSource, ReserveRequest, SealOptions, SealRequest, SliceSource,
    Threads, VramError, VramManager,
};
use vram_test_rigs::{
    ActingReader, ActingSource, ActingWriter, CallingClock, Rig, SEGMENT, weights,
};

use super::{LEN, MODES, is_complete, is_gone, seal, two_gpus, two_gpus_on, two_gpus_with};

const LONG: usize = 4 << 20;

#[test]
fn closing_from_inside_a_call_does_not_wait_for_that_call() {
    for (mode, threads) in [(MODES[0], 1), (MODES[1], 1), (MODES[0], 3)] {
        let threads = Threads::exactly(threads);
        let data = weights(LEN);
        let len = u64::try_from(LEN).unwrap();

        // From a source, on the thread that reads it.
        let rig = two_gpus_on(mode, threads);
        let closed = AtomicU64::new(0);
        let close = || {
            let report = rig.manager.close(Duration::MAX);
            assert!(!report.complete && report.under_way > 0, "{report:?}");
            closed.fetch_add(1, Ordering::Relaxed);
        };
        let source = ReaderSource::new(ActingReader::new(&data, close), len);
        let sealed =
            rig.manager.seal_from(SealRequest::new("model", 0), source, SealOptions::new());
        assert!(closed.into_inner() > 0);
        // The call began before the close: its shard is resident and can be freed, or the call was
        // refused.
        drop(sealed);
        is_complete(&rig.manager.close(Duration::MAX));
        is_gone(&rig, "from a source");

        // From the callback after the last byte, on the caller's thread.
        let rig = two_gpus_on(mode, threads);
        let options = SealOptions::new().progress(|_| {
            let report = rig.manager.close(Duration::MAX);
            assert!(!report.complete && report.under_way > 0, "{report:?}");
        });
        drop(rig.manager.seal_from(SealRequest::new("model", 0), SliceSource::new(&data), options));
        is_complete(&rig.manager.close(Duration::MAX));
        is_gone(&rig, "from a callback");

        // From a sink: the shard that is being read is left.
        let rig = two_gpus_on(mode, threads);
        let shard = seal(&rig, 0, Protection::Encrypted);
        let sink = ActingWriter(|bytes: &[u8]| {
            let report = rig.manager.close(Duration::MAX);
            assert!(matches!(report.left[0].1, VramError::InUse { leases: 0, .. }), "{report:?}");
            Ok(bytes.len())
        });
        rig.manager.unseal_to(&shard, sink).unwrap();
        is_complete(&rig.manager.close(Duration::MAX));
        is_gone(&rig, "from a sink");

        // From the device, in the middle of a close.
        let rig = Arc::new(two_gpus_on(mode, threads));
        seal(&rig, 0, Protection::Encrypted);
        let inner = Arc::downgrade(&rig);
        let hook = Hook::new(move || {
            let report = inner.upgrade().unwrap().manager.close(Duration::MAX);
            assert!(!report.complete, "{report:?}");
        });
        rig.devices[0].next(Op::Fill, Action::Run(hook)).unwrap();
        is_complete(&rig.manager.close(Duration::MAX));
        is_gone(&rig, "from a device");
    }
}

#[test]
fn closing_from_a_worker_thread_does_not_wait_for_the_call_that_it_works_for() {
    // Long enough for several windows, so that both threads read something.
    let builder =
        VramManager::builder().host_device(ByteLen::from_usize(LONG)).threads(Threads::exactly(2));
    let manager = builder.build().unwrap();
    let (send, receive) = mpsc::channel();
    let (send, receive) = (Mutex::new(send), Mutex::new(receive));
    let caller = thread::current().id();
    // Two threads read it: the caller's waits until the other one has closed the manager.
    let source = ActingSource::new(vec![1; LONG], |_offset, _target: &mut [u8]| {
        let report = if thread::current().id() == caller {
            receive.lock().unwrap().recv().unwrap();
            None
        } else {
            Some(manager.close(Duration::MAX))
        };
        send.lock().unwrap().send(()).unwrap();
        if let Some(report) = report {
            assert!(!report.complete && report.under_way > 0, "{report:?}");
        }
        Ok(())
    });
    let request = SealRequest::new("model", 0);
    drop(manager.seal_from(request, source, SealOptions::new()));
    is_complete(&manager.close(Duration::MAX));
    assert_eq!(manager.get_used_vram(0).unwrap(), 0);
}

/// The manager is closed after a call's check and before the call takes memory.
#[test]
fn a_call_that_was_let_in_before_the_end_takes_nothing_after_it() {
    for mode in MODES {
        // Once armed, the clock closes the manager on its next read.
        let armed = Arc::new(Mutex::new(None::<Weak<Rig>>));
        let closes = Arc::clone(&armed);
        let on_monotonic = move || {
            let armed = closes.lock().unwrap().take();
            if let Some(rig) = armed {
                let report = rig.upgrade().unwrap().manager.close(Duration::MAX);
                assert!(!report.complete && report.under_way == 1, "{report:?}");
            }
        };
        let clock = Arc::new(CallingClock { on_now: || {}, on_monotonic });
        let rig = two_gpus_with(mode, |builder| builder.clock(clock));
        let rig = Arc::new(rig);
        // So that the clock is read whenever a place is searched.
        let request = ReserveRequest::new(0, ByteLen::ZERO).expires_in(Duration::ZERO);
        let _room = rig.manager.reserve_with(request).unwrap();
        *armed.lock().unwrap() = Some(Arc::downgrade(&rig));
        let refused = rig.manager.seal_model("model", 0, &weights(LEN)).unwrap_err();
        assert!(armed.lock().unwrap().is_none(), "the clock was asked");
        assert!(matches!(refused, VramError::Closed), "{refused}");
        is_complete(&rig.manager.close(Duration::ZERO));
        is_gone(&rig, "closed in between");
    }
}

/// Either a seal is resident before the manager is closed, and is freed, or it is refused: nothing
/// is ever left behind.
#[test]
fn a_seal_that_races_with_the_end_is_freed_or_refused() {
    for round in 0..150_u32 {
        let rig = two_gpus(MODES[usize::try_from(round).unwrap() % 2]);
        let (start, sealed) = (Barrier::new(4), AtomicU64::new(0));
        let parked = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for worker in 0..2_u32 {
                let (rig, start, sealed, parked) = (&rig, &start, &sealed, &parked);
                scope.spawn(move || {
                    start.wait();
                    loop {
                        match rig.manager.seal_model("model", worker % 2, &weights(LEN)[..SEGMENT])
                        {
                            Ok(shard) => {
                                sealed.fetch_add(1, Ordering::Relaxed);
                                match rig.manager.park(&shard) {
                                    Ok(waiting) if worker == 0 => {
                                        drop(rig.manager.wake(waiting, 1));
                                    }
                                    Ok(waiting) => parked.lock().unwrap().push(waiting),
                                    Err(error) => assert!(ended(&error), "{error}"),
                                }
                            }
                            Err(error) => {
                                assert!(ended(&error) || error.is_capacity(), "{error}");
                                if ended(&error) {
                                    break;
                                }
                                thread::yield_now();
                            }
                        }
                    }
                });
            }
            // Two threads close at once: both finish, and both results are consistent.
            let other = scope.spawn(|| {
                start.wait();
                rig.manager.close(Duration::MAX)
            });
            start.wait();
            for _ in 0..round % 7 {
                thread::yield_now();
            }
            let reports = [rig.manager.close(Duration::MAX), other.join().unwrap()];
            for report in &reports {
                is_complete(report);
            }
        });
        is_gone(&rig, "raced");
    }
}

fn ended(error: &VramError) -> bool {
    // A shard may be freed after the check of a handle and before its use.
    matches!(error, VramError::Closed | VramError::ShardFreed { .. })
}
