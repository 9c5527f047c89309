//! Whole models that are freed, parked and migrated while others use their shards: the calls queue
//! fairly at every shard, wait no longer than they were told, and name the shard that kept them.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::{Arc, mpsc};
use std::{io, thread};

use vram_residency::device::fault::{FaultPlan, Op};
use vram_residency::{
    GpuChoice, MemoryMode, ModelHandle, ParkedModel, Protection, VramError, VramManager,
};
use vram_test_rigs::{Rig, devices, held_up};

use super::models::{admit, assert_whole};

/// Longer than anything takes here that does not hang.
const LONG: Duration = Duration::from_mins(1);
const SHORT: Duration = Duration::from_millis(30);

/// The calls on a whole model that need it for themselves.
type Call = fn(&VramManager, &ModelHandle, Duration) -> Result<Left, VramError>;
const CALLS: [(&str, Call); 3] = [
    ("migrate", |manager, model, time| manager.migrate_model_within(model, 1, time).map(Left::At)),
    ("park", |manager, model, time| manager.park_model_within(model, time).map(Left::Parked)),
    ("free", |manager, model, time| manager.free_model_within(model, time).map(|_| Left::Freed)),
];

/// Where a call left a model.
#[derive(Debug)]
enum Left {
    At(ModelHandle),
    Parked(ParkedModel),
    Freed,
}

/// Runs a call on a thread of its own, so that a call that hangs fails its test.
fn elsewhere<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
    let (told, answer) = mpsc::channel();
    thread::spawn(move || told.send(call()));
    answer
}

/// A writer that takes its time, so that the reader of a shard is nearly always inside.
struct Slow;

impl io::Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        thread::sleep(Duration::from_millis(10));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// there is no moment at which none of the shards is being read.
#[test]
fn a_model_that_is_read_all_the_time_is_migrated_parked_and_freed_within_its_time() {
    for (name, call) in CALLS {
        let (rig, model) = rig();
        let reading = Arc::new(AtomicBool::new(true));
        let (told, read) = mpsc::channel();
        let readers = 2 * model.pieces.len();
        for reader in 0..readers {
            let (rig, model) = (Arc::clone(&rig), Arc::clone(&model));
            let (reading, told) = (Arc::clone(&reading), told.clone());
            thread::spawn(move || {
                let shard = &model.pieces[reader % model.pieces.len()].shard;
                // Until the shard is gone, and nothing is left to read.
                while reading.load(Ordering::Acquire) && rig.manager.unseal_to(shard, Slow).is_ok()
                {
                    let _left = told.send(reader);
                }
            });
        }
        let mut still_to_read: Vec<usize> = (0..readers).collect();
        while !still_to_read.is_empty() {
            let reader = read.recv_timeout(LONG).unwrap();
            still_to_read.retain(|one| *one != reader);
        }

        let (theirs, whole) = (Arc::clone(&rig), Arc::clone(&model));
        let answer = elsewhere(move || call(&theirs.manager, &whole, LONG)).recv_timeout(2 * LONG);
        reading.store(false, Ordering::Release);
        assert!(matches!(answer, Ok(Ok(_))), "{name}: {answer:?}");
        assert_eq!(rig.used(0), 0, "{name}");
    }
}

/// A rig of two GPUs with a model on the first, and the device of that one.
fn rig() -> (Arc<Rig>, Arc<ModelHandle>) {
    let devices = devices(&[1 << 17, 1 << 17], &FaultPlan::new(1));
    let rig = Rig::over(devices, MemoryMode::Region, |builder| builder);
    let model = admit(&rig.manager, Protection::Encrypted, GpuChoice::One(0));
    (Arc::new(rig), Arc::new(model))
}

#[test]
fn a_model_call_that_runs_out_of_time_names_the_shard_and_changes_nothing() {
    for (name, call) in CALLS {
        let (rig, model) = rig();
        let last = &model.pieces[3].shard;
        let before = rig.manager.report();

        let lease = rig.manager.lease(last).unwrap();
        for timeout in [Duration::ZERO, SHORT] {
            match call(&rig.manager, &model, timeout) {
                Err(VramError::InUse { shard, leases: 1, .. }) => assert_eq!(shard, last.shard_id),
                other => panic!("{name}: {other:?}"),
            }
        }
        drop(lease);

        let (reading, go_on) = held_up(&rig.devices[0], Op::Read);
        let (theirs, whole) = (Arc::clone(&rig), Arc::clone(&model));
        let reader = elsewhere(move || theirs.manager.unseal_model(&whole.pieces[3].shard));
        reading.recv_timeout(LONG).unwrap();
        match call(&rig.manager, &model, SHORT) {
            Err(VramError::TimedOut { shard, waited }) => {
                assert_eq!((shard, waited), (last.shard_id.clone(), SHORT));
            }
            other => panic!("{name}: {other:?}"),
        }
        // It stands in no queue any more.
        assert!(rig.manager.lease_within(&model.pieces[0].shard, LONG).is_ok(), "{name}");
        go_on.send(()).unwrap();
        assert!(reader.recv_timeout(LONG).unwrap().is_ok(), "{name}");

        assert_eq!(rig.manager.report().gpus, before.gpus, "{name}");
        assert_whole(&rig.manager, &model, name);
    }
}

/// Its end, and not the end of the caller's patience.
#[test]
fn a_model_call_that_waits_for_a_lease_goes_on_when_the_lease_ends() {
    for (name, call) in CALLS {
        let (rig, model) = rig();
        let lease = rig.manager.lease(&model.pieces[1].shard).unwrap();
        let (theirs, whole) = (Arc::clone(&rig), Arc::clone(&model));
        let answer = elsewhere(move || call(&theirs.manager, &whole, 10 * LONG));
        assert!(answer.recv_timeout(SHORT).is_err(), "{name}: the shard is leased");
        // The call that waits blocks neither readers nor other leases.
        assert!(rig.manager.unseal_model(&model.pieces[0].shard).is_ok(), "{name}");
        drop(rig.manager.lease_within(&model.pieces[1].shard, LONG).unwrap());
        drop(lease);
        match (name, answer.recv_timeout(LONG).unwrap().unwrap()) {
            ("migrate", Left::At(moved)) => assert_whole(&rig.manager, &moved, name),
            ("park", Left::Parked(parked)) => {
                let woken = rig.manager.wake_model(parked, GpuChoice::One(1)).unwrap();
                assert_whole(&rig.manager, &woken, name);
            }
            ("free", Left::Freed) => assert!(rig.manager.shards().is_empty()),
            other => panic!("{other:?}"),
        }
    }
}
