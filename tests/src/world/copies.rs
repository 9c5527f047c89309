//! Steps with backups, and with resets that restore from them.

use std::path::PathBuf;

use vram_residency::{ExportOptions, NotRestored, Overwrite, ResetOptions, ShardId, WakeError};

use crate::reference::Known;

use super::moves::{Parked, host_len};
use super::{Checked, Expect, World, reading};

impl World {
    pub(super) fn back_up(&mut self, shard: usize) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let (gpu, needed) = (known.gpu, host_len(known));
        let expect = match reading(known, 0, known.bytes.len()) {
            Expect::Refused("quarantined") => Expect::Refused("quarantined"),
            // The new copy exists beside the old one for a moment.
            _ if self.park_room() < needed => Expect::Refused("park-limit"),
            other => other,
        };
        let before = self.picture();
        let answer = self.rig.manager.back_up(&known.handle);
        self.note_quarantine(&id, &answer);
        if let Some(report) = self.judge(expect, &before, answer, &[gpu])? {
            ensure!(report.host_len.get() == needed, "{} of the host", report.host_len);
            let known = self.reference.shards.get_mut(&id).ok_or("it was just there")?;
            known.backed_up = true;
        }
        Ok(())
    }

    pub(super) fn drop_backup(&mut self, shard: usize) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = self.reference.shards.get_mut(&id).ok_or("it was just there")?;
        let dropped = self.rig.manager.drop_backup(&known.handle);
        let dropped = dropped.map_err(|error| error.to_string())?;
        ensure!(dropped == known.backed_up, "a backup was there: {dropped}");
        known.backed_up = false;
        Ok(())
    }

    fn image(&self, id: &ShardId) -> PathBuf {
        self.folder.path().join(id.as_str())
    }

    pub(super) fn export_to(&mut self, shard: usize) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let (expect, gpu) = (reading(known, 0, known.bytes.len()), known.gpu);
        let before = self.picture();
        let options = ExportOptions::new().overwrite(Overwrite::Replace);
        let answer = self.rig.manager.export_to(&known.handle, self.image(&id), options);
        self.note_quarantine(&id, &answer);
        if self.judge(expect, &before, answer, &[gpu])?.is_some() {
            let known = self.reference.shards.get_mut(&id).ok_or("it was just there")?;
            known.exported = true;
        }
        Ok(())
    }

    pub(super) fn reset(&mut self, gpu: u32, force: bool, elsewhere: bool) -> Checked<()> {
        let here = self.reference.shards.values().filter(|known| known.gpu == gpu);
        let here: Vec<_> = here.collect();
        let expect = if gpu >= self.rig.manager.gpu_count() {
            Expect::Refused("unknown-gpu")
        } else if self.is_lost(gpu) || here.is_empty() {
            Expect::Fine
        } else if here.iter().any(|known| known.leases > 0) {
            Expect::Refused("in-use")
        } else if force {
            Expect::Fine
        } else {
            Expect::Refused("not-lost")
        };
        let ids: Vec<_> = here.iter().map(|known| known.handle.shard_id.clone()).collect();
        let options = ResetOptions::new();
        let options = if force { options.force() } else { options };
        let options = if elsewhere { options.elsewhere() } else { options };
        let before = self.picture();
        let answer = self.rig.manager.reset_gpu(gpu, options);
        let Some(report) = self.judge(expect, &before, answer, &[gpu])? else { return Ok(()) };

        for (plan, _) in &self.plans {
            self.unbacked.insert((plan.id(), gpu));
        }
        let restored = report.restored.len();
        let of_models = report.parked_models.into_iter().flat_map(|failed| {
            let (model, error) = failed.into_parts();
            model.pieces.into_iter().map(move |piece| (piece.parked, error.clone()))
        });
        let alone = report.parked.into_iter().map(WakeError::into_parts);
        let parked: Vec<_> = alone.chain(of_models).collect();
        let seen = restored + parked.len() + report.lost.len();
        ensure!(seen == ids.len(), "{seen} shards are told of, of {}", ids.len());
        // Their memory is gone, even if a lease was active.
        self.leases.retain(|(id, _lease)| !ids.contains(id));
        for handle in report.restored {
            let there = elsewhere || handle.gpu_index == gpu;
            ensure!(there, "{} came back on gpu {}", handle.shard_id, handle.gpu_index);
            let mut known = self.forgotten(&handle.shard_id)?;
            ensure!(
                known.backed_up || known.exported,
                "{} came back from nothing",
                handle.shard_id
            );
            ensure!(handle.sealed_data == known.handle.sealed_data, "the record changed");
            known.gpu = handle.gpu_index;
            known.stale = Some(core::mem::replace(&mut known.handle, handle.clone()));
            known.heal();
            self.reference.shards.insert(handle.shard_id, known);
        }
        for (shard, error) in parked {
            ensure!(
                error.is_capacity() || self.faulty,
                "{} found no place: {error}",
                shard.shard_id()
            );
            let mut known = self.forgotten(shard.shard_id())?;
            // A piece of a model may come from its image, and wait with the others.
            ensure!(known.backed_up || known.exported, "{} had no copy", shard.shard_id());
            known.backed_up = false;
            known.heal();
            let generation = self.parked_generation(shard.shard_id());
            ensure!(generation.is_some(), "{} is not listed as parked", shard.shard_id());
            // Handles from before the reset are stale, and handles of parked shards are not
            // returned.
            self.parked.push(Parked { shard, known, renewed: true });
        }
        for lost in report.lost {
            let known = self.forgotten(&lost.shard_id)?;
            let copies = known.backed_up || known.exported;
            match lost.why {
                NotRestored::NoCopy => ensure!(!copies, "{lost}, and there was one"),
                NotRestored::Failed(ref error) => {
                    ensure!(copies, "{lost}");
                    ensure!(error.is_capacity() || self.faulty, "{lost}");
                }
                _ => return Err(lost.to_string()),
            }
            self.reference.forget(known.handle);
        }
        Ok(())
    }

    /// Removes a shard of a GPU that was reset from the model. Its leases are ended.
    fn forgotten(&mut self, id: &ShardId) -> Checked<Known> {
        let mut known = self.reference.shards.remove(id).ok_or("a stranger was on that gpu")?;
        known.leases = 0;
        Ok(known)
    }

    fn parked_generation(&self, id: &ShardId) -> Option<u64> {
        let parked = self.rig.manager.snapshot().state.parked;
        parked.iter().find(|parked| parked.shard_id == *id).map(|parked| parked.generation)
    }
}
