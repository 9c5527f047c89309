//! A shard of no bytes makes no call to a device, so no device stops it: it moves across a reset, or
//! not at all.

use core::cell::Cell;
use core::time::Duration;
use std::sync::{Arc, Mutex, Weak, mpsc};

use vram_residency::{
    EventKind, EventLog, MemoryMode, Protection, ResetOptions, ShardId, VramError,
};
use vram_test_rigs::{CallingClock, Rig, begin, content, in_time};

use super::{LEN, MODES, two_gpus_with};

thread_local! {
    /// How often the clock may still be asked by this thread before it acts.
    static LEFT: Cell<u32> = const { Cell::new(0) };
}

/// What happens at one question to the clock.
type Act = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

#[derive(Clone, Copy, Debug)]
struct Case {
    mode: MemoryMode,
    /// The GPU that is reset: 0 is the source of the move, 1 its target.
    gpu: u32,
    lost: bool,
    backed_up: bool,
}

fn cases() -> impl Iterator<Item = Case> {
    (0..16).map(|bits| Case {
        mode: MODES[bits & 1],
        gpu: u32::from(bits & 2 > 0),
        lost: bits & 4 > 0,
        backed_up: bits & 8 > 0,
    })
}

/// A rig whose clock runs `act` at a question of the thread that set `LEFT`.
fn rig(mode: MemoryMode, log: &EventLog) -> (Arc<Rig>, Act) {
    let act = Act::default();
    let acting = Arc::clone(&act);
    let ask = Arc::new(move || {
        let left = LEFT.get();
        LEFT.set(left.saturating_sub(1));
        let act = if left == 1 { acting.lock().unwrap().take() } else { None };
        if let Some(act) = act {
            act();
        }
    });
    let also = Arc::clone(&ask);
    let clock = Arc::new(CallingClock { on_now: move || ask(), on_monotonic: move || also() });
    let rig = two_gpus_with(mode, |builder| builder.clock(clock).event_sink(log.clone()));
    (Arc::new(rig), act)
}

/// Where a shard is by its events.
fn by_events(log: &EventLog, id: &ShardId, what: &str) -> Option<u32> {
    let mut place = None;
    for event in log.take() {
        match event.kind {
            EventKind::Sealed { shard, gpu, .. } | EventKind::Woken { shard, gpu, .. }
                if shard == *id =>
            {
                place = Some(gpu);
            }
            EventKind::Moved { shard, from, to, .. } if shard == *id => {
                assert_eq!(place, Some(from), "{what}");
                place = Some(to);
            }
            EventKind::DeviceReset { gpu, lost, .. } if lost.contains(id) => {
                assert_eq!(place, Some(gpu), "{what}: lost with a GPU that it was not on");
                place = None;
            }
            _ => {}
        }
    }
    place
}

/// Moves an empty shard while a GPU is reset at the n-th question to the clock. Returns false if
/// there were fewer.
fn moved_across(case: Case, question: u32) -> bool {
    let what = format!("{case:?}, question {question}");
    let log = EventLog::new(1000);
    let (rig, act) = rig(case.mode, &log);
    let empty = rig.seal(0, Protection::Encrypted, &[]);
    let witness = rig.seal(case.gpu, Protection::Encrypted, &content(LEN, 1));
    if case.backed_up {
        rig.manager.back_up(&empty).unwrap();
    }
    let (answer, reset) = mpsc::channel();
    let resetting: Weak<Rig> = Arc::downgrade(&rig);
    *act.lock().unwrap() = Some(Box::new(move || {
        let rig = resetting.upgrade().unwrap();
        if case.lost {
            // As soon as a call meets the error.
            rig.lose(&witness);
        }
        let done = begin(move || {
            let report = rig.manager.reset_gpu(case.gpu, ResetOptions::new().force());
            answer.send(report.map(drop)).unwrap_or_default();
        });
        // If it can end before the move does, it does.
        let _in_time = done.recv_timeout(Duration::from_millis(25));
    }));
    let (moving, id) = (Arc::clone(&rig), empty.shard_id.clone());
    let moved = in_time(&what, move || {
        LEFT.set(question);
        let moved = moving.manager.migrate_shard(&empty, 1);
        LEFT.set(0);
        moved
    });
    if act.lock().unwrap().take().is_some() {
        return false;
    }
    let reset = reset
        .recv_timeout(Duration::from_secs(20))
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    reset.unwrap_or_else(|error| panic!("{what}: {error}"));
    if let Err(error) = &moved {
        let known = matches!(
            error,
            VramError::DeviceLost { .. }
                | VramError::GpuInUse { .. }
                | VramError::Restoring { .. }
                | VramError::StaleHandle { .. }
                | VramError::ShardFreed { .. }
        );
        assert!(known, "{what}: {error}");
    }

    assert!(rig.manager.flush_events(Duration::from_mins(1)));
    let now = rig.manager.shard(&id);
    let place = by_events(&log, &id, &what);
    assert_eq!(now.as_ref().map(|shard| shard.gpu_index), place, "{what}: {moved:?}");
    if case.backed_up {
        assert!(now.is_some(), "{what}: it has a copy");
    }
    if let Some(shard) = now {
        assert_eq!(rig.manager.unseal_and_free(&shard).unwrap(), [0_u8; 0], "{what}");
    }
    for accounts in rig.manager.reconcile_all() {
        let accounts = accounts.unwrap();
        assert!(accounts.agrees && accounts.in_flight.is_zero(), "{what}: {accounts}");
    }
    for shard in rig.manager.shards() {
        rig.manager.free_shard(&shard).unwrap();
    }
    rig.is_whole(case.gpu);
    true
}

#[test]
fn an_empty_shard_that_moves_across_a_reset_is_where_its_events_say() {
    for case in cases() {
        let mut question = 1;
        while moved_across(case, question) {
            question += 1;
        }
        assert!(question > 2, "{case:?}: the clock was never asked");
    }
}
