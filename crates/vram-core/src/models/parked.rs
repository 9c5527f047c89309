//! A model in host memory.

use std::sync::Arc;

use vram_alloc::{ByteLen, Piece};

use crate::error::VramError;
use crate::moves::wake_error::wake_error;
use crate::shard::ParkedShard;

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
#[expect(missing_docs, reason = "the names say it")]
pub struct ParkedPiece {
    pub piece: Piece,
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

wake_error! {
    /// A parked model that could not be woken, and why. All of it is as it was.
    WakeModelError,
    /// The model, still parked.
    ParkedModel,
    /// Both.
    |parked| parked.model_id
}
