//! A lease, as it is counted as long as it exists, whatever becomes of its shard.

use core::cmp::Ordering;

use vram_id::ShardId;

use crate::shard::{Leased, Of};

/// A lease, its shard, and whose that is. Ordered by the lease's beginning.
#[derive(Clone, Debug)]
pub(crate) struct CountedLease {
    pub(crate) leased: Leased,
    pub(crate) shard: ShardId,
    /// Kept here: a shard that is lost takes nothing of its leases with it.
    pub(crate) of: Of,
}

impl Ord for CountedLease {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.leased, &self.shard).cmp(&(&other.leased, &other.shard))
    }
}

impl PartialOrd for CountedLease {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for CountedLease {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for CountedLease {}
