#![doc = include_str!("../README.md")]

use core::ffi::{c_char, c_int, c_uchar, c_uint, c_ushort, c_void};

macro_rules! export {
    ($($module:ident::$name:ident($($parameter:ident: $kind:ty),*);)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($parameter: $kind),*) -> u32 {
                // SAFETY: the caller guarantees the conditions of the arguments.
                unsafe { cuda_sim_engine::functions::$name($($parameter),*) }
            }
        )*
    };
}

cuda_sim_engine::for_each_driver_function!(export);
