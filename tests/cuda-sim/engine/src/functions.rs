//! The driver functions as a driver exports them: C functions that return a code.

use core::ffi::{CStr, c_char, c_int, c_uchar, c_uint, c_ushort, c_void};
use core::panic::AssertUnwindSafe;
use core::ptr::NonNull;
use std::panic::catch_unwind;
use std::sync::{Mutex, PoisonError};

use crate::call::Call;
use crate::code;
use crate::report::MisuseKind;
use crate::world;

macro_rules! define {
    ($($module:ident::$name:ident($($parameter:ident: $kind:ty),*);)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` of the simulated driver.")]
            ///
            /// # Safety
            ///
            /// As NVIDIA's driver API reference requires of the caller of this function: pointers
            /// are valid for what the function writes or reads through them.
            pub unsafe extern "C" fn $name($($parameter: $kind),*) -> u32 {
                enter(stringify!($name), |call| {
                    // SAFETY: the caller guarantees the conditions of the arguments.
                    unsafe { crate::driver::$module::$name(call, $($parameter),*) }
                })
            }
        )*

        /// The address of a simulated driver function, or `None` if it is not simulated.
        #[must_use]
        pub fn resolve(name: &CStr) -> Option<NonNull<c_void>> {
            let address: *const () = match name.to_bytes() {
                $(bytes if bytes == stringify!($name).as_bytes() => {
                    $name as unsafe extern "C" fn($($kind),*) -> u32 as *const ()
                })*
                _ => core::ptr::null(),
            };
            NonNull::new(address.cast_mut().cast())
        }
    };
}

crate::for_each_driver_function!(define);

/// Driver calls from host functions and kernels; the misuse log is locked while those run.
static FROM_CALLBACKS: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

/// Takes the driver calls from host functions and kernels that were not logged yet.
pub(crate) fn take_calls_from_callbacks() -> Vec<&'static str> {
    core::mem::take(&mut *FROM_CALLBACKS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Runs one driver call under the lock. Catches panics: they must not reach the C caller.
fn enter(name: &'static str, body: impl FnOnce(&mut Call<'_>) -> Result<(), u32>) -> u32 {
    if world::in_callback() {
        FROM_CALLBACKS.lock().unwrap_or_else(PoisonError::into_inner).push(name);
        return code::NOT_PERMITTED;
    }
    let mut guard = world::lock();
    let mut call = Call { world: &mut guard, name };
    let outcome = catch_unwind(AssertUnwindSafe(|| body(&mut call)));
    match outcome {
        Ok(Ok(())) => 0,
        Ok(Err(code)) => code,
        Err(_) => {
            let detail = "the simulator itself panicked; see the message above".to_owned();
            guard.note(MisuseKind::Simulator, None, name, detail);
            code::UNKNOWN
        }
    }
}
