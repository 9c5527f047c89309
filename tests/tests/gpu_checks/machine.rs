//! The CUDA devices of this machine.

use std::sync::{Arc, OnceLock};

use vram_alloc::{ByteLen, GpuIndex};
use vram_gpu::{CudaDevice, Device, Sharing};

/// Every CUDA device; at least one. Without a device, the check fails with a one-line message.
///
/// They stay open: a context takes up to half a second, which is too long for each check.
pub(crate) fn devices() -> Vec<Arc<CudaDevice>> {
    static DEVICES: OnceLock<Vec<Arc<CudaDevice>>> = OnceLock::new();
    let open = || match CudaDevice::detect() {
        Ok(devices) => devices.iter().map(|device| device.shared(Sharing::Alone)).collect(),
        Err(why) => panic!("no CUDA device: {why}"),
    };
    DEVICES.get_or_init(open).clone()
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
