//! `cuGetErrorString` and `cuGetErrorName`, which also answer without a driver.
//!
//! `cust` asks the driver for the text of an error. If the driver does not answer, its `Display`
//! fails, and `to_string` panics. So "no device" could not be printed on a machine without a
//! driver. These two functions fall back to the names in the bindings.

use core::ffi::{CStr, c_char, c_int};

use crate::call::{Symbol, answer};
use crate::codes;

/// `CUDA_ERROR_INVALID_VALUE`.
const INVALID_VALUE: u32 = 1;

/// The types of the functions in this file.
#[expect(non_camel_case_types, reason = "named as the driver's functions are")]
pub(crate) mod abi {
    use core::ffi::{c_char, c_int};

    /// The type of `cuGetErrorString`.
    pub type cuGetErrorString = unsafe extern "C" fn(error: c_int, text: *mut *const c_char) -> u32;
    /// The type of `cuGetErrorName`.
    pub type cuGetErrorName = unsafe extern "C" fn(error: c_int, text: *mut *const c_char) -> u32;
}

/// Calls `cuGetErrorString` of the driver, or returns the code's name.
///
/// # Safety
///
/// `text` is null or valid for writing one pointer.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorString(error: c_int, text: *mut *const c_char) -> u32 {
    static SYMBOL: Symbol = Symbol::new(c"cuGetErrorString");
    // SAFETY: the caller passes `text`, and vouches for it.
    unsafe { describe(&SYMBOL, error, text) }
}

/// Calls `cuGetErrorName` of the driver, or returns the code's name.
///
/// # Safety
///
/// `text` is null or valid for writing one pointer.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorName(error: c_int, text: *mut *const c_char) -> u32 {
    static SYMBOL: Symbol = Symbol::new(c"cuGetErrorName");
    // SAFETY: the caller passes `text`, and vouches for it.
    unsafe { describe(&SYMBOL, error, text) }
}

/// # Safety
///
/// `text` is null or valid for writing one pointer, and `symbol` names a function of this type.
unsafe fn describe(symbol: &Symbol, error: c_int, text: *mut *const c_char) -> u32 {
    if text.is_null() {
        return answer(INVALID_VALUE);
    }
    if let Ok(address) = symbol.address() {
        // SAFETY: the resolver returned this address for one of the two names above, whose
        // functions share this type; it is not null and never unloaded.
        let function = unsafe {
            core::mem::transmute::<*mut core::ffi::c_void, abi::cuGetErrorString>(address.as_ptr())
        };
        // SAFETY: `text` is valid for writing one pointer.
        if unsafe { function(error, text) } == 0 {
            return 0;
        }
    }
    let name: Option<&'static CStr> = u32::try_from(error).ok().and_then(codes::code_name_c);
    // The answer is not kept as the thread's last code: asking for a text must not overwrite the
    // code that the text is about.
    name.map_or(INVALID_VALUE, |name| {
        // SAFETY: `text` is valid for writing one pointer; the name lives for ever.
        unsafe { text.write(name.as_ptr()) };
        0
    })
}
