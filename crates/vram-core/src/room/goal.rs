//! How much room a request needs, and how the request may make it.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_space::{DryRun, Gpu};

/// How a request may make room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoomMaking<'a> {
    /// Whether other shards may be evicted for the request.
    pub(crate) evicts: bool,
    /// The highest priority of a shard that may be evicted.
    pub(crate) priority: u32,
    /// The model that needs the room, and its owner: told to those who go.
    pub(crate) asker: Option<(&'a Arc<str>, Option<&'a Arc<str>>)>,
    /// The number of the model that is being woken: what lies on GPUs of it does not go.
    pub(crate) waking: Option<u64>,
}

impl RoomMaking<'_> {
    /// Evicts no shard; the refusal only reports what would help.
    pub(crate) const fn none(priority: u32) -> Self {
        Self { evicts: false, priority, asker: None, waking: None }
    }
}

/// What must be possible after room was made.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal<'a> {
    /// All of these pieces can be placed, in this order.
    Pieces(&'a [ByteLen]),
    /// This many bytes can be granted, wherever they lie.
    Room(ByteLen),
    /// This many bytes are freed, however many are free already.
    Freed(ByteLen),
}

/// What of a goal is known without placing anything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Least {
    longest: ByteLen,
    footprint: ByteLen,
}

impl Goal<'_> {
    /// Computed once: a goal may have a quarter of a million pieces.
    pub(crate) fn least(self, gpus: &[Arc<Gpu>]) -> Least {
        let longest = match self {
            Self::Pieces(lens) => lens.iter().max().copied().unwrap_or(ByteLen::ZERO),
            Self::Room(_) | Self::Freed(_) => ByteLen::ZERO,
        };
        Least { longest, footprint: self.needed(gpus) }
    }

    /// Whether the goal may be met: false is certain.
    pub(crate) fn may_be_met(self, least: Least, dry_run: &DryRun, freed: ByteLen) -> bool {
        match self {
            Self::Pieces(_) => dry_run.could_take(least.longest, least.footprint),
            Self::Room(_) | Self::Freed(_) => self.is_met(dry_run, freed),
        }
    }

    pub(crate) fn is_met(self, dry_run: &DryRun, freed: ByteLen) -> bool {
        match self {
            Self::Pieces(lens) => dry_run.takes(lens),
            Self::Room(bytes) => dry_run.room() >= bytes,
            Self::Freed(bytes) => freed >= bytes,
        }
    }
}
