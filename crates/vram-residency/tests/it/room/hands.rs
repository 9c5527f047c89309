//! Helpers of these tests: a clock that the test sets, devices that fail on command, and figures.

use std::sync::Arc;

use vram_residency::device::FaultDevice;
use vram_residency::device::fault::FaultPlan;
use vram_residency::{
    ByteLen, Device, ModelPlan, Piece, VramError, VramManager, VramManagerBuilder,
};
use vram_test_rigs::{TestClock, devices};

pub(crate) const KIB: u64 = 1024;

pub(crate) fn bytes(count: u64) -> ByteLen {
    ByteLen::new(count)
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
    let total = usize::try_from(total).unwrap();
    let device = devices(&[total], &FaultPlan::new(1)).remove(0);
    let shared: Arc<dyn Device> = Arc::<FaultDevice>::clone(&device);
    (device, shared)
}

/// A model of tensors of these lengths, adjacent in one file.
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

/// Whether a call was refused for lack of room.
pub(crate) fn no_room<T>(outcome: &Result<T, VramError>) -> bool {
    matches!(outcome, Err(VramError::InsufficientVram(_)))
}
