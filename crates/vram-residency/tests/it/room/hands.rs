//! What these tests are done with: a clock that stands still until it is told, devices that fail on
//! command, and figures.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;

use vram_residency::device::FaultDevice;
use vram_residency::device::fault::FaultPlan;
use vram_residency::{
    ByteLen, Clock, Device, GpuIndex, HostDevice, ModelPlan, Piece, Report, Timestamp, VramError,
    VramManager, VramManagerBuilder,
};

pub(crate) const KIB: u64 = 1024;

pub(crate) fn bytes(count: u64) -> ByteLen {
    ByteLen::new(count)
}

/// A clock that tells what it was told.
#[derive(Debug, Default)]
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn advance(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap();
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.0.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A manager with GPUs of these lengths, and its clock.
pub(crate) fn timed(totals: &[u64]) -> (Arc<TestClock>, VramManager) {
    let clock = TestClock::new();
    let manager = hosts(totals).clock(Arc::<TestClock>::clone(&clock)).build().unwrap();
    (clock, manager)
}

pub(crate) fn hosts(totals: &[u64]) -> VramManagerBuilder {
    let builder = VramManager::builder();
    totals.iter().fold(builder, |builder, total| builder.host_device(bytes(*total)))
}

/// One device that fails on command.
pub(crate) fn faulty(total: u64) -> (Arc<FaultDevice>, Arc<dyn Device>) {
    let host = HostDevice::new(GpuIndex::new(0), bytes(total)).unwrap();
    let device = FaultDevice::new(Arc::new(host), FaultPlan::new(1));
    let shared: Arc<dyn Device> = Arc::<FaultDevice>::clone(&device);
    (device, shared)
}

/// A model of tensors of these lengths, one after the other in one file.
pub(crate) fn plan(lens: &[u64]) -> ModelPlan {
    let mut offset = 0;
    let pieces = lens.iter().enumerate().map(|(at, len)| {
        let piece = Piece::new(format!("tensor {at}"), 0, offset, bytes(*len));
        offset += len;
        piece
    });
    ModelPlan::new(pieces.collect::<Vec<_>>()).unwrap()
}

/// Bytes reserved on a GPU.
pub(crate) fn reserved(manager: &VramManager, gpu: u32) -> u64 {
    manager.capacity(gpu).unwrap().reserved.get()
}

pub(crate) fn room(manager: &VramManager, gpu: u32) -> u64 {
    manager.capacity(gpu).unwrap().room.get()
}

/// Everything that a report says.
pub(crate) fn picture(manager: &VramManager) -> Report {
    manager.report()
}

/// Whether a call was refused for want of room.
pub(crate) fn no_room<T>(outcome: &Result<T, VramError>) -> bool {
    matches!(outcome, Err(VramError::InsufficientVram(_)))
}
