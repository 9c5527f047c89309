//! Whole models that are parked, woken, moved and verified: every shard, or none.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;

use vram_residency::device::FaultDevice;
use vram_residency::device::fault::{Action, FaultPlan, Op, When};
use vram_residency::{
    AdmitRequest, ByteLen, CallOptions, CancelToken, Clock, GpuChoice, GpuError, GpuIndex,
    MemoryMode, ModelHandle, ModelPlan, Piece, Protection, SliceSource, SystemClock, Timestamp,
    Verify, VramError, VramManager, WakeModelRequest,
};
use vram_test_rigs::{Rig, content, devices};

const LENS: [usize; 5] = [20_000, 100, 0, 10_000, 1];

pub(crate) fn admit(manager: &VramManager, protection: Protection, gpus: GpuChoice) -> ModelHandle {
    let file = content(LENS.iter().sum(), 1);
    let mut offset = 0;
    let pieces = LENS.iter().enumerate().map(|(number, len)| {
        let piece =
            Piece::new(format!("tensor.{number}"), 0, offset as u64, ByteLen::from_usize(*len));
        offset += len;
        piece
    });
    let plan = ModelPlan::new(pieces.collect::<Vec<_>>()).unwrap();
    let request = AdmitRequest::new("model", gpus).protection(protection);
    manager.admit(request, &plan, &vec![SliceSource::new(&file)]).unwrap()
}

pub(crate) fn assert_whole(
    manager: &VramManager,
    model: &ModelHandle,
    what: impl core::fmt::Display,
) {
    let file = content(LENS.iter().sum(), 1);
    let mut rest = file.as_slice();
    for piece in &model.pieces {
        let (bytes, behind) = rest.split_at(piece.piece.len.to_usize().unwrap());
        assert_eq!(manager.unseal_model(&piece.shard).unwrap(), bytes, "{what}");
        rest = behind;
    }
}

/// P17: park and wake restore the model, under the same handle.
#[test]
fn a_parked_model_takes_no_vram_and_wakes_as_it_was() {
    for protection in [Protection::Encrypted, Protection::Authenticated] {
        let rig = Rig::new(&[1 << 17]);
        let model = admit(&rig.manager, protection, GpuChoice::One(0));
        let used = rig.used(0);
        let parked = rig.manager.park_model(&model).unwrap();
        assert_eq!(rig.used(0), 0);
        assert_eq!(rig.manager.park_capacity().used, parked.host_len());
        assert_eq!(rig.manager.park_capacity().shard_count, 5);
        let twice = rig.manager.park_model(&model);
        assert!(matches!(twice, Err(VramError::Parked { .. })), "{twice:?}");
        let woken = rig.manager.wake_model(parked, GpuChoice::MostRoomFirst).unwrap();
        assert_eq!(woken, model);
        assert_eq!(rig.used(0), used);
        assert!(rig.manager.verify_model(&model, Verify::Full).unwrap().sound);
        assert_whole(&rig.manager, &model, "woken");
        rig.settle(true);
    }
}

fn two(first: usize, second: usize) -> (VramManager, Vec<Arc<FaultDevice>>) {
    let devices = devices(&[first, second], &FaultPlan::new(1));
    let rig = Rig::over(devices, MemoryMode::Region, |builder| builder);
    (rig.manager, rig.devices)
}

#[test]
fn a_model_migrates_as_a_whole_or_stays_where_it_was() {
    let (manager, devices) = two(1 << 17, 1 << 17);
    let model = admit(&manager, Protection::Encrypted, GpuChoice::One(0));
    let used = manager.get_used_vram(0).unwrap();
    let error = GpuError::driver(GpuIndex::new(1), 1);
    // One shard is empty and is not copied.
    for nth in 1..=4 {
        for action in [Action::Fail(error), Action::Panic] {
            devices[1].add(Op::PeerCopy, When::Nth(nth), action).unwrap();
            let outcome = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
                manager.migrate_model(&model, 1)
            }));
            devices[1].clear();
            assert!(!matches!(outcome, Ok(Ok(_))), "copy {nth}");
            assert_eq!(manager.get_used_vram(0).unwrap(), used);
            assert_eq!(manager.get_used_vram(1).unwrap(), 0);
            assert_whole(&manager, &model, "not moved");
        }
    }
    let moved = manager.migrate_model(&model, 1).unwrap();
    assert!(moved.shards().all(|shard| shard.gpu_index == 1));
    assert_eq!(manager.get_used_vram(0).unwrap(), 0);
    assert_eq!(manager.get_used_vram(1).unwrap(), used);
    assert_whole(&manager, &model, "moved");
    assert_eq!(manager.migrate_model(&model, 1).unwrap(), moved, "nothing to do");
    assert!(matches!(manager.migrate_model(&model, 2), Err(VramError::UnknownGpu { .. })));
}

#[test]
fn a_model_without_room_at_the_target_stays_or_stays_parked() {
    let (manager, _devices) = two(1 << 17, 25_000);
    let model = admit(&manager, Protection::Encrypted, GpuChoice::One(0));
    let used = manager.get_used_vram(0).unwrap();
    let refused = manager.migrate_model(&model, 1);
    assert!(matches!(refused, Err(VramError::InsufficientVram(_))), "{refused:?}");
    assert_eq!(manager.get_used_vram(1).unwrap(), 0);
    assert_eq!(manager.get_used_vram(0).unwrap(), used);

    let parked = manager.park_model(&model).unwrap();
    let refused = manager.wake_model(parked, GpuChoice::One(1)).unwrap_err();
    assert!(matches!(refused.error(), VramError::InsufficientVram(_)), "{refused}");
    assert_eq!(manager.get_used_vram(1).unwrap(), 0);
    let woken = manager.wake_model(refused.into_parked(), GpuChoice::MostRoomFirst).unwrap();
    assert_whole(&manager, &woken, "woken");
}

/// P14: one lease of one shard keeps the whole model in place.
#[test]
fn a_leased_shard_keeps_its_whole_model_in_place() {
    let (manager, _devices) = two(1 << 17, 1 << 17);
    let model = admit(&manager, Protection::Encrypted, GpuChoice::One(0));
    for piece in &model.pieces {
        let lease = manager.lease(&piece.shard).unwrap();
        for refused in
            [manager.park_model(&model).map(drop), manager.migrate_model(&model, 1).map(drop)]
        {
            match refused {
                Err(VramError::InUse { shard, leases: 1, .. }) => {
                    assert_eq!(shard, piece.shard.shard_id);
                }
                other => panic!("{other:?}"),
            }
        }
        drop(lease);
    }
    assert_eq!(manager.get_used_vram(1).unwrap(), 0);
    manager.migrate_model(&model, 1).unwrap();
}

/// P19: models are parked and moved while other threads read their shards; every call ends.
#[test]
fn a_model_comes_and_goes_while_others_read_it() {
    let (manager, _devices) = two(1 << 17, 1 << 17);
    let model = admit(&manager, Protection::Encrypted, GpuChoice::One(0));
    let moving = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..60 {
                let parked = manager.park_model(&model).unwrap();
                manager.wake_model(parked, GpuChoice::One(round % 2)).unwrap();
            }
            moving.store(false, Ordering::Release);
        });
        for reader in 0..2_usize {
            let (manager, model, moving) = (&manager, &model, &moving);
            scope.spawn(move || {
                let mut turn = reader;
                while moving.load(Ordering::Acquire) {
                    turn += 1;
                    match manager.verify_shard_integrity(&model.pieces[turn % 5].shard) {
                        Ok(sound) => assert!(sound),
                        Err(VramError::Parked { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    assert_whole(&manager, &model, "after all");
}

/// Freed as a whole: no shard is freed while one cannot be, and shards that were already freed are
/// skipped.
#[test]
fn a_model_is_freed_whole_or_not_at_all() {
    let rig = Rig::new(&[1 << 17]);
    let model = admit(&rig.manager, Protection::Encrypted, GpuChoice::One(0));
    let (used, shards) = (rig.used(0), rig.manager.shards());
    let lease = rig.manager.lease(&model.pieces[3].shard).unwrap();
    let answer = rig.manager.free_model(&model);
    assert!(matches!(answer, Err(VramError::InUse { leases: 1, .. })), "{answer:?}");
    assert_eq!((rig.used(0), rig.manager.shards()), (used, shards));
    assert_whole(&rig.manager, &model, "refused");
    drop(lease);

    let parked = rig.manager.park(&model.pieces[0].shard).unwrap();
    let answer = rig.manager.free_model(&model);
    assert!(matches!(answer, Err(VramError::Parked { .. })), "{answer:?}");
    assert_eq!(rig.manager.shards().len(), 4);
    rig.manager.wake(parked, 0).unwrap();

    rig.manager.free_shard(&model.pieces[1].shard).unwrap();
    assert_eq!(rig.manager.free_model(&model).unwrap().len(), 4);
    assert_eq!(rig.used(0), 0);
    assert!(rig.manager.free_model(&model).unwrap().is_empty());
}

/// Several threads free the same models, and their shards one by one: each shard is freed once.
#[test]
fn threads_that_free_the_same_model_free_each_shard_once() {
    let rig = Rig::new(&[1 << 17]);
    for _ in 0..20 {
        let model = admit(&rig.manager, Protection::Encrypted, GpuChoice::One(0));
        let freed: usize = std::thread::scope(|scope| {
            let free = || rig.manager.free_model(&model).unwrap().len();
            let single = || {
                let shards = model.shards().map(|shard| rig.manager.free_shard(shard));
                shards.flatten().count()
            };
            let whole: Vec<_> = (0..2).map(|_| scope.spawn(free)).collect();
            let one_by_one = scope.spawn(single);
            let whole: usize = whole.into_iter().map(|thread| thread.join().unwrap()).sum();
            whole + one_by_one.join().unwrap()
        });
        assert_eq!((freed, rig.used(0)), (LENS.len(), 0));
    }
}

/// Cancels a token when it is asked for the time once more than it allows.
#[derive(Debug, Default)]
struct Impatient {
    token: CancelToken,
    left: AtomicU64,
}

impl Impatient {
    fn look(&self) {
        let left = self.left.load(Ordering::Relaxed);
        if left == 1 {
            self.token.cancel();
        }
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
    }
}

impl Clock for Impatient {
    fn now(&self) -> Timestamp {
        self.look();
        SystemClock.now()
    }

    fn monotonic(&self) -> Duration {
        self.look();
        SystemClock.monotonic()
    }
}

/// P155: a call on a model that is cancelled at any moment is refused with every shard where it was,
/// or done.
#[test]
fn a_cancelled_call_on_a_model_leaves_every_shard_where_it_was() {
    for what in ["park", "wake", "migrate", "verify"] {
        let (mut cancelled, mut done) = (0, 0);
        // The call asks for the time a few times a shard.
        for at in 1..40 {
            let clock = Arc::new(Impatient::default());
            let devices = devices(&[1 << 17, 1 << 17], &FaultPlan::new(1));
            let rig = Rig::over(devices, MemoryMode::Region, |builder| {
                builder.clock(Arc::clone(&clock) as Arc<dyn Clock>)
            });
            let manager = &rig.manager;
            let model = admit(manager, Protection::Encrypted, GpuChoice::One(0));
            let used = (rig.used(0), rig.used(1));
            let options = CallOptions::new().cancel(&clock.token);
            let mut parked = (what == "wake").then(|| manager.park_model(&model).unwrap());
            clock.left.store(at, Ordering::Relaxed);
            let outcome = match what {
                "park" => {
                    manager.park_model_with(&model, options).map(|model| parked = Some(model))
                }
                "wake" => {
                    let request = WakeModelRequest::new(GpuChoice::One(0)).cancel(&clock.token);
                    let woken = manager.wake_model_with(parked.take().unwrap(), request);
                    woken.map(drop).map_err(|failed| {
                        let (model, error) = failed.into_parts();
                        parked = Some(model);
                        error
                    })
                }
                "migrate" => manager.migrate_model_with(&model, 1, options).map(drop),
                _ => manager
                    .verify_model_until(&model, Verify::Segments, &clock.token)
                    .map(|verdict| assert!(verdict.sound)),
            };
            match outcome {
                Ok(()) => done += 1,
                Err(VramError::Cancelled { done, total }) => {
                    cancelled += 1;
                    assert!(done < total, "{what}: {done} of {total}");
                    assert_eq!(parked.is_some(), what == "wake", "{what} cancelled at {at}");
                    if what != "wake" {
                        assert_eq!((rig.used(0), rig.used(1)), used, "{what} cancelled at {at}");
                    }
                }
                Err(other) => panic!("{what}: {other}"),
            }
            if let Some(parked) = parked {
                manager.wake_model(parked, GpuChoice::One(0)).unwrap();
            }
            let model = manager.refresh_model(&model).unwrap();
            assert_whole(manager, &model, what);
            rig.settle(true);
        }
        assert!(cancelled > 1 && done > 0, "{what}: {cancelled} cancelled, {done} done");
    }
}
