//! The limits of a compaction, and its result.

use core::time::Duration;

use vram_alloc::ByteLen;
use vram_id::ShardId;

use crate::error::VramError;
use crate::shard::ParkedShard;

/// The limits of a compaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactBudget {
    /// The number of bytes that are moved at most. Default: no limit.
    pub max_bytes: Option<ByteLen>,
    /// The time after which no further shard is moved. Default: never.
    pub max_time: Option<Duration>,
    /// The size of a hole at which compaction stops. Default: as large as possible.
    pub enough: Option<ByteLen>,
}

impl CompactBudget {
    /// No limits: joins everything that can be joined.
    #[must_use]
    pub const fn new() -> Self {
        Self { max_bytes: None, max_time: None, enough: None }
    }

    setters! {
        /// Sets the number of bytes that are moved at most.
        #[must_use]
        [const] fn max_bytes(bytes: ByteLen) => max_bytes = Some(bytes);
        /// Sets the time after which no further shard is moved. A move that has begun is finished, and
        /// none waits for a shard that is in use.
        #[must_use]
        [const] fn max_time(time: Duration) => max_time = Some(time);
        /// Sets the size of a hole at which compaction stops.
        #[must_use]
        [const] fn until_hole(len: ByteLen) => enough = Some(len);
    }
}

/// Why a compaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CompactEnd {
    /// No holes are left that could be joined.
    Finished,
    /// A hole of the requested size exists.
    Enough,
    /// Every join that is left takes more bytes than are left of the budget.
    OutOfBytes,
    /// The time limit was reached.
    OutOfTime,
    /// Other calls placed and freed shards as fast as holes were joined.
    Unsettled,
}

/// The result of a compaction.
#[derive(Debug)]
#[must_use = "shards that the device would not take back are in here"]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct CompactReport {
    pub gpu: u32,
    pub end: CompactEnd,
    pub moves: u64,
    pub moved_bytes: ByteLen,
    /// The longest piece that could be placed before.
    pub largest_hole_before: ByteLen,
    /// The longest piece that can be placed now.
    pub largest_hole: ByteLen,
    /// The number of holes before.
    pub hole_count_before: u64,
    /// The number of holes now.
    pub hole_count: u64,
    /// Shards that could not be moved and lie where they lay, each with the reason:
    /// [`VramError::InUse`] for those that another call used whenever their turn came. Leased and
    /// quarantined shards are not listed: they are not to move.
    pub skipped: Vec<(ShardId, VramError)>,
    /// Shards that the device accepted neither at the new placement nor at the old one. They are
    /// parked: wake them on another GPU.
    pub stranded: Vec<ParkedShard>,
}
