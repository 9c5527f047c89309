//! Since when a shard lies where it lies, and when it was last found sound.

use core::time::Duration;

use vram_id::{Clock, Timestamp};

/// One moment on both clocks: one to tell people, one to count with.
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

/// Since when a shard's bytes lie where they lie, and when all of them were last found sound.
///
/// A check counts from the moment at which it looked at its first byte: what was altered a moment
/// later may have escaped it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ages {
    here_since: Moment,
    last_verified: Option<Moment>,
    /// Counts the changes: who looked at a part, and finds it raised, starts again.
    changes: u64,
}

impl Ages {
    /// Of bytes that came to lie somewhere now; `verified` is when they were read back, if all of
    /// them were.
    pub(crate) const fn new(here_since: Moment, verified: Option<Moment>) -> Self {
        Self { here_since, last_verified: verified, changes: 0 }
    }

    /// The bytes lie elsewhere now, or under another seal.
    pub(crate) const fn arrived(&mut self, now: Moment, verified: Option<Moment>) {
        self.here_since = now;
        self.last_verified = verified;
        self.changes = self.changes.wrapping_add(1);
    }

    /// All of it was found sound by a check that began at `began`.
    pub(crate) fn verified(&mut self, began: Moment) {
        self.changes = self.changes.wrapping_add(1);
        // Checks overlap: one that began earlier may end later, and says less.
        if self.last_verified.is_none_or(|last| last.monotonic <= began.monotonic) {
            self.last_verified = Some(began);
        }
    }

    /// When all of it was last found sound.
    pub(crate) fn last_verified(&self) -> Option<Timestamp> {
        self.last_verified.map(|moment| moment.wall)
    }

    /// The monotonic time from which the age counts.
    pub(crate) fn unverified_since(&self) -> Duration {
        self.last_verified.unwrap_or(self.here_since).monotonic
    }

    /// How long nobody has found all of it sound. Zero if the clock went back, which it never does.
    pub(crate) fn unverified_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.unverified_since())
    }

    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }
}
