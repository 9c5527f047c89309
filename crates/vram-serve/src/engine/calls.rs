//! The control calls but loads: verify, park, wake, migrate, pin, free. Each blocks.

use core::time::Duration;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use vram_residency::{FreedReceipt, GpuChoice, Verify, WakeModelRequest};

use super::Engine;
use super::slot::State;
use crate::problem::Problem;

/// What a verification asks for.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct VerifyRequest {
    pub(crate) level: Level,
}

/// How much a verification checks.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// Every tag of every segment.
    #[default]
    Segments,
    /// The digest of the content too.
    Full,
}

/// Where a model is to go, and how long the call waits for its leases.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MoveRequest {
    pub(crate) gpu: Option<u32>,
    pub(crate) wait_ms: Option<u64>,
}

/// How long a call waits for the leases of a model. Without it, a leased model is refused at once; calls
/// that read the model, such as the scrubber's, are waited for.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WaitRequest {
    pub(crate) wait_ms: Option<u64>,
}

/// What a verification found.
#[derive(Debug, Serialize)]
pub(crate) struct Verified {
    pub(crate) model: String,
    pub(crate) sound: bool,
    pub(crate) shards: usize,
    pub(crate) checked_bytes: u64,
    pub(crate) altered: Vec<AlteredShard>,
}

/// A shard that is not what was sealed.
#[derive(Debug, Serialize)]
pub(crate) struct AlteredShard {
    pub(crate) tensor: String,
    pub(crate) shard: String,
    pub(crate) segments: usize,
}

/// What a free gave back.
#[derive(Debug, Serialize)]
pub(crate) struct Freed {
    pub(crate) model: String,
    pub(crate) shards: usize,
    pub(crate) bytes: u64,
    pub(crate) wiped: bool,
}

impl Engine {
    /// Checks a model where it lies. An alteration is a result, not a failure.
    pub(crate) fn verify(&self, name: &str, request: VerifyRequest) -> Result<Verified, Problem> {
        let model = self.resident(name)?;
        let level = match request.level {
            Level::Segments => Verify::Segments,
            Level::Full => Verify::Full,
        };
        let verdict = self.manager.verify_model(&model, level);
        let verdict = verdict.map_err(|error| self.told_of(name, &error))?;
        let pieces = model.pieces.iter().zip(&verdict.shards);
        let altered = pieces.filter(|(_, one)| !one.sound).map(|(piece, one)| AlteredShard {
            tensor: piece.piece.name.clone(),
            shard: one.shard_id.to_string(),
            segments: one.altered.len(),
        });
        Ok(Verified {
            model: name.to_owned(),
            sound: verdict.sound,
            shards: verdict.shards.len(),
            altered: altered.collect(),
            checked_bytes: verdict
                .shards
                .iter()
                .fold(0, |sum, one| sum.saturating_add(one.checked_bytes.get())),
        })
    }

    /// Moves a model to host memory.
    pub(crate) fn park(&self, name: &str, request: WaitRequest) -> Result<(), Problem> {
        let turn = self.turn(name, "parking")?;
        let model = turn.resident()?;
        let parked = match request.wait_ms.map(Duration::from_millis) {
            Some(wait) => self.manager.park_model_within(model, wait),
            None => self.manager.park_model(model),
        };
        let parked = parked.map_err(|error| self.told_of(name, &error))?;
        turn.end(State::Parked(parked));
        Ok(())
    }

    /// Moves a parked model back.
    pub(crate) fn wake(&self, name: &str, request: MoveRequest) -> Result<(), Problem> {
        let mut turn = self.turn(name, "waking")?;
        let gpus = request.gpu.map_or(GpuChoice::MostRoomFirst, GpuChoice::One);
        let parked = turn.take_parked()?;
        match self.manager.wake_model_with(parked, WakeModelRequest::new(gpus).evicts(true)) {
            Ok(model) => {
                self.collect_evicted();
                turn.end_resident(model)
            }
            Err(failed) => {
                let (parked, error) = failed.into_parts();
                turn.end(State::Parked(parked));
                Err(self.told_of(name, &error))
            }
        }
    }

    /// Moves a model to another device.
    pub(crate) fn migrate(&self, name: &str, request: MoveRequest) -> Result<(), Problem> {
        let gpu = request.gpu.ok_or_else(|| Problem::bad_request("gpu is missing"))?;
        let turn = self.turn(name, "migrating")?;
        let model = turn.resident()?;
        let moved = match request.wait_ms.map(Duration::from_millis) {
            Some(wait) => self.manager.migrate_model_within(model, gpu, wait),
            None => self.manager.migrate_model(model, gpu),
        };
        let moved = moved.map_err(|error| self.told_of(name, &error))?;
        turn.end_resident(moved)
    }

    /// Pins a model, or unpins it.
    pub(crate) fn set_pinned(&self, name: &str, pinned: bool) -> Result<(), Problem> {
        let model = self.resident(name)?;
        let set =
            if pinned { self.manager.pin_model(&model) } else { self.manager.unpin_model(&model) };
        set.map_err(|error| self.told_of(name, &error))?;
        // A load after a reset asks for the same.
        if let Some(slot) = self.slots().get_mut(name) {
            slot.config.pin = pinned;
        }
        Ok(())
    }

    /// Cancels a load that is under way, and waits until it has ended.
    fn end_load(&self, name: &str, patience: Duration) -> Result<(), Problem> {
        const LOOK_AGAIN: Duration = Duration::from_millis(20);

        let began = Instant::now();
        while self.cancel(name) {
            if began.elapsed() >= patience {
                return Err(Problem::busy(name, "loading"));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Frees a model, wherever it is; a load that is under way is ended. One that is absent already is no
    /// failure: a client that lost the answer asks again.
    pub(crate) fn free(&self, name: &str, request: WaitRequest) -> Result<Freed, Problem> {
        /// How long a cancelled load may take to give back what it took.
        const PATIENCE: Duration = Duration::from_secs(10);

        self.check_open()?;
        self.end_load(name, request.wait_ms.map_or(PATIENCE, Duration::from_millis))?;
        let mut turn = self.turn(name, "freeing")?;
        let mut freed = Freed { model: name.to_owned(), shards: 0, bytes: 0, wiped: true };
        match turn.before() {
            State::Resident(model) => {
                let receipts = match request.wait_ms.map(Duration::from_millis) {
                    Some(wait) => self.manager.free_model_within(model, wait),
                    None => self.manager.free_model(model),
                };
                let receipts = receipts.map_err(|error| self.told_of(name, &error))?;
                freed.shards = receipts.len();
                // Of a tensor without bytes there is nothing to wipe.
                let is_wiped = |one: &FreedReceipt| one.wiped || one.bytes.is_zero();
                freed.wiped = receipts.iter().all(is_wiped);
                freed.bytes =
                    receipts.iter().fold(0, |sum, receipt| sum.saturating_add(receipt.bytes.get()));
            }
            State::Parked(_) => {
                let parked = turn.take_parked()?;
                freed.shards = parked.pieces.len();
                drop(parked);
            }
            State::Absent | State::Busy { .. } => {}
        }
        turn.forget();
        Ok(freed)
    }
}
