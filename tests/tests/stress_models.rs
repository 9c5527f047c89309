//! Ten threads admit, lease, evict and wake models on two GPUs with room for half of them, while
//! another thread looks: no model ever holds device memory without being whole, unless a call brings
//! it or takes it away at that moment.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::panic,
    reason = "the inputs are the test's own, and a test fails by panicking"
)]

#[macro_use]
extern crate vram_testkit;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use vram_residency::{
    AdmitRequest, ByteLen, GpuChoice, Lease, Lru, ModelHandle, ModelPlan, ModelState, OnEviction,
    ParkedModel, Piece, SliceSource, Verify, VramError, VramManager, WakeModelRequest,
};
use vram_tests::budget::{Budget, Draw};

const GPU_LEN: u64 = 96 * 1024;
const PIECE_LEN: u64 = 4096;
const THREADS: u64 = 10;
const MODELS: usize = 14;
const OPERATIONS: usize = 60;
const GPUS: GpuChoice = GpuChoice::MostRoomFirst;

/// The models that the threads share: each slot is one model, in at most one of these states.
struct Board {
    slots: Vec<Mutex<Slot>>,
    file: Vec<u8>,
    counts: Counts,
}

#[derive(Default)]
struct Slot {
    model: Option<ModelHandle>,
    parked: Option<ParkedModel>,
}

#[derive(Default)]
struct Counts {
    admitted: AtomicU64,
    leased: AtomicU64,
    woken: AtomicU64,
    evicted: AtomicU64,
    parked: AtomicU64,
    freed: AtomicU64,
    refused: AtomicU64,
    looks: AtomicU64,
    whole: AtomicU64,
    under_way: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Board {
    fn new() -> Self {
        let file = (0..MODELS * 64).map(|at| u8::try_from(at % 251).expect("below 251"));
        let file: Vec<u8> = file.cycle().take(1 << 16).collect();
        let slots = (0..MODELS).map(|_| Mutex::default()).collect();
        Self { slots, file, counts: Counts::default() }
    }

    fn slot(&self, number: usize) -> MutexGuard<'_, Slot> {
        let slot = self.slots.get(number).expect("there is a slot");
        slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A plan of 2 to 6 pieces that begin at the model's own place in the file.
    fn plan(number: usize) -> ModelPlan {
        let number = ByteLen::from_usize(number).get();
        let (start, pieces) = (64 * number, 2 + number % 5);
        let piece = |at: u64| {
            let len = ByteLen::new(PIECE_LEN - at);
            Piece::new(format!("t{at}"), 0, start + at * PIECE_LEN, len)
        };
        ModelPlan::new((0..pieces).map(piece)).expect("a plan")
    }

    fn source(&self) -> Vec<SliceSource<'_>> {
        vec![SliceSource::new(&self.file)]
    }

    /// What one of the leased shards must hold.
    fn check(&self, manager: &VramManager, model: &ModelHandle, leases: &[Lease]) {
        assert_eq!(leases.len(), model.pieces.len());
        for (piece, lease) in model.pieces.iter().zip(leases) {
            lease.ensure_sound().expect("a leased shard stays where it is");
            let start = usize::try_from(piece.piece.source_offset).expect("small");
            let len = piece.piece.len.to_usize().expect("small");
            let bytes = manager.unseal_model(&piece.shard).expect("a leased shard can be read");
            assert_eq!(Some(bytes.as_slice()), self.file.get(start..start + len));
        }
    }

    /// Brings a model in, or back, or finds it there; then works with it under leases.
    fn work(&self, manager: &VramManager, number: usize, on_eviction: OnEviction) {
        let mut slot = self.slot(number);
        let name = format!("model-{number}");
        let leased = if let Some(parked) = slot.parked.take() {
            let request = WakeModelRequest::new(GPUS).evicts(true).holder("worker");
            match manager.wake_model_leased(parked, request) {
                Ok(woken) => {
                    count(&self.counts.woken);
                    Some(woken)
                }
                Err(error) => {
                    let (parked, error) = error.into_parts();
                    self.refused(&error);
                    slot.parked = Some(parked);
                    None
                }
            }
        } else if let Some(model) = slot.model.take() {
            match manager.lease_model_as(&model, "worker") {
                Ok(leases) => Some((model, leases)),
                // Evicted: parked ones are brought to their slots by `settle`.
                Err(VramError::Parked { .. } | VramError::ShardFreed { .. }) => None,
                Err(error) => panic!("{name}: {error}"),
            }
        } else {
            let request = AdmitRequest::new(&name, GPUS).on_eviction(on_eviction).holder("worker");
            match manager.admit_leased(request, &Self::plan(number), &self.source()) {
                Ok(admitted) => {
                    count(&self.counts.admitted);
                    Some(admitted)
                }
                Err(error) => {
                    self.refused(&error);
                    None
                }
            }
        };
        if let Some((model, leases)) = leased {
            count(&self.counts.leased);
            slot.model = Some(model.clone());
            drop(slot);
            self.check(manager, &model, &leases);
            thread::yield_now();
            drop(leases);
        }
    }

    fn refused(&self, error: &VramError) {
        assert!(matches!(error, VramError::InsufficientVram(_)), "{error}");
        count(&self.counts.refused);
    }

    /// Parks or frees a model that nobody leases.
    fn leave(&self, manager: &VramManager, number: usize, park: bool) {
        let mut slot = self.slot(number);
        let Some(model) = slot.model.take() else { return };
        let outcome = if park {
            manager.park_model(&model).map(|parked| {
                count(&self.counts.parked);
                slot.parked = Some(parked);
            })
        } else {
            manager.free_model(&model).map(|_receipts| count(&self.counts.freed))
        };
        match outcome {
            Ok(()) | Err(VramError::Parked { .. } | VramError::ShardFreed { .. }) => {}
            // Another thread works with it, or one that makes room tries its gates.
            Err(VramError::InUse { .. }) => slot.model = Some(model),
            Err(error) => panic!("{error}"),
        }
    }

    /// Makes a plan and carries it out, while others make it outdated.
    fn carry_out(&self, manager: &VramManager, number: usize) {
        let Ok(plan) = manager.plan_eviction_for(&Self::plan(number), GPUS) else { return };
        match manager.evict(&plan) {
            Ok(report) => {
                for parked in report.models {
                    self.put(parked);
                }
            }
            Err(VramError::PlanOutdated { .. } | VramError::InUse { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Brings what was evicted to its slots.
    fn settle(&self, manager: &VramManager) {
        for parked in manager.take_evicted_models() {
            self.put(parked);
        }
    }

    fn put(&self, parked: ParkedModel) {
        assert!(parked.is_whole(), "{} went in part", parked.model_id);
        count(&self.counts.evicted);
        let number = parked.model_id.rsplit('-').next().and_then(|text| text.parse().ok());
        let mut slot = self.slot(number.expect("a number"));
        // If the model was admitted anew meanwhile, the older one is given up.
        if slot.model.is_none() || slot.parked.is_none() {
            slot.model = None;
            slot.parked = Some(parked);
        }
    }

    /// Looks at all models once.
    fn look(&self, manager: &VramManager) {
        for model in manager.models() {
            match model.state {
                ModelState::Whole => count(&self.counts.whole),
                ModelState::UnderWay => count(&self.counts.under_way),
                _ => assert_eq!(model.resident, 0, "a part of a model is there: {model:?}"),
            }
        }
        count(&self.counts.looks);
    }
}

#[test]
fn no_model_is_there_in_part_whatever_ten_threads_do() {
    let mut budget = Budget::start("models, by ten threads");
    let board = Board::new();
    while let Some(seed) = budget.next_round() {
        let manager = VramManager::builder()
            .host_device(ByteLen::new(GPU_LEN))
            .host_device(ByteLen::new(GPU_LEN / 2))
            .eviction(Lru)
            .build()
            .expect("a manager");
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let (manager, board, over) = (&manager, &board, &over);
            let looker = scope.spawn(move || {
                while !over.load(Ordering::Acquire) {
                    board.look(manager);
                    thread::sleep(Duration::from_micros(200));
                }
            });
            let workers: Vec<_> = (0..THREADS)
                .map(|thread| {
                    scope.spawn(move || {
                        let mut draw = Draw::new(seed.wrapping_mul(31).wrapping_add(thread));
                        for _ in 0..OPERATIONS {
                            match draw.one(&(0..20_u8, 0..MODELS)) {
                                (0, number) => board.leave(manager, number, true),
                                (1, number) => board.leave(manager, number, false),
                                (2, number) => board.carry_out(manager, number),
                                (3..=4, number) => board.work(manager, number, OnEviction::Free),
                                (_, number) => board.work(manager, number, OnEviction::Park),
                            }
                            board.settle(manager);
                        }
                    })
                })
                .collect();
            let ends: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
            over.store(true, Ordering::Release);
            let ends = ends.into_iter().chain([looker.join()]);
            for end in ends {
                if let Err(panic) = end {
                    std::panic::resume_unwind(panic);
                }
            }
        });
        // At rest, what is left is whole or parked, sound, and all of it is accounted for.
        board.look(&manager);
        board.settle(&manager);
        for number in 0..MODELS {
            let mut slot = board.slot(number);
            if let Some(model) = slot.model.take()
                && let Ok(verdict) = manager.verify_model(&model, Verify::Full)
            {
                assert!(verdict.sound);
                manager.free_model(&model).expect("nobody uses it");
            }
            slot.parked = None;
        }
        for gpu in 0..2 {
            let accounts = manager.reconcile(gpu).expect("accounts");
            assert!(accounts.agrees, "{accounts}");
        }
        assert!(manager.close(Duration::from_secs(10)).complete);
    }
    let Counts { admitted, leased, woken, evicted, parked, freed, refused, .. } = &board.counts;
    let Counts { looks, whole, under_way, .. } = &board.counts;
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    eprintln!(
        "models: {} admitted, {} leased, {} evicted, {} woken, {} parked, {} freed, {} refused; \
         {} looks found {} whole, {} under way, none in part",
        get(admitted),
        get(leased),
        get(evicted),
        get(woken),
        get(parked),
        get(freed),
        get(refused),
        get(looks),
        get(whole),
        get(under_way),
    );
    assert!(get(evicted) > 0 && get(woken) > 0 && get(whole) > 0, "it tested something");
}
