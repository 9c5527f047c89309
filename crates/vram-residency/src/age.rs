//! How long ago all of a shard was last found sound: by the monotonic clock, so that a wall clock
//! that is set back makes nothing look fresh.

use core::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::error::VramError;
use crate::id::ShardId;
use crate::manager::{Core, VramManager};
use crate::shard::SealedShard;

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

impl VramManager {
    /// How long ago all of a shard was last found sound, counted from the beginning of that check;
    /// if it never was, since its bytes lie where they lie. By the monotonic clock: setting the wall
    /// clock changes nothing.
    ///
    /// # Errors
    ///
    /// Those of a bad handle.
    pub fn unverified_age(&self, shard: &SealedShard) -> Result<Duration, VramError> {
        let entry = self.core.resolve(shard)?;
        let now = self.core.clock.monotonic();
        let age = entry.state().ages.unverified_for(now);
        Ok(age)
    }

    /// The shard that nobody has found sound for the longest time, and for how long. Only shards
    /// that are served count: not those in quarantine, nor those on a lost GPU. None if there are
    /// none.
    #[must_use]
    pub fn oldest_unverified(&self) -> Option<(ShardId, Duration)> {
        self.core.oldest_unverified()
    }
}

impl Core {
    fn oldest_unverified(&self) -> Option<(ShardId, Duration)> {
        // Of equals the first id, so that a run can be repeated.
        let served = self.scrubbable();
        let (since, entry) = served.first()?;
        Some((entry.id.clone(), self.clock.monotonic().saturating_sub(*since)))
    }
}
