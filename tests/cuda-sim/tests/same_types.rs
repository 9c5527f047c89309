//! The simulated functions have the types with which the trampolines call them.
//!
//! There is no test to run: the compiler compares each function with the type in `cuda_shim::abi`,
//! which is generated from the bindings of `cust_raw`.

#[macro_use]
extern crate vram_testkit;

use core::ffi::CStr;

/// One function. The engine has a type of its own for the handle that is given by value: it links
/// without `cuda-shim`.
macro_rules! same {
    (cuIpcOpenMemHandle_v2) => {
        const _: () = {
            use core::mem::{align_of, size_of};

            use cuda_shim::IpcMemHandle as Theirs;
            use cuda_sim::IpcMemHandle as Ours;

            assert!(size_of::<Ours>() == 64 && size_of::<Theirs>() == 64);
            assert!(align_of::<Ours>() == align_of::<Theirs>());
            let _: unsafe extern "C" fn(*mut u64, Ours, u32) -> u32 =
                cuda_sim::functions::cuIpcOpenMemHandle_v2;
            let _: cuda_shim::abi::cuIpcOpenMemHandle_v2 = theirs;
        };
    };
    ($name:ident) => {
        const _: cuda_shim::abi::$name = cuda_sim::functions::$name;
    };
}

/// Any function of the shim's type.
unsafe extern "C" fn theirs(_: *mut u64, _: cuda_shim::IpcMemHandle, _: u32) -> u32 {
    0
}

macro_rules! compare {
    ($($module:ident::$name:ident($($parameter:ident: $kind:ty),*);)*) => {
        $(same!($name);)*

        const NAMES: &[&CStr] = &[$(match CStr::from_bytes_with_nul(
            concat!(stringify!($name), "\0").as_bytes(),
        ) {
            Ok(name) => name,
            Err(_) => c"",
        }),*];
    };
}

cuda_sim::for_each_driver_function!(compare);

#[test]
fn every_simulated_function_is_found_by_its_name_and_others_are_not() {
    assert_eq!(NAMES.len(), 96);
    for name in NAMES {
        assert!(cuda_sim::resolve(name).is_some(), "{name:?}");
    }
    assert_eq!(cuda_sim::resolve(c"cuGraphCreate"), None);
    assert_eq!(cuda_sim::resolve(c""), None);
}
