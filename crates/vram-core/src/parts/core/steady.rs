//! A clock that a caller brought, whose panics reach nobody.

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::Arc;

use vram_id::{Clock, Timestamp};

/// A clock that answers the last time it knew where the caller's clock panics. An operation asks
/// for the time between steps that belong together, so a panic there would leave half of it done.
#[derive(Debug)]
pub(crate) struct SteadyClock {
    clock: Arc<dyn Clock>,
    last_now: AtomicU64,
    last_monotonic: AtomicU64,
}

impl SteadyClock {
    /// Wraps a clock.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, last_now: AtomicU64::new(0), last_monotonic: AtomicU64::new(0) }
    }

    fn ask(&self, last: &AtomicU64, clock: impl FnOnce(&dyn Clock) -> u64) -> u64 {
        match catch_unwind(AssertUnwindSafe(|| clock(&*self.clock))) {
            Ok(time) => {
                // A line of the cache that all threads share is not written again without need.
                if last.load(Ordering::Relaxed) != time {
                    last.store(time, Ordering::Relaxed);
                }
                time
            }
            Err(payload) => {
                // Dropping the payload could panic again.
                core::mem::forget(payload);
                tracing::error!("the clock panicked; its last time is used");
                last.load(Ordering::Relaxed)
            }
        }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        let now = self.ask(&self.last_now, |clock| clock.now().unix_millis());
        Timestamp::from_unix_millis(now)
    }

    fn monotonic(&self) -> Duration {
        // 2^64 nanoseconds are more than 500 years of uptime.
        let nanos = |clock: &dyn Clock| u64::try_from(clock.monotonic().as_nanos());
        Duration::from_nanos(
            self.ask(&self.last_monotonic, |clock| nanos(clock).unwrap_or(u64::MAX)),
        )
    }
}
