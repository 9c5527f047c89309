//! Why an arena refused a piece, or refused to release a placement.

use core::fmt;

use super::placement::Placement;
use crate::units::{Alignment, ByteLen};

/// Why the arena refused a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArenaError {
    /// The region is larger than an arena can manage.
    #[error("a region of {} bytes is more than {} bytes", capacity.get(), max.get())]
    CapacityTooLarge {
        /// Bytes in the region.
        capacity: ByteLen,
        /// [`MAX_TOTAL`](crate::MAX_TOTAL).
        max: ByteLen,
    },
    /// No hole holds the piece at its alignment.
    #[error("no hole for {needed} aligned to {}: free {free}, largest hole {largest_hole}", align.get())]
    NoHole {
        /// Bytes asked for.
        needed: ByteLen,
        /// Alignment asked for.
        align: Alignment,
        /// Bytes in the largest hole.
        largest_hole: ByteLen,
        /// Bytes in all holes.
        free: ByteLen,
    },
}

/// Why the arena did not release a placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReleaseReason {
    /// The arena was reset since, and the bytes may belong to another placement by now.
    Stale,
    /// The placement belongs to another arena.
    Foreign,
}

/// A placement that the arena did not release, returned to the caller. Nothing changed.
#[derive(Debug, thiserror::Error)]
#[error("the placement at {} was not taken back: {reason}", placement.start())]
#[non_exhaustive]
pub struct ReleaseError {
    /// The placement of the call.
    pub placement: Placement,
    /// Why the arena did not release it.
    pub reason: ReleaseReason,
}

/// The first piece of a list that would not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("piece {index} needs {needed}: free {free}, largest hole {largest_hole}")]
#[non_exhaustive]
pub struct Misfit {
    /// Position of the piece in the list, from 0.
    pub index: usize,
    /// Bytes the piece needs.
    pub needed: ByteLen,
    /// The largest hole left once the pieces before it are placed.
    pub largest_hole: ByteLen,
    /// Bytes free once the pieces before it are placed.
    pub free: ByteLen,
}

impl fmt::Display for ReleaseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stale => "it dates from before a reset",
            Self::Foreign => "it belongs to another arena",
        })
    }
}
