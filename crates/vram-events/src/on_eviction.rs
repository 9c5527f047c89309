//! The action for a shard when room is needed: part of an event, and of a request.

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
