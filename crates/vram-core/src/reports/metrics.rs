//! Figures for whoever watches from outside: plain, and as Prometheus scrapes them.

use core::fmt;
use core::time::Duration;

use vram_alloc::ByteLen;
use vram_events::SinkCounts;
use vram_gpu::DeviceUuid;
use vram_space::GpuCapacity;

use crate::parts::Core;
use crate::parts::call::Call;
use crate::parts::meter::BUCKETS;
use crate::reports::{ages, report};
use crate::scrub::{ScrubMetrics, Scrubbing, totals};
use crate::sealing::reservation;
use crate::shard::ParkCapacity;

/// What a manager holds and what its calls cost, in plain figures. `Display` is the text that
/// Prometheus scrapes.
///
/// Each figure is right for some moment of the call; under load they are not all of the same one.
/// What is counted begins at 0 with the manager.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct Metrics {
    /// All GPUs, in order of their index.
    pub gpus: Vec<GpuMetrics>,
    pub park: ParkCapacity,
    pub reservations: u64,
    /// Bytes that they still hold.
    pub reserved: ByteLen,
    /// Pairs of GPUs whose direct copies arrived altered.
    pub distrusted_links: u64,
    pub scrub: ScrubMetrics,
    /// All calls, in the order of [`Call::ALL`]; also those that were never made.
    pub calls: Vec<CallMetrics>,
    pub events: u64,
    /// What became of them, for each sink in the order in which they were added.
    pub sinks: Vec<SinkCounts>,
}

/// One GPU in [`Metrics`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct GpuMetrics {
    pub capacity: GpuCapacity,
    pub name: String,
    pub uuid: DeviceUuid,
    pub shard_count: u64,
    pub quarantined: u64,
    pub lost: bool,
    /// How long nobody has found the shard sound that waits longest, of those that are served.
    pub oldest_unverified: Option<Duration>,
}

/// One call in [`Metrics`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct CallMetrics {
    /// The call.
    pub call: Call,
    /// How often it was made and has ended, in whatever way.
    pub count: u64,
    /// How often it failed, by [code](crate::error::VramError::code), in ascending order of the codes;
    /// `panic` where a panic passed through.
    pub failures: Vec<FailureCount>,
    /// Bytes that it handled where it succeeded: of content, or of room for calls that take it and
    /// give it back; 0 for calls that handle none.
    pub bytes: ByteLen,
    /// Time spent in it, by the operating system's monotonic clock.
    pub time: Duration,
    /// How many of the calls took how long: for each of [`CallMetrics::BUCKETS`], those that took
    /// longer than the one before and no longer than this one; at last those that took longer than
    /// any. The sum is `count`.
    pub buckets: Vec<u64>,
}

/// How often a call failed with one code.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct FailureCount {
    pub code: std::borrow::Cow<'static, str>,
    pub count: u64,
}

impl CallMetrics {
    /// The upper ends of the [`buckets`](Self::buckets), inclusive, in ascending order.
    pub const BUCKETS: &'static [Duration] = &BUCKETS;

    /// How often it failed.
    #[must_use]
    pub fn failure_count(&self) -> u64 {
        self.failures.iter().fold(0, |sum, failure| sum.saturating_add(failure.count))
    }
}

impl Metrics {
    /// The figures of one call.
    #[must_use]
    pub fn call(&self, call: Call) -> Option<&CallMetrics> {
        self.calls.iter().find(|metrics| metrics.call == call)
    }

    /// The figures in Prometheus's text format 0.0.4: what a scrape of
    /// `text/plain; version=0.0.4` answers.
    ///
    /// Labels are GPUs, calls, error codes and sinks: as many as there are, whatever the manager
    /// holds. Shards, models and owners are none: each would be a time series of its own. The
    /// `VramManager::snapshot` has those.
    #[must_use]
    pub fn to_prometheus(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::reports::prometheus::write(self, f)
    }
}

/// All meters and figures.
pub fn metrics(core: &Core, scrubbing: &Scrubbing) -> Metrics {
    let ages = ages::ages(core);
    let oldest = |gpu: u32| {
        let served = ages.iter().filter(|age| age.gpu == gpu && age.served);
        served.map(|age| age.unverified).max()
    };
    let report = report::report(core);
    let distrusted = report.distrusted_links.len();
    let gpus = report.gpus.into_iter().map(|gpu| GpuMetrics {
        oldest_unverified: oldest(gpu.capacity.gpu),
        capacity: gpu.capacity,
        name: gpu.name,
        uuid: gpu.uuid,
        shard_count: gpu.shard_count,
        quarantined: gpu.quarantined,
        lost: gpu.lost.is_some(),
    });
    let reservations = reservation::reservations(core);
    let open = reservations.iter().flat_map(|one| &one.remaining);
    let reserved = open.fold(ByteLen::ZERO, |sum, (_gpu, bytes)| sum.saturating_add(*bytes));
    Metrics {
        gpus: gpus.collect(),
        park: core.registry.parked.capacity(),
        reservations: u64::try_from(reservations.len()).unwrap_or(u64::MAX),
        reserved,
        distrusted_links: u64::try_from(distrusted).unwrap_or(u64::MAX),
        scrub: totals::scrub_metrics(scrubbing.status(core).as_ref(), &scrubbing.totals),
        calls: call_metrics(core),
        events: core.events.emitted(),
        sinks: core.events.counts(),
    }
}

fn call_metrics(core: &Core) -> Vec<CallMetrics> {
    let failures = core.meters.failures();
    let failures_of = |call: Call| {
        failures
            .iter()
            .filter(move |((failed, _code), _count)| *failed == call)
            .map(|((_call, code), count)| FailureCount { code: (*code).into(), count: *count })
            .collect()
    };
    let readings = core.meters.read().into_iter().map(|reading| CallMetrics {
        call: reading.call,
        count: reading.buckets.iter().fold(0, |sum, count| sum.saturating_add(*count)),
        failures: failures_of(reading.call),
        bytes: ByteLen::new(reading.bytes),
        time: Duration::from_nanos(reading.nanos),
        buckets: reading.buckets,
    });
    readings.collect()
}
