//! Driver calls that cust does not wrap, with their codes as they are.

use core::ffi::{CStr, c_void};
use core::ptr;
use std::time::Instant;

use cust::memory::DeviceBuffer;
use cust::sys::{self, CUfunction, CUmodule, CUresult, CUstream};

/// The driver's code, 0 for success.
pub(crate) fn code(result: CUresult) -> u32 {
    if result == CUresult::CUDA_SUCCESS { 0 } else { cuda_shim::last_raw_code() }
}

/// Bytes free on the current device.
pub(crate) fn free() -> u64 {
    cust::memory::mem_get_info().unwrap().0 as u64
}

/// By how many bytes the free figure has fallen since, or by how many it rose.
pub(crate) fn fell_since(before: u64) -> String {
    let now = free();
    if now > before {
        format!("free rose by {}", now - before)
    } else {
        format!("free fell by {}", before - now)
    }
}

/// Device memory of the current context.
pub(crate) fn buffer(len: usize) -> DeviceBuffer<u8> {
    // SAFETY: bytes, for which any pattern is valid.
    unsafe { DeviceBuffer::uninitialized(len) }.unwrap()
}

/// The result of `work`, and its time in microseconds.
pub(crate) fn in_us<T>(work: impl FnOnce() -> T) -> (T, u128) {
    let started = Instant::now();
    let done = work();
    (done, started.elapsed().as_micros())
}

/// A stream of the current context, destroyed when dropped.
pub(crate) struct Stream(pub(crate) CUstream);

impl Stream {
    /// A stream that keeps order with the default stream, or one that does not.
    pub(crate) fn new(blocking: bool) -> Self {
        let mut stream = ptr::null_mut();
        let flags = u32::from(!blocking);
        // SAFETY: `stream` is valid for writing a handle.
        assert_eq!(code(unsafe { sys::cuStreamCreate(&raw mut stream, flags) }), 0);
        Self(stream)
    }

    pub(crate) fn wait(&self) {
        // SAFETY: the stream is alive.
        assert_eq!(code(unsafe { sys::cuStreamSynchronize(self.0) }), 0);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: the stream is alive, and used for the last time.
        assert_eq!(code(unsafe { sys::cuStreamDestroy_v2(self.0) }), 0);
    }
}

/// Locks the pages of memory that starts at a page.
pub(crate) fn lock(pages: &mut [u8]) -> u32 {
    let (start, len) = (pages.as_mut_ptr().cast::<c_void>(), pages.len());
    // SAFETY: the caller's memory outlives its lock, which each caller here ends.
    code(unsafe { sys::cuMemHostRegister_v2(start, len, sys::CU_MEMHOSTREGISTER_PORTABLE) })
}

/// Ends a page lock. No copy uses the pages.
pub(crate) fn unlock(pages: &mut [u8]) -> u32 {
    // SAFETY: an address that is not registered is refused.
    code(unsafe { sys::cuMemHostUnregister(pages.as_mut_ptr().cast()) })
}

/// Whole pages in a vector, from a page's first byte on.
pub(crate) fn pages(bytes: &mut Vec<u8>, len: usize) -> &mut [u8] {
    bytes.resize(len + 4096, 1);
    let start = bytes.as_ptr().align_offset(4096);
    &mut bytes[start..start + len]
}

/// Resets the primary context.
pub(crate) fn reset(ordinal: u32) -> u32 {
    // SAFETY: nothing of the context is used afterwards.
    code(unsafe { sys::cuDevicePrimaryCtxReset_v2(ordinal.cast_signed()) })
}

/// Loads PTX and finds a kernel in it; the driver's code if it does not.
pub(crate) fn kernel(ptx: &CStr, name: &CStr) -> Result<CUfunction, u32> {
    let (mut module, mut function): (CUmodule, CUfunction) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: `module` is valid for writing a handle, and the image ends in a NUL.
    let loaded = code(unsafe { sys::cuModuleLoadData(&raw mut module, ptx.as_ptr().cast()) });
    if loaded != 0 {
        return Err(loaded);
    }
    // SAFETY: `function` is valid for writing a handle, the module is loaded, the name ends in a
    // NUL.
    match code(unsafe { sys::cuModuleGetFunction(&raw mut function, module, name.as_ptr()) }) {
        0 => Ok(function),
        refused => Err(refused),
    }
}

/// Launches a kernel of one parameter with one thread, in the default stream.
///
/// # Safety
///
/// The kernel has one parameter of 8 bytes. Whatever it does happens to this process.
pub(crate) unsafe fn launch(kernel: CUfunction, mut parameter: u64) -> u32 {
    let mut parameters = [(&raw mut parameter).cast::<c_void>()];
    let (stream, extra) = (ptr::null_mut(), ptr::null_mut());
    let at = parameters.as_mut_ptr();
    // SAFETY: as the caller promises; the parameters are read during the call.
    code(unsafe { sys::cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, stream, at, extra) })
}
