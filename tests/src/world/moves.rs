//! Steps that move shards: to host memory, to images, to other places of the same GPU.

use vram_residency::{
    CompactBudget, ImportRequest, LinkState, MemoryMode, ParkedShard, Protection, VramError,
};

use crate::reference::{Description, Known, footprint};
use crate::rig::SEGMENT;

use super::{Checked, Expect, PARK_LIMIT, World, alone, reading};

/// A shard in host memory, and its known content.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) shard: ParkedShard,
    pub(super) known: Known,
    /// Whether its generation differs from the known handle's: a reset parked it.
    pub(super) renewed: bool,
}

/// Host bytes for parking: the sealed bytes, and a table if the shard has none of its own.
pub(super) fn host_len(known: &Known) -> u64 {
    let len = known.bytes.len();
    match known.handle.protection {
        Protection::Encrypted => len as u64,
        _ => (len + 48 * len.div_ceil(SEGMENT).max(1)) as u64,
    }
}

impl World {
    pub(super) fn park(&mut self, shard: usize) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let (gpu, needed) = (known.gpu, host_len(known));
        // The bytes on a lost GPU cannot be read, but the backup can.
        let from_backup = known.backed_up && self.is_lost(gpu);
        let expect = match reading(known, 0, known.bytes.len()) {
            _ if from_backup => Expect::Fine,
            Expect::Refused("quarantined") => Expect::Refused("quarantined"),
            _ if self.park_room() < needed => Expect::Refused("park-limit"),
            other => other,
        };
        let expect = alone(known, expect);
        let before = self.picture();
        let answer = self.rig.manager.park(&known.handle);
        self.note_quarantine(&id, &answer);
        if let Some(parked) = self.judge(expect, &before, answer, &[gpu])? {
            if from_backup {
                let known = self.reference.shards.get_mut(&id).ok_or("it was just there")?;
                known.backed_up = false;
                known.heal();
            }
            self.hold(parked)?;
        }
        Ok(())
    }

    /// Moves a parked shard from the resident to the parked ones.
    pub(super) fn hold(&mut self, shard: ParkedShard) -> Checked<()> {
        let known = self.reference.shards.remove(shard.shard_id());
        let known = known.ok_or_else(|| format!("{} was not resident", shard.shard_id()))?;
        ensure!(
            shard.host_len().get() == host_len(&known),
            "{} takes {} of the host, not {}",
            shard.shard_id(),
            shard.host_len(),
            host_len(&known)
        );
        ensure!(shard.sealed_data() == known.handle.sealed_data, "the record changed");
        self.parked.push(Parked { shard, known, renewed: false });
        Ok(())
    }

    pub(super) fn park_room(&self) -> u64 {
        PARK_LIMIT - self.parked_len()
    }

    /// The expected host bytes of everything parked.
    fn parked_len(&self) -> u64 {
        let models = self.parked_models.iter().flat_map(|model| &model.known);
        let parked: Vec<_> = self.parked.iter().map(|parked| &parked.known).chain(models).collect();
        let copies = self.reference.shards.values().chain(parked.iter().copied());
        let copies = copies.filter(|known| known.backed_up);
        parked.iter().copied().map(host_len).chain(copies.map(host_len)).sum()
    }

    /// Checks that host memory is counted as parked, and that handles of parked shards report it.
    pub(super) fn parked_hold(&self) -> Checked<()> {
        let capacity = self.rig.manager.park_capacity();
        let models: usize = self.parked_models.iter().map(|model| model.known.len()).sum();
        let count = (self.parked.len() + models) as u64;
        ensure!(
            capacity.used.get() == self.parked_len() && capacity.shard_count == count,
            "{count} parked shards take {} of the host: {capacity:?}",
            self.parked_len()
        );
        if let Some(Parked { known, renewed, .. }) = self.parked.last() {
            let answer = self.rig.manager.read_shard_at_offset(&known.handle, 0, 0);
            let expected = if *renewed { "stale-handle" } else { "parked" };
            let code = answer.as_ref().err().map(VramError::code);
            ensure!(code == Some(expected), "parked, it reads {answer:?}");
        }
        Ok(())
    }

    pub(super) fn wake(&mut self, parked: usize, gpu: u32) -> Checked<()> {
        if self.parked.is_empty() {
            return Ok(());
        }
        let index = parked % self.parked.len();
        let expect = self.placing(gpu, self.parked[index].known.bytes.len());
        let before = self.picture();
        let Parked { shard, mut known, renewed } = self.parked.swap_remove(index);
        let answer = self.rig.manager.wake(shard, gpu).map_err(|failed| {
            let (shard, error) = failed.into_parts();
            self.parked.push(Parked { shard, known: known.clone(), renewed });
            error
        });
        if let Some(handle) = self.judge(expect, &before, answer, &[gpu])? {
            if renewed {
                known.stale = Some(core::mem::replace(&mut known.handle, handle.clone()));
            }
            self.resident_again(handle, known, gpu)?;
        }
        Ok(())
    }

    /// Moves a woken shard from the parked to the resident ones.
    pub(super) fn resident_again(
        &mut self,
        handle: vram_residency::SealedShard,
        mut known: Known,
        gpu: u32,
    ) -> Checked<()> {
        ensure!(handle.gpu_index == gpu, "woken on gpu {}", handle.gpu_index);
        ensure!(handle.shard_id == known.handle.shard_id, "the id changed");
        ensure!(handle.sealed_data == known.handle.sealed_data, "the record changed");
        known.gpu = gpu;
        // Handles from before are valid again, so the old one stays in use.
        self.reference.shards.insert(handle.shard_id, known);
        Ok(())
    }

    pub(super) fn give_up(&mut self, parked: usize) {
        if self.parked.is_empty() {
            return;
        }
        let index = parked % self.parked.len();
        let Parked { shard, known, .. } = self.parked.swap_remove(index);
        drop(shard);
        self.reference.forget(known.handle);
    }

    pub(super) fn carry(&mut self, shard: usize, gpu: u32, damage: Option<usize>) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let (expect, source) = (reading(known, 0, known.bytes.len()), known.gpu);
        let before = self.picture();
        let mut image = Vec::new();
        let answer = self.rig.manager.export(&known.handle, &mut image);
        self.note_quarantine(&id, &answer);
        if self.judge(expect, &before, answer, &[source])?.is_none() {
            return Ok(());
        }
        ensure!(self.picture() == before, "an export changed something");

        let known = &self.reference.shards[&id];
        let (model, data) = (known.handle.model_id.clone(), known.bytes.clone());
        let (key, fate) = (known.key, known.fate);
        let description = match known.description {
            Description::Empty => Description::Empty,
            Description::Known | Description::Coded => Description::Coded,
        };
        if let Some(at) = damage {
            let at = at % image.len();
            image[at] ^= 1;
            let request = ImportRequest::new(&model, gpu).evicts(false);
            let answer = self.rig.manager.import(request, &*image);
            ensure!(answer.is_err(), "an image with byte {at} altered was taken");
            let error = answer.err().ok_or("it was refused")?;
            return self.unchanged(&before, &error);
        }
        let expect = self.placing(gpu, data.len());
        let request = ImportRequest::new(&model, gpu).on_eviction(fate).evicts(false);
        let answer = self.rig.manager.import(request, &*image);
        if let Some(handle) = self.judge(expect, &before, answer, &[gpu])? {
            ensure!(handle.gpu_index == gpu, "imported on gpu {}", handle.gpu_index);
            let id = handle.shard_id.clone();
            self.remember(handle, data, fate)?;
            let known = self.reference.shards.get_mut(&id).ok_or("it was just remembered")?;
            (known.key, known.description) = (key, description);
        }
        Ok(())
    }

    pub(super) fn compact(&mut self, gpu: u32, max: Option<u64>) -> Checked<()> {
        let manager = &self.rig.manager;
        let expect = match manager.capacity(gpu) {
            Err(_) => Expect::Refused("unknown-gpu"),
            Ok(_) => Expect::Fine,
        };
        let before = self.picture();
        let budget = max.map_or(CompactBudget::new(), |max| {
            CompactBudget::new().max_bytes(vram_residency::ByteLen::new(max))
        });
        let answer = manager.compact(gpu, budget);
        let Some(report) = self.judge(expect, &before, answer, &[gpu])? else { return Ok(()) };
        ensure!(max.is_none_or(|max| report.moved_bytes.get() <= max), "{report:?}");
        if self.mode == MemoryMode::Blocks {
            ensure!(report.moves == 0, "blocks were moved: {report:?}");
        }
        ensure!(
            self.faulty || report.largest_hole >= report.largest_hole_before,
            "holes were torn apart: {report:?}"
        );
        for (id, error) in report.skipped {
            match error {
                VramError::ShardAltered { .. } => {
                    let known = self.reference.shards.get_mut(&id).ok_or("skipped a stranger")?;
                    ensure!(self.faulty || !known.sound(), "{id} is sound: {error}");
                    known.quarantined = true;
                }
                // Both places are taken for a moment, so promised bytes and headroom are not
                // available.
                VramError::ParkLimit { .. } | VramError::InsufficientVram(_) => {}
                error => ensure!(self.faulty, "{id} was not moved: {error}"),
            }
        }
        ensure!(self.faulty || report.stranded.is_empty(), "{:?}", report.stranded);
        for stranded in report.stranded {
            self.hold(stranded)?;
        }
        Ok(())
    }

    pub(super) fn probe_links(&mut self) -> Checked<()> {
        let before = self.picture();
        let reports = self.rig.manager.probe_links();
        ensure!(reports.len() == 6, "{} links between three gpus", reports.len());
        if !self.faulty {
            ensure!(self.picture() == before, "a probe changed something");
            let lies = reports.iter().find(|report| report.state == LinkState::Distrusted);
            ensure!(lies.is_none(), "a good link is called a liar: {lies:?}");
        }
        Ok(())
    }

    /// After faults have stopped, wakes parked shards as far as there is room; drops the rest.
    pub(super) fn wake_everything(&mut self) -> Checked<()> {
        for Parked { shard, known, .. } in core::mem::take(&mut self.parked) {
            let manager = &self.rig.manager;
            let fits = (0..manager.gpu_count()).find(|gpu| {
                let room = manager.capacity(*gpu).map(|now| now.room.min(now.largest_hole));
                !self.is_lost(*gpu)
                    && room.is_ok_and(|room| room.get() >= footprint(known.bytes.len()))
            });
            let Some(gpu) = fits else { continue };
            let id = shard.shard_id().clone();
            let woken = manager.wake(shard, gpu).map_err(|failed| format!("waking {id}: {failed}"));
            let out = manager.unseal_and_free(&woken?).map_err(|error| error.to_string())?;
            ensure!(out == known.bytes, "{id}: other bytes came out after it was woken");
        }
        Ok(())
    }
}
