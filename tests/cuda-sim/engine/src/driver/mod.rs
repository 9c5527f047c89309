//! The work of each driver function, by subject. `functions` exports them through the C interface.
//!
//! Safety: the C function with the same name calls each function here with its own arguments. The
//! condition is that of the driver's manual: each pointer is null or valid for what the function
//! reads or writes through it.

use crate::code;

/// Writes a value through a pointer from the caller of the driver.
macro_rules! put {
    ($target:expr, $value:expr) => {
        // SAFETY: the pointer is null or valid for writes, as the function's caller promises.
        unsafe { crate::driver::put_value($target, $value) }
    };
}

pub(crate) mod context;
pub(crate) mod copy;
pub(crate) mod device;
pub(crate) mod event;
pub(crate) mod ipc;
pub(crate) mod memory;
pub(crate) mod module;
pub(crate) mod pinned;
pub(crate) mod pointer;
pub(crate) mod stream;

/// Writes `value`. A null pointer is an invalid value.
///
/// # Safety
///
/// `target` is null or valid for writes; it need not be aligned.
unsafe fn put_value<T>(target: *mut T, value: T) -> Result<(), u32> {
    if target.is_null() {
        return Err(code::INVALID_VALUE);
    }
    // SAFETY: not null, so valid for writes.
    unsafe { target.write_unaligned(value) };
    Ok(())
}

/// Converts a length from the caller of the driver to a device length.
fn wide(len: usize) -> u64 {
    crate::memory::wide(len)
}
