//! How much room is needed, and what may be done for it.

use vram_alloc::ByteLen;
use vram_space::DryRun;

/// How a request may make room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoomMaking {
    /// Whether others may be evicted for it.
    pub(crate) evicts: bool,
    /// The most important that may go.
    pub(crate) priority: u32,
}

impl RoomMaking {
    /// It only says what would help.
    pub(crate) const fn none(priority: u32) -> Self {
        Self { evicts: false, priority }
    }
}

/// What is to be possible.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal<'a> {
    /// These pieces find their places, in this order.
    Pieces(&'a [ByteLen]),
    /// So many bytes can be granted, wherever they lie.
    Room(ByteLen),
    /// So many bytes come back, whatever there is already.
    Freed(ByteLen),
}

impl Goal<'_> {
    pub(crate) fn is_met(self, dry_run: &DryRun, freed: ByteLen) -> bool {
        match self {
            Self::Pieces(lens) => dry_run.takes(lens),
            Self::Room(bytes) => dry_run.room() >= bytes,
            Self::Freed(bytes) => freed >= bytes,
        }
    }
}
