//! A device for one test, and short functions for the tests' operations on it.

use core::ptr;

use cuda_sim::{DeviceSpec, Sim};
use cust::context::{Context, CurrentContext};
use cust::device::Device;
use cust::memory::{CopyDestination, DeviceBuffer};
use cust::sys;

/// A device of its own, with its primary context current on this thread.
pub(crate) struct Bench {
    pub(crate) device: u32,
    pub(crate) context: Context,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(DeviceSpec { capacity: 64 << 20, ..DeviceSpec::default() })
    }

    pub(crate) fn with(spec: DeviceSpec) -> Self {
        cuda_sim::install();
        let device = Sim::add_device(spec);
        cust::init(cust::CudaFlags::empty()).unwrap();
        let context = Context::new(Device::get_device(device).unwrap()).unwrap();
        CurrentContext::set_current(&context).unwrap();
        Self { device, context }
    }

    /// Resets the device, as after a sticky error.
    pub(crate) fn reset(&self) {
        let device = Device::get_device(self.device).unwrap();
        // SAFETY: no value that lives in the context is used after this: tests forget them.
        unsafe { Context::reset(&device) }.unwrap();
    }

    /// Releases the context and checks that nothing is left and nothing was misused.
    pub(crate) fn finish(self) {
        let device = self.device;
        drop(self);
        Sim::assert_clean(device);
    }
}

pub(crate) fn pattern(len: usize, seed: usize) -> Vec<u8> {
    let mut state = u64::try_from(seed).unwrap();
    core::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(len)
    .collect()
}

pub(crate) fn buffer(bytes: &[u8]) -> DeviceBuffer<u8> {
    DeviceBuffer::from_slice(bytes).unwrap()
}

pub(crate) fn read(buffer: &DeviceBuffer<u8>) -> Vec<u8> {
    let mut bytes = vec![0; buffer.len()];
    buffer.copy_to(&mut bytes).unwrap();
    bytes
}

pub(crate) fn address(buffer: &DeviceBuffer<u8>) -> u64 {
    buffer.as_device_ptr().as_raw()
}

/// A non-blocking stream. `Stream::new` of cust 0.3.2 drops that flag, so its streams always keep
/// order with the default stream.
pub(crate) fn non_blocking() -> sys::CUstream {
    let mut stream = ptr::null_mut();
    // SAFETY: `stream` is valid for writing.
    raw(unsafe { sys::cuStreamCreate(&raw mut stream, 1) }).unwrap();
    stream
}

pub(crate) fn raw(result: sys::CUresult) -> Result<(), sys::CUresult> {
    if result == sys::CUresult::CUDA_SUCCESS { Ok(()) } else { Err(result) }
}
