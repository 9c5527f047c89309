//! `CudaDevice` over the complete path: cust → trampolines → `dlopen` → the shared object.
//!
//! A process loads its driver once, so each case runs in a child: this test binary again.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[macro_use]
extern crate vram_testkit;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_gpu::{CudaDevice, CudaUnavailable, Device, Sharing, contract};

/// The shared object that cargo built before this test.
fn library() -> PathBuf {
    let mut folder = std::env::current_exe().unwrap();
    while folder.pop() {
        let library = folder.join("libcuda_sim_so.so");
        if library.is_file() {
            return library;
        }
    }
    unreachable!("cargo builds libcuda_sim_so.so before the tests of its package")
}

/// Runs one ignored test of this binary on a simulated machine and checks that it passed.
fn child(test: &str, devices: Option<&str>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", test]);
    command.env_remove("CUDA_SIM_INIT").env_remove("CUDA_SIM_DEVICES");
    command.env("VRAM_CUDA_DRIVER", library());
    if let Some(devices) = devices {
        command.env("CUDA_SIM_DEVICES", devices);
    }
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{test}: {printed}{errors}");
    assert!(printed.contains("1 passed"), "{test} was not run: {printed}");
}

#[test]
fn devices_of_a_loaded_driver_keep_the_contract() {
    let devices = "name=H200,capacity=128MiB;name=A100,capacity=64MiB";
    child("child_keeps_the_contract", Some(devices));
}

#[test]
#[ignore = "runs in a child process of `devices_of_a_loaded_driver_keep_the_contract`"]
fn child_keeps_the_contract() {
    let found = CudaDevice::detect().unwrap();
    let told: Vec<_> = found.iter().map(|d| (d.info().name.as_str(), d.info().total)).collect();
    let mib = ByteLen::from_mib_saturating;
    assert_eq!(told, [("H200", mib(128)), ("A100", mib(64))]);
    contract::run(&|| {
        let devices = CudaDevice::detect().unwrap();
        devices.iter().map(|device| -> Arc<dyn Device> { device.shared(Sharing::Alone) }).collect()
    });
}

#[test]
fn a_loaded_driver_without_a_device_says_so() {
    child("child_has_no_device", None);
}

#[test]
#[ignore = "runs in a child process of `a_loaded_driver_without_a_device_says_so`"]
fn child_has_no_device() {
    let missing = CudaDevice::detect().unwrap_err();
    assert!(matches!(missing, CudaUnavailable::NoDevice { .. }), "{missing}");
    assert!(missing.to_string().contains("libcuda_sim_so.so"), "{missing}");
}
