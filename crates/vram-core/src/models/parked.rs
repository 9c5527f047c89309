//! A model in host memory.

use core::fmt;
use std::sync::Arc;

use vram_alloc::{ByteLen, Piece};

use crate::error::VramError;
use crate::parts::Coded;
use crate::shard::ParkedShard;

impl Coded for WakeModelError {
    fn code(&self) -> &'static str {
        self.error().code()
    }
}

/// A model that waits in host memory, encrypted: one [`ParkedShard`] for each piece of its plan.
///
/// Dropping it gives the model up.
#[derive(Debug)]
#[must_use = "dropping a parked model gives it up"]
#[non_exhaustive]
pub struct ParkedModel {
    /// The model that the shards were sealed as.
    pub model_id: Arc<str>,
    /// Its pieces, in the order of the plan.
    pub pieces: Vec<ParkedPiece>,
}

/// A piece of a plan, and its shard in host memory.
#[derive(Debug)]
#[non_exhaustive]
pub struct ParkedPiece {
    /// The piece as the plan has it.
    pub piece: Piece,
    /// Its shard.
    pub parked: ParkedShard,
}

impl ParkedModel {
    /// Host bytes that it takes of the limit for parked shards.
    #[must_use]
    pub fn host_len(&self) -> ByteLen {
        let add = |sum: ByteLen, piece: &ParkedPiece| sum.saturating_add(piece.parked.host_len());
        self.pieces.iter().fold(ByteLen::ZERO, add)
    }
}

/// A parked model that could not be woken, and why. All of it is as it was.
pub struct WakeModelError {
    pub(crate) failed: Box<(ParkedModel, VramError)>,
}

impl WakeModelError {
    /// Why it could not be woken.
    #[must_use]
    pub fn error(&self) -> &VramError {
        &self.failed.1
    }

    /// The model, still parked.
    pub fn into_parked(self) -> ParkedModel {
        self.failed.0
    }

    /// Both.
    pub fn into_parts(self) -> (ParkedModel, VramError) {
        *self.failed
    }
}

impl fmt::Debug for WakeModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WakeModelError")
            .field("parked", &self.failed.0)
            .field("error", &self.failed.1)
            .finish()
    }
}

impl fmt::Display for WakeModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} stays parked: {}", self.failed.0.model_id, self.failed.1)
    }
}

impl core::error::Error for WakeModelError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.failed.1)
    }
}
