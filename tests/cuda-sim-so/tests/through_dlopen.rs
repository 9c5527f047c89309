//! The complete path: `cust` → trampolines → `dlopen` → the shared object → the simulated driver.
//!
//! A process loads its driver once, and its devices come from the environment, so each case runs in
//! a child process: this test binary again, limited to one `child_` test.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[macro_use]
extern crate vram_testkit;

use std::path::PathBuf;
use std::process::{Command, Output};

use cuda_shim::DriverState;
use cust::context::{Context, CurrentContext};
use cust::device::Device;
use cust::error::CudaError;
use cust::memory::{CopyDestination, DeviceBuffer};

extern crate cuda_shim as _;

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

fn run(test: &str, variables: &[(&str, &str)]) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", test])
        .env_remove("CUDA_SIM_INIT")
        .env_remove("CUDA_SIM_DEVICES")
        .env("VRAM_CUDA_DRIVER", library())
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

/// Runs one ignored test of this binary and checks that it passed.
fn child(test: &str, variables: &[(&str, &str)]) -> String {
    let output = run(test, variables);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{test}: {printed}{errors}");
    assert!(printed.contains("1 passed"), "{test} was not run: {printed}");
    printed + &errors
}

#[test]
fn bytes_go_through_a_driver_that_was_loaded() {
    let devices = "name=H200,capacity=64MiB,fail=alloc:2:46;name=A100,capacity=1MiB";
    let text = child("child_works_on_two_devices", &[("CUDA_SIM_DEVICES", devices)]);
    assert!(text.contains("libcuda_sim_so.so, loaded from /"), "{text}");
}

#[test]
fn a_driver_without_a_device_says_so() {
    child("child_finds_no_device", &[]);
    child("child_finds_no_device", &[("CUDA_SIM_DEVICES", "")]);
    child(
        "child_finds_no_device",
        &[("CUDA_SIM_DEVICES", "capacity=1GiB"), ("CUDA_SIM_INIT", "100")],
    );
}

#[test]
fn a_stub_library_is_no_driver_and_is_named() {
    let text = child("child_has_no_driver", &[("CUDA_SIM_INIT", "34")]);
    assert!(text.contains("the stub library of a toolkit, not a driver"), "{text}");
    assert!(text.contains("libcuda_sim_so.so"), "{text}");
}

/// A stub under the name that comes last, where the machine has no driver of its own.
#[test]
fn a_driver_by_its_name_is_found_and_a_stub_beside_it_is_not() {
    let folder = std::env::temp_dir().join(format!("vram-driver-names-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, init, test) in
        [("libcuda.so.1", "0", "child_has_a_driver"), ("libcuda.so", "34", "child_names_stubs")]
    {
        let path = folder.join(name);
        std::fs::copy(library(), &path).unwrap();
        let folder = folder.to_str().unwrap();
        let search = [
            ("VRAM_CUDA_DRIVER", ""),
            ("LD_LIBRARY_PATH", folder),
            ("CUDA_SIM_INIT", init),
            ("CUDA_SIM_DEVICES", "capacity=1MiB"),
        ];
        let text = child(test, &search);
        assert!(text.contains(folder) || text.contains("a driver of this machine"), "{text}");
        std::fs::remove_file(path).unwrap();
    }
    std::fs::remove_dir(folder).unwrap();
}

#[test]
#[ignore = "runs in a child process of the tests above"]
fn child_has_a_driver() {
    cust::init(cust::CudaFlags::empty()).unwrap();
    println!("{}", cuda_shim::driver());
}

#[test]
#[ignore = "runs in a child process of the tests above"]
fn child_names_stubs() {
    match cuda_shim::driver() {
        // On a machine with a driver the stub's name is never reached.
        DriverState::Loaded { library, .. } if library != "libcuda.so" => {
            println!("a driver of this machine: {library}");
        }
        missing @ DriverState::Missing { .. } => println!("{missing}"),
        other => unreachable!("{other}"),
    }
}

#[test]
#[ignore = "runs in a child process of the tests above"]
fn child_has_no_driver() {
    let refused = cust::init(cust::CudaFlags::empty()).unwrap_err();
    assert_eq!(refused, CudaError::NoDevice);
    println!("{}", cuda_shim::driver());
}

#[test]
fn a_device_that_cannot_be_is_told_and_nothing_works() {
    let text = child("child_is_told_unknown", &[("CUDA_SIM_DEVICES", "capacity=1TiB")]);
    assert!(text.contains("simulated CUDA driver: CUDA_SIM_DEVICES: `capacity=1TiB`"), "{text}");
}

#[test]
fn the_library_is_named_as_the_real_driver_is() {
    let bytes = std::fs::read(library()).unwrap();
    let wanted = b"\0libcuda.so.1\0";
    assert!(bytes.windows(wanted.len()).any(|window| window == wanted));
    // The library exports the driver's functions, and none of the shim's.
    let text = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
    assert!(text(b"\0cuMemAlloc_v2\0"));
    assert!(!text(b"\0cuGraphCreate\0"), "the shim's trampolines got into the driver");
}

#[test]
#[ignore = "runs in a child process of the tests above"]
fn child_works_on_two_devices() {
    cust::init(cust::CudaFlags::empty()).unwrap();
    println!("{}", cuda_shim::driver());
    assert!(matches!(cuda_shim::driver(), DriverState::Loaded { file: Some(_), .. }));
    assert_eq!(Device::num_devices().unwrap(), 2);
    let names: Vec<String> =
        Device::devices().unwrap().map(|device| device.unwrap().name().unwrap()).collect();
    assert_eq!(names, ["H200", "A100"]);

    let context = Context::new(Device::get_device(0).unwrap()).unwrap();
    CurrentContext::set_current(&context).unwrap();
    let bytes: Vec<u8> = (0..1_000_003_u32).map(|i| i.to_le_bytes()[0]).collect();
    let buffer = DeviceBuffer::from_slice(&bytes).unwrap();
    // The second allocation fails with a code that is unknown to cust.
    let refused = DeviceBuffer::from_slice(&bytes).map(drop);
    assert_eq!(refused, Err(CudaError::UnknownError));
    assert_eq!(cuda_shim::last_raw_code(), 46);
    let mut back = vec![0; bytes.len()];
    buffer.copy_to(&mut back).unwrap();
    assert_eq!(back, bytes);
    // SAFETY: never read.
    let too_much = unsafe { DeviceBuffer::<u8>::uninitialized(64 << 20) };
    assert_eq!(too_much.map(drop), Err(CudaError::OutOfMemory));
    // A function that the simulated driver does not have.
    let mut graph = core::ptr::null_mut();
    // SAFETY: `graph` is valid for writing.
    let answer = unsafe { cust::sys::cuGraphCreate(&raw mut graph, 0) };
    assert_eq!(answer, cust::sys::CUresult::CUDA_ERROR_NOT_SUPPORTED);
}

#[test]
#[ignore = "runs in a child process of the tests above"]
fn child_finds_no_device() {
    let refused = cust::init(cust::CudaFlags::empty()).unwrap_err();
    assert_eq!(refused, CudaError::NoDevice);
    assert!(refused.to_string().contains("no CUDA-capable device"), "{refused}");
    assert!(cuda_shim::driver().is_present(), "there is a driver, only no device");
}

#[test]
#[ignore = "runs in a child process of the tests above"]
fn child_is_told_unknown() {
    assert_eq!(cust::init(cust::CudaFlags::empty()), Err(CudaError::UnknownError));
}
