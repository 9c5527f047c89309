//! A driver within the process: arguments arrive whole, answers are clamped.
//!
//! One process, one driver: the tests of this file share the resolver below.

#![expect(clippy::unwrap_used, reason = "a helper of tests is a test")]

#[macro_use]
extern crate vram_testkit;

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::ptr::{self, NonNull};
use std::sync::Once;

use cuda_shim::{InstallError, IpcMemHandle, abi};
use cust::sys;

/// `cuInit` returns its flags, so a test can choose the code.
unsafe extern "C" fn init(flags: c_uint) -> u32 {
    flags
}

/// By value and 64 bytes long: the only kind of argument that does not fit a register.
unsafe extern "C" fn open_ipc(address: *mut u64, handle: IpcMemHandle, flags: c_uint) -> u32 {
    let sum = handle.reserved.iter().fold(0_u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte.cast_unsigned()))
    });
    // SAFETY: the test below passes a valid pointer.
    unsafe { address.write(sum ^ u64::from(flags)) };
    0
}

/// Eleven arguments: more than any calling convention has registers for.
unsafe extern "C" fn launch(
    function: *mut c_void,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    stream: *mut c_void,
    parameters: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> u32 {
    let numbers = [grid_x, grid_y, grid_z, block_x, block_y, block_z, shared];
    let pointers = [function.addr(), stream.addr(), parameters.addr(), extra.addr()];
    u32::from(numbers != [1, 2, 3, 4, 5, 6, 7] || pointers != [11, 12, 13, 14])
}

/// A driver without texts: the shim's own names replace them.
unsafe extern "C" fn no_text(_error: c_int, _text: *mut *const c_char) -> u32 {
    1
}

#[expect(clippy::as_conversions, reason = "a function becomes an address by `as` only")]
fn resolve(name: &CStr) -> Option<NonNull<c_void>> {
    // Each is bound to the type by which the shim will call it, so the compiler compares them.
    let address: *const () = match name.to_bytes() {
        b"cuInit" => init as abi::cuInit as *const (),
        b"cuIpcOpenMemHandle_v2" => open_ipc as abi::cuIpcOpenMemHandle_v2 as *const (),
        b"cuLaunchKernel" => launch as abi::cuLaunchKernel as *const (),
        b"cuGetErrorString" => no_text as abi::cuGetErrorString as *const (),
        _ => ptr::null(),
    };
    NonNull::new(address.cast_mut().cast())
}

fn installed() {
    static ONCE: Once = Once::new();
    // SAFETY: each address that `resolve` returns is a function of this file, of the type that
    // `abi` gives for its name.
    ONCE.call_once(|| unsafe { cuda_shim::install("four functions", resolve) }.unwrap());
}

/// The answer of `cuInit` through `cust_raw`'s own declaration.
fn through_cust(code: u32) -> sys::CUresult {
    installed();
    // SAFETY: `cuInit` takes any flags.
    unsafe { sys::cuInit(code) }
}

#[test]
fn a_known_code_comes_back_as_itself() {
    assert_eq!(through_cust(0), sys::CUresult::CUDA_SUCCESS);
    assert_eq!(through_cust(2), sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY);
    assert_eq!(through_cust(700), sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    assert_eq!(cuda_shim::last_raw_code(), 700);
    assert_eq!(through_cust(0), sys::CUresult::CUDA_SUCCESS);
    assert_eq!(cuda_shim::last_raw_code(), 700, "a success does not hide the last failure");
}

#[test]
fn a_code_that_the_bindings_lack_is_clamped_and_kept_raw() {
    for code in [36, 46, 47, 225, 226, 227, 402, 721, 810, 811, 812, 912, 919, u32::MAX] {
        assert_eq!(through_cust(code), sys::CUresult::CUDA_ERROR_UNKNOWN, "{code}");
        assert_eq!(cuda_shim::last_raw_code(), code);
    }
}

#[test]
fn a_function_that_the_driver_lacks_is_not_supported() {
    installed();
    let mut count = 0;
    // SAFETY: `count` is valid for writing.
    let answer = unsafe { sys::cuDeviceGetCount(&raw mut count) };
    assert_eq!(answer, sys::CUresult::CUDA_ERROR_NOT_SUPPORTED);
    assert_eq!(cuda_shim::last_raw_code(), 801);
}

#[test]
fn a_struct_by_value_arrives_whole() {
    installed();
    let mut handle = sys::CUipcMemHandle { reserved: [0; 64] };
    for (value, byte) in (1..).zip(&mut handle.reserved) {
        *byte = value;
    }
    let expected = (1..=64_u64).fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    let mut address = 0;
    // SAFETY: `address` is valid for writing.
    let answer = unsafe { sys::cuIpcOpenMemHandle_v2(&raw mut address, handle, 0xff) };
    assert_eq!(answer, sys::CUresult::CUDA_SUCCESS);
    assert_eq!(address, expected ^ 0xff);
}

#[test]
fn eleven_arguments_arrive_in_their_places() {
    installed();
    // SAFETY: the function above compares its arguments and follows no pointer.
    let answer = unsafe {
        sys::cuLaunchKernel(
            ptr::without_provenance_mut(11),
            1,
            2,
            3,
            4,
            5,
            6,
            7,
            ptr::without_provenance_mut(12),
            ptr::without_provenance_mut(13),
            ptr::without_provenance_mut(14),
        )
    };
    assert_eq!(answer, sys::CUresult::CUDA_SUCCESS);
}

#[test]
fn an_error_can_be_printed_though_the_driver_has_no_text() {
    installed();
    assert_eq!(cust::error::CudaError::OutOfMemory.to_string(), "\"CUDA_ERROR_OUT_OF_MEMORY\"");
}

#[test]
fn a_second_driver_is_refused_and_the_first_is_named() {
    installed();
    // SAFETY: as above.
    let refused = unsafe { cuda_shim::install("another", resolve) };
    let Err(InstallError::Settled(first)) = refused else {
        panic!("a second driver was accepted: {refused:?}");
    };
    assert_eq!(first, "CUDA driver within the process: four functions");
    assert!(cuda_shim::driver().is_present());
}
