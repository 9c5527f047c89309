//! The rate of a scrubber, and the times that follow from it.

use core::time::Duration;
use std::time::Instant;

use vram_alloc::ByteLen;
use vram_seal::Evidence;

use crate::error::VramError;
use crate::parts::Core;
use crate::scrub::cursor::cost_of;
use crate::scrub::{Load, Over, Part, ScrubStep, cursor};

/// The scrubber makes up for at most this much time that it fell behind its rate.
const CATCH_UP: Duration = Duration::from_secs(1);

/// How often the rate that a pass needs is computed anew.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The shortest sleep if there is nothing to scrub, whatever rate was requested.
const IDLE: Duration = Duration::from_millis(5);

/// The number of steps per second at a set rate: a step should take about this part of a second.
const STEPS_PER_SECOND: u64 = 10;

/// The rate of a scrubber, which has one thread for each GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ScrubRate {
    /// This many bytes per second on all GPUs together, averaged over one second. Each GPU's part is
    /// that of its resident bytes, so that a pass takes as long on each. The part of a GPU that hangs
    /// falls to no other. `u64::MAX` means as fast as possible.
    BytesPerSecond(u64),
    /// This share of the time of each GPU's thread, above 0 and at most 1, and so of the bandwidth
    /// of one thread.
    Share(f64),
    /// On each GPU as fast as needed so that no shard is unverified for longer than this, and no
    /// faster.
    Within(Duration),
}

/// The settings of a scrubber.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct ScrubOptions {
    pub(crate) rate: ScrubRate,
    pub(crate) step: ByteLen,
    pub(crate) pass_at_least: Duration,
    pub(crate) evidence: Option<Evidence>,
}

impl ScrubOptions {
    /// Steps of at most 4 MiB, and at most one pass per second.
    pub const fn new(rate: ScrubRate) -> Self {
        Self {
            rate,
            step: ByteLen::new(4 << 20),
            pass_at_least: Duration::from_secs(1),
            evidence: None,
        }
    }

    setters! {
        /// Sets how many bytes one step reads before a call that waits for the shard can enter its
        /// gate. A step always reads at least one segment.
        [const] fn step(bytes: ByteLen) => step = bytes;
        /// Sets the shortest time of a pass, so that a few shards are not read over and over.
        [const] fn pass_at_least(time: Duration) => pass_at_least = time;
        /// Sets what the checks rest on: see [`ScrubCursor::by`](crate::scrub::ScrubCursor::by).
        [const] fn by(evidence: Evidence) => evidence = Some(evidence);
    }

    /// # Errors
    ///
    /// [`VramError::Config`] for a rate at which scrubbing would never finish a pass.
    pub(crate) fn check(&self) -> Result<(), VramError> {
        let wrong = match self.rate {
            ScrubRate::BytesPerSecond(0) => "a scrubber needs a rate above 0 bytes a second".into(),
            ScrubRate::Share(share) if !(share > 0.0 && share <= 1.0) => {
                format!("a scrubber's share of its time is above 0 and at most 1, not {share}")
            }
            ScrubRate::Within(time) if time.is_zero() => "a pass takes more than no time".into(),
            _ => return Ok(()),
        };
        Err(VramError::config(wrong))
    }
}

/// Computes the pause after each step.
#[derive(Debug)]
pub(crate) struct Pace {
    pub(crate) options: ScrubOptions,
    over: Over,
    /// For [`ScrubRate::BytesPerSecond`].
    pub(crate) part: Part,
    /// When the next step is due at the present rate.
    due: Instant,
    round_began: Instant,
    /// Bytes per second while the scrubber reads; 0 before the first measurement.
    capacity: u64,
    /// For [`ScrubRate::Within`]: bytes per second that are needed now.
    needed: u64,
    looked: Option<Instant>,
    /// The monotonic time from which the set time is counted: delays before it cannot be undone.
    owed_from: Option<Duration>,
}

impl Pace {
    pub(crate) fn new(mut options: ScrubOptions, over: Over, part: Part) -> Self {
        if let ScrubRate::Within(time) = options.rate {
            let part = time.checked_div(4).unwrap_or(time);
            options.pass_at_least = options.pass_at_least.min(part);
        }
        let now = Instant::now();
        let (looked, owed_from) = (None, None);
        Self {
            options,
            over,
            part,
            due: now,
            round_began: now,
            capacity: 0,
            needed: 1,
            looked,
            owed_from,
        }
    }

    /// The length of the next step: short enough for the rate to be even.
    pub(crate) fn step_len(&self) -> ByteLen {
        let even = self.rate().checked_div(STEPS_PER_SECOND).unwrap_or(0);
        self.options.step.min(ByteLen::new(even.max(1)))
    }

    /// Starts anew after a pause: the scrubber does not make up for missed time.
    pub(crate) fn resumed(&mut self) {
        (self.due, self.owed_from, self.looked) = (Instant::now(), None, None);
    }

    /// For [`ScrubRate::Within`], computes the rate that a pass needs now.
    pub(crate) fn look(&mut self, core: &Core) {
        let ScrubRate::Within(time) = self.options.rate else { return };
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return;
        }
        self.looked = Some(Instant::now());
        let now = core.clock.monotonic();
        let owed_from = *self.owed_from.get_or_insert(now);
        self.needed = self.needed_for(core, time, now, owed_from);
    }

    /// The slowest rate at which the turn of every shard ends before the shard is too old.
    fn needed_for(&self, core: &Core, time: Duration, now: Duration, owed_from: Duration) -> u64 {
        let spare = self.options.pass_at_least.saturating_add(kept_back(time));
        let time = time.saturating_sub(spare);
        let (mut load, mut needed) = (Load::default(), 0);
        for (since, entry) in cursor::scrubbable(core, self.over) {
            load.add(cost_of(entry.plaintext_len));
            let deadline = since.max(owed_from).saturating_add(time);
            needed = needed.max(rate_for(load.resident, deadline.saturating_sub(now)));
        }
        let pass = load.resident.saturating_add(load.longest);
        needed.max(rate_for(pass, time)).max(1)
    }

    /// The target rate, in bytes per second.
    fn rate(&self) -> u64 {
        match self.options.rate {
            ScrubRate::BytesPerSecond(u64::MAX) | ScrubRate::Share(_) => u64::MAX,
            ScrubRate::BytesPerSecond(rate) => self.part.of(rate),
            ScrubRate::Within(_) => self.needed,
        }
    }

    /// The effective rate, in bytes per second; `None` before the first measurement.
    pub(crate) fn effective_rate(&self) -> Option<u64> {
        let measured = (self.capacity > 0).then_some(self.capacity);
        match self.options.rate {
            ScrubRate::BytesPerSecond(u64::MAX) => measured,
            ScrubRate::BytesPerSecond(_) | ScrubRate::Within(_) => {
                Some(measured.map_or(self.rate(), |capacity| capacity.min(self.rate())))
            }
            ScrubRate::Share(share) => measured.map(|capacity| part_of(capacity, share)),
        }
    }

    /// Whether one thread is fast enough for the requested rate; true before the first measurement.
    pub(crate) const fn suffices(&self) -> bool {
        match self.options.rate {
            ScrubRate::Within(_) => self.capacity == 0 || self.needed <= self.capacity,
            _ => true,
        }
    }

    /// The time to sleep after a step that took `busy`.
    pub(crate) fn pause(&mut self, step: &ScrubStep, busy: Duration) -> Duration {
        let now = Instant::now();
        let charged = step.charged.get();
        if charged > 0 {
            let rate = rate_for(charged, busy);
            // Smoothed, because a single slow step means little.
            self.capacity = match self.capacity {
                0 => rate,
                before => before.saturating_sub(before / 4).saturating_add(rate / 4).max(1),
            };
        }
        let mut pause = if let ScrubRate::Share(share) = self.options.rate {
            busy.mul_f64((1.0 / share - 1.0).clamp(0.0, 1e6))
        } else {
            let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
            let due = self.due.max(earliest);
            let time = time_for(charged, self.rate());
            match due.checked_add(time) {
                Some(next) => {
                    self.due = next;
                    next.saturating_duration_since(now)
                }
                // Longer than the clock can count: sleep for that time rather than not at all.
                None => time,
            }
        };
        if step.pass_ended || step.idle {
            let so_far = now.saturating_duration_since(self.round_began);
            pause = pause.max(self.options.pass_at_least.saturating_sub(so_far));
            self.round_began = now.checked_add(pause).unwrap_or(now);
            self.looked = None;
        }
        let pause = match self.options.rate {
            // Shards that are sealed meanwhile raise the needed rate: wake in time to notice them.
            ScrubRate::Within(time) => pause.min(kept_back(time)),
            _ => pause,
        };
        if step.idle { pause.max(IDLE) } else { pause }
    }
}

/// The part of a set time that is not planned with, as a reserve for sleeps that last longer than
/// requested.
fn kept_back(time: Duration) -> Duration {
    time.checked_div(20).unwrap_or(time)
}

/// The time that this many bytes take at a rate.
pub fn time_for(bytes: u64, rate: u64) -> Duration {
    let nanos = u128::from(bytes).saturating_mul(1_000_000_000);
    let nanos = nanos.checked_add(u128::from(rate).saturating_sub(1));
    let nanos = nanos.and_then(|nanos| nanos.checked_div(u128::from(rate)));
    nanos.and_then(|nanos| u64::try_from(nanos).ok()).map_or(Duration::MAX, Duration::from_nanos)
}

/// The rate at which this many bytes take this time: `u64::MAX` if the time is zero.
fn rate_for(bytes: u64, time: Duration) -> u64 {
    if bytes == 0 {
        return 0;
    }
    let scaled = u128::from(bytes).saturating_mul(1_000_000_000);
    let rate = scaled.checked_div(time.as_nanos()).unwrap_or(u128::from(u64::MAX));
    u64::try_from(rate).unwrap_or(u64::MAX).max(1)
}

/// A share, from 0 to 1, of a rate.
fn part_of(rate: u64, share: f64) -> u64 {
    const STEPS: f64 = 1_000_000.0;
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to a million, checked when the scrubber was started"
    )]
    let millionths = (share * STEPS) as u64;
    let wide = u128::from(rate).saturating_mul(u128::from(millionths)) / 1_000_000;
    u64::try_from(wide).unwrap_or(u64::MAX).max(1)
}

/// For simulations, in which every pause has exactly its length.
#[cfg(test)]
impl Pace {
    pub(crate) fn look_now(&mut self, core: &Core) {
        self.looked = None;
        self.look(core);
    }

    /// The pause after a step that took no time, for a thread that never oversleeps.
    pub(crate) fn ideal_pause(&self, step: &ScrubStep) -> Duration {
        let pause = time_for(step.charged.get(), self.rate());
        let least =
            if step.pass_ended || step.idle { self.options.pass_at_least } else { Duration::ZERO };
        match self.options.rate {
            ScrubRate::Within(time) => pause.max(least).min(kept_back(time)),
            _ => pause.max(least),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_times_are_each_others_inverse_and_never_wrap() {
        assert_eq!(time_for(10, 10), Duration::from_secs(1));
        assert_eq!(time_for(1, 3), Duration::from_nanos(333_333_334));
        assert_eq!(time_for(0, 0), Duration::MAX);
        assert_eq!(time_for(u64::MAX, 1), Duration::MAX);
        assert_eq!(rate_for(10, Duration::from_secs(2)), 5);
        assert_eq!(rate_for(10, Duration::ZERO), u64::MAX);
        assert_eq!(rate_for(0, Duration::ZERO), 0);
        assert_eq!(rate_for(1, Duration::MAX), 1);
        assert_eq!(part_of(1000, 0.25), 250);
        assert_eq!(part_of(u64::MAX, 1.0), u64::MAX);
    }

    fn step(charged: u64) -> ScrubStep {
        ScrubStep { charged: ByteLen::new(charged), ..ScrubStep::default() }
    }

    #[test]
    fn a_share_sleeps_in_proportion_to_its_work() {
        let mut pace =
            Pace::new(ScrubOptions::new(ScrubRate::Share(0.1)), Over::AllGpus, Part::WHOLE);
        assert_eq!(pace.effective_rate(), None);
        let pause = pace.pause(&step(1000), Duration::from_millis(10));
        assert!((89..=91).contains(&pause.as_millis()), "{pause:?}");
        assert_eq!(pace.effective_rate(), Some(10_000));
    }

    #[test]
    fn a_rate_sleeps_off_what_was_charged() {
        let mut pace = Pace::new(
            ScrubOptions::new(ScrubRate::BytesPerSecond(1000)),
            Over::AllGpus,
            Part::WHOLE,
        );
        assert_eq!(pace.step_len().get(), 100);
        let pause = pace.pause(&step(5000), Duration::from_micros(1));
        assert!((4000..=5000).contains(&pause.as_millis()), "{pause:?}");
    }

    #[test]
    fn the_smallest_and_the_largest_of_everything_neither_panic_nor_turn_a_rate_around() {
        let whole = step(u64::MAX);
        let mut slow =
            Pace::new(ScrubOptions::new(ScrubRate::BytesPerSecond(1)), Over::AllGpus, Part::WHOLE);
        let hundred_years = Duration::from_hours(24 * 365 * 100);
        for _ in 0..3 {
            // The pause is not zero, though no clock can count that far.
            assert!(slow.pause(&whole, Duration::MAX) > hundred_years);
        }
        for rate in [
            ScrubRate::BytesPerSecond(u64::MAX),
            ScrubRate::Share(f64::MIN_POSITIVE),
            ScrubRate::Share(f64::from_bits(1)),
            ScrubRate::Share(1.0),
            ScrubRate::Within(Duration::MAX),
            ScrubRate::Within(Duration::from_nanos(1)),
        ] {
            let options = ScrubOptions::new(rate).pass_at_least(Duration::MAX);
            options.check().unwrap();
            let mut pace = Pace::new(options, Over::AllGpus, Part::WHOLE);
            for (charged, ended) in [(0, true), (1, false), (u64::MAX, true), (1, true)] {
                let step = ScrubStep { pass_ended: ended, ..step(charged) };
                let _any = pace.pause(&step, Duration::from_hours(24));
                assert!(pace.step_len() >= ByteLen::new(1));
            }
        }
    }

    #[test]
    fn nothing_to_do_and_no_limit_is_no_reason_to_spin() {
        let nothing = ScrubStep { idle: true, ..ScrubStep::default() };
        for options in [
            ScrubOptions::new(ScrubRate::Within(Duration::from_nanos(1))),
            ScrubOptions::new(ScrubRate::BytesPerSecond(u64::MAX)).pass_at_least(Duration::ZERO),
            ScrubOptions::new(ScrubRate::Share(1.0)).pass_at_least(Duration::ZERO),
        ] {
            let pause =
                Pace::new(options, Over::AllGpus, Part::WHOLE).pause(&nothing, Duration::ZERO);
            assert!(pause >= IDLE, "{options:?} {pause:?}");
        }
        for rate in [ScrubRate::BytesPerSecond(u64::MAX), ScrubRate::Share(1.0)] {
            let mut pace = Pace::new(ScrubOptions::new(rate), Over::AllGpus, Part::WHOLE);
            for done in [
                ScrubStep { idle: true, ..ScrubStep::default() },
                ScrubStep { pass_ended: true, ..ScrubStep::default() },
            ] {
                let pause = pace.pause(&done, Duration::ZERO);
                assert!(pause > Duration::from_millis(500), "{rate:?} {pause:?}");
            }
        }
    }
}
