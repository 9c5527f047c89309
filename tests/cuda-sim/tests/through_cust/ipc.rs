//! Memory shared between processes: this test binary again is the other process.

use core::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use cuda_sim::{CallKind, DeviceSpec, Fault, MisuseKind, Sim};
use cust::memory::{AsyncCopyDestination as _, DeviceBuffer};
use cust::stream::{Stream, StreamFlags};
use cust::sys::{self, CUipcMemHandle, CUresult};

use crate::bench::{Bench, address, buffer, pattern, raw, read};

const UUID: [u8; 16] = [0x5A; 16];
const BLOCK: usize = 2 << 20;
const LAZY: u32 = 1;

fn spec() -> DeviceSpec {
    DeviceSpec { capacity: 64 << 20, uuid: Some(UUID), ..DeviceSpec::default() }
}

fn export(at: u64) -> Result<CUipcMemHandle, CUresult> {
    let mut handle = CUipcMemHandle::default();
    // SAFETY: `handle` is valid for writing.
    raw(unsafe { sys::cuIpcGetMemHandle(&raw mut handle, at) })?;
    Ok(handle)
}

fn open(handle: CUipcMemHandle, flags: u32) -> Result<u64, CUresult> {
    let mut at = 0;
    // SAFETY: `at` is valid for writing.
    raw(unsafe { sys::cuIpcOpenMemHandle_v2(&raw mut at, handle, flags) })?;
    Ok(at)
}

fn close(at: u64) -> Result<(), CUresult> {
    // SAFETY: nothing in flight uses the address.
    raw(unsafe { sys::cuIpcCloseMemHandle(at) })
}

fn bytes_at(at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    // SAFETY: `bytes` is valid for writing `len` bytes; a wrong address is refused.
    raw(unsafe { sys::cuMemcpyDtoH_v2(bytes.as_mut_ptr().cast(), at, len) }).unwrap();
    bytes
}

/// Starts an ignored test of this binary as another process, which is told the handle.
fn child(test: &str, handle: CUipcMemHandle) -> Child {
    let mut digits = String::new();
    for byte in handle.reserved {
        write!(digits, "{:02x}", byte.to_ne_bytes()[0]).unwrap();
    }
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", test])
        .env("TEST_HANDLE", digits)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// In the child: the handle.
fn told() -> CUipcMemHandle {
    let digits = std::env::var("TEST_HANDLE").unwrap();
    let mut handle = CUipcMemHandle::default();
    for (byte, pair) in handle.reserved.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let number = u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        *byte = core::ffi::c_char::from_ne_bytes([number]);
    }
    handle
}

/// Waits for the line that the child prints, after those of its test harness.
fn line(child: &mut Child, wanted: &str) {
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with(wanted)), "the child never said {wanted:?}");
}

#[test]
fn another_process_reads_and_writes_the_same_bytes() {
    let bench = Bench::with(spec());
    let (before, content) = (buffer(&[1; 1000]), pattern(BLOCK, 3));
    let mine = buffer(&content);
    let after = buffer(&[2; 1000]);
    let handle = export(address(&mine)).unwrap();
    assert_eq!(read(&mine), content, "an export moves no byte that anybody sees");
    assert_eq!(export(address(&mine)).unwrap().reserved, handle.reserved);
    let other = child("ipc::child_writes_its_mark", handle).wait_with_output().unwrap();
    assert!(other.status.success(), "{}", String::from_utf8_lossy(&other.stdout));
    let mut changed = content;
    changed[BLOCK - 3..].copy_from_slice(b"own");
    assert_eq!(read(&mine), changed);
    assert_eq!((read(&before), read(&after)), (vec![1; 1000], vec![2; 1000]));
    let within = buffer(&vec![0; BLOCK]);
    let stream = Stream::new(StreamFlags::DEFAULT, None).unwrap();
    // SAFETY: waited for below, before either buffer is used or dropped.
    unsafe { mine.async_copy_to(&mut *core::mem::ManuallyDrop::new(alias(&within)), &stream) }
        .unwrap();
    stream.synchronize().unwrap();
    assert_eq!(read(&within), changed);
    drop((before, mine, after, within, stream));
    bench.finish();
}

/// A second value for a buffer, never dropped.
fn alias(buffer: &DeviceBuffer<u8>) -> DeviceBuffer<u8> {
    // SAFETY: the caller never drops it, and it does not outlive the buffer.
    unsafe { DeviceBuffer::from_raw_parts(buffer.as_device_ptr(), buffer.len()) }
}

#[test]
#[ignore = "runs in a child process of the test above"]
fn child_writes_its_mark() {
    let bench = Bench::with(spec());
    let (handle, content) = (told(), pattern(BLOCK, 3));
    let at = open(handle, LAZY).unwrap();
    assert_eq!(open(handle, LAZY), Ok(at), "opened again: the same address");
    assert_eq!(bytes_at(at, BLOCK), content);
    let (mut base, mut len) = (0, 0);
    // SAFETY: both are valid for writing.
    raw(unsafe { sys::cuMemGetAddressRange_v2(&raw mut base, &raw mut len, at + 9) }).unwrap();
    assert_eq!((base, len), (at, BLOCK), "the whole allocation, and nothing else");
    assert_eq!(Sim::used(bench.device), 0, "it is counted where it was allocated");
    let end = at + u64::try_from(BLOCK).unwrap() - 3;
    // SAFETY: the range was opened, and the source is as long.
    raw(unsafe { sys::cuMemcpyHtoD_v2(end, b"own".as_ptr().cast(), 3) }).unwrap();
    close(at).unwrap();
    assert_eq!(bytes_at(end, 3), b"own", "opened twice, so open still");
    close(at).unwrap();
    assert_eq!(close(at), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
    let kinds: Vec<_> = Sim::take_misuse(bench.device).iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [MisuseKind::UnknownAddress]);
    bench.finish();
}

#[test]
fn what_the_manual_forbids_is_refused() {
    let bench = Bench::with(spec());
    let invalid = CUresult::CUDA_ERROR_INVALID_VALUE;
    let mine = buffer(&vec![1; BLOCK]);
    let handle = export(address(&mine)).unwrap();
    // The process that made a handle cannot open it.
    assert_eq!(open(handle, LAZY), Err(CUresult::CUDA_ERROR_INVALID_CONTEXT));
    assert_eq!(open(handle, 0), Err(invalid), "the flag is required");
    assert_eq!(open(CUipcMemHandle::default(), LAZY), Err(invalid));
    assert_eq!(export(address(&mine) + 512).map(drop), Err(invalid), "not a start");
    assert_eq!(export(64).map(drop), Err(invalid));
    let mut pooled = 0;
    // SAFETY: valid for writing; the default stream is always there.
    raw(unsafe { sys::cuMemAllocAsync(&raw mut pooled, BLOCK, core::ptr::null_mut()) }).unwrap();
    assert_eq!(export(pooled).map(drop), Err(invalid), "memory of a pool");
    // SAFETY: allocated above.
    raw(unsafe { sys::cuMemFree_v2(pooled) }).unwrap();
    let kinds: Vec<_> = Sim::take_misuse(bench.device).iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [MisuseKind::UnknownAddress; 3]);
    // A small allocation is a part of a larger block of the driver.
    let small = buffer(&[1; 4096]);
    export(address(&small)).unwrap();
    let kinds: Vec<_> = Sim::take_misuse(bench.device).iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [MisuseKind::SharesNeighbours]);
    drop(mine);
    let other = child("ipc::child_is_refused", handle).wait_with_output().unwrap();
    assert!(other.status.success(), "{}", String::from_utf8_lossy(&other.stdout));
    // The same address again: another handle.
    let again = buffer(&vec![1; BLOCK]);
    assert_ne!(export(address(&again)).unwrap().reserved, handle.reserved);
    Sim::faults(bench.device).next(CallKind::Ipc, Fault::Fail(999));
    assert_eq!(export(address(&again)).map(drop), Err(CUresult::CUDA_ERROR_UNKNOWN));
    drop((small, again));
    bench.finish();
}

#[test]
#[ignore = "runs in a child process of the test above"]
fn child_is_refused() {
    let bench = Bench::with(spec());
    assert_eq!(open(told(), LAZY), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
    bench.finish();
}

#[test]
fn a_device_without_it_and_another_device_refuse() {
    let bench = Bench::with(DeviceSpec { ipc: false, ..spec() });
    let mine = buffer(&vec![1; BLOCK]);
    assert_eq!(export(address(&mine)).map(drop), Err(CUresult::CUDA_ERROR_NOT_SUPPORTED));
    drop(mine);
    bench.finish();
    let bench = Bench::with(spec());
    let mine = buffer(&vec![1; BLOCK]);
    let handle = export(address(&mine)).unwrap();
    let other = child("ipc::child_on_another_device", handle).wait_with_output().unwrap();
    assert!(other.status.success(), "{}", String::from_utf8_lossy(&other.stdout));
    drop(mine);
    bench.finish();
}

#[test]
#[ignore = "runs in a child process of the test above"]
fn child_on_another_device() {
    let bench = Bench::with(DeviceSpec { uuid: Some([1; 16]), ..spec() });
    assert_eq!(open(told(), LAZY), Err(CUresult::CUDA_ERROR_INVALID_DEVICE));
    bench.finish();
}

#[test]
fn freeing_memory_that_is_open_elsewhere_is_logged_and_the_dead_hold_nothing() {
    let bench = Bench::with(spec());
    for dies in [false, true] {
        let mine = buffer(&pattern(BLOCK, 3));
        let mut other = child("ipc::child_keeps_it_open", export(address(&mine)).unwrap());
        line(&mut other, "open");
        if dies {
            other.kill().unwrap();
            other.wait().unwrap();
        }
        drop(mine);
        let kinds: Vec<_> = Sim::take_misuse(bench.device).iter().map(|entry| entry.kind).collect();
        let wanted = if dies { vec![] } else { vec![MisuseKind::FreedWhileOpen] };
        assert_eq!(kinds, wanted);
        if !dies {
            other.stdin.as_mut().unwrap().write_all(b".").unwrap();
            assert!(other.wait().unwrap().success());
        }
    }
    bench.finish();
}

#[test]
#[ignore = "runs in a child process of the test above"]
fn child_keeps_it_open() {
    let bench = Bench::with(spec());
    let at = open(told(), LAZY).unwrap();
    println!("open");
    std::io::stdin().read_exact(&mut [0]).unwrap();
    close(at).unwrap();
    bench.finish();
}
