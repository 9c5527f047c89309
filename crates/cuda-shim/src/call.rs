//! The work of every trampoline: find the driver's function once, call it, clamp its answer.

use core::ffi::{CStr, c_void};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::codes;
use crate::resolver;

/// `CUDA_ERROR_NOT_INITIALIZED`: the answer of every function but `cuInit` without a driver.
pub(crate) const NOT_INITIALIZED: u32 = 3;
/// `CUDA_ERROR_NO_DEVICE`: the answer of `cuInit` without a driver.
pub(crate) const NO_DEVICE: u32 = 100;
/// `CUDA_ERROR_NOT_SUPPORTED`: the answer of a function that the driver lacks.
pub(crate) const NOT_SUPPORTED: u32 = 801;

/// One driver function: its name, and its address after the first look-up.
#[derive(Debug)]
pub(crate) struct Symbol {
    name: &'static CStr,
    /// Null until the first look-up. If the driver lacks the function, this stays null and every
    /// call looks it up again: rare, and never wrong.
    address: AtomicPtr<c_void>,
}

impl Symbol {
    pub(crate) const fn new(name: &'static CStr) -> Self {
        Self { name, address: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The function's address, or the code that stands for its absence.
    #[inline]
    pub(crate) fn address(&self) -> Result<NonNull<c_void>, u32> {
        // Acquire pairs with the release below: a thread that sees the address sees the loaded
        // library.
        match NonNull::new(self.address.load(Ordering::Acquire)) {
            Some(address) => Ok(address),
            None => self.look_up(),
        }
    }

    #[cold]
    fn look_up(&self) -> Result<NonNull<c_void>, u32> {
        let Some(driver) = resolver::active() else {
            let absent = if self.name == c"cuInit" { NO_DEVICE } else { NOT_INITIALIZED };
            return Err(absent);
        };
        let address = driver.look_up(self.name).ok_or(NOT_SUPPORTED)?;
        self.address.store(address.as_ptr(), Ordering::Release);
        Ok(address)
    }
}

/// Keeps the code for this thread, and returns it clamped to the codes that `cust_raw` can hold.
#[inline]
pub(crate) fn answer(code: u32) -> u32 {
    if code == 0 { 0 } else { codes::keep_and_clamp(code) }
}

/// Defines the trampolines, and the type of each in a module `abi`.
macro_rules! trampolines {
    ($($name:ident($($parameter:ident: $kind:ty),*);)*) => {
        $(
            #[doc = concat!("Calls `", stringify!($name), "` of the driver.")]
            ///
            /// # Safety
            ///
            /// Those of the driver's function: see NVIDIA's driver API reference.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($parameter: $kind),*) -> u32 {
                static SYMBOL: $crate::call::Symbol = $crate::call::Symbol::new(
                    // `concat!` makes no C string, so the NUL is checked here, at compile time.
                    match core::ffi::CStr::from_bytes_with_nul(
                        concat!(stringify!($name), "\0").as_bytes(),
                    ) {
                        Ok(name) => name,
                        Err(_) => c"",
                    },
                );
                match SYMBOL.address() {
                    Ok(address) => {
                        // SAFETY: the resolver returned this address for this name, so it is a
                        // function of this signature (the contract of `install`, and of the
                        // driver's header for a loaded library); it is not null, and neither kind
                        // of driver is ever unloaded.
                        let function = unsafe {
                            core::mem::transmute::<*mut core::ffi::c_void, abi::$name>(
                                address.as_ptr(),
                            )
                        };
                        // SAFETY: the caller passes these arguments, and vouches for them.
                        $crate::call::answer(unsafe { function($($parameter),*) })
                    }
                    Err(absent) => $crate::call::answer(absent),
                }
            }
        )*

        /// The type of each function above, under its own name.
        pub(crate) mod abi {
            use super::*;
            $(
                #[doc = concat!("The type of `", stringify!($name), "`.")]
                pub type $name = unsafe extern "C" fn($($parameter: $kind),*) -> u32;
            )*
        }
    };
}
