//! Restores the shards that go together: all of a model that lay on a GPU, or one that was sealed by
//! itself.
//!
//! Their copies are brought into their places one by one, and then arrive in one moment. If a backup
//! finds no room, all of them are parked: no part of a model comes back without the others. What has
//! no good copy is lost, and keeps nothing else from coming back. Pieces of the model on other GPUs
//! stay where they are.

use std::sync::Arc;

use vram_events::EventKind;
use vram_space::Gpu;

use crate::error::VramError;
use crate::models::{WakeModelError, telling};
use crate::moves::{WakeError, wake};
use crate::parts::gpus::caught;
use crate::parts::{Core, GpuChoice};
use crate::reset::restore::{Brought, bring, targets};
use crate::reset::{NotRestored, Remains, ResetOptions, ResetReport, Restore};
use crate::room::park;
use crate::shard::{
    Admitted, Arrived, Backup, Copies, Entry, HostCopy, ParkedModel, ParkedShard, SealedShard,
    UnderWay,
};
use crate::sync::Deadline;

/// What is left of shards that go together.
pub(crate) struct Set {
    pub(crate) remains: Vec<Remains>,
    /// Held until all of a model are decided: until then nothing of it is evicted.
    pub(crate) held: Option<UnderWay>,
}

/// A shard whose copy lies on a GPU, and is not resident yet.
struct There {
    entry: Arc<Entry>,
    arrived: Arrived,
    backup: Option<Box<Backup>>,
}

/// A reset that restores shards.
pub(crate) struct Restoring<'a> {
    pub(crate) core: &'a Core,
    /// The GPU that was emptied.
    pub(crate) gpu: &'a Arc<Gpu>,
    pub(crate) options: ResetOptions,
    pub(crate) patience: Deadline,
}

impl Restoring<'_> {
    /// Restores what goes together, as far as possible, and records the result.
    pub(crate) fn restore(&self, set: Set, report: &mut ResetReport) {
        let Set { mut remains, held: _held } = set;
        if self.options.restore == Restore::Nothing {
            for one in remains {
                report.give_up(self.core, &one.entry, self.gpu, NotRestored::NotAsked);
            }
            return;
        }
        let index = |one: &Remains| one.entry.member().map(|member| member.index);
        remains.sort_by_key(index);
        let mut targets = targets(self.core, self.gpu, self.options.elsewhere);
        loop {
            let (there, left, refusal) = self.bring_all(remains, &targets, report);
            if let Some(refusal) = refusal {
                return self.park_all(there, left, &refusal, report);
            }
            let (again, error) = match self.arrive(there) {
                Ok(shards) => return report.restored.extend(shards),
                Err(refused) => refused,
            };
            let before = targets.len();
            targets.retain(|target| target.ready().is_ok());
            if targets.is_empty() || targets.len() == before {
                return self.leave_all(again, &error, report);
            }
            // A GPU was lost meanwhile, and another may accept them.
            remains = again;
        }
    }

    /// Brings a copy of each into a place on a GPU; those without a good copy are given up. Once one
    /// found no room, the backups of the others are left where they are.
    fn bring_all(
        &self,
        remains: Vec<Remains>,
        targets: &[Arc<Gpu>],
        report: &mut ResetReport,
    ) -> (Vec<There>, Vec<HostCopy>, Option<VramError>) {
        let (mut there, mut left, mut refusal) = (Vec::new(), Vec::new(), None);
        for Remains { entry, mut copies } in remains {
            if refusal.is_some()
                && let Some(backup) = copies.backup.take()
            {
                entry.change(|state, _told| state.copies.exported = copies.exported);
                left.push(HostCopy { entry, backup });
                continue;
            }
            let brought = caught(self.core, GpuChoice::One(self.gpu.index), || {
                Ok(bring(self.core, &entry, copies, targets, self.patience))
            });
            match brought.unwrap_or_else(|panic| Err(NotRestored::Failed(panic))) {
                Ok(Brought::There(arrived, backup)) => there.push(There { entry, arrived, backup }),
                Ok(Brought::Left(backup, why)) => {
                    refusal = Some(why);
                    left.push(HostCopy { entry, backup });
                    // They give their places back: what comes from an image needs one.
                    for one in core::mem::take(&mut there) {
                        let There { entry, arrived, backup } = one;
                        match backup {
                            Some(backup) => left.push(HostCopy { entry, backup }),
                            None => there.push(There { entry, arrived, backup }),
                        }
                    }
                }
                Err(why) => report.give_up(self.core, &entry, self.gpu, why),
            }
        }
        (there, left, refusal)
    }

    /// Makes all of them resident in one moment.
    ///
    /// # Errors
    ///
    /// The error, and what is left of them: none is resident.
    fn arrive(&self, there: Vec<There>) -> Result<Vec<SealedShard>, (Vec<Remains>, VramError)> {
        let entries: Vec<_> = there.iter().map(|one| Arc::clone(&one.entry)).collect();
        let (copies, mut backups): (Vec<_>, Vec<_>) =
            there.into_iter().map(|one| (one.arrived, one.backup)).unzip();
        let (shards, bytes) = telling::sum(entries.iter().map(|entry| entry.plaintext_len));
        let model = whole_model(&entries);
        let _whole = model.map(Admitted::begin);
        let told = model.map(|_| EventKind::ModelWoken { shards, bytes });
        let coming = entries.iter().map(|entry| &**entry).zip(copies).collect();
        let arrived = caught(self.core, GpuChoice::One(self.gpu.index), || {
            wake::arrive_all(self.core, coming, &mut backups, told)
        });
        arrived.map_err(|error| {
            let again = entries.into_iter().zip(backups).map(|(entry, backup)| {
                let exported = entry.state().copies.exported.clone();
                Remains { entry, copies: Copies { backup, exported } }
            });
            (again.collect(), error)
        })
    }

    /// Parks all of them: those that came from an image leave their GPU again.
    fn park_all(
        &self,
        there: Vec<There>,
        left: Vec<HostCopy>,
        refusal: &VramError,
        report: &mut ResetReport,
    ) {
        let mut parked = Vec::new();
        for There { entry, arrived, .. } in there {
            parked.extend(self.through_gpu(&entry, arrived, report));
        }
        parked.extend(self.leave(left, report));
        record(parked, refusal, report);
    }

    /// Parks those that have a backup, and gives up the others.
    fn leave_all(&self, remains: Vec<Remains>, refusal: &VramError, report: &mut ResetReport) {
        let mut copies = Vec::new();
        for Remains { entry, copies: Copies { backup, .. } } in remains {
            let Some(backup) = backup else {
                let why = NotRestored::Failed(refusal.clone());
                report.give_up(self.core, &entry, self.gpu, why);
                continue;
            };
            copies.push(HostCopy { entry, backup });
        }
        let parked = self.leave(copies, report);
        record(parked, refusal, report);
    }

    /// Parks a shard that came from an image, of which host memory holds nothing yet. If that is
    /// refused, it stays on its GPU.
    fn through_gpu(
        &self,
        entry: &Arc<Entry>,
        arrived: Arrived,
        report: &mut ResetReport,
    ) -> Option<ParkedShard> {
        let parked = caught(self.core, GpuChoice::One(self.gpu.index), || {
            let shard = wake::arrive(self.core, entry, arrived, &mut None)?;
            let pass = entry.gate.try_exclusive();
            let parked = pass.ok().and_then(|_pass| park::park_entry(self.core, entry).ok());
            Ok(parked.ok_or(shard))
        });
        match parked {
            Ok(Ok(parked)) => return Some(parked),
            Ok(Err(stays)) => report.restored.push(stays),
            Err(why) => report.give_up(self.core, entry, self.gpu, NotRestored::Failed(why)),
        }
        None
    }

    /// Parks shards as their backups.
    fn leave(&self, copies: Vec<HostCopy>, report: &mut ResetReport) -> Vec<ParkedShard> {
        let entries: Vec<_> = copies.iter().map(|copy| Arc::clone(&copy.entry)).collect();
        let model = whole_model(&entries);
        let _whole = model.map(Admitted::begin);
        let mut parked = Vec::with_capacity(copies.len());
        for (copy, entry) in copies.into_iter().zip(&entries) {
            match park::leave(self.core, copy) {
                Ok(one) => parked.push(one),
                Err(why) => report.give_up(self.core, entry, self.gpu, NotRestored::Failed(why)),
            }
        }
        if model.is_some() {
            let (shards, bytes) = telling::sum(parked.iter().map(ParkedShard::host_len));
            telling::tell(self.core, &entries, EventKind::ModelParked { shards, bytes });
        }
        parked
    }
}

/// The model of these shards, if they are all of it.
fn whole_model(entries: &[Arc<Entry>]) -> Option<&Arc<Admitted>> {
    let model = &entries.first()?.member()?.model;
    (model.plan.pieces().len() == entries.len()).then_some(model)
}

/// Records what was parked: as a model, if it is of one.
fn record(mut parked: Vec<ParkedShard>, refusal: &VramError, report: &mut ResetReport) {
    let Some(first) = parked.first() else { return };
    let model_id = Arc::clone(&first.copy.entry.holder().model_id);
    parked.sort_by_key(|one| one.copy.entry.member().map(|member| member.index));
    match ParkedModel::of(&model_id, parked) {
        Ok(model) => report.parked_models.push(WakeModelError::new(model, refusal.clone())),
        Err(shards) => {
            let shards = shards.into_iter().map(|shard| WakeError::new(shard, refusal.clone()));
            report.parked.extend(shards);
        }
    }
}
