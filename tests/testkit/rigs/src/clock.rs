//! Clocks: one that the test sets, and one that runs other code on each read.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;

use vram_residency::{Clock, SystemClock, Timestamp};

/// Wall and monotonic time that stand still until the test sets them.
#[derive(Debug, Default)]
pub struct TestClock {
    wall_millis: AtomicU64,
    monotonic_nanos: AtomicU64,
}

impl TestClock {
    /// A clock at 0.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Advances both times.
    pub fn advance(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).expect("a test lasts no centuries");
        self.monotonic_nanos.fetch_add(nanos, Ordering::SeqCst);
        self.wall_millis.fetch_add(nanos / 1_000_000, Ordering::SeqCst);
    }

    /// Sets only the wall time.
    pub fn set_wall(&self, millis: u64) {
        self.wall_millis.store(millis, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.wall_millis.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.monotonic_nanos.load(Ordering::SeqCst))
    }
}

/// The system's clock, which runs a callback before it answers.
pub struct CallingClock<N, M> {
    /// Called before the wall time is read.
    pub on_now: N,
    /// Called before the monotonic time is read.
    pub on_monotonic: M,
}

impl<N, M> fmt::Debug for CallingClock<N, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallingClock").finish_non_exhaustive()
    }
}

impl<N: Fn() + Send + Sync, M: Fn() + Send + Sync> Clock for CallingClock<N, M> {
    fn now(&self) -> Timestamp {
        (self.on_now)();
        SystemClock.now()
    }

    fn monotonic(&self) -> Duration {
        (self.on_monotonic)();
        SystemClock.monotonic()
    }
}
