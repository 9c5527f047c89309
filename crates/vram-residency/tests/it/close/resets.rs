//! Closing a manager while a GPU of it is reset: both end, and nothing is left.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::thread;

use vram_residency::device::fault::Op;
use vram_residency::{CloseReport, Event, EventKind, EventLog, ResetOptions, ShardId, VramError};
use vram_test_rigs::{ActingWriter, Rig, begin, held_up, in_time};

use super::{KINDS, MODES, is_complete, is_gone, seal, two_gpus_with};

/// Long enough for every wait of these tests.
const LONG: Duration = Duration::from_secs(15);

/// Two GPUs, the first with a shard of each kind that has a backup.
fn rig(mode: vram_residency::MemoryMode) -> (Arc<Rig>, EventLog) {
    let log = EventLog::new(1000);
    let rig = Arc::new(two_gpus_with(mode, |builder| builder.event_sink(log.clone())));
    for kind in KINDS {
        let shard = seal(&rig, 0, kind);
        rig.manager.back_up(&shard).unwrap();
        seal(&rig, 1, kind);
    }
    (rig, log)
}

fn close(rig: &Arc<Rig>, timeout: Duration) -> mpsc::Receiver<CloseReport> {
    let rig = Arc::clone(rig);
    begin(move || rig.manager.close(timeout))
}

/// Waits until every call is refused.
fn until_closing(rig: &Rig) {
    while !matches!(rig.manager.refresh(1), Err(VramError::Closed)) {
        thread::yield_now();
    }
}

#[test]
fn a_close_while_a_reset_waits_for_a_reader_ends_with_it() {
    for mode in MODES {
        let (rig, _log) = rig(mode);
        let shard = rig.manager.shards().into_iter().find(|shard| shard.gpu_index == 0).unwrap();
        let (entered, inside) = mpsc::channel();
        let (go, go_on) = mpsc::channel::<()>();
        let reading = {
            let (rig, shard) = (Arc::clone(&rig), shard.clone());
            begin(move || {
                let sink = ActingWriter(move |bytes: &[u8]| {
                    entered.send(()).unwrap_or_default();
                    let _ended = go_on.recv();
                    Ok(bytes.len())
                });
                rig.manager.unseal_to(&shard, sink)
            })
        };
        inside.recv_timeout(LONG).unwrap();
        let resetting = {
            let rig = Arc::clone(&rig);
            begin(move || rig.manager.reset_gpu(0, ResetOptions::new().force().within(LONG)))
        };
        // New calls on that GPU are told to try again: the reset waits.
        while !matches!(rig.manager.back_up(&shard), Err(VramError::GpuInUse { .. })) {
            thread::yield_now();
        }
        let closing = close(&rig, LONG);
        until_closing(&rig);
        drop(go);
        let report = in_time("the close", move || closing.recv().unwrap());
        let reset = in_time("the reset", move || resetting.recv().unwrap());
        drop(in_time("the reader", move || reading.recv().unwrap()));
        assert!(
            matches!(reset, Ok(_) | Err(VramError::Closed | VramError::GpuInUse { .. })),
            "{reset:?}"
        );
        is_complete(&report);
        drop(reset);
        is_gone(&rig, "draining");
        assert!(rig.manager.park_capacity().used.is_zero());
    }
}

/// The reset is held up inside the device: in its reset, or in the first write of a restoration.
#[test]
fn a_close_while_a_reset_is_at_the_device_waits_for_it_and_leaves_nothing() {
    for mode in MODES {
        for (stage, lost) in
            [(Op::Reset, true), (Op::Reset, false), (Op::QueueWrite, true), (Op::QueueWrite, false)]
        {
            let what = format!("{mode:?}, {stage:?}, lost: {lost}");
            let (rig, log) = rig(mode);
            let shard = rig.manager.shards().into_iter().find(|shard| shard.gpu_index == 0);
            if lost {
                rig.lose(&shard.unwrap());
            }
            let (arrived, go_on) = held_up(&rig.devices[0], stage);
            let resetting = {
                let rig = Arc::clone(&rig);
                begin(move || rig.manager.reset_gpu(0, ResetOptions::new().force()))
            };
            arrived.recv_timeout(LONG).expect(&what);
            // A close that may not wait says what is left, and changes nothing for the reset.
            let early = {
                let rig = Arc::clone(&rig);
                in_time(&what, move || rig.manager.close(Duration::from_millis(20)))
            };
            assert!(!early.complete, "{what}: {early:?}");
            if stage == Op::QueueWrite {
                let why: Vec<_> = early.left.iter().map(|(_, error)| error.code()).collect();
                assert_eq!(why, ["restoring"; 2], "{what}");
            }
            let closing = close(&rig, LONG);
            drop(go_on);
            let (reset, report) = (
                in_time(&what, move || resetting.recv().unwrap()),
                in_time(&what, move || closing.recv().unwrap()),
            );
            // What waits in the report of a reset is dropped with it.
            drop(reset.unwrap_or_else(|error| panic!("{what}: {error}")));
            is_complete(&report);
            is_gone(&rig, &what);
            assert!(rig.manager.park_capacity().used.is_zero(), "{what}");
            assert!(rig.manager.flush_events(LONG));
            each_ended_once(&log.take(), &what);
        }
    }
}

/// Every shard ends once: freed by the close, dropped with the report of the reset, or lost. The
/// reset and the end of the manager are told.
fn each_ended_once(told: &[Event], what: &str) {
    let mut ends: BTreeMap<&ShardId, u32> = BTreeMap::new();
    let (mut sealed, mut resets, mut closed) = (0, 0, 0);
    for event in told {
        match &event.kind {
            EventKind::Sealed { .. } => sealed += 1,
            EventKind::Freed { shard, .. } | EventKind::Dropped { shard } => {
                *ends.entry(shard).or_default() += 1;
            }
            EventKind::DeviceReset { lost, .. } => {
                resets += 1;
                for shard in lost.iter() {
                    *ends.entry(shard).or_default() += 1;
                }
            }
            EventKind::Closed { left } => closed = *left + 1,
            _ => {}
        }
    }
    assert_eq!((ends.len(), resets, closed), (sealed, 1, 1), "{what}: {told:#?}");
    assert!(ends.values().all(|times| *times == 1), "{what}: {told:#?}");
}
