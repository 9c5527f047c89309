//! What each driver function does, by subject. `functions` puts them behind the C interface.
//!
//! Safety: every function here is called by its C twin with the arguments of that call. Its
//! condition is that of the driver's manual: each pointer is null or valid for what the function
//! reads or writes through it.

use crate::code;

/// Writes a value through a pointer that the driver's caller gave.
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
pub(crate) mod memory;
pub(crate) mod module;
pub(crate) mod pinned;
pub(crate) mod pointer;
pub(crate) mod stream;

/// Writes `value`, unless the pointer is null, which is an invalid value.
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

/// A length of the driver's caller as a device length.
fn wide(len: usize) -> u64 {
    crate::memory::wide(len)
}
