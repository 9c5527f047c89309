//! The lives of GPUs, shards and managers: what each state answers, and in which order it is told.

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use vram_residency::device::fault::{Action, Hook, Op, When};
use vram_residency::{
    AdmitRequest, Class, Clock, EventKind, EventLog, GpuChoice, LifeState, ModelPlan, Piece,
    Protection, ReserveRequest, ResetOptions, SealRequest, ShardState, SliceSource, SystemClock,
    Timestamp, VramError,
};
use vram_test_rigs::{Rig, content};

use super::{ECC, KINDS, LEN, MODES, seal, two_gpus, two_gpus_with};

const PATIENCE: Duration = Duration::from_secs(20);

/// A hook that tells that it was reached, and waits to be let go.
fn holding() -> (Hook, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (entered, inside) = mpsc::channel();
    let (go, go_on) = mpsc::channel::<()>();
    let ends = Mutex::new((entered, go_on));
    let hook = Hook::new(move || {
        let ends = ends.lock().unwrap();
        let _ = ends.0.send(());
        let _ = ends.1.recv_timeout(PATIENCE);
    });
    (hook, inside, go)
}

fn state_of(rig: &Rig, gpu: usize) -> LifeState {
    rig.manager.metrics().gpus[gpu].state
}

fn wait_for(rig: &Rig, gpu: usize, state: LifeState) {
    let end = std::time::Instant::now() + PATIENCE;
    while state_of(rig, gpu) != state {
        assert!(std::time::Instant::now() < end, "still {}", state_of(rig, gpu));
        thread::yield_now();
    }
}

/// the manager is gone, and with it what lay on its GPUs, though a parked shard is still held.
#[test]
fn a_parked_shard_that_outlives_its_manager_keeps_no_other_shard_on_the_gpu() {
    for mode in MODES {
        let rig = two_gpus(mode);
        let parked = seal(&rig, 0, Protection::Encrypted, 1);
        let _resident = seal(&rig, 0, Protection::Encrypted, 2);
        let parked = rig.manager.park(&parked).unwrap();
        let Rig { manager, devices, .. } = rig;
        drop(manager);
        assert!(devices[0].live().is_empty(), "{mode:?}: {:?}", devices[0].live());
        drop(parked);
    }
}

/// a shard that will come back is not called freed, is listed, and says what it is.
#[test]
fn while_a_reset_restores_shards_each_that_comes_back_is_called_restoring() {
    for mode in MODES {
        let rig = Arc::new(two_gpus(mode));
        let shards = [1, 2].map(|seed| seal(&rig, 0, Protection::Encrypted, seed));
        for shard in &shards {
            let _kept = rig.manager.back_up(shard).unwrap();
        }
        rig.lose(&shards[0]);
        assert!(rig.manager.report().shards.iter().all(|shard| shard.state == ShardState::Lost));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (weak, second, told) = (Arc::downgrade(&rig), shards[1].clone(), Arc::clone(&seen));
        let hook = Hook::new(move || {
            let Some(rig) = weak.upgrade() else { return };
            let refused = rig.manager.unseal_model(&second).unwrap_err();
            let listed = rig.manager.shard(&second.shard_id).unwrap();
            let fresh = rig.manager.unseal_model(&listed).unwrap_err();
            let report = rig.manager.report();
            let report = report.shards.iter().find(|one| one.shard_id == second.shard_id);
            let state = report.map(|one| (one.state, one.gpu));
            told.lock().unwrap().push((refused, fresh, state, state_of(&rig, 0)));
        });
        // The first write of the restoration is that of the first shard.
        rig.devices[0].add(Op::QueueWrite, When::Nth(1), Action::Run(hook)).unwrap();
        let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
        assert_eq!(report.restored.len(), 2);
        let seen = seen.lock().unwrap();
        let [(refused, fresh, state, life)] = seen.as_slice() else { panic!("{seen:?}") };
        for error in [refused, fresh] {
            assert!(matches!(error, VramError::Restoring { .. }), "{error}");
            assert!(error.class() == Class::Retry && error.retry_after().is_some());
        }
        assert_eq!(*state, Some((ShardState::Restoring, 0)));
        assert_eq!(*life, LifeState::Restoring);
        for shard in report.restored {
            assert!(rig.manager.unseal_and_free(&shard).is_ok());
        }
        rig.is_whole(0);
    }
}

/// the last event about a GPU says what it is.
#[test]
fn of_a_gpu_that_is_lost_again_while_it_is_restored_the_last_word_is_that_it_is_lost() {
    for mode in MODES {
        let log = EventLog::new(64);
        let rig = two_gpus_with(mode, |builder| builder.event_sink(log.clone()));
        let shards = [1, 2].map(|seed| seal(&rig, 0, Protection::Encrypted, seed));
        for shard in &shards {
            let _kept = rig.manager.back_up(shard).unwrap();
        }
        rig.lose(&shards[0]);
        // The second shard of the restoration meets a sticky error.
        rig.devices[0].add(Op::QueueWrite, When::Nth(4), Action::Driver(ECC)).unwrap();
        let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
        assert_eq!(state_of(&rig, 0), LifeState::Lost, "{report:?}");
        assert!(rig.manager.flush_events(PATIENCE));
        let told = log.events().into_iter().map(|event| event.kind.name());
        let of_gpu: Vec<_> = told.filter(|kind| kind.starts_with("device")).collect();
        assert_eq!(of_gpu, ["device_lost", "device_reset", "device_lost"]);
    }
}

/// a loss, the reset that it led to, and what became of each shard, in their order, whoever met
/// the loss.
#[test]
fn losses_and_resets_are_told_in_the_order_in_which_they_happen() {
    let log = EventLog::new(100_000);
    let rig = two_gpus_with(MODES[0], |builder| builder.event_sink(log.clone()));
    let over = AtomicU64::new(0);
    thread::scope(|scope| {
        for seed in 0..2 {
            let (rig, over) = (&rig, &over);
            scope.spawn(move || {
                while over.load(Ordering::Acquire) == 0 {
                    let request = SealRequest::new("m", 0);
                    if let Ok(shard) = rig.manager.seal(request, &content(LEN, seed)) {
                        let _any = rig.manager.unseal_model(&shard);
                        let _any = rig.manager.free_shard(&shard);
                    }
                }
            });
        }
        for _round in 0..40 {
            rig.devices[0].next(Op::Read, Action::Driver(ECC)).unwrap();
            let end = std::time::Instant::now() + PATIENCE;
            while state_of(&rig, 0) != LifeState::Lost && std::time::Instant::now() < end {
                thread::yield_now();
            }
            drop(rig.manager.reset_gpu(0, ResetOptions::new()).unwrap());
        }
        over.store(1, Ordering::Release);
    });
    assert!(rig.manager.flush_events(PATIENCE));
    let (mut lost, mut there) = (false, std::collections::BTreeSet::new());
    for event in log.take() {
        match event.kind {
            EventKind::Sealed { shard, gpu: 0, .. } => {
                // Also between a loss and the end of the reset: while shards are restored.
                there.insert(shard);
            }
            EventKind::Freed { shard, gpu: 0, .. } => {
                there.remove(&shard);
            }
            EventKind::DeviceLost { gpu: 0, shards, .. } => {
                assert!(!lost, "lost twice");
                lost = true;
                // A shard whose free was under way may be told as freed later.
                assert!(shards.iter().all(|shard| there.contains(shard)), "{shards:?}");
            }
            EventKind::DeviceReset { gpu: 0, lost: gone, .. } => {
                assert!(lost, "a reset of a gpu that was not lost");
                lost = false;
                for shard in gone.iter() {
                    there.remove(shard);
                }
            }
            _ => {}
        }
    }
    assert!(!lost);
}

/// a reset of a working GPU that waits, and is refused in the end, is no loss: new calls are
/// told to try again, calls that run go on.
#[test]
fn a_gpu_that_works_is_not_called_lost_while_its_reset_waits() {
    for mode in MODES {
        let rig = two_gpus(mode);
        let shard = seal(&rig, 0, Protection::Encrypted, 1);
        let (hook, inside, go) = holding();
        rig.devices[0].next(Op::Read, Action::Run(hook)).unwrap();
        thread::scope(|scope| {
            let reading = scope.spawn(|| rig.manager.unseal_model(&shard));
            inside.recv_timeout(PATIENCE).unwrap();
            let options = ResetOptions::new().force().within(Duration::from_millis(300));
            let manager = &rig.manager;
            let resetting = scope.spawn(move || manager.reset_gpu(0, options).map(drop));
            wait_for(&rig, 0, LifeState::Draining);
            let metrics = rig.manager.metrics();
            assert!(!metrics.gpus[0].lost);
            for refused in [
                rig.manager.unseal_model(&shard).map(drop),
                rig.manager.seal_model("m", 0, b"more").map(drop),
                rig.manager.lease(&shard).map(drop),
            ] {
                let error = refused.unwrap_err();
                let waits = matches!(error, VramError::GpuInUse { gpu: 0, .. });
                assert!(waits && error.class() == Class::Retry, "{error}");
            }
            let refused = resetting.join().unwrap();
            assert!(matches!(refused, Err(VramError::GpuInUse { gpu: 0, .. })), "{refused:?}");
            assert_eq!(state_of(&rig, 0), LifeState::Serving);
            go.send(()).unwrap();
            assert_eq!(reading.join().unwrap().unwrap(), content(LEN, 1), "it went on");
        });
        assert_eq!(rig.manager.unseal_and_free(&shard).unwrap(), content(LEN, 1));
        rig.is_whole(0);
    }
}

/// a lease that a reset found, and that refused it, is as good as any other.
#[test]
fn a_lease_that_is_given_while_a_reset_waits_has_its_pointer_and_refuses_the_reset() {
    let rig = two_gpus(MODES[0]);
    let request = SealRequest::new("weights", 0)
        .protection(Protection::Authenticated)
        .read_back(vram_residency::ReadBack::None);
    let shard = rig.manager.seal(request, &content(LEN, 7)).unwrap();
    // The one read of the verification before a first lease: past every look at the device.
    let (hook, inside, go) = holding();
    rig.devices[0].next(Op::Read, Action::Run(hook)).unwrap();
    thread::scope(|scope| {
        let leasing = scope.spawn(|| rig.manager.lease(&shard));
        inside.recv_timeout(PATIENCE).unwrap();
        let (manager, options) = (&rig.manager, ResetOptions::new().force().within(PATIENCE));
        let resetting = scope.spawn(move || manager.reset_gpu(0, options).map(drop));
        wait_for(&rig, 0, LifeState::Draining);
        go.send(()).unwrap();
        let lease = leasing.join().unwrap().unwrap();
        let refused = resetting.join().unwrap();
        assert!(matches!(refused, Err(VramError::InUse { leases: 1, .. })), "{refused:?}");
        assert!(lease.ensure_sound().is_ok() && lease.device_pointer().is_some());
    });
    assert_eq!(rig.manager.unseal_model(&shard).unwrap(), content(LEN, 7));
}

/// A clock that panics at the n-th question.
#[derive(Debug, Default)]
struct Bomb(AtomicU64);

impl Bomb {
    fn tick(&self) {
        let before =
            self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(before != Ok(1), "the clock panics");
    }
}

impl Clock for Bomb {
    fn now(&self) -> Timestamp {
        self.tick();
        SystemClock.now()
    }

    fn monotonic(&self) -> Duration {
        self.tick();
        SystemClock.monotonic()
    }
}

/// Runs `work` with a clock that panics at its first question, then at its second, and so on, until
/// it asks no more.
fn with_a_clock_that_panics(work: impl Fn(&Rig, &dyn Fn() -> u64)) {
    for tick in 1..500 {
        let bomb = Arc::new(Bomb::default());
        let clock = Arc::clone(&bomb);
        let rig = two_gpus_with(MODES[0], |builder| builder.clock(clock));
        let set = || bomb.0.swap(tick, Ordering::SeqCst);
        let done = catch_unwind(AssertUnwindSafe(|| work(&rig, &set)));
        assert!(done.is_ok(), "at question {tick}");
        if bomb.0.swap(0, Ordering::SeqCst) > 0 {
            assert!(tick > 1, "the clock was never asked");
            return;
        }
    }
    panic!("the clock is asked without end");
}

///
#[test]
fn a_clock_that_panics_in_a_reset_loses_no_shard_that_has_a_backup() {
    with_a_clock_that_panics(|rig, set| {
        let shard = seal(rig, 0, Protection::Encrypted, 1);
        let _kept = rig.manager.back_up(&shard).unwrap();
        let expiring = ReserveRequest::new(0, vram_residency::ByteLen::new(256));
        let _expiring =
            rig.manager.reserve_with(expiring.expires_in(Duration::from_hours(1))).unwrap();
        rig.lose(&shard);
        set();
        let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
        assert_eq!(rig.manager.unseal_model(&report.restored[0]).unwrap(), content(LEN, 1));
    });
}

///
#[test]
fn a_clock_that_panics_moves_all_of_a_model_or_nothing_of_it() {
    let bytes = content(20_000, 3);
    let piece = |at: u64| Piece::new(format!("p{at}"), 0, at * 5000, bytes_len(5000));
    let plan = ModelPlan::new((0..4).map(piece)).unwrap();
    for parks in [false, true] {
        with_a_clock_that_panics(|rig, set| {
            let request = AdmitRequest::new("model", GpuChoice::One(0));
            let model = rig.manager.admit(request, &plan, &vec![SliceSource::new(&bytes)]).unwrap();
            if parks {
                let parked = rig.manager.park_model(&model).unwrap();
                set();
                assert!(rig.manager.wake_model(parked, GpuChoice::One(1)).is_ok());
            } else {
                set();
                assert!(rig.manager.migrate_model(&model, 1).is_ok());
            }
            assert_eq!(rig.manager.metrics().gpus[1].shard_count, 4);
        });
    }
}

fn bytes_len(len: u64) -> vram_residency::ByteLen {
    vram_residency::ByteLen::new(len)
}

/// A model arrives whole, or not at all, although a GPU is lost in the middle of its arrival.
#[test]
fn a_model_whose_gpu_is_lost_at_the_end_of_its_admission_is_not_there_at_all() {
    for kind in KINDS {
        let rig = two_gpus(MODES[0]);
        let bytes = content(20_000, 3);
        let piece = |at: u64| Piece::new(format!("p{at}"), 0, at * 5000, bytes_len(5000));
        let plan = ModelPlan::new((0..4).map(piece)).unwrap();
        let device = Arc::clone(&rig.devices[0]);
        // The last thing that a call asks before its shards arrive is its source.
        let source =
            Finishing { bytes, last: move || drop(device.next(Op::Read, Action::Driver(ECC))) };
        let request = AdmitRequest::new("model", GpuChoice::One(0)).protection(kind);
        let admitted = rig.manager.admit(request, &plan, &source);
        if let Ok(model) = admitted {
            // The loss came after: all of it is lost.
            assert_eq!(rig.manager.report().shards.len(), 4);
            assert!(model.shards().all(|shard| rig.manager.unseal_model(shard).is_err()));
        } else {
            assert!(rig.manager.shards().is_empty());
        }
    }
}

struct Finishing<F> {
    bytes: Vec<u8>,
    last: F,
}

impl<F: Fn() + Send + Sync> vram_residency::ModelSource for Finishing<F> {
    fn read_at(
        &self,
        _file: u32,
        offset: u64,
        target: &mut [u8],
    ) -> Result<(), vram_residency::SourceError> {
        let start = usize::try_from(offset).unwrap();
        target.copy_from_slice(&self.bytes[start..start + target.len()]);
        Ok(())
    }

    fn finish(&self) -> Result<(), vram_residency::SourceError> {
        (self.last)();
        Ok(())
    }
}

///
#[test]
fn a_parked_shard_that_is_dropped_is_told() {
    let log = EventLog::new(64);
    let rig = two_gpus_with(MODES[0], |builder| builder.event_sink(log.clone()));
    let shard = seal(&rig, 0, Protection::Encrypted, 1);
    drop(rig.manager.park(&shard).unwrap());
    assert!(rig.manager.flush_events(PATIENCE));
    let told: Vec<_> = log.events().into_iter().map(|event| event.kind).collect();
    let dropped = EventKind::Dropped { shard: shard.shard_id.clone() };
    assert_eq!(told.last(), Some(&dropped), "{told:?}");
    assert!(matches!(rig.manager.unseal_model(&shard), Err(VramError::ShardFreed { .. })));
}
