//! Figures for monitoring: as plain values, and as text that Prometheus scrapes.

use core::fmt;
use core::time::Duration;

use vram_alloc::ByteLen;
use vram_events::SinkCounts;
use vram_gpu::DeviceUuid;
use vram_space::{GpuCapacity, KernelFigures, LifeState};

use crate::parts::Core;
use crate::parts::call::Call;
use crate::parts::meter::BUCKETS;
use crate::reports::models::figures;
use crate::reports::{LeaseReport, ModelFigures, ModelMetrics, ages, report};
use crate::scrub::{ScrubMetrics, Scrubbing, totals};
use crate::sealing::reservation;
use crate::shard::{ModelCounts, ParkCapacity};

/// The memory that a manager holds and the cost of its calls, in plain figures. `Display` prints
/// the text that Prometheus scrapes.
///
/// Each figure is correct for some moment of the call; under load, the figures are not all of the
/// same moment. Counters begin at 0 when the manager is built.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct Metrics {
    /// All GPUs, in order of their index.
    pub gpus: Vec<GpuMetrics>,
    pub park: ParkCapacity,
    pub reservations: u64,
    /// Bytes that the reservations still hold.
    pub reserved: ByteLen,
    /// The number of pairs of GPUs whose direct copies arrived altered.
    pub distrusted_links: u64,
    /// The number of admitted models, by what is there of each.
    #[cfg_attr(feature = "serde", serde(default))]
    pub models: ModelCounts,
    /// What lies on GPUs of the models that are among the 16 with the most bytes on some GPU, by
    /// owner and model id.
    #[cfg_attr(feature = "serde", serde(default))]
    pub by_model: Vec<ModelMetrics>,
    /// What lies on GPUs of all other models together.
    #[cfg_attr(feature = "serde", serde(default))]
    pub other_models: ModelFigures,
    #[cfg_attr(feature = "serde", serde(default))]
    pub lease_count: u64,
    /// The lease that began first.
    #[cfg_attr(feature = "serde", serde(default))]
    pub oldest_lease: Option<LeaseReport>,
    pub scrub: ScrubMetrics,
    /// All calls, in the order of [`Call::ALL`]; also those that were never made.
    pub calls: Vec<CallMetrics>,
    pub events: u64,
    /// The counts of events, for each sink in the order in which the sinks were added.
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
    /// What the GPU does now: a reset that waits or restores is no loss.
    pub state: LifeState,
    /// The longest time for which no check has found a shard sound, over all shards that can be
    /// read.
    pub oldest_unverified: Option<Duration>,
    /// What the kernels of the device did.
    #[cfg_attr(feature = "serde", serde(default))]
    pub kernels: KernelFigures,
}

/// One call in [`Metrics`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct CallMetrics {
    /// The call.
    pub call: Call,
    /// How often the call ended, successfully or not.
    pub count: u64,
    /// How often the call failed, by [code](crate::error::VramError::code), in ascending order of
    /// the codes; the code is `panic` if a panic ended the call.
    pub failures: Vec<FailureCount>,
    /// Bytes that successful calls handled: bytes of content, or of room for calls that take or
    /// return it; 0 for calls that handle none.
    pub bytes: ByteLen,
    /// Time spent in the call, by the operating system's monotonic clock.
    pub time: Duration,
    /// The number of calls by duration: for each of [`CallMetrics::BUCKETS`], the calls that took
    /// longer than the bucket before and no longer than this one; last, the calls that took longer
    /// than all buckets. The sum is `count`.
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
    /// The upper bounds of the [`buckets`](Self::buckets), inclusive, in ascending order.
    pub const BUCKETS: &'static [Duration] = &BUCKETS;

    /// How often the call failed.
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

    /// The figures in Prometheus's text format 0.0.4: the body for a scrape of
    /// `text/plain; version=0.0.4`.
    ///
    /// The labels are GPUs, calls, error codes, sinks, and model ids with their owners. Of these only
    /// the [listed](Self::by_model) ones stand in a scrape, at most 16 for each GPU with five samples
    /// each; all others are summed up under the label `others`. Shards and the holders of leases are
    /// no labels, because each would add a time series of its own: [`oldest_lease`](Self::oldest_lease)
    /// and `VramManager::snapshot` name them.
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

/// The figures of all meters and accounts.
pub fn metrics(core: &Core, scrubbing: &Scrubbing) -> Metrics {
    let now = core.clock.monotonic();
    let distrusted = core.links.distrusted().len();
    let gpus = core.gpus.iter().map(|gpu| {
        let report = report::of_gpu(core, gpu);
        GpuMetrics {
            oldest_unverified: ages::oldest_on(core, gpu, now).map(|(_shard, age)| age),
            capacity: report.capacity,
            name: report.name,
            uuid: report.uuid,
            shard_count: report.shard_count,
            quarantined: report.quarantined,
            lost: report.lost.is_some(),
            state: report.state,
            kernels: gpu.kernel_figures(),
        }
    });
    let by_model = figures::by_model(core, now);
    let reservations = reservation::reservations(core);
    let open = reservations.iter().flat_map(|one| &one.remaining);
    let reserved = open.fold(ByteLen::ZERO, |sum, (_gpu, bytes)| sum.saturating_add(*bytes));
    Metrics {
        gpus: gpus.collect(),
        park: core.registry.parked.capacity(),
        reservations: u64::try_from(reservations.len()).unwrap_or(u64::MAX),
        reserved,
        distrusted_links: u64::try_from(distrusted).unwrap_or(u64::MAX),
        models: by_model.counts,
        by_model: by_model.listed,
        other_models: by_model.others,
        lease_count: by_model.lease_count,
        oldest_lease: by_model.oldest_lease,
        scrub: totals::scrub_metrics(scrubbing.status(core), &scrubbing.totals),
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
