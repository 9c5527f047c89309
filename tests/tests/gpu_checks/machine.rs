//! The CUDA devices of this machine.

use std::sync::Arc;

use vram_alloc::{ByteLen, GpuIndex};
use vram_gpu::{CudaDevice, Device};

/// Every CUDA device, opened anew; at least one. The check fails in one line if there is none.
pub(crate) fn devices() -> Vec<Arc<CudaDevice>> {
    match CudaDevice::detect() {
        Ok(devices) => devices,
        Err(why) => panic!("no CUDA device: {why}"),
    }
}

/// The same, for those who take any device.
pub(crate) fn any_devices() -> Vec<Arc<dyn Device>> {
    devices().into_iter().map(|device| -> Arc<dyn Device> { device }).collect()
}

/// A device opened once more, under an index of the caller's.
pub(crate) fn open(ordinal: u32, index: u32) -> Arc<CudaDevice> {
    CudaDevice::open(ordinal, GpuIndex::new(index)).unwrap()
}

/// How a device is called in tables.
pub(crate) fn name(device: &CudaDevice) -> String {
    format!("cuda:{}", device.ordinal())
}

/// Bytes free on the device, by the driver.
pub(crate) fn free(device: &CudaDevice) -> ByteLen {
    device.memory().unwrap().free
}
