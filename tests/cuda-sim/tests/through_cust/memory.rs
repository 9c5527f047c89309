//! Memory: written bytes are read back, and the driver's figures and attributes are correct.

use core::ffi::c_void;
use core::ptr;

use cuda_sim::{Backing, DeviceSpec, Sim};
use cust::error::CudaError;
use cust::memory::{AsyncCopyDestination, DeviceBuffer};
use cust::stream::{Stream, StreamFlags};
use cust::sys;
use cust::sys::CUpointer_attribute_enum;

use crate::bench::{Bench, address, buffer, pattern, raw, read};

#[test]
fn bytes_come_back_as_they_went() {
    let bench = Bench::new();
    for len in [1, 511, 512, 513, 65_536, 1_000_003, 3 << 20] {
        let bytes = pattern(len, len);
        let buffer = buffer(&bytes);
        assert_eq!(read(&buffer), bytes, "{len}");
        assert_eq!(Sim::inspect(bench.device, address(&buffer), len), bytes);
    }
    bench.finish();
}

#[test]
fn fresh_memory_is_garbage_and_freed_memory_keeps_its_bytes() {
    let bench = Bench::new();
    // SAFETY: the bytes are only looked at as bytes.
    let fresh = unsafe { DeviceBuffer::<u8>::uninitialized(4096) }.unwrap();
    assert!(read(&fresh).iter().all(|byte| *byte != 0));
    let at = address(&fresh);
    drop(fresh);
    let secret = buffer(b"weights of a tenant");
    assert_eq!(address(&secret), at);
    drop(secret);
    assert_eq!(Sim::inspect(bench.device, at, 19), b"weights of a tenant");
    bench.finish();
}

#[test]
fn capacity_foreign_use_and_granularity_are_counted() {
    let bench = Bench::with(DeviceSpec {
        capacity: 1 << 20,
        granularity: 4096,
        context_len: 1 << 12,
        ..DeviceSpec::default()
    });
    let free = || cust::memory::mem_get_info().unwrap();
    assert_eq!(free(), ((1 << 20) - 4096, 1 << 20));
    let small = buffer(&[7]);
    assert_eq!(address(&small) % 4096, 0);
    assert_eq!(free().0, (1 << 20) - 2 * 4096);
    assert_eq!(Sim::used(bench.device), 4096);
    Sim::set_foreign(bench.device, 1 << 19);
    assert_eq!(free().0, (1 << 19) - 2 * 4096);
    // SAFETY: never read.
    let all = unsafe { DeviceBuffer::<u8>::uninitialized((1 << 19) - 2 * 4096) }.unwrap();
    // SAFETY: never read.
    let more = unsafe { DeviceBuffer::<u8>::uninitialized(1) };
    assert_eq!(more.unwrap_err(), CudaError::OutOfMemory);
    assert_eq!(free().0, 0);
    Sim::set_foreign(bench.device, u64::MAX);
    assert_eq!(free().0, 0, "others may hold more than is left");
    drop((small, all));
    bench.finish();
}

#[test]
fn pageable_memory_is_taken_when_a_copy_is_queued() {
    let bench = Bench::new();
    let stream = Stream::new(StreamFlags::DEFAULT, None).unwrap();
    let mut target = buffer(&[0; 100]);
    let mut source = vec![3; 100];
    // SAFETY: pageable memory is taken during the call.
    unsafe { target.async_copy_from(&source, &stream) }.unwrap();
    source.fill(4);
    assert_eq!(Sim::inspect(bench.device, address(&target), 1), [0]);
    let mut back = vec![0; 100];
    // SAFETY: a copy to pageable memory is done when the call returns.
    unsafe { target.async_copy_to(&mut back, &stream) }.unwrap();
    assert_eq!(back, vec![3; 100], "in stream order, and done at once");
    stream.synchronize().unwrap();
    drop((target, stream));
    bench.finish();
}

#[test]
fn registered_memory_is_pinned_until_it_is_not() {
    let bench = Bench::new();
    let stream = Stream::new(StreamFlags::DEFAULT, None).unwrap();
    let mut bytes = vec![1_u8; 4096];
    let start = bytes.as_mut_ptr().cast();
    // SAFETY: the memory outlives its registration.
    let register = || raw(unsafe { sys::cuMemHostRegister_v2(start, 4096, 0) });
    register().unwrap();
    assert_eq!(register(), Err(sys::CUresult::CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED));
    let mut target = buffer(&[0; 4096]);
    // SAFETY: both live until the wait.
    unsafe { target.async_copy_from(&bytes, &stream) }.unwrap();
    bytes[0] = 7;
    stream.synchronize().unwrap();
    assert_eq!(read(&target)[..2], [7, 1], "pinned memory is read late");
    // SAFETY: registered above.
    let unregister = || raw(unsafe { sys::cuMemHostUnregister(start) });
    unregister().unwrap();
    assert_eq!(unregister(), Err(sys::CUresult::CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED));
    drop((target, stream));
    bench.finish();
}

#[test]
fn pointer_attributes_tell_device_memory_from_what_only_looks_like_it() {
    for (backing, kind, managed, host) in [
        (Backing::Device, 2, 0, false),
        (Backing::Managed, 2, 1, true),
        (Backing::Host, 1, 0, true),
    ] {
        let bench = Bench::with(DeviceSpec { backing, ..DeviceSpec::default() });
        let mine = buffer(&[1; 100]);
        let at = address(&mine);
        let ask = |attribute, data: *mut c_void| {
            // SAFETY: each `data` below is valid for its attribute.
            raw(unsafe { sys::cuPointerGetAttribute(data, attribute, at + 5) })
        };
        let (mut memory, mut flag, mut ordinal) = (0_u32, 0_u32, -1_i32);
        let (mut pointer, mut device) = (ptr::null_mut::<c_void>(), 0_u64);
        ask(CUpointer_attribute_enum::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (&raw mut memory).cast())
            .unwrap();
        ask(CUpointer_attribute_enum::CU_POINTER_ATTRIBUTE_IS_MANAGED, (&raw mut flag).cast())
            .unwrap();
        ask(
            CUpointer_attribute_enum::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
            (&raw mut ordinal).cast(),
        )
        .unwrap();
        ask(
            CUpointer_attribute_enum::CU_POINTER_ATTRIBUTE_DEVICE_POINTER,
            (&raw mut device).cast(),
        )
        .unwrap();
        let has_host = ask(
            CUpointer_attribute_enum::CU_POINTER_ATTRIBUTE_HOST_POINTER,
            (&raw mut pointer).cast(),
        )
        .is_ok();
        assert_eq!((memory, flag, has_host), (kind, managed, host), "{backing:?}");
        assert_eq!((u32::try_from(ordinal).unwrap(), device), (bench.device, at + 5));
        drop(mine);
        bench.finish();
    }
}
