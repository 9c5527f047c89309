//! Since when a shard lies at its present placement, and when it was last found sound.

use core::time::Duration;

use vram_id::{Clock, Timestamp};
use vram_seal::Checked;

/// One moment on both clocks: the wall clock for reports, the monotonic clock for computing ages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) wall: Timestamp,
    pub(crate) monotonic: Duration,
}

impl Moment {
    pub(crate) fn now(clock: &dyn Clock) -> Self {
        Self { wall: clock.now(), monotonic: clock.monotonic() }
    }
}

/// A check that found all of a shard sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// When it began to read.
    pub(crate) began: Moment,
    pub(crate) by: Checked,
}

impl Check {
    /// A check by the seal itself, on the host.
    pub(crate) const fn by_host(began: Moment) -> Self {
        Self { began, by: Checked::BY_HOST }
    }
}

/// Since when a shard's bytes lie at their present placement, and when all of them were last found
/// sound.
///
/// A check counts from the moment at which it began to read: it may have missed an alteration that
/// happened a moment later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ages {
    here_since: Moment,
    last_verified: Option<Check>,
    /// Counts the changes. A check that reads the shard in parts starts again if this count has
    /// risen.
    changes: u64,
    /// Counts the placements and seals.
    arrivals: u64,
}

impl Ages {
    /// The ages of bytes that arrive at their placement now. `verified` is when the check began
    /// that read all of them back, if there was one.
    pub(crate) const fn new(here_since: Moment, verified: Option<Check>) -> Self {
        Self { here_since, last_verified: verified, changes: 0, arrivals: 0 }
    }

    /// Records that the bytes now lie at another placement, or under another seal.
    pub(crate) const fn arrived(&mut self, now: Moment, verified: Option<Check>) {
        self.here_since = now;
        self.last_verified = verified;
        self.changes = self.changes.wrapping_add(1);
        self.arrivals = self.arrivals.wrapping_add(1);
    }

    /// Records that a check found all of the shard sound.
    pub(crate) fn verified(&mut self, check: Check) {
        self.changes = self.changes.wrapping_add(1);
        // Checks can overlap: one that began earlier may end later, and proves less.
        if self.last_verified.is_none_or(|last| last.began.monotonic <= check.began.monotonic) {
            self.last_verified = Some(check);
        }
    }

    /// When all of the shard was last found sound.
    pub(crate) fn last_verified(&self) -> Option<Timestamp> {
        self.last_verified.map(|check| check.began.wall)
    }

    /// What that check rests on.
    pub(crate) fn last_checked(&self) -> Option<Checked> {
        self.last_verified.map(|check| check.by)
    }

    /// The monotonic time from which the age counts.
    pub(crate) fn unverified_since(&self) -> Duration {
        self.last_verified.map_or(self.here_since, |check| check.began).monotonic
    }

    /// For how long no check has found all of the shard sound. Zero if the clock goes back, which a
    /// monotonic clock does not.
    pub(crate) fn unverified_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.unverified_since())
    }

    /// Differs after the bytes have come to another placement or seal.
    pub(crate) const fn arrivals(&self) -> u64 {
        self.arrivals
    }

    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }
}
