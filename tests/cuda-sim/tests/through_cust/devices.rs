//! Devices: their properties, and their access to each other.

use core::ptr;

use cuda_sim::{CallKind, DeviceSpec, Fault, Sim};
use cust::context::CurrentContext;
use cust::device::{Device, DeviceAttribute};
use cust::error::CudaError;
use cust::memory::{CopyDestination, DeviceBuffer};
use cust::sys;

use crate::bench::{Bench, address, buffer, pattern, raw, read};

#[test]
fn a_device_says_what_it_is() {
    let uuid = *b"a uuid of 16 byt";
    let bench = Bench::with(DeviceSpec {
        name: "NVIDIA H200".to_owned(),
        capacity: 141 << 30,
        uuid: Some(uuid),
        mig: Some("1g.18gb".to_owned()),
        integrated: true,
        ..DeviceSpec::default()
    });
    let device = Device::get_device(bench.device).unwrap();
    assert_eq!(device.name().unwrap(), "NVIDIA H200 MIG 1g.18gb");
    assert_eq!(device.total_memory().unwrap(), 141 << 30);
    let ordinal = i32::try_from(bench.device).unwrap();
    let mut told = sys::CUuuid { bytes: [0; 16] };
    // SAFETY: `told` is valid for writing.
    raw(unsafe { sys::cuDeviceGetUuid_v2(&raw mut told, ordinal) }).unwrap();
    assert_eq!(told.bytes.map(i8::cast_unsigned), uuid);
    let attribute = |attribute| device.get_attribute(attribute).unwrap();
    assert_eq!(
        (
            attribute(DeviceAttribute::ComputeCapabilityMajor),
            attribute(DeviceAttribute::Integrated)
        ),
        (9, 1)
    );
    let mut text = [0; 32];
    // SAFETY: `text` is valid for 32 bytes.
    raw(unsafe { sys::cuDeviceGetPCIBusId(text.as_mut_ptr(), 32, ordinal) }).unwrap();
    let mut found = -1;
    // SAFETY: the text is NUL-terminated, `found` is valid for writing.
    raw(unsafe { sys::cuDeviceGetByPCIBusId(&raw mut found, text.as_ptr()) }).unwrap();
    assert_eq!(found, ordinal);
    bench.finish();
}

#[test]
fn peers_that_reach_each_other_copy_and_others_say_so() {
    let (one, two) = (Bench::new(), Bench::new());
    let apart = Bench::with(DeviceSpec { peer_group: None, ..DeviceSpec::default() });
    let can = |from: &Bench, to: &Bench| {
        let (from, to) = (i32::try_from(from.device).unwrap(), i32::try_from(to.device).unwrap());
        let mut can = -1;
        // SAFETY: `can` is valid for writing.
        raw(unsafe { sys::cuDeviceCanAccessPeer(&raw mut can, from, to) }).unwrap();
        can
    };
    assert_eq!(
        (can(&one, &two), can(&two, &one), can(&one, &apart), can(&apart, &one)),
        (1, 1, 0, 0)
    );

    let handle = |bench: &Bench| {
        CurrentContext::set_current(&bench.context).unwrap();
        let mut context = ptr::null_mut();
        // SAFETY: `context` is valid for writing.
        raw(unsafe { sys::cuCtxGetCurrent(&raw mut context) }).unwrap();
        context
    };
    let contexts = (handle(&one), handle(&two), handle(&apart));
    CurrentContext::set_current(&one.context).unwrap();
    // SAFETY: the handles are those of live contexts.
    let enable = |context| raw(unsafe { sys::cuCtxEnablePeerAccess(context, 0) });
    assert_eq!(enable(contexts.1), Ok(()));
    assert_eq!(enable(contexts.1), Err(sys::CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED));
    assert_eq!(enable(contexts.2), Err(sys::CUresult::CUDA_ERROR_PEER_ACCESS_UNSUPPORTED));

    let source = buffer(&pattern(100_000, 1));
    CurrentContext::set_current(&two.context).unwrap();
    let target = buffer(&vec![0; 100_000]);
    let copy = || {
        // SAFETY: both ranges lie in live allocations of their contexts.
        raw(unsafe {
            sys::cuMemcpyPeer(address(&target), contexts.1, address(&source), contexts.0, 100_000)
        })
    };
    copy().unwrap();
    assert_eq!(read(&target), pattern(100_000, 1));

    // A peer write that is left out reports success: here the target's rule applies.
    let mut target = target;
    target.copy_from(&vec![0; 100_000]).unwrap();
    Sim::faults(two.device).next(CallKind::CopyPeer, Fault::Drop);
    let copy = |target: &DeviceBuffer<u8>| {
        // SAFETY: both ranges lie in live allocations of their contexts.
        raw(unsafe {
            sys::cuMemcpyPeer(address(target), contexts.1, address(&source), contexts.0, 100_000)
        })
    };
    copy(&target).unwrap();
    assert_eq!(read(&target), vec![0; 100_000]);
    copy(&target).unwrap();
    assert_eq!(read(&target), pattern(100_000, 1));
    drop(target);
    CurrentContext::set_current(&one.context).unwrap();
    drop(source);
    for bench in [one, two, apart] {
        bench.finish();
    }
}

#[test]
fn a_retired_device_is_no_device() {
    let bench = Bench::new();
    let device = bench.device;
    drop(bench);
    Sim::retire_device(device);
    assert_eq!(Device::get_device(device).unwrap_err(), CudaError::InvalidDevice);
    if let Ok(text) = std::panic::catch_unwind(|| Sim::used(u32::MAX)) {
        panic!("a device that never was answered {text}");
    }
}
