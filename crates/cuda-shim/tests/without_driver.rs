//! A machine without a driver: every call answers, and the reason is given in words.
//!
//! A process has one driver for its whole life, so each case runs in a child process: this test
//! binary again, with the name of one `child_` test.

#![expect(clippy::unwrap_used, reason = "a helper of tests is a test")]

#[macro_use]
extern crate vram_testkit;

use std::process::Command;

use cuda_shim::DriverState;
use cust::error::CudaError;

extern crate cuda_shim as _;

/// Runs one ignored test of this binary with a variable set, and returns its standard output.
fn child(test: &str, driver: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", test])
        .env(cuda_shim::DRIVER_VARIABLE, driver)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test}: {printed}{errors}");
    assert!(printed.contains("1 passed"), "{test} was not run: {printed}");
    printed
}

#[test]
fn a_missing_library_is_no_device_and_is_named() {
    let text = child("child_answers_without_a_driver", "/nowhere/libcuda.so.1");
    assert!(text.contains("no CUDA driver: /nowhere/libcuda.so.1: "), "{text}");
    assert!(text.contains("No such file") || text.contains("cannot open"), "{text}");
    assert!(!text.contains("libcuda.so:"), "a named library must be the only attempt: {text}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_library_that_is_no_driver_is_no_device_and_is_named() {
    let text = child("child_answers_without_a_driver", "libc.so.6");
    assert!(text.contains("no CUDA driver: libc.so.6: loaded, but it is no CUDA driver"), "{text}");
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let text = child("child_says_what_it_tried", "");
    // With or without a driver on this machine: the shim tried the usual name first.
    assert!(text.contains("libcuda.so.1") || text.contains("nvcuda.dll"), "{text}");
}

#[test]
#[ignore = "runs in a child process of the tests above"]
fn child_answers_without_a_driver() {
    // `cust` panics on printing an error when the driver has no text for it; the shim has one.
    let refused = cust::init(cust::CudaFlags::empty()).unwrap_err();
    assert_eq!(refused, CudaError::NoDevice);
    assert!(refused.to_string().contains("CUDA_ERROR_NO_DEVICE"), "{refused}");
    assert_eq!(cuda_shim::last_raw_code(), 100);

    assert_eq!(cust::device::Device::num_devices().unwrap_err(), CudaError::NotInitialized);
    assert_eq!(cuda_shim::last_raw_code(), 3);
    assert!(
        matches!(cuda_shim::driver(), DriverState::Missing { attempts } if attempts.len() == 1)
    );
    println!("{}", cuda_shim::driver());
}

#[test]
#[ignore = "runs in a child process of the tests above"]
fn child_says_what_it_tried() {
    println!("{}", cuda_shim::driver());
}
