//! Steps with whole models: all of their shards, or none.

use vram_residency::{
    AdmitRequest, ByteLen, GpuChoice, ModelHandle, ModelPlan, OnEviction, ParkedModel, Piece,
    Protection, ReservePlanRequest, SliceSource, Verify, VramError,
};

use crate::reference::{Description, Known, bytes, footprint};

use super::moves::{self, host_len};
use super::{Checked, Expect, PARK_LIMIT, World};

/// A model in host memory, and its known shards, in the order of its plan.
#[derive(Debug)]
pub(super) struct Parked {
    model: ParkedModel,
    pub(super) known: Vec<Known>,
}

const fn choice(gpu: Option<u32>) -> GpuChoice {
    match gpu {
        Some(gpu) => GpuChoice::One(gpu),
        None => GpuChoice::MostRoomFirst,
    }
}

/// Pieces that are adjacent in one file.
fn plan(lens: &[usize]) -> Checked<ModelPlan> {
    let mut offset = 0;
    let pieces = lens.iter().enumerate().map(|(number, len)| {
        let piece = Piece::new(format!("tensor.{number}"), 0, offset, ByteLen::new(*len as u64));
        offset += *len as u64;
        piece
    });
    ModelPlan::new(pieces).map_err(|error| error.to_string())
}

impl World {
    /// The expected result of placing all pieces.
    fn fitting(&self, plan: &ModelPlan, gpu: Option<u32>) -> Expect {
        match self.rig.manager.fits(plan, choice(gpu)) {
            Err(VramError::UnknownGpu { .. }) => Expect::Refused("unknown-gpu"),
            Err(_) => Expect::Refused("device-lost"),
            Ok(fit) if fit.is_yes() => Expect::Fine,
            Ok(_) => Expect::Refused("insufficient-vram"),
        }
    }

    pub(super) fn admit(
        &mut self,
        gpu: Option<u32>,
        lens: &[usize],
        seed: u64,
        authenticated: bool,
    ) -> Checked<()> {
        let plan = plan(lens)?;
        let expect = self.fitting(&plan, gpu);
        let data = bytes(lens.iter().sum(), seed);
        let protection =
            if authenticated { Protection::Authenticated } else { Protection::Encrypted };
        let request = AdmitRequest::new("model-whole", choice(gpu))
            .protection(protection)
            .on_eviction(OnEviction::Never)
            .evicts(false);
        let before = self.picture();
        let answer = self.rig.manager.admit(request, &plan, &vec![SliceSource::new(&data)]);
        let touched = self.touched(gpu);
        if let Some(model) = self.judge(expect, &before, answer, &touched)? {
            self.admitted(model, lens, &data)?;
        }
        Ok(())
    }

    fn touched(&self, gpu: Option<u32>) -> Vec<u32> {
        gpu.map_or_else(|| (0..self.rig.manager.gpu_count()).collect(), |gpu| vec![gpu])
    }

    /// Adds a model that has just become resident to the reference.
    fn admitted(&mut self, model: ModelHandle, lens: &[usize], data: &[u8]) -> Checked<()> {
        ensure!(model.pieces.len() == lens.len(), "{} pieces", model.pieces.len());
        let mut rest = data;
        let mut made = Vec::new();
        for (piece, len) in model.pieces.iter().zip(lens) {
            let (bytes, behind) = rest.split_at(*len);
            rest = behind;
            made.push((piece.shard.clone(), bytes.to_vec()));
        }
        // They are sealed concurrently, so their ids rise, but not in the order of the plan.
        made.sort_by(|(a, _), (b, _)| a.shard_id.cmp(&b.shard_id));
        for (shard, bytes) in made {
            let id = shard.shard_id.clone();
            self.remember(shard, bytes, OnEviction::Never)?;
            let known = self.reference.shards.get_mut(&id).ok_or("it was just remembered")?;
            known.description = Description::Known;
        }
        self.models.push(model);
        Ok(())
    }

    pub(super) fn reserve_plan(&mut self, gpu: Option<u32>, lens: &[usize]) -> Checked<()> {
        let plan = plan(lens)?;
        let expect = self.fitting(&plan, gpu);
        let before = self.picture();
        let request = ReservePlanRequest::new(choice(gpu)).purpose("a model that comes later");
        let answer = self.rig.manager.reserve_plan_with(&plan, request);
        let touched = self.touched(gpu);
        if let Some(reservation) = self.judge(expect, &before, answer, &touched)? {
            let len: u64 = lens.iter().map(|len| footprint(*len)).sum();
            ensure!(reservation.len().get() == len, "{} held, not {len}", reservation.len());
            self.plans.push((reservation, lens.to_vec()));
        }
        Ok(())
    }

    pub(super) fn admit_reserved(&mut self, plan: usize, seed: u64) -> Checked<()> {
        if self.plans.is_empty() {
            return Ok(());
        }
        let index = plan % self.plans.len();
        let lens = self.plans[index].1.clone();
        let data = bytes(lens.iter().sum(), seed);
        let request = AdmitRequest::new("model-reserved", GpuChoice::MostRoomFirst)
            .on_eviction(OnEviction::Never);
        // The reserved places are enough, independent of the room; a place that could not be wiped
        // is lost.
        let held: u64 = lens.iter().map(|len| footprint(*len)).sum();
        let expect = if self.plans[index].0.remaining().get() == held || !self.faulty {
            Expect::Fine
        } else {
            Expect::Refused("reservation-expired")
        };
        let touched = self.touched(None);
        let before = self.picture();
        let source = vec![SliceSource::new(&data)];
        let (reservation, _) = &mut self.plans[index];
        let answer = self.rig.manager.admit_reserved(reservation, request, &source);
        if let Some(model) = self.judge(expect, &before, answer, &touched)? {
            let (reservation, _) = self.plans.swap_remove(index);
            ensure!(reservation.remaining().is_zero(), "{} is left", reservation.remaining());
            drop(reservation);
            self.admitted(model, &lens, &data)?;
        }
        Ok(())
    }

    pub(super) fn release_plan(&mut self, plan: usize) {
        if !self.plans.is_empty() {
            let index = plan % self.plans.len();
            let (reservation, _) = self.plans.swap_remove(index);
            reservation.release();
        }
    }

    /// A model whose shards are all resident, with fresh handles. Removes a model with a missing
    /// shard from the list.
    fn pick_model(&mut self, model: usize) -> Checked<Option<(usize, ModelHandle, Vec<Known>)>> {
        if self.models.is_empty() {
            return Ok(None);
        }
        let index = model % self.models.len();
        let known: Option<Vec<Known>> = self.models[index]
            .shards()
            .map(|shard| self.reference.shards.get(&shard.shard_id).cloned())
            .collect();
        let fresh = self.rig.manager.refresh_model(&self.models[index]);
        match (known, fresh) {
            (Some(known), Ok(model)) => Ok(Some((index, model, known))),
            // One that is parked may come back, and is not called freed.
            (None, Err(VramError::ShardFreed { .. } | VramError::Parked { .. })) => {
                self.models.swap_remove(index);
                Ok(None)
            }
            (known, fresh) => Err(format!("{:?} resident, and {fresh:?}", known.is_some())),
        }
    }

    /// The expected result of moving all shards of a model elsewhere.
    fn leaving(known: &[Known], otherwise: Expect) -> Expect {
        if known.iter().any(|known| known.leases > 0) {
            return Expect::Refused("in-use");
        }
        let unsound = known.iter().any(|known| known.quarantined || !known.sound());
        match (unsound, otherwise) {
            (true, _) => Expect::RefusedAs(&[
                "quarantined",
                "shard-altered",
                "insufficient-vram",
                "park-limit",
            ]),
            (false, otherwise) => otherwise,
        }
    }

    /// Records which shards of a model were found altered.
    fn note_altered(&mut self, known: &[Known]) {
        for shard in self.rig.manager.report().shards {
            if shard.quarantine.is_some()
                && known.iter().any(|known| known.handle.shard_id == shard.shard_id)
                && let Some(known) = self.reference.shards.get_mut(&shard.shard_id)
            {
                known.quarantined = true;
            }
        }
    }

    pub(super) fn park_model(&mut self, model: usize) -> Checked<()> {
        let Some((index, model, known)) = self.pick_model(model)? else { return Ok(()) };
        let needed: u64 = known.iter().map(host_len).sum();
        let room = PARK_LIMIT - self.rig.manager.park_capacity().used.get();
        let otherwise = if needed > room { Expect::Refused("park-limit") } else { Expect::Fine };
        let expect = Self::leaving(&known, otherwise);
        let gpus: Vec<_> = known.iter().map(|known| known.gpu).collect();
        let before = self.picture();
        let answer = self.rig.manager.park_model(&model);
        self.note_altered(&known);
        if let Some(model) = self.judge(expect, &before, answer, &gpus)? {
            ensure!(model.host_len().get() == needed, "{} of the host", model.host_len());
            for known in &known {
                self.reference.shards.remove(&known.handle.shard_id);
            }
            self.models.swap_remove(index);
            self.parked_models.push(Parked { model, known });
        }
        Ok(())
    }

    pub(super) fn wake_model(&mut self, model: usize, gpu: Option<u32>) -> Checked<()> {
        if self.parked_models.is_empty() {
            return Ok(());
        }
        let index = model % self.parked_models.len();
        let lens: Vec<_> =
            self.parked_models[index].known.iter().map(|known| known.bytes.len()).collect();
        let expect = self.fitting(&plan(&lens)?, gpu);
        let before = self.picture();
        let Parked { model, known } = self.parked_models.swap_remove(index);
        let answer = self.rig.manager.wake_model(model, choice(gpu)).map_err(|failed| {
            let (model, error) = failed.into_parts();
            self.parked_models.push(Parked { model, known: known.clone() });
            error
        });
        let touched = self.touched(gpu);
        if let Some(model) = self.judge(expect, &before, answer, &touched)? {
            for (shard, known) in model.shards().zip(known) {
                self.resident_again(shard.clone(), known, shard.gpu_index)?;
            }
            self.models.push(model);
        }
        Ok(())
    }

    pub(super) fn migrate_model(&mut self, model: usize, gpu: u32) -> Checked<()> {
        let Some((index, model, known)) = self.pick_model(model)? else { return Ok(()) };
        let away: Vec<_> =
            known.iter().filter(|known| known.gpu != gpu).map(|known| known.bytes.len()).collect();
        let expect = match self.fitting(&plan(&away)?, Some(gpu)) {
            Expect::Refused("unknown-gpu") => Expect::Refused("unknown-gpu"),
            _ if away.is_empty() => Self::leaving(&known, Expect::Fine),
            otherwise => Self::leaving(&known, otherwise),
        };
        // Shards that are already on that GPU are not checked again.
        let hidden = |known: &Known| known.gpu == gpu && !known.quarantined && !known.sound();
        if known.iter().any(hidden) {
            return Ok(());
        }
        let gpus: Vec<_> = known.iter().map(|known| known.gpu).chain([gpu]).collect();
        let before = self.picture();
        let answer = self.rig.manager.migrate_model(&model, gpu);
        self.note_altered(&known);
        if let Some(moved) = self.judge(expect, &before, answer, &gpus)? {
            for shard in moved.shards() {
                ensure!(shard.gpu_index == gpu, "{} is on gpu {}", shard.shard_id, shard.gpu_index);
                let known = self.reference.shards.get_mut(&shard.shard_id);
                known.ok_or("it was just there")?.gpu = gpu;
            }
            self.models[index] = moved;
        }
        Ok(())
    }

    pub(super) fn verify_model(&mut self, model: usize) -> Checked<()> {
        let Some((_, model, known)) = self.pick_model(model)? else { return Ok(()) };
        let gpus: Vec<_> = known.iter().map(|known| known.gpu).collect();
        let before = self.picture();
        let answer = self.rig.manager.verify_model(&model, Verify::Segments);
        self.note_altered(&known);
        if let Some(verdict) = self.judge(Expect::Fine, &before, answer, &gpus)? {
            let sound = known.iter().all(|known| known.sound() && !known.quarantined);
            ensure!(verdict.sound == sound || (self.faulty && sound), "{verdict:?}");
        }
        Ok(())
    }

    pub(super) fn free_model(&mut self, model: usize) -> Checked<()> {
        let Some((index, model, known)) = self.pick_model(model)? else { return Ok(()) };
        let expect = if known.iter().any(|known| known.leases > 0) {
            Expect::Refused("in-use")
        } else {
            Expect::Fine
        };
        let gpus: Vec<_> = known.iter().map(|known| known.gpu).collect();
        let lost = |world: &Self| gpus.iter().any(|gpu| world.is_lost(*gpu));
        let (was_lost, before) = (lost(self), self.picture());
        let answer = self.rig.manager.free_model(&model);
        let gone = match answer {
            // All of them are removed, and some bytes stay counted.
            Err(VramError::NotReturned { .. }) if self.faulty => true,
            // Some may be removed, since the device was lost in the middle.
            Err(VramError::DeviceLost { .. }) if !was_lost && lost(self) => false,
            answer => match self.judge(expect, &before, answer, &gpus)? {
                Some(receipts) => {
                    ensure!(receipts.len() == known.len(), "{} receipts", receipts.len());
                    true
                }
                None => return Ok(()),
            },
        };
        for known in &known {
            let id = &known.handle.shard_id;
            let there = self.rig.manager.shard(id).is_some();
            ensure!(!there || !gone, "{id} was not freed");
            if !there {
                self.reference.remove(id);
            }
        }
        self.models.swap_remove(index);
        Ok(())
    }

    /// Turns the shards of parked models into single parked shards.
    pub(super) fn unpark_models(&mut self) {
        for Parked { model, known } in core::mem::take(&mut self.parked_models) {
            let shards = model.pieces.into_iter().map(|piece| piece.parked);
            let both = shards.zip(known);
            self.parked.extend(both.map(|(shard, known)| moves::Parked {
                shard,
                known,
                renewed: false,
            }));
        }
    }
}
