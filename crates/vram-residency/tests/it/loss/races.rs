//! Losses and resets while other threads work.

use core::cell::RefCell;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Once, mpsc};
use std::thread;

use tracing::field::{Field, Visit};
use vram_residency::device::fault::{Action, Op};
use vram_residency::{Protection, ResetOptions, SealKey, SealRequest, VramError};

use vram_test_rigs::{Rig, content};

use super::{ECC, LEN, MODES, seal, two_gpus};

/// Readers, sealers and movers use a GPU that is lost and reset repeatedly: every result is correct
/// bytes or an error with the reason, and at the end all figures add up.
#[test]
fn whatever_others_do_meanwhile_a_reset_settles_everything_once() {
    for mode in MODES {
        let rig = two_gpus(mode);
        let manager = &rig.manager;
        let over = AtomicBool::new(false);
        let start = Barrier::new(4);
        thread::scope(|scope| {
            for worker in 0..3_u64 {
                let (start, over, rig) = (&start, &over, &rig);
                scope.spawn(move || {
                    start.wait();
                    while !over.load(Ordering::Acquire) {
                        hammer(rig, worker);
                    }
                });
            }
            start.wait();
            for round in 0..30_u8 {
                // Directly on the device: the next call of any thread meets it, or none does.
                let kind = if round % 2 == 0 { Op::Read } else { Op::QueueWrite };
                rig.devices[0].next(kind, Action::Driver(ECC)).unwrap();
                for _ in 0..50 {
                    if manager.report().gpus[0].lost.is_some() {
                        break;
                    }
                    thread::yield_now();
                }
                match manager.reset_gpu(0, ResetOptions::new().elsewhere().force()) {
                    Ok(report) => drop(report),
                    Err(VramError::InUse { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            over.store(true, Ordering::Release);
        });
        rig.devices[0].clear();
        if manager.report().gpus[0].lost.is_some() {
            drop(manager.reset_gpu(0, ResetOptions::new()).unwrap());
        }
        for shard in manager.shards() {
            manager.free_shard(&shard).unwrap();
        }
        assert!(manager.park_capacity().used.is_zero());
        // One of two concurrent calls may meet the error before the other returns.
        rig.devices[0].clear_log();
        for gpu in [0, 1] {
            rig.is_whole(gpu);
        }
    }
}

fn hammer(rig: &Rig, worker: u64) {
    let manager = &rig.manager;
    let request = SealRequest::new("model", u32::try_from(worker % 2).unwrap());
    let Ok(shard) = manager.seal(request, &content(LEN, worker)) else { return };
    if worker == 0 {
        drop(manager.back_up(&shard));
    }
    let moved = manager.migrate_shard(&shard, 0);
    let id = moved.as_ref().unwrap_or(&shard).shard_id.clone();
    for _ in 0..2 {
        if let Some(now) = manager.shard(&id)
            && let Ok(bytes) = manager.unseal_model(&now)
        {
            assert_eq!(bytes, content(LEN, worker));
        }
    }
    if let Some(now) = manager.shard(&id) {
        drop(manager.free_shard(&now));
    }
}

#[test]
fn of_several_resets_at_once_one_works_and_the_others_are_told() {
    let rig = two_gpus(MODES[0]);
    let shard = seal(&rig, 0, Protection::Encrypted, 1);
    rig.manager.back_up(&shard).unwrap();
    rig.lose(&shard);
    let (start, restored) = (Barrier::new(4), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                match rig.manager.reset_gpu(0, ResetOptions::new()) {
                    Ok(report) => {
                        let count = u64::try_from(report.restored.len()).unwrap();
                        restored.fetch_add(count, Ordering::Relaxed);
                    }
                    Err(VramError::GpuInUse { gpu: 0, .. } | VramError::NotLost { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            });
        }
    });
    assert_eq!(restored.into_inner(), 1);
    assert_eq!(rig.manager.shards().len(), 1);
}

/// A backup is taken whole by the faster call: the shard is parked, or the reset restores it.
#[test]
fn a_shard_that_is_parked_while_its_gpu_is_reset_is_one_or_the_other() {
    for round in 0..60_u32 {
        let rig = two_gpus(MODES[usize::try_from(round).unwrap() % 2]);
        let manager = &rig.manager;
        let shards: Vec<_> = (0..24_u64)
            .map(|seed| manager.seal_model("m", 0, &content(300, seed)).unwrap())
            .collect();
        for shard in &shards {
            manager.back_up(shard).unwrap();
        }
        rig.lose(&shards[0]);
        let start = Barrier::new(2);
        let (parked, report) = thread::scope(|scope| {
            let parker = scope.spawn(|| {
                start.wait();
                let parked = shards.iter().rev().filter_map(|shard| manager.park(shard).ok());
                parked.collect::<Vec<_>>()
            });
            start.wait();
            for _ in 0..round {
                core::hint::spin_loop();
            }
            let report = manager.reset_gpu(0, ResetOptions::new()).unwrap();
            (parker.join().unwrap(), report)
        });
        assert_eq!(parked.len() + report.restored.len(), shards.len(), "{report:?}");
        assert!(report.lost.is_empty() && report.parked.is_empty(), "{report:?}");
        for one in parked {
            let woken = manager.wake(one, 1).unwrap();
            assert!(manager.shard(&woken.shard_id).is_some());
        }
        let all = manager.shards();
        assert_eq!(all.len(), shards.len());
        for shard in &all {
            let seed = shards.iter().position(|one| one.shard_id == shard.shard_id).unwrap();
            let wanted = content(300, u64::try_from(seed).unwrap());
            assert!(manager.unseal_and_free(shard).unwrap() == wanted);
        }
        rig.is_whole(0);
        rig.is_whole(1);
    }
}

/// A shard can be sealed anew as soon as it is restored, which ends its copies: the backup that it
/// was restored from must not come after that, or the next reset would restore bytes that its record
/// does not match.
#[test]
fn a_shard_that_is_sealed_anew_as_soon_as_it_is_restored_keeps_no_backup_of_its_old_seal() {
    begin_log();
    let rig = Arc::new(two_gpus(MODES[0]));
    let other = SealKey::from_bytes(&[8; 32]);
    let key = other.id();
    rig.manager.add_key(other).unwrap();
    let shard = seal(&rig, 0, Protection::Encrypted, 1);
    rig.manager.back_up(&shard).unwrap();
    rig.lose(&shard);

    // In the reset, as soon as the shard is resident.
    let (resealed, is_resealed) = mpsc::channel();
    let (reseals, id) = (Arc::clone(&rig), shard.shard_id.clone());
    ON_WOKEN.set(Some(Box::new(move || {
        let restored = reseals.manager.shard(&id).unwrap();
        resealed.send(reseals.manager.reseal_shard(&restored, &key)).unwrap();
    })));
    drop(rig.manager.reset_gpu(0, ResetOptions::new()).unwrap());
    let resealed = is_resealed.try_recv().expect("the shard was woken").unwrap();
    assert!(rig.manager.park_capacity().used.is_zero(), "it has no backup under its seal");

    rig.lose(&resealed);
    let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
    assert_eq!(report.lost.len(), 1, "there was no copy: {report:?}");
    assert_eq!(rig.manager.shards(), []);
}

thread_local! {
    /// The number of shards in each loss that was logged on this thread.
    static TOLD: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    /// Runs when this thread logs that a shard was woken, once.
    static ON_WOKEN: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// Replaces a log. There is one for the process: with one for each thread, the first thread that
/// logs would decide whether a line is enabled at all.
struct Log;

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        if line.lost {
            TOLD.with_borrow_mut(|told| told.push(line.shards));
        }
        if line.woken
            && let Some(act) = ON_WOKEN.take()
        {
            act();
        }
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

fn begin_log() {
    static LOG: Once = Once::new();
    LOG.call_once(|| tracing::subscriber::set_global_default(Log).unwrap());
}

#[derive(Default)]
struct Line {
    lost: bool,
    woken: bool,
    shards: u64,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let message = format!("{value:?}");
            self.lost = message == "device lost";
            self.woken = message == "woken";
        }
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "shards" {
            self.shards = value;
        }
    }
}

#[test]
fn a_loss_is_told_once_with_all_shards_whoever_meets_it() {
    begin_log();
    for by_others in [false, true] {
        TOLD.take();
        let rig = two_gpus(MODES[0]);
        let shards: Vec<_> =
            (0..3).map(|seed| seal(&rig, 0, Protection::Encrypted, seed)).collect();
        seal(&rig, 1, Protection::Encrypted, 9);
        drop(rig.manager.park(&shards[2]).unwrap());
        if by_others {
            // A call from outside the manager, on the same device, meets the error.
            rig.devices[0].next(Op::Memory, Action::Driver(ECC)).unwrap();
            let device: &dyn vram_residency::Device = &*rig.devices[0];
            assert!(device.memory().is_err());
            assert!(rig.manager.report().gpus[0].lost.is_some());
        } else {
            rig.lose(&shards[0]);
        }
        for shard in &shards[..2] {
            assert!(rig.manager.unseal_model(shard).is_err());
        }
        assert_eq!(TOLD.with_borrow(Vec::clone), [2]);
        drop(rig.manager.reset_gpu(0, ResetOptions::new()).unwrap());
        let shard = seal(&rig, 0, Protection::Encrypted, 1);
        rig.lose(&shard);
        assert_eq!(TOLD.with_borrow(Vec::clone), [2, 1], "each loss is told");
    }
}
