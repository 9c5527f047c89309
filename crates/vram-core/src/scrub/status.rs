//! What a scrubber reports about itself.

use core::time::Duration;
use std::time::Instant;

use vram_alloc::ByteLen;

use crate::parts::Core;
use crate::scrub::cursor::cost_of;
use crate::scrub::pace::time_for;
use crate::scrub::{Counts, Load, Pace, Round, ScrubRate, ScrubStep, cursor};

/// How often the rate is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// The work that a scrubber has done, and the guarantees that it gives.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ScrubStatus {
    /// Whether it works: it was not stopped, and its manager exists.
    pub running: bool,
    /// Whether it is paused.
    pub paused: bool,
    /// The requested rate.
    pub rate: ScrubRate,
    /// Bytes per second over about the last second, pauses included.
    pub rate_seen: u64,
    /// The number of complete passes so far.
    pub passes: u64,
    /// Device bytes that were checked.
    pub bytes: ByteLen,
    /// The number of times that a whole shard was found sound.
    pub verified: u64,
    /// The number of shards that were found altered.
    pub altered: u64,
    /// The number of times that a shard was busy.
    pub skipped: u64,
    /// The number of times that a shard could not be read, or that a device panicked.
    pub errors: u64,
    /// The last of these errors.
    pub last_error: Option<String>,
    /// Bytes that are resident now and can be scrubbed.
    pub resident: ByteLen,
    /// The longest time, counted from now, that an alteration of any byte that is resident now can
    /// stay undetected, at the effective rate. More resident bytes raise it. `None` if it is
    /// unknown: before the first measurement, and while the scrubber does not work.
    pub worst_case: Option<Duration>,
    /// For how long no check has found the oldest shard sound.
    pub oldest_unverified: Option<Duration>,
    /// Whether the stated times hold: the oldest shard is no older than `worst_case`, nor than the
    /// time that was set, if one was.
    pub kept: bool,
}

/// The figures that are collected while the scrubber works.
#[derive(Debug)]
pub(crate) struct Tally {
    counts: Counts,
    last_error: Option<String>,
    round: Round,
    /// The effective rate, and whether it is sufficient.
    had: Option<u64>,
    suffices: bool,
    step: ByteLen,
    pass_at_least: Duration,
    rate_seen: u64,
    measured_from: Instant,
    measured: u64,
}

impl Tally {
    pub(crate) fn new(pace: &Pace) -> Self {
        Self {
            counts: Counts::default(),
            last_error: None,
            round: Round::default(),
            had: pace.effective_rate(),
            suffices: true,
            step: pace.options.step,
            pass_at_least: pace.options.pass_at_least,
            rate_seen: 0,
            measured_from: Instant::now(),
            measured: 0,
        }
    }

    pub(crate) fn add(&mut self, step: &ScrubStep, round: &Round, pace: &Pace) {
        self.counts.add(step);
        if let Some(error) = &step.error {
            self.last_error = Some(error.to_string());
        }
        self.round = *round;
        (self.had, self.suffices) = (pace.effective_rate(), pace.suffices());
        self.measured = self.measured.saturating_add(step.bytes.get());
        self.measure();
    }

    pub(crate) fn failed(&mut self, what: &str) {
        self.counts.errors = self.counts.errors.saturating_add(1);
        self.last_error = Some(what.to_owned());
    }

    fn measure(&mut self) {
        let elapsed = self.measured_from.elapsed();
        if elapsed >= MEASURE_EVERY {
            self.rate_seen = per_second(self.measured, elapsed);
            (self.measured, self.measured_from) = (0, Instant::now());
        }
    }

    /// The status, whether or not the scrubber's manager still exists.
    pub(crate) fn status(
        &self,
        facts: Option<Facts>,
        rate: ScrubRate,
        paused: bool,
    ) -> ScrubStatus {
        let worst_case =
            facts.filter(|_facts| !paused).and_then(|facts| self.worst_case(facts.load, rate));
        let oldest = facts.and_then(|facts| facts.oldest);
        let asked = match rate {
            ScrubRate::Within(time) => time,
            _ => Duration::MAX,
        };
        let kept = worst_case.is_some_and(|worst| {
            let bound = worst.min(asked);
            self.suffices && oldest.is_none_or(|age| age <= bound)
        });
        let elapsed = self.measured_from.elapsed();
        let rate_seen = if elapsed >= MEASURE_EVERY || self.rate_seen == 0 {
            per_second(self.measured, elapsed)
        } else {
            self.rate_seen
        };
        let Counts { passes, bytes, verified, altered, skipped, errors } = self.counts;
        ScrubStatus {
            running: facts.is_some(),
            paused,
            rate,
            rate_seen,
            passes,
            bytes,
            verified,
            altered,
            skipped,
            errors,
            last_error: self.last_error.clone(),
            resident: facts.map_or(ByteLen::ZERO, |facts| facts.resident),
            worst_case,
            oldest_unverified: oldest,
            kept,
        }
    }

    fn worst_case(&self, load: Load, rate: ScrubRate) -> Option<Duration> {
        if let ScrubRate::Within(time) = rate
            && self.suffices
        {
            return Some(time);
        }
        let had = self.had?;
        let bytes = self.round.bound(load).saturating_add(self.step.get());
        Some(time_for(bytes, had).saturating_add(self.pass_at_least))
    }
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    let scaled = u128::from(bytes).saturating_mul(1_000_000_000);
    u64::try_from(scaled.checked_div(time.as_nanos()).unwrap_or(0)).unwrap_or(u64::MAX)
}

/// The resident shards of a manager when its status is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    load: Load,
    resident: ByteLen,
    oldest: Option<Duration>,
}

impl Facts {
    pub(crate) fn of(core: &Core) -> Self {
        let (mut load, mut resident) = (Load::default(), ByteLen::ZERO);
        let shards = cursor::scrubbable(core);
        let now = core.clock.monotonic();
        for (_, entry) in &shards {
            load.add(cost_of(entry.plaintext_len));
            resident = resident.saturating_add(entry.plaintext_len);
        }
        let oldest = shards.first().map(|(since, _)| now.saturating_sub(*since));
        Self { load, resident, oldest }
    }
}
