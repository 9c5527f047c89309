//! A machine without CUDA: programs start, work on host devices, and report what is missing.
//!
//! A process loads its driver once, so each case runs in a child: this test binary again.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[macro_use]
extern crate vram_testkit;

use std::process::Command;

use vram_alloc::{ByteLen, DeviceRange, GpuIndex};
use vram_gpu::{CudaDevice, CudaUnavailable, Device, HostDevice};

/// Runs one ignored test of this binary with a driver of that name.
fn child(test: &str, driver: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", test])
        .env("VRAM_CUDA_DRIVER", driver)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{printed}{errors}");
    assert!(printed.contains("1 passed"), "{test} was not run: {printed}");
    printed
}

#[test]
fn a_missing_driver_is_named_with_what_helps() {
    let text = child("child_without_a_driver", "/nowhere/libcuda.so.1");
    assert!(text.contains("no CUDA driver: /nowhere/libcuda.so.1"), "{text}");
    assert!(text.contains("install the NVIDIA driver"), "{text}");
}

#[test]
#[ignore = "runs in a child process of `a_missing_driver_is_named_with_what_helps`"]
fn child_without_a_driver() {
    let missing = CudaDevice::detect().unwrap_err();
    assert!(matches!(missing, CudaUnavailable::NoDriver { .. }), "{missing}");
    assert_eq!(CudaDevice::survey().unwrap_err(), missing);
    assert_eq!(CudaDevice::open(0, GpuIndex::new(0)).unwrap_err(), missing);
    println!("{missing}");

    let host = HostDevice::new(GpuIndex::new(0), ByteLen::MIB).unwrap();
    let memory = host.allocate(ByteLen::MIB).unwrap();
    memory.fill(DeviceRange::whole(ByteLen::MIB), 1).unwrap();
}

#[test]
fn a_driver_without_a_device_says_so() {
    child("child_without_a_device", "");
}

#[test]
#[ignore = "runs in a child process of `a_driver_without_a_device_says_so`"]
fn child_without_a_device() {
    cuda_sim::install();
    let missing = CudaDevice::detect().unwrap_err();
    assert!(matches!(missing, CudaUnavailable::NoDevice { .. }), "{missing}");
    assert!(missing.to_string().contains("simulated driver"), "{missing}");
}

#[test]
fn a_driver_that_will_not_start_is_quoted() {
    child("child_with_a_driver_that_will_not_start", "");
}

#[test]
#[ignore = "runs in a child process of `a_driver_that_will_not_start_is_quoted`"]
fn child_with_a_driver_that_will_not_start() {
    cuda_sim::install();
    for (code, words) in [(803, "different versions"), (999, "/dev/nvidia"), (46, "exclusively")] {
        cuda_sim::Sim::set_init_answer(code);
        let refused = CudaDevice::detect().unwrap_err();
        assert!(matches!(refused, CudaUnavailable::Refused { code: seen, .. } if seen == code));
        assert!(refused.to_string().contains(words), "{refused}");
    }
}

#[test]
fn detection_takes_what_can_be_used_and_leaves_out_the_rest() {
    child("child_with_three_devices", "");
}

#[test]
#[ignore = "runs in a child process of `detection_takes_what_can_be_used_and_leaves_out_the_rest`"]
fn child_with_three_devices() {
    cuda_sim::install();
    let spec = cuda_sim::DeviceSpec::default;
    let _first = cuda_sim::Sim::add_device(spec());
    let shared = cuda_sim::DeviceSpec { integrated: true, ..spec() };
    let _second = cuda_sim::Sim::add_device(shared);
    let _third = cuda_sim::Sim::add_device(spec());

    let found = CudaDevice::detect().unwrap();
    let places: Vec<_> =
        found.iter().map(|device| (device.info().index.get(), device.ordinal())).collect();
    assert_eq!(places, [(0, 0), (1, 2)], "indices have no gap");
    let all = CudaDevice::survey().unwrap();
    let usable: Vec<_> = all.iter().map(Result::is_ok).collect();
    assert_eq!(usable, [true, false, true]);
}
