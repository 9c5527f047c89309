//! Many threads run every operation of the facade on the same shards concurrently: seal, read,
//! verify, lease, pin, move, park, wake, open, close, seal under another key, export, import,
//! reserve, evict, compact, shrink budgets. A call may be refused because of another thread's work.
//! No returned byte is ever wrong, the ledger adds up at every check, and at the end every byte
//! that was taken is free again.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the inputs are the test's own, and a test fails by panicking"
)]

#[macro_use]
extern crate vram_testkit;

use core::time::Duration;
use std::sync::{Mutex, PoisonError};
use std::thread;

use proptest::prelude::*;
use vram_residency::{
    Account, ByteLen, CompactBudget, ImportRequest, Lru, MemoryMode, OnEviction, ParkedShard,
    Protection, RepairOptions, ResetOptions, ScrubCursor, SealRequest, SealedShard, ShardId,
    SliceSource, Verify, VramError, VramManager,
};
use vram_tests::budget::{Budget, Draw};
use vram_tests::reference::bytes;
use vram_tests::rig::{Rig, keys};

const THREADS: u64 = 6;
const TOTALS: [u64; 2] = [192 * 1024, 160 * 1024];
const PARK_LIMIT: u64 = 160 * 1024;

/// Shards in host memory, for any thread to wake.
type Yard = Mutex<Vec<ParkedShard>>;

/// A shard's name encodes its content.
fn named(seed: u64) -> String {
    format!("seed-{seed}")
}

/// The memory of a GPU.
const fn total(gpu: u32) -> u64 {
    if gpu == 0 { TOTALS[0] } else { TOTALS[1] }
}

fn key(gpu: u32) -> vram_residency::KeyId {
    let [first, second] = keys();
    if gpu == 0 { first.id() } else { second.id() }
}

fn content(shard: &SealedShard) -> Vec<u8> {
    let seed = shard.model_id.strip_prefix("seed-").and_then(|seed| seed.parse().ok());
    let len = usize::try_from(shard.plaintext_len).expect("a length of this test");
    bytes(len, seed.expect("a name of this test"))
}

/// Errors that the work of other threads can cause. The devices have no faults, so no other error
/// may occur.
fn explained(error: &VramError) -> bool {
    matches!(
        error,
        VramError::ShardFreed { .. }
            | VramError::StaleHandle { .. }
            | VramError::Parked { .. }
            | VramError::InUse { .. }
            | VramError::InsufficientVram(_)
            | VramError::ParkLimit { .. }
            | VramError::PlanOutdated { .. }
            | VramError::ReservationTooSmall { .. }
            // While another thread resets the GPU, and for shards that were on it.
            | VramError::DeviceLost { .. }
            | VramError::GpuInUse { .. }
            | VramError::NotLost { .. }
    )
}

fn first_unexplained(failures: Vec<(ShardId, VramError)>) -> Result<(), VramError> {
    let found = failures.into_iter().find(|(_, error)| !explained(error));
    found.map_or(Ok(()), |(_, error)| Err(error))
}

struct Worker<'a> {
    manager: &'a VramManager,
    yard: &'a Yard,
    draw: Draw,
}

impl Worker<'_> {
    fn run(mut self, steps: u32) -> Result<(), String> {
        for step in 0..steps {
            let shards = self.manager.shards();
            let (action, pick, gpu, len, seed) = self.draw.one(&(
                0..=27_u8,
                any::<usize>(),
                0..=1_u32,
                prop_oneof![0..=300_usize, 0..=30_000_usize],
                0..1_000_000_u64,
            ));
            let shard = (!shards.is_empty()).then(|| shards[pick % shards.len()].clone());
            let done = match (action, shard) {
                (0..=3, _) | (_, None) => self.seal(gpu, len, seed),
                (4..=12, Some(shard)) => self.with_shard(action, &shard, gpu),
                (20..=24, Some(shard)) => self.look_after(action, &shard),
                (_, Some(_)) => self.with_gpu(action, gpu, len, seed),
            };
            match done {
                Err(error) if !explained(&error) => {
                    return Err(format!("step {step}, action {action}: {error}"));
                }
                _ => {}
            }
            self.books(gpu)?;
        }
        Ok(())
    }

    fn seal(&self, gpu: u32, len: usize, seed: u64) -> Result<(), VramError> {
        let fate = if seed.is_multiple_of(2) { OnEviction::Park } else { OnEviction::Free };
        let protection =
            if seed.is_multiple_of(3) { Protection::Authenticated } else { Protection::Encrypted };
        let request = SealRequest::new(&named(seed), gpu)
            .protection(protection)
            .on_eviction(fate)
            .evicts(seed.is_multiple_of(5));
        self.manager.seal(request, &bytes(len, seed)).map(drop)
    }

    fn with_shard(&self, action: u8, shard: &SealedShard, gpu: u32) -> Result<(), VramError> {
        let manager = self.manager;
        match action {
            4 => manager.unseal_model(shard).map(|out| assert_eq!(out, content(shard))),
            5 => {
                let content = content(shard);
                let len = content.len();
                let (start, end) = (len / 3, len - len / 4);
                let part = manager.read_shard_at_offset(shard, start, end - start)?;
                assert!(part == content[start..end], "other bytes came out of a range");
                Ok(())
            }
            6 => manager.unseal_and_free(shard).map(|out| assert_eq!(out, content(shard))),
            7 => manager.migrate_shard(shard, gpu).map(drop),
            8 => manager.park(shard).map(|parked| self.keep(parked)),
            9 => match shard.protection {
                Protection::Encrypted => manager.open_resident(shard).map(drop),
                _ => manager.close_resident(shard).map(drop),
            },
            10 => manager.reseal_shard(shard, &key(gpu)).map(drop),
            11 => {
                let lease = manager.lease(shard)?;
                // While it is leased it stays resident, independent of the other threads.
                let handle = lease.shard();
                assert_eq!(manager.unseal_model(handle)?, content(handle));
                assert!(manager.verify(handle, Verify::Full)?.sound, "a leased shard was altered");
                let plain = handle.protection == Protection::Authenticated;
                // There is none for an empty shard, and none while another thread resets the GPU.
                assert!(lease.device_pointer().is_none() || plain);
                Ok(())
            }
            _ => {
                let mut image = Vec::new();
                manager.export(shard, &mut image)?;
                let request = ImportRequest::new(&shard.model_id, gpu).evicts(false);
                let copy = manager.import(request, image.as_slice())?;
                assert_eq!(manager.unseal_and_free(&copy)?, content(shard));
                Ok(())
            }
        }
    }

    fn look_after(&self, action: u8, shard: &SealedShard) -> Result<(), VramError> {
        let manager = self.manager;
        match action {
            20 | 21 => manager.back_up(shard).map(drop),
            22 => {
                let content = content(shard);
                let source = SliceSource::new(&content);
                let report = manager.repair_from(shard, source, RepairOptions::new())?;
                assert!(!report.was_altered, "{report:?}");
                Ok(())
            }
            23 => manager.ticket(shard, [7; 32]).map(drop),
            _ => manager.drop_backup(shard).map(drop),
        }
    }

    fn with_gpu(&self, action: u8, gpu: u32, len: usize, seed: u64) -> Result<(), VramError> {
        let manager = self.manager;
        match action {
            13 | 14 => {
                let parked = self.yard().pop();
                let Some(parked) = parked else { return Ok(()) };
                manager.wake(parked, gpu).map(drop).map_err(|failed| {
                    let (parked, error) = failed.into_parts();
                    self.keep(parked);
                    error
                })
            }
            15 => {
                let mut room = manager.reserve(gpu, ByteLen::new(20_000))?;
                let request = SealRequest::new(&named(seed), gpu).evicts(false);
                let sealed = manager.seal_reserved(&mut room, request, &bytes(len / 2, seed));
                sealed.map(drop)
            }
            16 => {
                let plan = manager.plan_eviction(gpu, ByteLen::new(40_000))?;
                let report = manager.evict(&plan)?;
                for parked in report.parked {
                    self.keep(parked);
                }
                first_unexplained(report.kept)
            }
            17 => {
                let report = manager.compact(gpu, CompactBudget::new())?;
                // If the GPU was reset during the call.
                for stranded in report.stranded {
                    self.keep(stranded);
                }
                first_unexplained(report.skipped)
            }
            25 => {
                let accounts = manager.reconcile(gpu)?;
                // A reservation that begins or ends enters the ledger before or after the list.
                // While its thread is between the two, only one of the two accounts contains it.
                let stands = accounts.differences.iter().all(|difference| {
                    difference.account == Account::InFlight
                        && difference.found < difference.expected
                });
                assert!(stands, "{accounts}");
                Ok(())
            }
            26 => {
                let step = manager.scrub_step(&mut ScrubCursor::new(), ByteLen::new(50_000));
                assert!(step.altered.is_empty(), "{step:?}");
                step.error.map_or(Ok(()), Err)
            }
            27 => {
                // Rarely: a reset removes every shard without a copy.
                let options = ResetOptions::new().within(Duration::from_millis(20));
                let options = if len < 100 { options.force().elsewhere() } else { options };
                let report = manager.reset_gpu(gpu, options)?;
                for failed in report.parked {
                    self.keep(failed.into_parked());
                }
                Ok(())
            }
            18 => {
                manager.set_budget(gpu, ByteLen::new(total(gpu) / 2))?;
                manager.set_budget(gpu, ByteLen::new(total(gpu)))
            }
            _ => {
                for parked in manager.take_evicted() {
                    self.keep(parked);
                }
                manager.set_active_key(&key(gpu))
            }
        }
    }

    fn yard(&self) -> std::sync::MutexGuard<'_, Vec<ParkedShard>> {
        self.yard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, parked: ParkedShard) {
        self.yard().push(parked);
    }

    /// Checks that one snapshot adds up, while the other threads work.
    fn books(&self, gpu: u32) -> Result<(), String> {
        let now = self.manager.capacity(gpu).map_err(|error| error.to_string())?;
        let taken = now.used.get() + now.reserved.get();
        if taken + now.free.get() != now.total.get()
            && !(now.free.is_zero() && taken > now.total.get())
        {
            return Err(format!("{now:?} does not add up"));
        }
        if taken > total(gpu) {
            return Err(format!("{now:?}: more is taken than there is"));
        }
        Ok(())
    }
}

fn round(mode: MemoryMode, seed: u64) {
    let rig = Rig::with(&TOTALS, seed, |builder| {
        let builder = builder.eviction(Lru).park_limit(ByteLen::new(PARK_LIMIT));
        builder.memory(0, mode).memory(1, mode)
    })
    .expect("a rig can be made");
    let (manager, yard) = (&*rig.manager, Yard::default());
    let outcomes: Vec<_> = thread::scope(|scope| {
        let yard = &yard;
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let draw = Draw::new(seed * 1000 + thread);
                scope.spawn(move || Worker { manager, yard, draw }.run(60))
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("no thread panics")).collect()
    });
    for outcome in outcomes {
        outcome.unwrap_or_else(|why| panic!("VRAM_STRESS_SEED={seed}, {mode:?}: {why}"));
    }

    for shard in manager.shards() {
        assert_eq!(manager.unseal_and_free(&shard).expect("devices work"), content(&shard));
    }
    let mut parked = yard.into_inner().unwrap_or_else(PoisonError::into_inner);
    parked.extend(manager.take_evicted());
    for parked in parked {
        let shard = manager.wake(parked, 0).expect("there is room, and devices work");
        assert_eq!(manager.unseal_and_free(&shard).expect("devices work"), content(&shard));
    }
    let park = manager.park_capacity();
    assert_eq!((park.used.get(), park.shard_count), (0, 0), "VRAM_STRESS_SEED={seed}");
    for (gpu, total) in (0..).zip(TOTALS) {
        let accounts = manager.reconcile(gpu).expect("it works");
        assert!(accounts.agrees && accounts.steady, "VRAM_STRESS_SEED={seed}: {accounts}");
        let now = manager.capacity(gpu).expect("it is there");
        let figures = (now.used.get(), now.reserved.get(), now.free.get(), now.largest_hole.get());
        assert_eq!(figures, (0, 0, total, total), "VRAM_STRESS_SEED={seed}, {mode:?}");
        let live: u64 = rig.devices[usize::try_from(gpu).expect("one of two")]
            .live()
            .iter()
            .map(|(_, len)| len.get())
            .sum();
        let held = if mode == MemoryMode::Blocks { 0 } else { total };
        assert_eq!(live, held, "VRAM_STRESS_SEED={seed}, {mode:?}: the driver's own count");
    }
}

#[test]
fn threads_that_do_everything_lose_no_byte_and_no_room() {
    let mut budget = Budget::start("everything, by many threads");
    while let Some(seed) = budget.next_round() {
        round(MemoryMode::Region, seed);
        round(MemoryMode::Blocks, seed);
    }
}
