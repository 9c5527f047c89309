//! The CUDA devices of this machine.

use std::sync::Arc;

use vram_alloc::{ByteLen, GpuIndex};
use vram_gpu::{CudaDevice, Device, Sharing};

/// Opens every CUDA device; at least one. Without a device, the check fails with a one-line
/// message.
pub(crate) fn devices() -> Vec<Arc<CudaDevice>> {
    match CudaDevice::detect() {
        Ok(devices) => devices.iter().map(|device| device.shared(Sharing::Alone)).collect(),
        Err(why) => panic!("no CUDA device: {why}"),
    }
}

/// The same, as trait objects.
pub(crate) fn any_devices() -> Vec<Arc<dyn Device>> {
    devices().into_iter().map(|device| -> Arc<dyn Device> { device }).collect()
}

/// Opens a device once more, under the caller's index.
pub(crate) fn open(ordinal: u32, index: u32) -> Arc<CudaDevice> {
    CudaDevice::open(ordinal, GpuIndex::new(index)).unwrap()
}

/// The name of a device in tables.
pub(crate) fn name(device: &CudaDevice) -> String {
    format!("cuda:{}", device.ordinal())
}

/// Bytes free on the device, according to the driver.
pub(crate) fn free(device: &CudaDevice) -> ByteLen {
    device.memory().unwrap().free
}
