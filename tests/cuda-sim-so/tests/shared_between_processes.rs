//! Memory of one process in another: `CudaDevice` over the complete path, each process with a driver of
//! its own.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[macro_use]
extern crate vram_testkit;

use core::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange, GpuIndex};
use vram_gpu::fault::{FaultDevice, FaultPlan};
use vram_gpu::{
    CudaDevice, Device, DeviceMemory, GpuError, HostDevice, SHARE_HANDLE_LEN, SHARE_UNIT,
    ShareHandle,
};

const UUID: &str = "uuid=8932f937d72c4106c12f20bd9faed9f6";

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

/// Runs an ignored test of this binary as another process, over one simulated device.
fn run(test: &str, device: &str, misuse: &Path, handle: Option<&str>) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", test]);
    command.env_remove("CUDA_SIM_INIT").env("CUDA_SIM_DEVICES", device);
    command.env("VRAM_CUDA_DRIVER", library()).env("CUDA_SIM_MISUSE", misuse);
    if let Some(handle) = handle {
        command.env("TEST_HANDLE", handle);
    }
    command.output().unwrap()
}

/// As [`run`], and checks that the test passed without a misuse of the driver.
fn child(test: &str, device: &str) {
    let misuse = std::env::temp_dir().join(format!("vram-{test}-{}", std::process::id()));
    let output = run(test, device, &misuse, None);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{test}: {printed}{errors}");
    assert!(printed.contains("1 passed"), "{test} was not run: {printed}");
    let told = std::fs::read_to_string(&misuse).unwrap_or_default();
    let _left = std::fs::remove_file(&misuse);
    assert_eq!(told, "", "the driver was misused");
}

/// In a child: runs a third process on what this one shares.
fn grandchild(test: &str, device: &str, handle: ShareHandle) {
    let mut digits = String::new();
    for byte in handle.to_bytes() {
        write!(digits, "{byte:02x}").unwrap();
    }
    let misuse = PathBuf::from(std::env::var_os("CUDA_SIM_MISUSE").unwrap());
    let output = run(test, device, &misuse, Some(&digits));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && printed.contains("1 passed"), "{test}: {printed}");
}

/// In a grandchild: the handle.
fn told() -> ShareHandle {
    let digits = std::env::var("TEST_HANDLE").unwrap();
    let mut bytes = [0; SHARE_HANDLE_LEN];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    }
    ShareHandle::from_bytes(bytes)
}

fn device() -> Arc<CudaDevice> {
    CudaDevice::open(0, GpuIndex::new(0)).unwrap()
}

fn content() -> Vec<u8> {
    (0..SHARE_UNIT.get()).map(|at| (at % 251).to_le_bytes()[0]).collect()
}

fn range(memory: &dyn DeviceMemory, start: u64, len: u64) -> DeviceRange {
    DeviceRange::checked(DeviceOffset::new(start), ByteLen::new(len), memory.len()).unwrap()
}

fn bytes_of(memory: &dyn DeviceMemory) -> Vec<u8> {
    let mut bytes = vec![0; memory.len().to_usize().unwrap()];
    memory.read(range(memory, 0, memory.len().get()), &mut bytes).unwrap();
    bytes
}

fn refusal<T>(result: Result<T, GpuError>) -> &'static str {
    match result.map(drop) {
        Err(GpuError::NotShareable { reason, .. }) => reason,
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn another_process_uses_an_allocation_in_place() {
    child("child_shares", &format!("capacity=64MiB,{UUID}"));
}

#[test]
#[ignore = "runs in a child process of the test above"]
fn child_shares() {
    let device = device();
    let before = device.memory().unwrap();
    let memory = device.allocate(SHARE_UNIT).unwrap();
    let whole = range(&*memory, 0, SHARE_UNIT.get());
    memory.write(whole, &content()).unwrap();
    let handle = memory.share().unwrap();
    grandchild("grandchild_opens", &format!("capacity=64MiB,{UUID}"), handle);
    let mut changed = content();
    changed[4096..4099].copy_from_slice(b"own");
    assert!(bytes_of(&*memory) == changed, "what it wrote is here");
    // The device is found by its UUID: another one refuses.
    grandchild("grandchild_is_elsewhere", "capacity=64MiB", handle);
    memory.free().unwrap();
    grandchild("grandchild_is_too_late", &format!("capacity=64MiB,{UUID}"), handle);
    assert_eq!(device.memory().unwrap(), before);
}

#[test]
#[ignore = "runs in a child process of `child_shares`"]
fn grandchild_opens() {
    // The device that injects faults passes both calls on.
    let device = FaultDevice::new(device(), FaultPlan::new(1));
    let before = device.memory().unwrap();
    let memory = device.open_shared(&told()).unwrap();
    assert_eq!((memory.len(), memory.gpu()), (SHARE_UNIT, GpuIndex::new(0)));
    assert_eq!(device.memory().unwrap(), before, "it counts where it was allocated");
    assert!(bytes_of(&*memory) == content());
    memory.write(range(&*memory, 4096, 3), b"own").unwrap();
    assert_eq!(refusal(memory.share()), "it belongs to another process");
    let again = device.open_shared(&told()).unwrap();
    drop(memory);
    assert_eq!(bytes_of(&*again).get(4096..4099), Some(&b"own"[..]), "open still");
    again.free().unwrap();
}

#[test]
#[ignore = "runs in a child process of `child_shares`"]
fn grandchild_is_elsewhere() {
    assert!(refusal(device().open_shared(&told())).contains("another device"));
}

#[test]
#[ignore = "runs in a child process of `child_shares`"]
fn grandchild_is_too_late() {
    assert!(refusal(device().open_shared(&told())).contains("was freed"));
}

#[test]
fn a_device_that_shares_nothing_says_so() {
    child("child_cannot_share", &format!("capacity=64MiB,ipc=false,{UUID}"));
    let host = HostDevice::new(GpuIndex::new(3), ByteLen::from_mib_saturating(8)).unwrap();
    let memory = host.allocate(SHARE_UNIT).unwrap();
    assert!(refusal(memory.share()).contains("this kind of device"));
    assert!(refusal(host.open_shared(&ShareHandle::from_bytes([1; 64]))).contains("this kind"));
}

#[test]
#[ignore = "runs in a child process of the test above"]
fn child_cannot_share() {
    let device = device();
    let memory = device.allocate(SHARE_UNIT).unwrap();
    assert!(refusal(memory.share()).contains("does not support"));
    let handle = ShareHandle::from_bytes([1; 64]);
    assert!(refusal(device.open_shared(&handle)).contains("does not support"));
}
