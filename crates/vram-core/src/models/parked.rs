//! A model in host memory.

use std::sync::Arc;

use vram_alloc::{ByteLen, Piece};

use crate::error::VramError;
use crate::moves::wake_error::wake_error;
use crate::shard::ParkedShard;

/// A model in host memory, encrypted: one [`ParkedShard`] for each piece of its plan.
///
/// Dropping it frees the model.
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
#[expect(missing_docs, reason = "the names say it")]
pub struct ParkedPiece {
    pub piece: Piece,
    pub parked: ParkedShard,
}

impl ParkedModel {
    /// Host bytes that the model takes from the limit for parked shards.
    #[must_use]
    pub fn host_len(&self) -> ByteLen {
        let add = |sum: ByteLen, piece: &ParkedPiece| sum.saturating_add(piece.parked.host_len());
        self.pieces.iter().fold(ByteLen::ZERO, add)
    }
}

wake_error! {
    /// A parked model that could not be woken, and the reason. All of it is unchanged.
    WakeModelError,
    /// The model, still parked.
    ParkedModel,
    /// The model and the reason.
    |parked| parked.model_id
}
