//! Counts calls: their number, time, bytes and failures.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::time::Instant;

use vram_events::EventKind;
use vram_id::ShardId;

use crate::error::VramError;
use crate::parts::Core;
use crate::parts::call::Call;
use crate::sync::{Mutex, lock};

/// The upper bounds of the histogram's buckets, inclusive; one more bucket has no bound.
pub(crate) const BUCKETS: [Duration; 12] = [
    Duration::from_micros(10),
    Duration::from_micros(100),
    Duration::from_millis(1),
    Duration::from_millis(3),
    Duration::from_millis(10),
    Duration::from_millis(30),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
    Duration::from_mins(1),
];

/// The code of a call that ended in a panic of a source, a sink, a callback or a device.
pub(crate) const PANIC: &str = "panic";

/// All meters of a manager.
pub struct Meters {
    // One for each call, in the order of `Call::ALL`.
    calls: Vec<Meter>,
    // Only failing calls take this lock.
    failures: Mutex<BTreeMap<(Call, &'static str), u64>>,
}

/// The meter of one call.
#[derive(Default)]
pub(crate) struct Meter {
    /// Bytes of calls that succeeded.
    bytes: AtomicU64,
    /// Time spent in calls, in nanoseconds.
    nanos: AtomicU64,
    /// Calls that ended, by duration: one bucket for each of `BUCKETS`, and one for longer calls.
    buckets: [AtomicU64; BUCKETS.len() + 1],
}

/// The values of one meter.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) call: Call,
    pub(crate) bytes: u64,
    pub(crate) nanos: u64,
    pub(crate) buckets: Vec<u64>,
}

impl Default for Meters {
    fn default() -> Self {
        let calls = Call::ALL.iter().map(|_| Meter::default()).collect();
        Self { calls, failures: Mutex::default() }
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters").finish_non_exhaustive()
    }
}

impl Meters {
    fn ended(&self, call: Call, took: Duration, bytes: u64) {
        let position = Call::ALL.iter().position(|known| *known == call);
        let Some(meter) = position.and_then(|position| self.calls.get(position)) else { return };
        let bucket = BUCKETS.iter().position(|end| took <= *end).unwrap_or(BUCKETS.len());
        if let Some(bucket) = meter.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        meter.nanos.fetch_add(nanos, Ordering::Relaxed);
        meter.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn failed(&self, call: Call, code: &'static str) {
        let mut failures = lock(&self.failures);
        let count = failures.entry((call, code)).or_default();
        *count = count.saturating_add(1);
    }

    /// The values of all meters. Each value is read separately.
    pub(crate) fn read(&self) -> Vec<Reading> {
        let read = |(call, meter): (&Call, &Meter)| Reading {
            call: *call,
            bytes: meter.bytes.load(Ordering::Relaxed),
            nanos: meter.nanos.load(Ordering::Relaxed),
            buckets: meter.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
        };
        Call::ALL.iter().zip(&self.calls).map(read).collect()
    }

    /// The number of failures of each call, by error code.
    pub(crate) fn failures(&self) -> BTreeMap<(Call, &'static str), u64> {
        lock(&self.failures).clone()
    }
}

/// An error of a public call.
pub trait Coded {
    /// The stable name of the error.
    fn code(&self) -> &'static str;
}

impl Coded for VramError {
    fn code(&self) -> &'static str {
        Self::code(self)
    }
}

/// One call that is running. Dropping it records the end of the call, also if a panic unwinds
/// through it.
pub(crate) struct TimedCall<'a> {
    pub(crate) core: &'a Core,
    pub(crate) call: Call,
    pub(crate) shard: Option<&'a ShardId>,
    pub(crate) gpu: Option<u32>,
    pub(crate) start: Instant,
    pub(crate) bytes: u64,
    /// The error code; `None` if the call succeeded.
    pub(crate) code: Option<&'static str>,
}

impl Drop for TimedCall<'_> {
    fn drop(&mut self) {
        self.core.meters.ended(self.call, self.start.elapsed(), self.bytes);
        let Some(code) = self.code else { return };
        self.core.meters.failed(self.call, code);
        let entry = self.shard.and_then(|shard| self.core.registry.find(shard));
        let refused = EventKind::Refused {
            call: self.call.name().into(),
            shard: self.shard.cloned(),
            gpu: self.gpu,
            code: code.into(),
        };
        self.core.events.emit_of(entry.and_then(|entry| entry.told().whose()), refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_took_no_longer_than_its_end() {
        let meters = Meters::default();
        for end in BUCKETS {
            meters.ended(Call::Seal, end, 0);
            meters.ended(Call::Verify, end + Duration::from_nanos(1), 0);
        }
        for reading in meters.read() {
            match reading.call {
                Call::Seal => assert_eq!(reading.buckets, [[1; 12].as_slice(), &[0]].concat()),
                Call::Verify => assert_eq!(reading.buckets, [[0].as_slice(), &[1; 12]].concat()),
                _ => assert!(reading.buckets.iter().all(|count| *count == 0)),
            }
        }
    }
}
