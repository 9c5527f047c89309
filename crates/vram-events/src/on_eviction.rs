//! What may become of a shard when room is needed: part of what an event tells, and of a request.

/// What may become of a shard when room is needed for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum OnEviction {
    /// It stays where it is.
    #[default]
    Never,
    /// It is parked in host memory, encrypted, to be woken later.
    Park,
    /// It is freed: its owner can bring it back from elsewhere.
    Free,
}
