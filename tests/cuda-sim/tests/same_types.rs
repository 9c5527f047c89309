//! The simulated functions have the types with which the trampolines call them.
//!
//! There is no test to run: the compiler compares each function with the type in `cuda_shim::abi`,
//! which is generated from the bindings of `cust_raw`.

#[macro_use]
extern crate vram_testkit;

use core::ffi::CStr;

macro_rules! compare {
    ($($module:ident::$name:ident($($parameter:ident: $kind:ty),*);)*) => {
        $(const _: cuda_shim::abi::$name = cuda_sim::functions::$name;)*

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
    assert_eq!(NAMES.len(), 93);
    for name in NAMES {
        assert!(cuda_sim::resolve(name).is_some(), "{name:?}");
    }
    assert_eq!(cuda_sim::resolve(c"cuGraphCreate"), None);
    assert_eq!(cuda_sim::resolve(c""), None);
}
