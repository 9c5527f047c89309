//! A model in host memory.

use std::sync::Arc;

use vram_alloc::{ByteLen, Piece};
use vram_events::EvictedFor;

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
    /// Puts a model together of shards that were admitted together.
    ///
    /// # Errors
    ///
    /// The shards, if one of them was sealed by itself.
    pub(crate) fn of(
        model_id: &Arc<str>,
        shards: Vec<ParkedShard>,
    ) -> Result<Self, Vec<ParkedShard>> {
        let piece = |shard: &ParkedShard| shard.copy.entry.member()?.piece().cloned();
        let Some(pieces) = shards.iter().map(piece).collect::<Option<Vec<_>>>() else {
            return Err(shards);
        };
        let pieces = pieces.into_iter().zip(shards);
        let pieces = pieces.map(|(piece, parked)| ParkedPiece { piece, parked }).collect();
        Ok(Self { model_id: Arc::clone(model_id), pieces })
    }

    /// Puts parked shards of one admission together again, in the order of its plan: what
    /// `take_evicted` took apart, what was parked shard by shard, and the parts of a model.
    ///
    /// # Errors
    ///
    /// The shards, as they were given, if there is none, if one was sealed by itself, or if they are
    /// of several admissions.
    pub fn join(mut shards: Vec<ParkedShard>) -> Result<Self, Vec<ParkedShard>> {
        let at = |shard: &ParkedShard| {
            shard.copy.entry.member().map(|member| (member.model.number, member.index))
        };
        let model = |shard: &ParkedShard| at(shard).map(|(model, _)| model);
        let first = shards.first().and_then(model);
        let Some(holder) = shards.first().map(|shard| shard.copy.entry.holder()) else {
            return Err(shards);
        };
        if first.is_none() || !shards.iter().all(|shard| model(shard) == first) {
            return Err(shards);
        }
        let model_id = Arc::clone(&holder.model_id);
        shards.sort_by_key(at);
        Self::of(&model_id, shards)
    }

    /// Host bytes that the model takes from the limit for parked shards.
    #[must_use]
    pub fn host_len(&self) -> ByteLen {
        let add = |sum: ByteLen, piece: &ParkedPiece| sum.saturating_add(piece.parked.host_len());
        self.pieces.iter().fold(ByteLen::ZERO, add)
    }

    /// Whether every piece of the model is here. Some are missing only if the program freed or parked
    /// single shards of the model before.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let member = self.pieces.first().and_then(|piece| piece.parked.copy.entry.member());
        member.is_none_or(|member| member.model.plan.pieces().len() == self.pieces.len())
    }

    /// The request that the model was evicted for; `None` if the program parked it.
    #[must_use]
    pub fn evicted_for(&self) -> Option<Arc<EvictedFor>> {
        self.pieces.iter().find_map(|piece| piece.parked.evicted_for())
    }
}

/// What was parked to make room, until the program takes it.
#[derive(Debug, Default)]
pub(crate) struct Evicted {
    pub(crate) models: Vec<ParkedModel>,
    /// Shards that were sealed by themselves, or evicted on their own.
    pub(crate) shards: Vec<ParkedShard>,
}

impl Evicted {
    /// All shards, those of models included.
    pub(crate) fn into_shards(self) -> Vec<ParkedShard> {
        let of_models = self.models.into_iter().flat_map(|model| model.pieces);
        of_models.map(|piece| piece.parked).chain(self.shards).collect()
    }
}
