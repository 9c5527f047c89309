//! The kernels without the library around them: one launch over all bytes, timed by the driver.

use core::ffi::{CStr, c_int, c_void};
use core::ptr;
use std::ffi::CString;
use std::time::Instant;

use cust::sys::{self, CUfunction, CUfunction_attribute_enum as Attribute, CUmodule, CUstream};

use crate::facts::raw::{Stream, code};

/// A loaded module of the library's PTX.
pub(super) struct Module(CUmodule);

/// A kernel of it.
#[derive(Clone, Copy)]
pub(super) struct Kernel(CUfunction);

/// Registers, local and shared bytes of a kernel, and its blocks that fit a multiprocessor.
pub(super) struct Needs {
    pub(super) registers: c_int,
    pub(super) local: c_int,
    pub(super) shared: c_int,
    /// Or the driver's code, if it does not say.
    pub(super) blocks: Result<c_int, u32>,
}

impl Module {
    /// Loads PTX into the current context; also returns the seconds that it took.
    pub(super) fn load(ptx: &str) -> (Self, f64) {
        let (ptx, mut module) = (CString::new(ptx).unwrap(), ptr::null_mut());
        let begun = Instant::now();
        // SAFETY: `module` is valid for writing a handle, and the image ends in a NUL.
        let loaded = unsafe { sys::cuModuleLoadData(&raw mut module, ptx.as_ptr().cast()) };
        assert_eq!(code(loaded), 0, "loading PTX");
        (Self(module), begun.elapsed().as_secs_f64())
    }

    pub(super) fn kernel(&self, name: &CStr) -> Kernel {
        let mut function = ptr::null_mut();
        // SAFETY: `function` is valid for writing a handle, the module is loaded, the name ends in a
        // NUL.
        let found = unsafe { sys::cuModuleGetFunction(&raw mut function, self.0, name.as_ptr()) };
        assert_eq!(code(found), 0, "{name:?}");
        Kernel(function)
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: the module is loaded, its kernels have ended, and it is used for the last time.
        assert_eq!(code(unsafe { sys::cuModuleUnload(self.0) }), 0);
    }
}

impl Kernel {
    pub(super) fn needs(self) -> Needs {
        let get = |attribute| {
            let mut value = 0;
            // SAFETY: `value` is valid for writing; the kernel is loaded.
            let got = unsafe { sys::cuFuncGetAttribute(&raw mut value, attribute, self.0) };
            assert_eq!(code(got), 0);
            value
        };
        let mut blocks = 0;
        // SAFETY: `blocks` is valid for writing; the kernel is loaded.
        let told = code(unsafe {
            sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(&raw mut blocks, self.0, 256, 0)
        });
        Needs {
            registers: get(Attribute::CU_FUNC_ATTRIBUTE_NUM_REGS),
            local: get(Attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES),
            shared: get(Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES),
            blocks: if told == 0 { Ok(blocks) } else { Err(told) },
        }
    }

    /// Launches blocks of 256 threads.
    ///
    /// # Safety
    ///
    /// The parameters are the kernel's, and what it finds through them is alive until the stream has
    /// been waited for.
    pub(super) unsafe fn launch<const N: usize>(
        self,
        blocks: usize,
        stream: &Stream,
        mut parameters: [u64; N],
    ) {
        let mut places = parameters.each_mut().map(|one| ptr::from_mut(one).cast::<c_void>());
        let (at, extra) = (places.as_mut_ptr(), ptr::null_mut());
        // SAFETY: as the caller promises; the parameters are read during the call.
        let started = unsafe {
            sys::cuLaunchKernel(self.0, blocks as u32, 1, 1, 256, 1, 1, 0, stream.0, at, extra)
        };
        assert_eq!(code(started), 0, "a launch");
    }
}

/// Milliseconds between two marks in a stream, by the driver's clock.
pub(super) fn milliseconds(stream: &Stream, work: impl FnOnce(CUstream)) -> f64 {
    let events = [(); 2].map(|()| {
        let mut event = ptr::null_mut();
        // SAFETY: `event` is valid for writing a handle.
        assert_eq!(code(unsafe { sys::cuEventCreate(&raw mut event, 0) }), 0);
        event
    });
    let record = |event| {
        // SAFETY: event and stream are alive.
        assert_eq!(code(unsafe { sys::cuEventRecord(event, stream.0) }), 0);
    };
    record(events[0]);
    work(stream.0);
    record(events[1]);
    stream.wait();
    let mut time = 0.0;
    // SAFETY: `time` is valid for writing; both events were reached.
    let told = unsafe { sys::cuEventElapsedTime(&raw mut time, events[0], events[1]) };
    assert_eq!(code(told), 0);
    for event in events {
        // SAFETY: the event is alive, and used for the last time.
        assert_eq!(code(unsafe { sys::cuEventDestroy_v2(event) }), 0);
    }
    f64::from(time)
}

/// Copies within the device, in the order of a stream.
///
/// # Safety
///
/// Both ranges lie in live allocations of the current context, and are apart.
pub(super) unsafe fn copy(to: u64, from: u64, len: usize, stream: CUstream) {
    // SAFETY: as the caller promises.
    assert_eq!(code(unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, len, stream) }), 0);
}
