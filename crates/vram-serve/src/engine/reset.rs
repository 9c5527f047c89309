//! Resets a device, and loads again what lay there: the files are at hand.

use core::sync::atomic::Ordering;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use vram_residency::nvml::Answer;
use vram_residency::{ModelHandle, ModelPiece, ResetOptions, VramError};

use super::Engine;
use super::load::LoadRequest;
use super::slot::{State, Turn};
use crate::feed::Own;
use crate::problem::Problem;

/// What a reset may do.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ResetRequest {
    /// Reset a device that works, too. What lies there is wiped, and loaded again.
    pub(crate) force: bool,
}

/// What a reset did.
#[derive(Debug, Serialize)]
pub(crate) struct ResetDone {
    pub(crate) gpu: u32,
    /// Shards that lay there and are gone.
    pub(crate) lost: usize,
    /// Models that were loaded again.
    pub(crate) loaded: Vec<String>,
    /// Those of them that are not what they were: their files or their store changed meanwhile.
    pub(crate) changed: Vec<String>,
    /// Models that are not whole any more, and why.
    pub(crate) failed: Vec<NotLoaded>,
}

/// A model that a reset could not bring back.
#[derive(Debug, Serialize)]
pub(crate) struct NotLoaded {
    pub(crate) model: String,
    pub(crate) why: Problem,
}

/// One device, as listings show it.
#[derive(Debug, Serialize)]
pub(crate) struct GpuView {
    pub(crate) gpu: u32,
    pub(crate) name: String,
    pub(crate) uuid: String,
    /// `serving`, `lost`, or what a reset does to it now.
    pub(crate) state: String,
    /// What NVIDIA's management library says of it, or why it says nothing.
    pub(crate) card: Answer,
}

impl Engine {
    /// All devices, in order.
    pub(crate) fn gpus(&self) -> Vec<GpuView> {
        let metrics = self.manager.metrics();
        let shown = metrics.gpus.into_iter().map(|gpu| GpuView {
            gpu: gpu.capacity.gpu,
            name: gpu.name,
            uuid: gpu.uuid.to_string(),
            state: gpu.state.to_string(),
            card: self.manager.card(gpu.capacity.gpu).unwrap_or(Answer::NotWatched),
        });
        shown.collect()
    }

    /// Empties a device and takes it into use again. Models that lay there are loaded again from
    /// their files, in the order of their names; those with another content than before are named. Where
    /// the reset is refused, nothing has changed.
    pub(crate) fn reset(&self, gpu: u32, request: ResetRequest) -> Result<ResetDone, Problem> {
        self.check_open()?;
        let mut turns = Vec::new();
        for (name, model) in self.models_on(gpu) {
            turns.push((self.turn(&name, "resetting")?, name, model));
        }
        let options = ResetOptions::new();
        let options = if request.force { options.force() } else { options };
        let report = self.manager.reset_gpu(gpu, options).map_err(|error| self.told(&error))?;
        let lost = report.lost.len();
        turns.append(&mut self.came_meanwhile(gpu));
        let (loaded, changed, failed) = (Vec::new(), Vec::new(), Vec::new());
        let mut done = ResetDone { gpu, lost, loaded, changed, failed };
        // Nothing is parked by it: a server makes no copies of what is resident.
        drop(report);
        for (turn, name, model) in turns {
            match self.settle(turn, &name, &model) {
                Ok(Settled::Whole) => {}
                Ok(Settled::Loaded { changed }) => {
                    if changed {
                        done.changed.push(name.clone());
                    }
                    done.loaded.push(name);
                }
                Err(why) => done.failed.push(NotLoaded { model: name, why }),
            }
        }
        Ok(done)
    }

    /// The resident models of which a part lies on this device.
    fn models_on(&self, gpu: u32) -> Vec<(String, ModelHandle)> {
        self.collect_evicted();
        let mut there = self.resident_models();
        there.retain(|(_, model)| lies_on(model, gpu));
        there
    }

    /// The models whose slots say that they are resident.
    fn resident_models(&self) -> Vec<(String, ModelHandle)> {
        let slots = self.slots();
        let resident = slots.iter().filter_map(|(name, slot)| match &slot.state {
            State::Resident(model) => Some((name.clone(), model.clone())),
            State::Absent | State::Parked(_) | State::Busy { .. } => None,
        });
        resident.collect()
    }

    /// The models that came to a device while it was reset. Calls that bring one there now look
    /// themselves whether it is still there when they end: the count tells them to.
    fn came_meanwhile(&self, gpu: u32) -> Vec<(Turn<'_>, String, ModelHandle)> {
        let slots = self.slots();
        self.resets.fetch_add(1, Ordering::SeqCst);
        drop(slots);
        self.collect_evicted();
        // A call whose model the reset took before it asked for fresh handles has got some that name no
        // device.
        let there = self.resident_models().into_iter().filter(|(_, model)| {
            lies_on(model, gpu)
                || matches!(self.manager.refresh_model(model), Err(VramError::ShardFreed { .. }))
        });
        there
            .filter_map(|(name, model)| Some((self.turn(&name, "resetting").ok()?, name, model)))
            .collect()
    }

    /// Whether shards of a model are gone. What is left of it is freed.
    pub(super) fn is_gone(&self, model: &ModelHandle) -> bool {
        let gone = matches!(self.manager.refresh_model(model), Err(VramError::ShardFreed { .. }));
        if gone && let Err(error) = self.manager.free_model(model) {
            tracing::warn!(model = %model.model_id, %error, "the rest of a lost model is not freed");
        }
        gone
    }

    /// Brings one model back after a reset, to where it lay.
    fn settle(&self, turn: Turn<'_>, name: &str, model: &ModelHandle) -> Result<Settled, Problem> {
        match self.manager.refresh_model(model) {
            Ok(fresh) => {
                turn.end_resident(fresh)?;
                return Ok(Settled::Whole);
            }
            Err(VramError::ShardFreed { .. }) => {}
            Err(error) => return Err(self.told(&error)),
        }
        // What lies on other devices goes too: half a model is of no use.
        self.manager.free_model(model).map_err(|error| self.told(&error))?;
        turn.end(State::Absent);
        self.load_again(name, model)?;
        let changed = self.resident(name).is_ok_and(|fresh| !is_same(model, &fresh));
        if changed {
            tracing::warn!(model = %name, "loaded again with another content: its files changed");
            self.feed.tell(&Own::LoadedChanged { model: name });
        }
        Ok(Settled::Loaded { changed })
    }

    /// Loads a model to the one device that it lay on, by its configuration or by a call; one that lay on
    /// several, or that finds no room there, as its configuration says.
    fn load_again(&self, name: &str, model: &ModelHandle) -> Result<(), Problem> {
        let gpus: BTreeSet<u32> = model.shards().map(|shard| shard.gpu_index).collect();
        let is_device = |gpu: &u32| *gpu < self.manager.gpu_count();
        let place = gpus.first().copied().filter(|_| gpus.len() == 1).filter(is_device);
        let wanted = self.slots().get(name).and_then(|slot| slot.config.gpu);
        let there = LoadRequest { gpu: place, ..LoadRequest::default() };
        let mut loaded = self.load_again_as(name, &there);
        // A request names a place for this load alone.
        if let Some(slot) = self.slots().get_mut(name) {
            slot.config.gpu = wanted;
        }
        if place != wanted && loaded.as_ref().is_err_and(|problem| problem.status == NO_ROOM) {
            loaded = self.load_again_as(name, &LoadRequest::default());
        }
        loaded
    }
}

/// The status of a refusal for want of room.
const NO_ROOM: u16 = 507;

/// What became of a model after a reset.
enum Settled {
    /// Nothing of it lay there any more.
    Whole,
    Loaded {
        /// Whether its content is another one.
        changed: bool,
    },
}

/// Whether two loads of one model under one key brought the same content: a seal of the same bytes is the
/// same.
fn is_same(before: &ModelHandle, after: &ModelHandle) -> bool {
    let pieces = |model: &ModelHandle| {
        let one = |piece: &ModelPiece| {
            let record = piece.shard.sealed_data.mac();
            (piece.piece.name.clone(), piece.piece.part, piece.piece.len, record)
        };
        model.pieces.iter().map(one).collect::<BTreeSet<_>>()
    };
    pieces(before) == pieces(after)
}

/// Whether the handle of a shard names this device.
fn lies_on(model: &ModelHandle, gpu: u32) -> bool {
    model.shards().any(|one| one.gpu_index == gpu)
}
