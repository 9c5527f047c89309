//! Faults: refused calls, damaged copies, late and sticky errors.

use cuda_sim::{CallKind, DeviceSpec, Fault, Sim};
use cust::context::{Context, CurrentContext};
use cust::device::Device;
use cust::error::CudaError;
use cust::memory::{AsyncCopyDestination, CopyDestination, DeviceBuffer, LockedBuffer};
use cust::stream::{Stream, StreamFlags};

use crate::bench::{Bench, address, buffer, read};

#[test]
fn the_nth_allocation_fails_and_the_others_do_not() {
    let bench = Bench::new();
    Sim::faults(bench.device).nth(CallKind::Alloc, 3, Fault::Fail(2));
    // SAFETY: never read.
    let allocate = || unsafe { DeviceBuffer::<u8>::uninitialized(100) };
    let outcomes: Vec<_> = (0..5).map(|_| allocate().map(drop)).collect();
    assert_eq!(outcomes, [Ok(()), Ok(()), Err(CudaError::OutOfMemory), Ok(()), Ok(())]);
    assert_eq!(Sim::faults(bench.device).calls(CallKind::Alloc), 5);
    bench.finish();
}

#[test]
fn a_code_that_cust_does_not_know_arrives_as_unknown_and_is_kept_raw() {
    let bench = Bench::new();
    Sim::faults(bench.device).next(CallKind::Alloc, Fault::Fail(46));
    // SAFETY: never read.
    let refused = unsafe { DeviceBuffer::<u8>::uninitialized(100) };
    assert_eq!(refused.unwrap_err(), CudaError::UnknownError);
    assert_eq!(cuda_shim::last_raw_code(), 46);
    bench.finish();
}

#[test]
fn copies_flip_bits_stop_short_and_vanish_and_report_success() {
    let bench = Bench::new();
    let faults = Sim::faults(bench.device);
    let bytes = vec![0; 1000];
    let mut target = buffer(&[0xFF; 1000]);

    faults.next(CallKind::CopyIn, Fault::FlipBit(8 * 500 + 3));
    target.copy_from(&bytes).unwrap();
    let mut expected = bytes.clone();
    expected[500] = 1 << 3;
    assert_eq!(read(&target), expected);

    target.copy_from(&[0xFF; 1000]).unwrap();
    faults.next(CallKind::CopyIn, Fault::StopAfter(10));
    target.copy_from(&bytes).unwrap();
    assert_eq!(read(&target), [vec![0; 10], vec![0xFF; 990]].concat());

    faults.next(CallKind::CopyOut, Fault::Drop);
    let mut untouched = vec![0x55; 1000];
    target.copy_to(&mut untouched).unwrap();
    assert_eq!(untouched, vec![0x55; 1000]);

    faults.next(CallKind::Fill, Fault::StopAfter(999));
    target.set_8(1).unwrap();
    assert_eq!(read(&target), [vec![1; 999], vec![0xFF]].concat());

    // In device memory, without a driver call.
    Sim::flip_bit(bench.device, address(&target), 8 * 7);
    assert_eq!(read(&target)[7], 0);
    drop(target);
    bench.finish();
}

#[test]
fn a_sticky_error_poisons_the_context_until_it_is_reset() {
    let bench = Bench::new();
    let neighbour = Sim::add_device(DeviceSpec::default());
    let kept = buffer(&[1; 100]);
    Sim::faults(bench.device).next(CallKind::CopyOut, Fault::Fail(214));
    let mut bytes = [0; 100];
    assert_eq!(kept.copy_to(&mut bytes).unwrap_err(), CudaError::EccUncorrectable);
    assert_eq!(Sim::poisoned_by(bench.device), Some(214));

    // Every call fails in the same way, including frees.
    assert_eq!(kept.copy_to(&mut bytes).unwrap_err(), CudaError::EccUncorrectable);
    assert_eq!(cust::memory::mem_get_info().unwrap_err(), CudaError::EccUncorrectable);
    assert_eq!(CurrentContext::synchronize().unwrap_err(), CudaError::EccUncorrectable);
    let (error, kept) = DeviceBuffer::drop(kept).unwrap_err();
    assert_eq!(error, CudaError::EccUncorrectable);
    assert_eq!(Sim::poisoned_by(neighbour), None);

    bench.reset();
    assert_eq!(Sim::used(bench.device), 0);
    assert_eq!(cust::memory::mem_get_info().unwrap_err(), CudaError::ContextIsDestroyed);
    // The buffer's memory is gone; freeing it now would be a second free.
    core::mem::forget(kept);

    let again = Context::new(Device::get_device(bench.device).unwrap()).unwrap();
    CurrentContext::set_current(&again).unwrap();
    assert_eq!(read(&buffer(&[9; 10])), [9; 10]);
    drop(again);
    bench.finish();
}

#[test]
fn an_error_of_queued_work_appears_at_the_wait_and_only_once() {
    let bench = Bench::new();
    let stream = Stream::new(StreamFlags::DEFAULT, None).unwrap();
    let source = LockedBuffer::new(&5_u8, 64).unwrap();
    let mut target = buffer(&[0; 64]);
    // Not sticky, so it is returned once.
    Sim::faults(bench.device).next(CallKind::CopyIn, Fault::FailLater(999));
    // SAFETY: both buffers live until the wait.
    unsafe { target.async_copy_from(&source, &stream) }.unwrap();
    assert_eq!(stream.synchronize().unwrap_err(), CudaError::UnknownError);
    assert_eq!(stream.synchronize(), Ok(()));
    assert_eq!(read(&target), [0; 64], "the work that failed was not done");

    // Sticky: returned from the wait on, permanently.
    Sim::faults(bench.device).next(CallKind::CopyIn, Fault::FailLater(700));
    // SAFETY: both buffers live until the wait.
    unsafe { target.async_copy_from(&source, &stream) }.unwrap();
    assert!(cust::memory::mem_get_info().is_ok(), "not before the wait");
    assert_eq!(stream.synchronize().unwrap_err(), CudaError::IllegalAddress);
    assert_eq!(cust::memory::mem_get_info().unwrap_err(), CudaError::IllegalAddress);
    bench.reset();
    core::mem::forget((stream, source, target));
    bench.finish();
}
