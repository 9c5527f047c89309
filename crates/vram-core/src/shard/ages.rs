//! Since when a shard lies at its present placement, and when it was last found sound.

use core::num::NonZeroU64;
use core::time::Duration;

use vram_id::{Clock, Timestamp};
use vram_seal::{Checked, Evidence};

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

/// Monotonic time in nanoseconds, which 64 bits hold for centuries, and one more, so that none is 0
/// and an `Option` takes no more: there are ages of every shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Nanos(NonZeroU64);

impl From<Duration> for Nanos {
    fn from(monotonic: Duration) -> Self {
        let nanos = u64::try_from(monotonic.as_nanos()).unwrap_or(u64::MAX);
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }
}

impl From<Nanos> for Duration {
    fn from(Nanos(nanos): Nanos) -> Self {
        Self::from_nanos(nanos.get().saturating_sub(1))
    }
}

/// A moment, as it is kept.
#[derive(Clone, Copy, Debug)]
struct At {
    wall: Timestamp,
    monotonic: Nanos,
}

impl From<Moment> for At {
    fn from(moment: Moment) -> Self {
        Self { wall: moment.wall, monotonic: moment.monotonic.into() }
    }
}

/// Since when a shard's bytes lie at their present placement, and when all of them were last found
/// sound.
///
/// A check counts from the moment at which it began to read: it may have missed an alteration that
/// happened a moment later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ages {
    here_since: Nanos,
    last_verified: Option<(At, Checked)>,
    /// The last of those checks that was a proof.
    last_proof: Option<At>,
    /// Counts the changes. A check that reads the shard in parts starts again if this count has
    /// risen.
    changes: u32,
    /// Counts the placements and seals.
    arrivals: u32,
}

impl Ages {
    /// The ages of bytes that arrive at their placement now. `verified` is when the check began
    /// that read all of them back, if there was one.
    pub(crate) fn new(here_since: Moment, verified: Option<Check>) -> Self {
        Self {
            here_since: here_since.monotonic.into(),
            last_verified: verified.map(kept),
            last_proof: verified.and_then(proof),
            changes: 0,
            arrivals: 0,
        }
    }

    /// Records that the bytes now lie at another placement, or under another seal.
    pub(crate) fn arrived(&mut self, now: Moment, verified: Option<Check>) {
        let (changes, arrivals) = (self.changes.wrapping_add(1), self.arrivals.wrapping_add(1));
        *self = Self { changes, arrivals, ..Self::new(now, verified) };
    }

    /// Records that a check found all of the shard sound.
    pub(crate) fn verified(&mut self, check: Check) {
        self.changes = self.changes.wrapping_add(1);
        // Checks can overlap: one that began earlier may end later, and proves less.
        let newer = |last: At| last.monotonic <= check.began.monotonic.into();
        if self.last_verified.is_none_or(|(last, _by)| newer(last)) {
            self.last_verified = Some(kept(check));
        }
        if self.last_proof.is_none_or(newer) {
            self.last_proof = proof(check).or(self.last_proof);
        }
    }

    /// When all of the shard was last found sound.
    pub(crate) fn last_verified(&self) -> Option<Timestamp> {
        self.last_verified.map(|(began, _by)| began.wall)
    }

    /// When all of the shard was last found sound by a proof, rather than a fingerprint.
    pub(crate) fn last_proof(&self) -> Option<Timestamp> {
        self.last_proof.map(|began| began.wall)
    }

    /// What that check rests on.
    pub(crate) fn last_checked(&self) -> Option<Checked> {
        self.last_verified.map(|(_began, by)| by)
    }

    /// The monotonic time from which the age counts.
    pub(crate) fn unverified_since(&self) -> Duration {
        let since = self.last_verified.map_or(self.here_since, |(began, _by)| began.monotonic);
        since.into()
    }

    /// For how long no check has found all of the shard sound. Zero if the clock goes back, which a
    /// monotonic clock does not.
    pub(crate) fn unverified_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.unverified_since())
    }

    /// Differs after the bytes have come to another placement or seal.
    pub(crate) const fn arrivals(&self) -> u32 {
        self.arrivals
    }

    pub(crate) const fn changes(&self) -> u32 {
        self.changes
    }
}

/// A check, as it is kept.
fn kept(check: Check) -> (At, Checked) {
    (check.began.into(), check.by)
}

/// When a check began, if it is a proof.
fn proof(check: Check) -> Option<At> {
    (check.by.evidence == Evidence::Proof).then(|| check.began.into())
}
