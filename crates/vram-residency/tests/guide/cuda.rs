//! The `home` of the guide's properties on CUDA devices, real or simulated.

use core::any::Any;
use std::sync::Arc;

use vram_residency::device::{
    CudaDevice, Device, DeviceInfo, DeviceMemory, DeviceState, DeviceUuid, GpuError, MemoryInfo,
    Staging,
};
use vram_residency::{Budget, ByteLen, Compute, GpuIndex, VramError, VramManager};

/// A manager whose GPU i is the i-th of these devices, with a budget of its own. If there are fewer
/// devices than GPUs, a device is used several times, each with a different identity.
pub(crate) fn manager(
    ordinals: &[u32],
    capacities: Vec<usize>,
    compute: Compute,
) -> Result<VramManager, VramError> {
    let mut builder = VramManager::builder().compute(compute);
    let devices = ordinals.iter().cycle().enumerate();
    for ((index, capacity), (turn, ordinal)) in (0_u32..).zip(capacities).zip(devices) {
        let device = CudaDevice::open(*ordinal, GpuIndex::new(index))
            .map_err(|error| VramError::Config { what: error.to_string() })?;
        let capacity = ByteLen::from_usize(capacity);
        let device: Arc<dyn Device> =
            if turn < ordinals.len() { device } else { Arc::new(Share::of(device, index)) };
        // The guide counts the bytes for shards.
        let scratch = match compute {
            Compute::Host => ByteLen::ZERO,
            _ => device.kernel_scratch(),
        };
        let budget = Budget::Bytes(capacity.saturating_add(scratch));
        builder = builder.device(device).budget(index, budget);
    }
    builder.build()
}

/// A device used once more, with another identity: a manager refuses a device that it already has.
#[derive(Debug)]
struct Share {
    device: Arc<CudaDevice>,
    info: DeviceInfo,
}

impl Share {
    fn of(device: Arc<CudaDevice>, index: u32) -> Self {
        let mut info = device.info().clone();
        let mut uuid = *info.uuid.as_bytes();
        for (byte, mark) in uuid.iter_mut().zip(index.to_le_bytes()) {
            *byte ^= mark;
        }
        info.uuid = DeviceUuid::new(uuid);
        Self { device, info }
    }
}

impl Device for Share {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn memory(&self) -> Result<MemoryInfo, GpuError> {
        self.device.memory()
    }

    fn allocate(&self, len: ByteLen) -> Result<Box<dyn DeviceMemory>, GpuError> {
        self.device.allocate(len)
    }

    fn staging(&self, len: ByteLen) -> Result<Staging, GpuError> {
        self.device.staging(len)
    }

    fn state(&self) -> DeviceState {
        self.device.state()
    }

    fn may_reset(&self) -> Result<(), GpuError> {
        self.device.may_reset()
    }

    fn reset(&self) -> Result<(), GpuError> {
        self.device.reset()
    }

    fn can_copy_from_peer(&self, other: &dyn Device) -> bool {
        self.device.can_copy_from_peer(other)
    }

    fn backing(&self) -> &dyn Device {
        self.device.backing()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
