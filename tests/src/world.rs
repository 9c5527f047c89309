//! Drives a manager and the reference model through the same steps, and compares them after each.
//!
//! On devices without faults, every answer is predicted exactly. While faults are injected, an
//! operation may fail instead. A failed operation may change only what the predictions allow, and
//! must never return a byte that is not the sealed one.

use std::collections::BTreeSet;

use tempfile::TempDir;
use vram_residency::{
    ByteLen, Lease, Lru, MemoryMode, ModelHandle, OnEviction, PlanReservation, Protection,
    Reservation, ReservationId, ScrubCursor, ShardId, VramError,
};

macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err(format!($($why)+));
        }
    };
}

mod care;
mod copies;
mod holds;
mod keys;
mod models;
mod moves;
mod room;
mod shards;

use crate::reference::{Known, Reference};
use crate::rig::{Rig, SEGMENT};
use crate::step::Step;

/// A manager, its devices, and the expected state.
#[derive(Debug)]
pub struct World {
    /// The manager and its devices.
    pub rig: Rig,
    /// The expected resident shards.
    pub reference: Reference,
    /// How the manager allocates device memory.
    pub mode: MemoryMode,
    /// Whether faults have been injected: failures are then allowed, wrong answers never.
    pub faulty: bool,
    /// Which GPUs were lost before the current step.
    lost: Vec<bool>,
    /// Shards in host memory.
    parked: Vec<moves::Parked>,
    /// Models in host memory.
    parked_models: Vec<models::Parked>,
    /// Active leases, each with its shard.
    leases: Vec<(ShardId, Lease)>,
    /// Reservations of bytes, each with the expected rest.
    reservations: Vec<(Reservation, u64)>,
    /// Reservations of places, each with the lengths of the pieces.
    plans: Vec<(PlanReservation, Vec<usize>)>,
    /// Numbers of plan reservations with a GPU that was reset since: their blocks are allocated
    /// again on use.
    unbacked: BTreeSet<(ReservationId, u32)>,
    /// The position of the scrubber.
    cursor: ScrubCursor,
    /// The folder for images.
    folder: TempDir,
    /// Admitted models; some of their shards may have been removed since.
    models: Vec<ModelHandle>,
}

/// The limit of host memory for parked shards.
const PARK_LIMIT: u64 = 96 * 1024;

/// The expected result of a step on devices without faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Fine,
    Refused(&'static str),
    /// Refused with one of these codes; which one depends on the order of the checks.
    RefusedAs(&'static [&'static str]),
    /// Succeeds if there is room for a second copy; the position of that copy is not guaranteed.
    FineOrNoRoom,
}

type Checked<T> = Result<T, String>;

impl World {
    /// A world of three GPUs with little room.
    pub fn new(seed: u64) -> Result<Self, VramError> {
        Self::with_memory(seed, MemoryMode::default())
    }

    /// The same, with the same memory mode for all GPUs.
    pub fn with_memory(seed: u64, mode: MemoryMode) -> Result<Self, VramError> {
        let totals = vec![128 * 1024, 96 * 1024, 48 * 1024];
        let rig = Rig::with(&totals, seed, |builder| {
            let builder = builder.eviction(Lru).park_limit(ByteLen::new(PARK_LIMIT));
            (0..).zip(&totals).fold(builder, |builder, (gpu, _)| builder.memory(gpu, mode))
        })?;
        for device in &rig.devices {
            device.watch_frees();
        }
        let reference =
            Reference { budgets: totals.clone(), regions: totals, ..Reference::default() };
        Ok(Self {
            rig,
            reference,
            mode,
            faulty: false,
            lost: Vec::new(),
            parked: Vec::new(),
            parked_models: Vec::new(),
            leases: Vec::new(),
            reservations: Vec::new(),
            plans: Vec::new(),
            unbacked: BTreeSet::new(),
            cursor: ScrubCursor::new(),
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
            models: Vec::new(),
        })
    }

    /// Runs one step, and compares the whole state afterwards.
    pub fn step(&mut self, step: &Step) -> Checked<()> {
        self.lost = (0..self.rig.manager.gpu_count()).map(|gpu| self.is_lost(gpu)).collect();
        self.act(step).map_err(|why| format!("{step:?}: {why}"))?;
        self.books_hold().map_err(|why| format!("after {step:?}: {why}"))
    }

    fn act(&mut self, step: &Step) -> Checked<()> {
        match *step {
            Step::Seal { gpu, len, seed, authenticated, segment_scope } => {
                self.seal(gpu, len, seed, authenticated, segment_scope)
            }
            Step::Unseal { shard } => self.unseal(shard),
            Step::UnsealAndFree { shard } => self.unseal_and_free(shard),
            Step::Free { shard } => self.free(shard),
            Step::Read { shard, offset, length } => self.read(shard, offset, length),
            Step::Verify { shard, level } => self.verify(shard, level),
            Step::Migrate { shard, gpu } => self.migrate(shard, gpu),
            Step::Open { shard } => self.convert(shard, Protection::Authenticated),
            Step::Close { shard } => self.convert(shard, Protection::Encrypted),
            Step::AlteredHandle { shard, byte, bit } => self.altered_handle(shard, byte, bit),
            Step::OldHandle { selector } => self.old_handle(selector),
            Step::Flip { shard, byte, bit } => self.flip(shard, byte, bit),
            Step::Park { shard } => self.park(shard),
            Step::Wake { parked, gpu } => self.wake(parked, gpu),
            Step::GiveUp { parked } => {
                self.give_up(parked);
                Ok(())
            }
            Step::Carry { shard, gpu, damage } => self.carry(shard, gpu, damage),
            Step::Compact { gpu, max } => self.compact(gpu, max),
            Step::ProbeLinks => self.probe_links(),
            Step::Reseal { shard, key } => self.reseal(shard, key),
            Step::ActivateKey { key } => self.activate_key(key),
            Step::RetireKey { key } => self.retire_key(key),
            Step::Lease { shard } => self.lease(shard),
            Step::EndLease { lease } => self.end_lease(lease),
            Step::Pin { shard, pinned } => self.pin(shard, pinned),
            Step::Reserve { gpu, bytes } => self.reserve(gpu, bytes),
            Step::SealReserved { reservation, len, seed } => {
                self.seal_reserved(reservation, len, seed)
            }
            Step::Release { reservation } => {
                self.release(reservation);
                Ok(())
            }
            Step::Budget { gpu, bytes } => self.budget(gpu, bytes),
            Step::Headroom { gpu, bytes } => self.headroom(gpu, bytes),
            Step::Evict { gpu, bytes } => self.evict(gpu, bytes),
            Step::SealEvicting { gpu, len, seed } => self.seal_evicting(gpu, len, seed),
            Step::Admit { gpu, ref lens, seed, authenticated } => {
                self.admit(gpu, lens, seed, authenticated)
            }
            Step::ReservePlan { gpu, ref lens } => self.reserve_plan(gpu, lens),
            Step::AdmitReserved { plan, seed } => self.admit_reserved(plan, seed),
            Step::ReleasePlan { plan } => {
                self.release_plan(plan);
                Ok(())
            }
            Step::ParkModel { model } => self.park_model(model),
            Step::WakeModel { model, gpu } => self.wake_model(model, gpu),
            Step::MigrateModel { model, gpu } => self.migrate_model(model, gpu),
            Step::VerifyModel { model } => self.verify_model(model),
            Step::FreeModel { model } => self.free_model(model),
            Step::BackUp { shard } => self.back_up(shard),
            Step::DropBackup { shard } => self.drop_backup(shard),
            Step::ExportTo { shard } => self.export_to(shard),
            Step::Reset { gpu, force, elsewhere } => self.reset(gpu, force, elsewhere),
            Step::Repair { shard, wrong } => self.repair(shard, wrong),
            Step::Scrub { bytes } => self.scrub(bytes),
            Step::Ticket { shard } => self.ticket(shard),
            Step::Reconcile { gpu } => self.reconcile(gpu),
            Step::Fault { gpu, op, when, ref action } => {
                self.faulty = true;
                let device = &self.rig.devices[gpu as usize];
                // A fault that has no effect on this kind of call is refused, and not injected.
                let _refused = device.add(op, when, action.clone());
                Ok(())
            }
        }
    }
}

/// The action for a shard when room is needed, derived from a seed.
fn fate(seed: u64) -> OnEviction {
    match seed % 5 {
        0 | 1 => OnEviction::Never,
        2 | 3 => OnEviction::Park,
        _ => OnEviction::Free,
    }
}

/// The expected result of an operation that needs exclusive access to the shard.
fn alone(known: &Known, otherwise: Expect) -> Expect {
    if known.leases > 0 { Expect::Refused("in-use") } else { otherwise }
}

/// The expected result of reading a range.
fn reading(known: &Known, offset: usize, length: usize) -> Expect {
    if known.quarantined {
        Expect::Refused("quarantined")
    } else if known.altered_in(offset, length, SEGMENT) {
        Expect::Refused("shard-altered")
    } else {
        Expect::Fine
    }
}
