//! The action for a shard when room is needed, and for whom: parts of an event, and of a request.

use core::fmt;
use std::sync::Arc;

/// The action for a shard when room is needed for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum OnEviction {
    /// The shard stays on its GPU.
    #[default]
    Never,
    /// The shard is parked in host memory, encrypted, and can be woken later.
    Park,
    /// The shard is freed: its owner can restore it from elsewhere.
    Free,
}

/// The request that others were evicted for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct EvictedFor {
    /// The model that needed the room.
    pub model_id: Arc<str>,
    /// Its owner, if the request named one.
    pub owner: Option<Arc<str>>,
}

impl EvictedFor {
    /// A request for this model and this owner.
    #[must_use]
    pub const fn new(model_id: Arc<str>, owner: Option<Arc<str>>) -> Self {
        Self { model_id, owner }
    }
}

impl fmt::Display for EvictedFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.model_id)?;
        self.owner.as_ref().map_or(Ok(()), |owner| write!(f, " of {owner}"))
    }
}
