//! What these tests are done with: two clocks that say what they are told, and devices whose bits
//! flip on command.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;

use vram_residency::device::FaultDevice;
use vram_residency::device::fault::FaultPlan;
use vram_residency::{
    ByteLen, Clock, Device, GpuIndex, HostDevice, SealKey, SegmentSize, Threads, Timestamp,
    VramManager, VramManagerBuilder,
};

pub(crate) const SEGMENT: u64 = 4096;

/// Wall and monotonic time, each told apart.
#[derive(Debug, Default)]
pub(crate) struct TwoClocks {
    wall: AtomicU64,
    monotonic_nanos: AtomicU64,
}

impl TwoClocks {
    pub(crate) fn advance(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap();
        self.monotonic_nanos.fetch_add(nanos, Ordering::SeqCst);
        self.wall.fetch_add(nanos / 1_000_000, Ordering::SeqCst);
    }

    pub(crate) fn set_wall(&self, millis: u64) {
        self.wall.store(millis, Ordering::SeqCst);
    }
}

impl Clock for TwoClocks {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.wall.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.monotonic_nanos.load(Ordering::SeqCst))
    }
}

/// A manager over GPUs that fail on command, with small segments and one thread.
pub(crate) struct Rig {
    pub(crate) manager: VramManager,
    pub(crate) devices: Vec<Arc<FaultDevice>>,
    pub(crate) clock: Arc<TwoClocks>,
}

impl Rig {
    pub(crate) fn new(totals: &[u64]) -> Self {
        Self::with(totals, |builder| builder)
    }

    pub(crate) fn with(
        totals: &[u64],
        also: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder,
    ) -> Self {
        let clock = Arc::<TwoClocks>::default();
        clock.set_wall(1_000_000);
        let mut builder = VramManager::builder()
            .key(SealKey::from_bytes([7; 32]))
            .segment_size(SegmentSize::MIN)
            .threads(Threads::ONE)
            .clock(Arc::<TwoClocks>::clone(&clock));
        let mut devices = Vec::new();
        for (index, total) in (0..).zip(totals) {
            let host = HostDevice::new(GpuIndex::new(index), ByteLen::new(*total)).unwrap();
            let device = FaultDevice::new(Arc::new(host), FaultPlan::new(1));
            builder = builder.device(Arc::<FaultDevice>::clone(&device) as Arc<dyn Device>);
            devices.push(device);
        }
        Self { manager: also(builder).build().unwrap(), devices, clock }
    }
}

pub(crate) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
