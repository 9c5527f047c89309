//! How a shard ranks for eviction: what its owner requested, and when it was last used.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

pub(crate) use vram_events::OnEviction;

/// The owner's settings for eviction of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) priority: u32,
    pub(crate) cost: u64,
    /// `None` if the manager's default applies.
    pub(crate) on_eviction: Option<OnEviction>,
    /// Whether the shard is pinned when it arrives.
    pub(crate) pinned: bool,
}

/// The eviction settings of a resident shard, and its last use.
#[derive(Debug)]
pub(crate) struct Standing {
    // A claim in parts: `pinned` changes.
    pub(crate) priority: u32,
    on_eviction: Option<OnEviction>,
    pinned: AtomicBool,
    cost: u64,
    /// Monotonic time of the last use, in nanoseconds.
    used_at: AtomicU64,
    /// Position of the last use among all uses; orders uses that have the same time.
    use_number: AtomicU64,
}

impl Standing {
    pub(crate) const fn new(claim: Claim) -> Self {
        let Claim { priority, cost, on_eviction, pinned } = claim;
        Self {
            priority,
            on_eviction,
            pinned: AtomicBool::new(pinned),
            cost,
            used_at: AtomicU64::new(0),
            use_number: AtomicU64::new(0),
        }
    }

    /// The standing of the shard's next generation: the same.
    pub(crate) fn again(&self) -> Self {
        Self {
            used_at: AtomicU64::new(self.used_at.load(Ordering::Relaxed)),
            use_number: AtomicU64::new(self.use_number()),
            ..Self::new(self.claim())
        }
    }

    /// The settings as they are now.
    pub(crate) fn claim(&self) -> Claim {
        let (priority, cost, on_eviction) = (self.priority, self.cost, self.on_eviction);
        Claim { priority, cost, on_eviction, pinned: self.pinned() }
    }

    pub(crate) fn used(&self, at: Duration, number: u64) {
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        self.used_at.fetch_max(nanos, Ordering::Relaxed);
        self.use_number.fetch_max(number, Ordering::Relaxed);
    }

    pub(crate) fn last_used(&self) -> Duration {
        Duration::from_nanos(self.used_at.load(Ordering::Relaxed))
    }

    pub(crate) fn use_number(&self) -> u64 {
        self.use_number.load(Ordering::Relaxed)
    }

    pub(crate) fn set_pinned(&self, pinned: bool) {
        self.pinned.store(pinned, Ordering::Release);
    }

    pub(crate) fn pinned(&self) -> bool {
        self.pinned.load(Ordering::Acquire)
    }
}
