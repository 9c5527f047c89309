//! What a scrubber reports about itself.

use core::time::Duration;
use std::time::Instant;

use vram_alloc::ByteLen;

use crate::parts::Core;
use crate::scrub::cursor::cost_of;
use crate::scrub::pace::time_for;
use crate::scrub::{Counts, Load, Over, Pace, Round, ScrubRate, ScrubStep, cursor};

/// How often the rate is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// How long a step may last before its GPU counts as stuck: a step reads a few megabytes.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// The work that a scrubber has done, and the guarantees that it gives: sums over all GPUs, and the
/// worst of them.
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
    /// The number of complete passes so far, each over the shards of one GPU.
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
    /// unknown on any GPU: before the first measurement, while the scrubber does not work, and on a
    /// GPU that is stuck.
    pub worst_case: Option<Duration>,
    /// For how long no check has found the oldest shard sound.
    pub oldest_unverified: Option<Duration>,
    /// Whether the stated times hold on every GPU: the oldest shard is no older than `worst_case`,
    /// nor than the time that was set, if one was.
    pub kept: bool,
    /// The same for each GPU, in order of their index.
    pub gpus: Vec<GpuScrub>,
}

/// One GPU in [`ScrubStatus`] and [`ScrubMetrics`](crate::scrub::ScrubMetrics): the work of its
/// thread since the scrubber was started. Fields of the same name mean the same as there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct GpuScrub {
    pub gpu: u32,
    pub rate_seen: u64,
    pub passes: u64,
    pub bytes: ByteLen,
    pub verified: u64,
    pub altered: u64,
    pub skipped: u64,
    pub errors: u64,
    pub last_error: Option<String>,
    pub resident: ByteLen,
    pub worst_case: Option<Duration>,
    pub oldest_unverified: Option<Duration>,
    pub kept: bool,
    /// How long the present step has lasted, by the operating system's clock; `None` between steps.
    pub step_for: Option<Duration>,
    /// Whether that is more than ten seconds: the device hangs, or is very slow. Nothing on this GPU
    /// is checked meanwhile; the other GPUs are.
    pub stuck: bool,
}

impl ScrubStatus {
    /// Sums over GPUs, and the worst of them.
    pub(crate) fn of(
        rate: ScrubRate,
        (running, paused): (bool, bool),
        last_error: Option<String>,
        gpus: Vec<GpuScrub>,
    ) -> Self {
        let sum = |of: fn(&GpuScrub) -> u64| {
            gpus.iter().fold(0_u64, |sum, gpu| sum.saturating_add(of(gpu)))
        };
        let worst = gpus.iter().map(|gpu| gpu.worst_case).collect::<Option<Vec<_>>>();
        Self {
            running,
            paused,
            rate,
            rate_seen: sum(|gpu| gpu.rate_seen),
            passes: sum(|gpu| gpu.passes),
            bytes: ByteLen::new(sum(|gpu| gpu.bytes.get())),
            verified: sum(|gpu| gpu.verified),
            altered: sum(|gpu| gpu.altered),
            skipped: sum(|gpu| gpu.skipped),
            errors: sum(|gpu| gpu.errors),
            last_error,
            resident: ByteLen::new(sum(|gpu| gpu.resident.get())),
            worst_case: worst.and_then(|times| times.into_iter().max()),
            oldest_unverified: gpus.iter().filter_map(|gpu| gpu.oldest_unverified).max(),
            kept: running && gpus.iter().all(|gpu| gpu.kept),
            gpus,
        }
    }
}

/// The figures that one thread collects while the scrubber works.
#[derive(Debug)]
pub(crate) struct Tally {
    counts: Counts,
    last_error: Option<(Instant, String)>,
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

/// What else a status depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// `None` if the scrubber's manager does not exist any more.
    pub(crate) facts: Option<Facts>,
    pub(crate) rate: ScrubRate,
    pub(crate) paused: bool,
    /// How long the present step has lasted.
    pub(crate) step_for: Option<Duration>,
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
            self.last_error = Some((Instant::now(), error.to_string()));
        }
        self.round = *round;
        (self.had, self.suffices) = (pace.effective_rate(), pace.suffices());
        self.measured = self.measured.saturating_add(step.bytes.get());
        self.measure();
    }

    pub(crate) fn failed(&mut self, what: &str) {
        self.counts.errors = self.counts.errors.saturating_add(1);
        self.last_error = Some((Instant::now(), what.to_owned()));
    }

    pub(crate) const fn last_error(&self) -> Option<&(Instant, String)> {
        self.last_error.as_ref()
    }

    fn measure(&mut self) {
        let elapsed = self.measured_from.elapsed();
        if elapsed >= MEASURE_EVERY {
            self.rate_seen = per_second(self.measured, elapsed);
            (self.measured, self.measured_from) = (0, Instant::now());
        }
    }

    pub(crate) fn status(&self, gpu: u32, moment: Moment) -> GpuScrub {
        let Moment { facts, rate, paused, step_for } = moment;
        let stuck = step_for.is_some_and(|time| time > STUCK_AFTER);
        let works = facts.filter(|_facts| !paused && !stuck);
        let worst_case = works.and_then(|facts| self.worst_case(facts.load, rate));
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
        GpuScrub {
            gpu,
            rate_seen,
            passes,
            bytes,
            verified,
            altered,
            skipped,
            errors,
            last_error: self.last_error.as_ref().map(|(_at, error)| error.clone()),
            resident: facts.map_or(ByteLen::ZERO, |facts| facts.resident),
            worst_case,
            oldest_unverified: oldest,
            kept,
            step_for,
            stuck,
        }
    }

    fn worst_case(&self, load: Load, rate: ScrubRate) -> Option<Duration> {
        if let ScrubRate::Within(time) = rate
            && self.suffices
        {
            return Some(time);
        }
        // Where nothing is resident, nothing can be altered, and no rate is ever measured.
        if load.is_empty() {
            return Some(self.pass_at_least);
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

/// The resident shards of a GPU when its status is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    load: Load,
    resident: ByteLen,
    oldest: Option<Duration>,
}

impl Facts {
    pub(crate) fn of(core: &Core, over: Over) -> Self {
        let (mut load, mut resident) = (Load::default(), ByteLen::ZERO);
        let shards = cursor::scrubbable(core, over);
        let now = core.clock.monotonic();
        for (_, entry) in &shards {
            load.add(cost_of(entry.plaintext_len));
            resident = resident.saturating_add(entry.plaintext_len);
        }
        let oldest = shards.first().map(|(since, _)| now.saturating_sub(*since));
        Self { load, resident, oldest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::scrub::{Part, ScrubOptions};

    #[test]
    fn a_gpu_that_is_stuck_is_named_and_promises_nothing_and_the_whole_promises_nothing_with_it() {
        let rate = ScrubRate::Within(Duration::from_hours(1));
        let pace = Pace::new(ScrubOptions::new(rate), Over::Gpu(0), Part::WHOLE);
        let facts = Facts {
            load: Load { resident: 10, longest: 10 },
            resident: ByteLen::new(10),
            oldest: Some(Duration::from_secs(9)),
        };
        let status = |gpu, seconds| {
            let step_for = Some(Duration::from_secs(seconds));
            let moment = Moment { facts: Some(facts), rate, paused: false, step_for };
            Tally::new(&pace).status(gpu, moment)
        };
        let whole = |gpus| ScrubStatus::of(rate, (true, false), None, gpus);
        let fine = whole(vec![status(0, 10), status(1, 0)]);
        assert!(fine.kept && fine.worst_case == Some(Duration::from_hours(1)), "{fine:?}");

        let bad = whole(vec![status(0, 11), status(1, 0)]);
        assert_eq!([bad.gpus[0].stuck, bad.gpus[1].stuck], [true, false]);
        assert_eq!([bad.gpus[0].kept, bad.gpus[1].kept], [false, true]);
        assert!(!bad.kept && bad.worst_case.is_none(), "{bad:?}");
        assert_eq!((bad.resident.get(), bad.oldest_unverified), (20, facts.oldest));
    }
}
