//! Modules of kernels as the driver loads them, and launches.
//!
//! Dropping a value makes no driver call: after a reset its handle is invalid. `unload` makes it.

use core::ffi::{CStr, c_int, c_uint, c_void};
use core::ptr;

use cust::sys::{self, CUfunction, CUmodule};

use super::super::driver::raw;
use super::super::stream::Stream;

/// Threads of a block, in all kernels.
const THREADS: c_uint = 256;

/// A loaded module.
pub(super) struct Module(CUmodule);

/// A kernel of a loaded module.
#[derive(Clone, Copy)]
pub(super) struct Function(CUfunction);

// SAFETY: a module's handle may be used from every thread on which its context is current.
unsafe impl Send for Module {}
// SAFETY: as above; the driver orders calls of several threads.
unsafe impl Sync for Module {}
// SAFETY: a function's handle may be used from every thread on which its context is current.
unsafe impl Send for Function {}
// SAFETY: as above; a launch does not change the function.
unsafe impl Sync for Function {}

/// What the driver's compiler says of a refused module: as many bytes are kept.
const SAID: usize = 1024;

impl Module {
    /// Loads PTX into the bound context; the driver compiles it, or takes it from its cache. What
    /// the compiler says of PTX that it refuses is logged.
    pub(super) fn load(ptx: &CStr) -> Result<Self, u32> {
        const LOG: c_int = 5;
        const LOG_LEN: c_int = 6;
        let mut said = [0_u8; SAID];
        let mut options = [LOG, LOG_LEN];
        // The driver takes the length as the bits of a pointer, and gives it back so.
        let mut values = [said.as_mut_ptr().cast::<c_void>(), ptr::without_provenance_mut(SAID)];
        let mut module = ptr::null_mut();
        // SAFETY: `module` is valid for writing a handle; the image ends in a NUL; there are two
        // options with their values, a buffer and its length; all of it outlives the call. The
        // enum has these two values.
        let loaded = raw(unsafe {
            sys::cuModuleLoadDataEx(
                &raw mut module,
                ptx.as_ptr().cast(),
                2,
                options.as_mut_ptr().cast(),
                values.as_mut_ptr(),
            )
        });
        if let Err(code) = loaded {
            let said = said.split(|&byte| byte == 0).next().unwrap_or_default();
            let said = String::from_utf8_lossy(said);
            tracing::warn!(code, %said, "the driver refused kernels");
            return Err(code);
        }
        Ok(Self(module))
    }

    /// A kernel by its name.
    pub(super) fn function(&self, name: &CStr) -> Result<Function, u32> {
        let mut function = ptr::null_mut();
        // SAFETY: `function` is valid for writing a handle, the module is loaded in the bound
        // context, the name ends in a NUL.
        raw(unsafe { sys::cuModuleGetFunction(&raw mut function, self.0, name.as_ptr()) })?;
        Ok(Function(function))
    }

    /// Unloads the module, in a bound context. None of its kernels runs or is used again.
    pub(super) fn unload(self) -> Result<(), u32> {
        // SAFETY: the handle is valid in the bound context, and used for the last time.
        raw(unsafe { sys::cuModuleUnload(self.0) })
    }
}

impl Function {
    /// Starts the kernel in the order of the stream.
    ///
    /// # Arguments
    ///
    /// * `blocks`: at least 1.
    /// * `parameters`: in the kernel's order. One of 32 bits takes the lower half of its number:
    ///   hosts of CUDA are little-endian.
    ///
    /// # Safety
    ///
    /// The kernel has so many parameters, of at most 64 bits, and every range that it finds through
    /// them lies in live allocations of the bound context until the stream has been waited for.
    pub(super) unsafe fn launch<const N: usize>(
        self,
        blocks: u32,
        stream: &Stream,
        mut parameters: [u64; N],
    ) -> Result<(), u32> {
        let mut places = parameters.each_mut().map(|parameter| ptr::from_mut(parameter).cast());
        let (places, extra) = (places.as_mut_ptr(), ptr::null_mut());
        // SAFETY: as the caller promises; the driver reads the parameters during the call; function
        // and stream are of the bound context.
        let started = unsafe {
            sys::cuLaunchKernel(
                self.0,
                blocks,
                1,
                1,
                THREADS,
                1,
                1,
                0,
                stream.as_raw(),
                places,
                extra,
            )
        };
        raw(started)
    }
}
