//! Helpers of these tests: two clocks that the test sets, and devices whose bits flip on command.

use core::ops::Deref;
use core::time::Duration;
use std::sync::Arc;

use vram_residency::device::fault::FaultPlan;
use vram_residency::{MemoryMode, VramManagerBuilder};
use vram_test_rigs::{Rig, TestClock, devices};

pub(crate) const SEGMENT: u64 = 4096;

/// A rig whose time stands still until the test advances it.
pub(crate) struct Timed {
    pub(crate) rig: Rig,
    pub(crate) clock: Arc<TestClock>,
}

impl Timed {
    pub(crate) fn new(totals: &[usize]) -> Self {
        Self::with(totals, |builder| builder)
    }

    pub(crate) fn with(
        totals: &[usize],
        also: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder,
    ) -> Self {
        let clock = TestClock::new();
        clock.set_wall(1_000_000);
        let devices = devices(totals, &FaultPlan::new(1));
        let rig = Rig::over(devices, MemoryMode::Region, |builder| {
            also(builder.clock(Arc::<TestClock>::clone(&clock)))
        });
        Self { rig, clock }
    }
}

impl Deref for Timed {
    type Target = Rig;

    fn deref(&self) -> &Rig {
        &self.rig
    }
}

pub(crate) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
