//! Drives a manager and the reference model through the same steps, and compares them after each.
//!
//! On devices that work, every answer is predicted exactly. While faults are injected, an operation
//! may fail instead; then it must have changed nothing but what may have changed, and a byte that
//! is not the sealed one must never come out.

use std::collections::BTreeSet;

use tempfile::TempDir;
use vram_gpu::fault::{Action, Call, Op};
use vram_residency::{
    ByteLen, GpuCapacity, Lease, Lru, MemoryMode, ModelHandle, OnEviction, PlanReservation,
    Protection, Reservation, ReservationId, ScrubCursor, SealRequest, SealedShard, ShardId,
    SivScope, SnapshotState, Verify, VramError,
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
mod keys;
mod models;
mod moves;
mod room;

use crate::reference::{Known, Reference, bytes, footprint};
use crate::rig::{Rig, SEGMENT};
use crate::step::Step;

/// A manager, its devices, and what should be true of them.
#[derive(Debug)]
pub struct World {
    /// The manager and its devices.
    pub rig: Rig,
    /// What should be resident.
    pub reference: Reference,
    /// How the manager takes device memory.
    pub mode: MemoryMode,
    /// Whether faults have been injected: failures are then allowed, wrong answers never.
    pub faulty: bool,
    /// Which GPUs were lost before the step under way.
    lost: Vec<bool>,
    /// Shards in host memory.
    parked: Vec<moves::Parked>,
    /// Models in host memory.
    parked_models: Vec<models::Parked>,
    /// Leases that are out, each with its shard.
    leases: Vec<(ShardId, Lease)>,
    /// Bytes that are promised, each with what should be left of them.
    reservations: Vec<(Reservation, u64)>,
    /// Places that are promised, each with the lengths of the pieces.
    plans: Vec<(PlanReservation, Vec<usize>)>,
    /// Numbers of those with a GPU that was reset since: blocks are taken again when they are used.
    unbacked: BTreeSet<(ReservationId, u32)>,
    /// Where the scrubber stands.
    cursor: ScrubCursor,
    /// Where images are written.
    folder: TempDir,
    /// Models that were admitted; shards of them may be gone since.
    models: Vec<ModelHandle>,
}

/// Host memory that parked shards may take.
const PARK_LIMIT: u64 = 96 * 1024;

/// What a step should come to on devices that work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Fine,
    Refused(&'static str),
    /// Refused with one of these: which, depends on the order in which things are looked at.
    RefusedAs(&'static [&'static str]),
    /// Fine if there is room for a second copy; nobody promises where it is put.
    FineOrNoRoom,
}

/// Everything that a failed call must leave as it was.
#[derive(Debug, PartialEq)]
struct Picture {
    /// The snapshot, but for what a failure may reveal: quarantines, and bytes that did not go back.
    state: SnapshotState,
    capacities: Vec<GpuCapacity>,
    shards: Vec<SealedShard>,
}

type Checked<T> = Result<T, String>;

impl World {
    /// A world of three GPUs with little room.
    pub fn new(seed: u64) -> Result<Self, VramError> {
        Self::with_memory(seed, MemoryMode::default())
    }

    /// The same, with all GPUs used in one way.
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

    /// Takes one step, and compares everything afterwards.
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
                // What means nothing for this kind of call is not injected.
                let _refused = device.add(op, when, action.clone());
                Ok(())
            }
        }
    }

    fn seal(
        &mut self,
        gpu: u32,
        len: usize,
        seed: u64,
        authenticated: bool,
        segment_scope: bool,
    ) -> Checked<()> {
        let manager = &self.rig.manager;
        let expect = self.placing(gpu, len);
        let data = bytes(len, seed);
        let protection =
            if authenticated { Protection::Authenticated } else { Protection::Encrypted };
        let scope = if segment_scope { SivScope::Segment } else { SivScope::Shard };
        let model = format!("model-{}", seed % 3);
        let fate = fate(seed);
        let request = SealRequest::new(&model, gpu)
            .protection(protection)
            .scope(scope)
            .on_eviction(fate)
            .evicts(false);
        let before = self.picture();
        let sealed = manager.seal(request, &data);
        if let Some(handle) = self.judge(expect, &before, sealed, &[gpu])? {
            ensure!(handle.gpu_index == gpu, "sealed on gpu {}", handle.gpu_index);
            ensure!(*handle.model_id == *model, "sealed as {}", handle.model_id);
            self.remember(handle, data, fate)?;
        }
        Ok(())
    }

    /// What placing so many bytes on a GPU should come to, if nobody gives way.
    fn placing(&self, gpu: u32, len: usize) -> Expect {
        match self.rig.manager.capacity(gpu) {
            Err(_) => Expect::Refused("unknown-gpu"),
            Ok(now) if footprint(len) > now.room.get().min(now.largest_hole.get()) => {
                Expect::Refused("insufficient-vram")
            }
            Ok(_) => Expect::Fine,
        }
    }

    /// Takes a shard that has just been sealed into the model.
    fn remember(&mut self, handle: SealedShard, data: Vec<u8>, fate: OnEviction) -> Checked<()> {
        let id = handle.shard_id.clone();
        let last = self.reference.shards.keys().next_back();
        ensure!(last.is_none_or(|last| *last < id), "ids do not rise");
        let known = Known::new(data, handle, fate, self.reference.active_key);
        self.reference.shards.insert(id, known);
        Ok(())
    }

    fn unseal(&mut self, shard: usize) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let (expect, gpu) = (reading(known, 0, known.bytes.len()), known.gpu);
        let before = self.picture();
        let answer = self.rig.manager.unseal_model(&known.handle);
        self.note_quarantine(&id, &answer);
        if let Some(out) = self.judge(expect, &before, answer, &[gpu])? {
            ensure!(out == self.reference.shards[&id].bytes, "other bytes came out");
        }
        Ok(())
    }

    fn unseal_and_free(&mut self, shard: usize) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let (expect, gpu) = (alone(known, reading(known, 0, known.bytes.len())), known.gpu);
        let before = self.picture();
        let answer = self.rig.manager.unseal_and_free(&known.handle);
        self.note_quarantine(&id, &answer);
        if let Some(out) = self.judge(expect, &before, answer, &[gpu])? {
            ensure!(out == self.reference.shards[&id].bytes, "other bytes came out");
            self.reference.remove(&id);
        }
        Ok(())
    }

    fn free(&mut self, shard: usize) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let (gpu, handle) = (known.gpu, known.handle.clone());
        let expect = alone(known, Expect::Fine);
        let bytes = footprint(known.bytes.len());
        // Looking for it is a read, which would find it altered.
        let readable = known.leases == 0 && !known.quarantined && known.sound();
        let start = readable.then(|| self.rig.position(&handle, gpu)).flatten();
        let before = self.picture();
        let answer = self.rig.manager.free_shard(&handle);
        if matches!(answer, Err(VramError::NotReturned { .. })) {
            ensure!(self.faulty, "the bytes were not returned");
            self.reference.remove(&id);
            return Ok(());
        }
        if let Some(receipt) = self.judge(expect, &before, answer, &[gpu])? {
            ensure!(receipt.shard_id == id && receipt.gpu == gpu, "the receipt names another");
            ensure!(receipt.bytes.get() == bytes, "{} given back", receipt.bytes);
            // A device that is lost while it wipes cannot; the receipt says so.
            let excused = self.is_lost(gpu) && !receipt.wiped;
            ensure!(receipt.wiped == (bytes > 0) || excused, "wiped: {}", receipt.wiped);
            self.reference.remove(&id);
            // P18: freed memory no longer holds the old bytes.
            let device = &self.rig.devices[gpu as usize];
            if let Some((allocation, start)) = start.filter(|_| !self.faulty) {
                if self.mode == MemoryMode::Blocks {
                    let freed = device.freed();
                    let freed = freed.iter().find(|freed| freed.allocation == allocation);
                    ensure!(freed.is_some_and(|freed| freed.wiped == Some(true)), "{freed:?}");
                } else {
                    let left = device.inspect(Some(allocation), start, receipt.bytes);
                    let left = left.map_err(|error| error.to_string())?;
                    ensure!(left.iter().all(|byte| *byte == 0), "freed memory was not wiped");
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, shard: usize, offset: usize, length: usize) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let inside = offset.checked_add(length).is_some_and(|end| end <= known.bytes.len());
        let expect =
            if inside { reading(known, offset, length) } else { Expect::Refused("out-of-bounds") };
        let gpu = known.gpu;
        let before = self.picture();
        let answer = self.rig.manager.read_shard_at_offset(&known.handle, offset, length);
        self.note_quarantine(&id, &answer);
        if let Some(out) = self.judge(expect, &before, answer, &[gpu])? {
            let wanted = &self.reference.shards[&id].bytes[offset..offset + length];
            ensure!(out == wanted, "other bytes came out");
        }
        Ok(())
    }

    fn verify(&mut self, shard: usize, level: u8) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let len = known.bytes.len() as u64;
        let (level, all) = match level {
            0 => (Verify::Record, false),
            1 => (Verify::Sample { segments: 2, seed: 1 }, false),
            2 => (Verify::Range { offset: len / 2, length: len - len / 2 }, false),
            3 => (Verify::Segments, true),
            _ => (Verify::Full, true),
        };
        let (sound, gpu) = (known.sound(), known.gpu);
        let quarantined = known.quarantined;
        let before = self.picture();
        let answer = self.rig.manager.verify(&known.handle, level);
        if let Some(verdict) = self.judge(Expect::Fine, &before, answer, &[gpu])? {
            if all {
                let expected = sound && !quarantined;
                let may_differ = self.faulty && expected;
                ensure!(verdict.sound == expected || may_differ, "verdict: {verdict}");
            } else {
                ensure!(!verdict.sound || !quarantined, "a quarantined shard is called sound");
                ensure!(verdict.sound || !sound || self.faulty, "verdict: {verdict}");
            }
            let known = self.reference.shards.get_mut(&id).expect("it was just there");
            if !verdict.sound {
                known.quarantined = true;
                let flipped = &known.flipped;
                let named = |segment: u64| verdict.altered.iter().any(|s| s.segment == segment);
                let missed = flipped
                    .iter()
                    .filter(|(_, mask)| **mask != 0)
                    .find(|(at, _)| !named((**at / SEGMENT) as u64));
                ensure!(!all || missed.is_none(), "segment of {missed:?} is not named: {verdict}");
            }
        }
        Ok(())
    }

    fn migrate(&mut self, shard: usize, gpu: u32) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let (source, len, handle) = (known.gpu, known.bytes.len(), known.handle.clone());
        let expect = match self.placing(gpu, len) {
            Expect::Refused("unknown-gpu") => Expect::Refused("unknown-gpu"),
            _ if known.quarantined => Expect::Refused("quarantined"),
            _ if gpu == source => Expect::Fine,
            Expect::Fine => reading(known, 0, len),
            no_room => no_room,
        };
        let expect = alone(known, expect);
        let before = self.picture();
        let answer = self.rig.manager.migrate_shard(&handle, gpu);
        self.note_quarantine(&id, &answer);
        if let Some(moved) = self.judge(expect, &before, answer, &[source, gpu])? {
            ensure!(moved.gpu_index == gpu, "moved to gpu {}", moved.gpu_index);
            ensure!(moved.shard_id == id, "the id changed");
            ensure!(moved.sealed_data == handle.sealed_data, "the record changed");
            let known = self.reference.shards.get_mut(&id).expect("it was just there");
            // Older handles stay good, so either may be used from now on.
            if moved.plaintext_len.is_multiple_of(2) {
                known.handle = moved;
            }
            known.gpu = gpu;
        }
        Ok(())
    }

    fn convert(&mut self, shard: usize, to: Protection) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let (gpu, handle) = (known.gpu, known.handle.clone());
        let expect = match reading(known, 0, known.bytes.len()) {
            Expect::Fine if handle.protection != to => Expect::FineOrNoRoom,
            other => other,
        };
        let expect = alone(known, expect);
        if handle.protection == to && !known.quarantined && !known.sound() {
            // Nothing has to be done, so nobody promises that anything is looked at.
            return Ok(());
        }
        let before = self.picture();
        let answer = match to {
            Protection::Authenticated => self.rig.manager.open_resident(&handle),
            _ => self.rig.manager.close_resident(&handle),
        };
        self.note_quarantine(&id, &answer);
        if let Some(converted) = self.judge(expect, &before, answer, &[gpu])? {
            ensure!(converted.protection == to, "it is {:?}", converted.protection);
            ensure!(converted.shard_id == id, "the id changed");
            let known = self.reference.shards.get_mut(&id).expect("it was just there");
            if handle.protection == to {
                known.handle = converted;
            } else {
                known.seal_anew(converted);
            }
        }
        Ok(())
    }

    fn altered_handle(&mut self, shard: usize, byte: usize, bit: u8) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let mut bad = self.reference.shards[&id].handle.clone();
        let at = byte % bad.sealed_data.len();
        bad.sealed_data[at] ^= 1 << bit;
        self.refused(&bad, "handle-altered")?;
        let answer = self.rig.manager.verify_shard_integrity(&bad);
        ensure!(matches!(answer, Ok(false)), "verify answers {answer:?}");
        Ok(())
    }

    fn old_handle(&mut self, selector: usize) -> Checked<()> {
        let gone = &self.reference.gone;
        if let Some(freed) = gone.get(selector % gone.len().max(1)) {
            self.refused(freed, "shard-freed")?;
        }
        let Some(id) = self.reference.pick(selector) else { return Ok(()) };
        if let Some(stale) = &self.reference.shards[&id].stale {
            self.refused(stale, "stale-handle")?;
        }
        Ok(())
    }

    /// A bad handle is refused by every call, and changes nothing.
    fn refused(&self, bad: &SealedShard, code: &str) -> Checked<()> {
        let manager = &self.rig.manager;
        let before = self.picture();
        for (call, answer) in [
            ("unseal", manager.unseal_model(bad).map(drop)),
            ("unseal and free", manager.unseal_and_free(bad).map(drop)),
            ("free", manager.free_shard(bad).map(drop)),
            ("read", manager.read_shard_at_offset(bad, 0, 0).map(drop)),
            ("migrate", manager.migrate_shard(bad, 1).map(drop)),
            ("open", manager.open_resident(bad).map(drop)),
            ("close", manager.close_resident(bad).map(drop)),
            ("park", manager.park(bad).map(drop)),
            ("reseal", manager.reseal_shard(bad, &manager.active_key()).map(drop)),
            ("export", manager.export(bad, std::io::sink()).map(drop)),
            ("lease", manager.lease(bad).map(drop)),
            ("pin", manager.pin(bad)),
        ] {
            let found = answer.as_ref().err().map(VramError::code);
            ensure!(found == Some(code), "{call} answers {answer:?}, not {code}");
        }
        ensure!(self.picture() == before, "a bad handle changed something");
        Ok(())
    }

    fn flip(&mut self, shard: usize, byte: usize, bit: u8) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = self.reference.shards.get_mut(&id).expect("it was just picked");
        let readable = !known.quarantined && known.sound() && !known.bytes.is_empty();
        if !readable || self.faulty {
            return Ok(());
        }
        let at = byte % known.bytes.len();
        ensure!(self.rig.flip(&known.handle, known.gpu, at, bit), "the bit could not be flipped");
        *known.flipped.entry(at).or_default() ^= 1 << bit;
        Ok(())
    }

    /// Compares an answer with the prediction. `gpus` are those that the step needs.
    fn judge<T>(
        &self,
        expect: Expect,
        before: &Picture,
        answer: Result<T, VramError>,
        gpus: &[u32],
    ) -> Checked<Option<T>> {
        match (expect, answer) {
            (Expect::Fine | Expect::FineOrNoRoom, Ok(value)) => Ok(Some(value)),
            (Expect::Refused(code), Ok(_)) => Err(format!("succeeded, and should be {code}")),
            (Expect::RefusedAs(codes), Ok(_)) => Err(format!("succeeded, not one of {codes:?}")),
            (expect, Err(error)) => {
                let code = error.code();
                let expected = match expect {
                    Expect::Refused(expected) => expected == code,
                    Expect::RefusedAs(expected) => expected.contains(&code),
                    Expect::FineOrNoRoom => code == "insufficient-vram",
                    Expect::Fine => false,
                };
                let injected = self.faulty && (error.is_device() || error.is_integrity());
                let lost = gpus.iter().any(|gpu| self.is_lost(*gpu)) && code == "device-lost";
                ensure!(expected || injected || lost, "failed: {error} ({code})");
                self.unchanged(before, &error)?;
                Ok(None)
            }
        }
    }

    /// P15: a failed call leaves everything as it was, but for bytes that could not be wiped.
    fn unchanged(&self, before: &Picture, error: &VramError) -> Checked<()> {
        let now = self.picture();
        ensure!(now.shards == before.shards, "failed with {error}, and the shards changed");
        // A place that could not be wiped is lost to the reservation that it was held for.
        let kept = now
            .capacities
            .iter()
            .zip(&before.capacities)
            .any(|(is, was)| is.unreturned > was.unreturned);
        ensure!(
            now.state == before.state || kept,
            "failed with {error}, and the state changed: {:?}, now {:?}",
            before.state,
            now.state
        );
        for (was, is) in before.capacities.iter().zip(&now.capacities) {
            let kept = is.unreturned.get() - was.unreturned.get();
            let from_promises = was.reserved.get().saturating_sub(is.reserved.get());
            let same = was.used.get() + kept == is.used.get()
                && is.reserved <= was.reserved
                && from_promises <= kept
                && (kept > 0 || was == is);
            ensure!(same, "failed with {error}, and the books changed: {was:?}, now {is:?}");
            ensure!(kept == 0 || self.faulty, "{kept} bytes were not returned");
        }
        Ok(())
    }

    /// Remembers that the facade has found a shard altered.
    fn note_quarantine<T>(&mut self, id: &ShardId, answer: &Result<T, VramError>) {
        if let Err(VramError::ShardAltered { .. } | VramError::Quarantined { .. }) = answer
            && let Some(known) = self.reference.shards.get_mut(id)
        {
            known.quarantined = true;
        }
    }

    /// What must hold after every step, whatever happened.
    fn books_hold(&self) -> Checked<()> {
        let manager = &self.rig.manager;
        let regions = self.reference.regions.iter().zip(&self.reference.budgets);
        for (gpu, (region, budget)) in (0_u32..).zip(regions) {
            let now = manager.capacity(gpu).map_err(|error| error.to_string())?;
            let (used, free) = (now.used.get(), now.free.get());
            let expected = self.reference.used(gpu) + now.unreturned.get();
            ensure!(used == expected, "gpu {gpu} uses {used}, and should {expected}");
            let promised = self.promised(gpu);
            ensure!(
                now.reserved.get() == promised,
                "gpu {gpu} promises {}, and should {promised}",
                now.reserved
            );
            ensure!(now.total.get() == *budget, "gpu {gpu} has a budget of {}", now.total);
            let left = budget.saturating_sub(used + promised);
            ensure!(free == left, "gpu {gpu}: {free} free, and {left} of {budget} is not taken");
            ensure!(
                now.largest_hole.get() <= region - used,
                "gpu {gpu}: a hole larger than what is free"
            );
            ensure!(self.faulty || now.unreturned.get() == 0, "bytes were not returned");
            let device = &self.rig.devices[gpu as usize];
            // Letting go of a block is no call: the device knows that it is lost.
            let calls = device.calls();
            // A call of another thread can be on its way in the moment of the loss.
            let was_lost = self.lost.get(gpu as usize).is_some_and(|lost| *lost);
            if !was_lost && self.is_lost(gpu) {
                device.clear_log();
            }
            let late = |call: &&Call| was_lost && call.after_loss && call.op != Op::Drop;
            let late = calls.iter().find(late);
            ensure!(late.is_none(), "gpu {gpu}: {late:?} came after its loss");
            // P6: the books equal the driver's own count, apart from a device that is lost.
            let driver: u64 = device.live().iter().map(|(_, len)| len.get()).sum();
            let held = if self.mode == MemoryMode::Blocks {
                used + self.promised_blocks(gpu)
            } else {
                *region
            };
            // What places are held for on a GPU that was reset is taken again when it is used.
            let unbacked = self.unbacked.iter().any(|(_, at)| *at == gpu);
            let held = if unbacked { driver.clamp(used, held) } else { held };
            ensure!(self.is_lost(gpu) || driver == held, "gpu {gpu} holds {driver}, not {held}");
        }
        let listed = manager.shards();
        let known = &self.reference.shards;
        ensure!(listed.len() == known.len(), "{} listed, {} known", listed.len(), known.len());
        for (handle, (id, known)) in listed.iter().zip(known) {
            ensure!(handle.shard_id == *id, "{} listed in place of {id}", handle.shard_id);
            ensure!(handle.gpu_index == known.gpu, "{id} listed on gpu {}", handle.gpu_index);
        }
        let holds = self.holds();
        for ((leases, pinned), (id, known)) in holds.iter().zip(&self.reference.shards) {
            ensure!(*leases == known.leases as u64, "{id} has {leases} leases");
            ensure!(*pinned == known.pinned, "{id} is pinned: {pinned}");
        }
        self.parked_hold()
    }

    /// Of each resident shard: leases that are out, and whether it is pinned.
    fn holds(&self) -> Vec<(u64, bool)> {
        let shards = self.rig.manager.report().shards;
        shards.iter().map(|shard| (shard.leases, shard.pinned)).collect()
    }

    fn picture(&self) -> Picture {
        let manager = &self.rig.manager;
        let gpus = 0..manager.gpu_count();
        let capacities = gpus.map(|gpu| manager.capacity(gpu).expect("it is there")).collect();
        let mut state = manager.snapshot().state;
        // That a link lies is learned from a copy that failed.
        state.distrusted_links.clear();
        for gpu in &mut state.gpus {
            // These are compared apart.
            gpu.capacity = GpuCapacity::default();
            (gpu.quarantined, gpu.unreturned, gpu.lost) = (0, None, None);
        }
        for shard in &mut state.shards {
            (shard.quarantine, shard.last_verified) = (None, None);
        }
        Picture { state, capacities, shards: manager.shards() }
    }

    /// Whether a sticky error took this GPU.
    #[must_use]
    pub fn is_lost(&self, gpu: u32) -> bool {
        let gpus = self.rig.manager.report().gpus;
        gpus.get(gpu as usize).is_some_and(|gpu| gpu.lost.is_some())
    }

    /// P19: once faults stop, every operation ends and works again on every GPU that is not lost.
    pub fn recover(&mut self) -> Checked<()> {
        for device in &self.rig.devices {
            device.clear();
        }
        self.let_go()?;
        for gpu in 0..self.rig.manager.gpu_count() {
            if self.is_lost(gpu) {
                self.reset(gpu, false, false)?;
                ensure!(!self.is_lost(gpu), "gpu {gpu} is still lost after its reset");
            }
        }
        self.books_hold()?;
        for (id, known) in self.reference.shards.clone() {
            if self.is_lost(known.gpu) {
                let answer = self.rig.manager.unseal_model(&known.handle);
                let refused = matches!(
                    answer,
                    Err(VramError::DeviceLost { .. } | VramError::Quarantined { .. })
                );
                let empty = known.bytes.is_empty();
                ensure!(refused || empty, "{id} of a lost gpu answers {answer:?}");
                continue;
            }
            match self.rig.manager.unseal_model(&known.handle) {
                Ok(out) => ensure!(out == known.bytes, "{id}: other bytes came out"),
                Err(VramError::ShardAltered { .. } | VramError::Quarantined { .. }) => {}
                Err(error) => return Err(format!("{id} on working devices: {error}")),
            }
            let freed = self.rig.manager.free_shard(&known.handle);
            freed.map_err(|error| format!("freeing {id} on working devices: {error}"))?;
            self.reference.remove(&id);
        }
        self.wake_everything()?;
        self.books_hold()?;
        for gpu in (0..self.rig.manager.gpu_count()).filter(|gpu| !self.is_lost(*gpu)) {
            let now = self.rig.manager.capacity(gpu).map_err(|error| error.to_string())?;
            let len = now.largest_hole.get() as usize;
            let data = bytes(len, u64::from(gpu));
            let manager = &self.rig.manager;
            let whole = manager.seal_model("after", gpu, &data).map_err(|e| e.to_string())?;
            let out = manager.unseal_and_free(&whole).map_err(|error| error.to_string())?;
            ensure!(out == data, "gpu {gpu}: other bytes came out after recovery");
        }
        Ok(())
    }

    /// Whether any rule of this kind can make a read return other bytes than the device holds.
    #[must_use]
    pub fn corrupts(action: &Action, op: Op) -> bool {
        matches!(action, Action::FlipAnyBit | Action::DropCopy | Action::ShortCopy { .. })
            && matches!(op, Op::Read | Op::QueueRead)
    }
}

/// What a seed makes of a shard that has to make room.
fn fate(seed: u64) -> OnEviction {
    match seed % 5 {
        0 | 1 => OnEviction::Never,
        2 | 3 => OnEviction::Park,
        _ => OnEviction::Free,
    }
}

/// What an operation that needs the shard for itself should come to.
fn alone(known: &Known, otherwise: Expect) -> Expect {
    if known.leases > 0 { Expect::Refused("in-use") } else { otherwise }
}

/// What reading a range should come to.
fn reading(known: &Known, offset: usize, length: usize) -> Expect {
    if known.quarantined {
        Expect::Refused("quarantined")
    } else if known.altered_in(offset, length, SEGMENT) {
        Expect::Refused("shard-altered")
    } else {
        Expect::Fine
    }
}
