//! How far compaction may go, and what it did.

use core::time::Duration;

use vram_alloc::ByteLen;
use vram_id::ShardId;

use crate::error::VramError;
use crate::shard::ParkedShard;

/// How far a compaction goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactBudget {
    /// Bytes that are moved at most. Default: any number.
    pub max_bytes: Option<ByteLen>,
    /// The time after which no further shard is moved. Default: never.
    pub max_time: Option<Duration>,
    /// The hole that is enough. Default: as large as can be had.
    pub enough: Option<ByteLen>,
}

impl CompactBudget {
    /// Everything that can be joined.
    #[must_use]
    pub const fn new() -> Self {
        Self { max_bytes: None, max_time: None, enough: None }
    }

    setters! {
        /// Sets how many bytes are moved at most.
        #[must_use]
        [const] fn max_bytes(bytes: ByteLen) => max_bytes = Some(bytes);
        /// Sets the time after which no further shard is moved. The one under way is finished.
        #[must_use]
        [const] fn max_time(time: Duration) => max_time = Some(time);
        /// Sets the hole that is enough.
        #[must_use]
        [const] fn until_hole(len: ByteLen) => enough = Some(len);
    }
}

/// Why a compaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CompactEnd {
    /// Nothing is left that could be joined.
    Finished,
    /// The hole that was asked for is there.
    Enough,
    /// What could still be joined takes more bytes than are left of the budget.
    OutOfBytes,
    /// The time is up.
    OutOfTime,
    /// Others placed and freed shards as fast as holes were joined.
    Unsettled,
}

/// What a compaction did.
#[derive(Debug)]
#[must_use = "shards that the device would not take back are in here"]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct CompactReport {
    pub gpu: u32,
    pub end: CompactEnd,
    pub moves: u64,
    pub moved_bytes: ByteLen,
    /// The longest piece that could be placed, before.
    pub largest_hole_before: ByteLen,
    /// The longest piece that can be placed now.
    pub largest_hole: ByteLen,
    /// How many pieces the free bytes were in.
    pub hole_count_before: u64,
    /// How many pieces they are in now.
    pub hole_count: u64,
    /// Shards that could not be moved and lie where they lay, and why.
    pub skipped: Vec<(ShardId, VramError)>,
    /// Shards that the device took neither at the new place nor at the old one. They are parked:
    /// wake them elsewhere.
    pub stranded: Vec<ParkedShard>,
}
