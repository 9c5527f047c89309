//! Opening devices, their reported properties, and allocations that are refused.

use cuda_sim::{Backing, CallKind, DeviceSpec, Fault, Sim};
use cust::context::{Context, CurrentContext};
use vram_alloc::ByteLen;
use vram_gpu::{CudaDevice, CudaUnavailable, Device, DeviceKind, GpuError, codes};

use crate::{Bench, CAPACITY, GPU, LEN, bytes, odd_ones};

#[test]
fn a_device_is_known_by_uuid_and_bus_and_says_what_it_is() {
    let uuid = *b"sixteen bytes of";
    let bench = Bench::with(DeviceSpec {
        name: "NVIDIA H200".to_owned(),
        uuid: Some(uuid),
        pci: Some((0, 0x1B, 0)),
        compute_capability: (9, 0),
        ecc: true,
        ..DeviceSpec::default()
    });
    let info = bench.device.info();
    assert_eq!(info.uuid.as_bytes(), &uuid);
    assert_eq!(info.pci_bus_id.as_deref(), Some("0000:1b:00.0"));
    assert_eq!((info.name.as_str(), info.kind), ("NVIDIA H200", DeviceKind::Cuda));
    assert_eq!((info.index, info.total), (GPU, ByteLen::new(CAPACITY)));
    assert_eq!((info.compute_capability, info.ecc), (Some((9, 0)), Some(true)));
    assert_eq!((info.mig, info.integrated, info.managed_memory), (Some(false), false, true));
    assert!(info.driver_version.unwrap() >= 9020);
    assert_eq!(bench.device.ordinal(), bench.ordinal);

    let mig = DeviceSpec { mig: Some("1g.5gb".to_owned()), ..DeviceSpec::default() };
    let slice = Bench::with(mig);
    assert_eq!(slice.device.info().mig, Some(true));
    slice.finish();
    bench.finish();
}

#[test]
fn memory_that_is_not_video_memory_is_refused_and_given_back() {
    cuda_sim::install();
    for (spec, words) in [
        (DeviceSpec { integrated: true, ..DeviceSpec::default() }, "integrated"),
        (DeviceSpec { backing: Backing::Managed, ..DeviceSpec::default() }, "managed"),
        (DeviceSpec { backing: Backing::Host, ..DeviceSpec::default() }, "host memory"),
    ] {
        let ordinal = Sim::add_device(spec);
        let refused = CudaDevice::open(ordinal, GPU).unwrap_err();
        let CudaUnavailable::Unusable { ordinal: named, error } = &refused else {
            unreachable!("{refused}")
        };
        assert_eq!(*named, ordinal);
        assert!(matches!(error, GpuError::NotVram { gpu: GPU, .. }), "{error}");
        assert!(refused.to_string().contains(words), "{refused}");
        Sim::assert_clean(ordinal);
        Sim::retire_device(ordinal);
    }
}

#[test]
fn a_device_that_is_not_there_is_refused_with_the_count() {
    cuda_sim::install();
    let there = Sim::add_device(DeviceSpec::default());
    let refused = CudaDevice::open(u32::MAX, GPU).unwrap_err();
    let CudaUnavailable::NoSuchDevice { ordinal: u32::MAX, count } = refused else {
        unreachable!("{refused}")
    };
    assert!(count > there);
}

#[test]
fn a_full_device_can_be_opened_and_says_that_it_is_full() {
    let spec = DeviceSpec { foreign: CAPACITY, ..DeviceSpec::default() };
    let bench = Bench::with(spec);
    assert_eq!(bench.device.memory().unwrap().free, ByteLen::ZERO);
    let wanted = ByteLen::new(1);
    let refused = bench.device.allocate(wanted).unwrap_err();
    assert_eq!(refused, GpuError::OutOfMemory { gpu: GPU, wanted, free: Some(ByteLen::ZERO) });
    Sim::set_foreign(bench.ordinal, 0);
    assert!(bench.device.allocate(wanted).is_ok());
    bench.finish();
}

#[test]
fn memory_that_others_take_shows_in_the_figures() {
    let bench = Bench::new();
    let before = bench.device.memory().unwrap().free;
    Sim::set_foreign(bench.ordinal, 10 << 20);
    let after = bench.device.memory().unwrap().free;
    assert_eq!(before.checked_sub(after), Some(ByteLen::new(10 << 20)));
    bench.finish();
}

#[test]
fn out_of_memory_at_any_allocation_takes_nothing() {
    let bench = Bench::new();
    let kept = bench.filled(7);
    let used = Sim::used(bench.ordinal);
    for nth in 1..=3 {
        Sim::faults(bench.ordinal).nth(CallKind::Alloc, nth, Fault::Fail(codes::OUT_OF_MEMORY));
        let made: Vec<_> =
            (0..3).map(|_| bench.device.allocate(ByteLen::from_usize(LEN))).collect();
        let failed: Vec<_> = (1..).zip(&made).filter(|(_, made)| made.is_err()).collect();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].0, nth);
        assert!(failed[0].1.as_ref().unwrap_err().is_out_of_memory());
        drop(made);
        assert_eq!(Sim::used(bench.ordinal), used);
    }
    assert_eq!(odd_ones(&bytes(&*kept), 7), 0);
    drop(kept);
    bench.finish();
}

#[test]
fn a_driver_code_that_nobody_knew_arrives_as_it_is() {
    let bench = Bench::new();
    for code in [46, 36, 912, 4_000_000] {
        bench.next(CallKind::Alloc, Fault::Fail(code));
        let refused = bench.device.allocate(ByteLen::new(1)).unwrap_err();
        assert!(
            matches!(refused, GpuError::Driver { code: seen, sticky: false, .. } if seen == code),
            "{refused}"
        );
    }
    bench.finish();
}

#[test]
fn calls_come_from_threads_without_a_context_or_with_another() {
    let (one, two) = (Bench::new(), Bench::new());
    let memory = one.filled(1);
    std::thread::scope(|scope| {
        // A thread that has not used CUDA before; it ends after freeing the device's memory.
        scope.spawn(|| {
            assert_eq!(odd_ones(&bytes(&*memory), 1), 0);
            let own = one.filled(2);
            assert_eq!(odd_ones(&bytes(&*own), 2), 0);
        });
        // A thread that works with another device through cust directly.
        scope.spawn(|| {
            let device = cust::device::Device::get_device(two.ordinal).unwrap();
            let context = Context::new(device).unwrap();
            CurrentContext::set_current(&context).unwrap();
            assert_eq!(odd_ones(&bytes(&*memory), 1), 0);
            let own = one.filled(3);
            drop(own);
            let still = CurrentContext::get_device().unwrap();
            assert_eq!(still.as_raw(), device.as_raw(), "the thread's own context was changed");
        });
    });
    drop(memory);
    one.finish();
    two.finish();
}

#[test]
fn opening_and_resetting_leave_the_threads_context_alone() {
    let (one, two) = (Bench::new(), Bench::new());
    let device = cust::device::Device::get_device(two.ordinal).unwrap();
    let context = Context::new(device).unwrap();
    CurrentContext::set_current(&context).unwrap();
    one.device.reset().unwrap();
    let third = Bench::new();
    third.finish();
    assert_eq!(CurrentContext::get_device().unwrap().as_raw(), device.as_raw());
    drop(context);
    one.finish();
    two.finish();
}
