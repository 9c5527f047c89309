//! The real `cust` runs on the simulated driver: the way that memory takes, and every fault.
//!
//! Each test adds a device of its own, since a process has one driver and tests run in threads.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

use core::ffi::c_void;
use core::ptr;

use cuda_sim::{Backing, CallKind, DeviceSpec, Fault, MisuseKind, Sim};
use cust::context::{Context, CurrentContext};
use cust::device::Device;
use cust::error::CudaError;
use cust::event::{Event, EventFlags, EventStatus};
use cust::memory::{AsyncCopyDestination, CopyDestination, DeviceBuffer, LockedBuffer};
use cust::stream::{Stream, StreamFlags, StreamWaitEventFlags};
use cust::sys;

/// A device of its own, with its primary context current on this thread.
struct Bench {
    device: u32,
    context: Context,
}

impl Bench {
    fn new() -> Self {
        Self::with(DeviceSpec { capacity: 64 << 20, ..DeviceSpec::default() })
    }

    fn with(spec: DeviceSpec) -> Self {
        cuda_sim::install();
        let device = Sim::add_device(spec);
        cust::init(cust::CudaFlags::empty()).unwrap();
        let context = Context::new(Device::get_device(device).unwrap()).unwrap();
        CurrentContext::set_current(&context).unwrap();
        Self { device, context }
    }

    /// Brings the device back empty, as after a sticky error.
    fn reset(&self) {
        let device = Device::get_device(self.device).unwrap();
        // SAFETY: nothing that lives in the context is used after this: tests forget it.
        unsafe { Context::reset(&device) }.unwrap();
    }

    /// Gives the context back and checks that nothing is left and nothing was done wrong.
    fn finish(self) {
        let device = self.device;
        drop(self);
        Sim::assert_clean(device);
    }
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 31 + seed * 7 + i / 251) % 256).to_le_bytes()[0]).collect()
}

fn buffer(bytes: &[u8]) -> DeviceBuffer<u8> {
    DeviceBuffer::from_slice(bytes).unwrap()
}

fn read(buffer: &DeviceBuffer<u8>) -> Vec<u8> {
    let mut bytes = vec![0; buffer.len()];
    buffer.copy_to(&mut bytes).unwrap();
    bytes
}

fn address(buffer: &DeviceBuffer<u8>) -> u64 {
    buffer.as_device_ptr().as_raw()
}

/// A non-blocking stream. `Stream::new` of cust 0.3.2 drops that flag, so its streams always keep
/// order with the default stream.
fn non_blocking() -> sys::CUstream {
    let mut stream = ptr::null_mut();
    // SAFETY: `stream` is valid for writing.
    raw(unsafe { sys::cuStreamCreate(&raw mut stream, 1) }).unwrap();
    stream
}

fn raw(result: sys::CUresult) -> Result<(), sys::CUresult> {
    if result == sys::CUresult::CUDA_SUCCESS { Ok(()) } else { Err(result) }
}

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
    use cust::device::DeviceAttribute as A;
    assert_eq!((attribute(A::ComputeCapabilityMajor), attribute(A::Integrated)), (9, 1));
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

    // At rest, behind the driver's back.
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

    // Everything fails the same way, freeing included.
    assert_eq!(kept.copy_to(&mut bytes).unwrap_err(), CudaError::EccUncorrectable);
    assert_eq!(cust::memory::mem_get_info().unwrap_err(), CudaError::EccUncorrectable);
    assert_eq!(CurrentContext::synchronize().unwrap_err(), CudaError::EccUncorrectable);
    let (error, kept) = DeviceBuffer::drop(kept).unwrap_err();
    assert_eq!(error, CudaError::EccUncorrectable);
    assert_eq!(Sim::poisoned_by(neighbour), None);

    bench.reset();
    assert_eq!(Sim::used(bench.device), 0);
    assert_eq!(cust::memory::mem_get_info().unwrap_err(), CudaError::ContextIsDestroyed);
    // What the buffer names is gone; freeing it now would be a second free.
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
    // Not sticky, so that it is told once.
    Sim::faults(bench.device).next(CallKind::CopyIn, Fault::FailLater(999));
    // SAFETY: both buffers live until the wait.
    unsafe { target.async_copy_from(&source, &stream) }.unwrap();
    assert_eq!(stream.synchronize().unwrap_err(), CudaError::UnknownError);
    assert_eq!(stream.synchronize(), Ok(()));
    assert_eq!(read(&target), [0; 64], "the work that failed was not done");

    // Sticky: from the wait on, for good.
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

#[test]
fn queued_copies_happen_when_somebody_waits_and_not_before() {
    let bench = Bench::new();
    let stream = Stream::new(StreamFlags::DEFAULT, None).unwrap();
    let mut source = LockedBuffer::from_slice(&[1_u8; 256]).unwrap();
    let mut target = buffer(&[0; 256]);
    // SAFETY: both buffers live until the wait below.
    unsafe { target.async_copy_from(&source, &stream) }.unwrap();
    assert_eq!(Sim::inspect(bench.device, address(&target), 256), [0; 256]);
    // Pinned memory is read late: this write comes through, as it may on a real device.
    source[0] = 9;
    stream.synchronize().unwrap();
    let mut expected = [1; 256];
    expected[0] = 9;
    assert_eq!(read(&target), expected);

    let mut back = LockedBuffer::new(&0_u8, 256).unwrap();
    // SAFETY: both buffers live until the wait below.
    unsafe { target.async_copy_to(&mut back, &stream) }.unwrap();
    assert_eq!(back.as_slice(), [0; 256], "the bytes are not here before the wait");
    stream.synchronize().unwrap();
    assert_eq!(back.as_slice(), expected);
    drop((source, back, target, stream));
    bench.finish();
}

#[test]
fn the_default_stream_does_not_wait_for_a_non_blocking_one() {
    let bench = Bench::new();
    let stream = non_blocking();
    let source = LockedBuffer::from_slice(&[1_u8; 256]).unwrap();
    let target = buffer(&[0; 256]);
    let at = address(&target);
    // SAFETY: both buffers live until the wait below.
    let copy = unsafe { sys::cuMemcpyHtoDAsync_v2(at, source.as_ptr().cast(), 256, stream) };
    raw(copy).unwrap();
    assert_eq!(read(&target), [0; 256], "read too early, and it shows");
    // SAFETY: the stream lives until here.
    raw(unsafe { sys::cuStreamSynchronize(stream) }).unwrap();
    assert_eq!(read(&target), [1; 256]);
    // SAFETY: made above, and not used again.
    raw(unsafe { sys::cuStreamDestroy_v2(stream) }).unwrap();
    drop((source, target));
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
fn events_mark_a_place_in_a_stream_and_streams_wait_for_them() {
    let bench = Bench::new();
    let first = Stream::new(StreamFlags::DEFAULT, None).unwrap();
    let second = Stream::new(StreamFlags::DEFAULT, None).unwrap();
    let source = LockedBuffer::new(&1_u8, 64).unwrap();
    let mut middle = buffer(&[0; 64]);
    let mut target = buffer(&[0; 64]);
    let done = Event::new(EventFlags::DEFAULT).unwrap();
    assert_eq!(done.query().unwrap(), EventStatus::Ready, "never recorded, so nothing to wait for");
    // SAFETY: all buffers live until the wait below.
    unsafe { middle.async_copy_from(&source, &first) }.unwrap();
    done.record(&first).unwrap();
    assert_eq!(done.query().unwrap(), EventStatus::NotReady);

    let ordered = Event::new(EventFlags::DISABLE_TIMING).unwrap();
    ordered.record(&first).unwrap();
    second.wait_event(ordered, StreamWaitEventFlags::DEFAULT).unwrap();
    // SAFETY: all buffers live until the wait below.
    unsafe { target.async_copy_from(&middle, &second) }.unwrap();
    second.synchronize().unwrap();
    assert_eq!(read(&target), [1; 64]);
    assert_eq!(done.query().unwrap(), EventStatus::Ready);

    let later = Event::new(EventFlags::DEFAULT).unwrap();
    later.record(&first).unwrap();
    later.synchronize().unwrap();
    assert!(later.elapsed_time_f32(&done).unwrap() >= 0.0);
    drop((done, later, source, middle, target, first, second));
    bench.finish();
}

#[test]
fn asking_often_enough_is_a_way_to_wait() {
    let bench = Bench::new();
    let stream = Stream::new(StreamFlags::DEFAULT, None).unwrap();
    let source = LockedBuffer::new(&1_u8, 64).unwrap();
    let mut target = buffer(&[0; 64]);
    // SAFETY: both buffers live until the loop below has ended.
    unsafe { target.async_copy_from(&source, &stream) }.unwrap();
    let done = Event::new(EventFlags::DISABLE_TIMING).unwrap();
    done.record(&stream).unwrap();
    let asked = (1..10).find(|_| done.query().unwrap() == EventStatus::Ready);
    assert!(asked.is_some_and(|asked| asked > 1), "ready after {asked:?} questions");
    assert_eq!(read(&target), [1; 64]);
    drop((done, source, target, stream));
    bench.finish();
}

#[test]
fn blocking_streams_keep_order_with_the_default_stream() {
    let bench = Bench::new();
    let stream = Stream::new(StreamFlags::DEFAULT, None).unwrap();
    let source = LockedBuffer::new(&1_u8, 64).unwrap();
    let mut target = buffer(&[0; 64]);
    // SAFETY: both buffers live until the read below, which waits for this stream.
    unsafe { target.async_copy_from(&source, &stream) }.unwrap();
    assert_eq!(read(&target), [1; 64]);
    // And the other way round: the fill is on the default stream and not waited for.
    target.set_8(2).unwrap();
    let mut back = LockedBuffer::new(&0_u8, 64).unwrap();
    // SAFETY: both buffers live until the wait below.
    unsafe { target.async_copy_to(&mut back, &stream) }.unwrap();
    stream.synchronize().unwrap();
    assert_eq!(back.as_slice(), [2; 64]);
    drop((source, back, target, stream));
    bench.finish();
}

#[test]
fn a_fill_is_queued_on_the_default_stream_and_other_streams_do_not_wait_for_it() {
    let bench = Bench::new();
    let stream = non_blocking();
    let mut target = buffer(&[1; 64]);
    target.set_8(2).unwrap();
    let mut back = LockedBuffer::new(&0_u8, 64).unwrap();
    let into = back.as_mut_ptr().cast();
    // SAFETY: both buffers live until the wait below.
    raw(unsafe { sys::cuMemcpyDtoHAsync_v2(into, address(&target), 64, stream) }).unwrap();
    // SAFETY: the stream lives until here.
    raw(unsafe { sys::cuStreamSynchronize(stream) }).unwrap();
    assert_eq!(back.as_slice(), [1; 64], "read before the fill, which nobody waited for");
    CurrentContext::synchronize().unwrap();
    assert_eq!(read(&target), [2; 64]);
    // SAFETY: made above, and not used again.
    raw(unsafe { sys::cuStreamDestroy_v2(stream) }).unwrap();
    drop((back, target));
    bench.finish();
}

#[test]
fn a_thread_without_a_context_is_refused_and_its_free_is_logged() {
    let bench = Bench::new();
    let leaked = buffer(&[1; 10]);
    let outcome = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: never read.
            let allocated = unsafe { DeviceBuffer::<u8>::uninitialized(10) };
            let freed = DeviceBuffer::drop(leaked).map_err(|(error, buffer)| {
                // The buffer's own drop would only log a second time.
                let at = address(&buffer);
                core::mem::forget(buffer);
                (error, at)
            });
            (allocated.map(drop), freed)
        });
        thread.join().unwrap()
    });
    assert_eq!(outcome.0, Err(CudaError::InvalidContext));
    let (error, at) = outcome.1.unwrap_err();
    assert_eq!(error, CudaError::InvalidContext);
    assert_eq!(Sim::live_allocations(bench.device).len(), 1, "the memory is still taken");
    let kinds: Vec<_> =
        Sim::take_misuse(bench.device).into_iter().map(|misuse| misuse.kind).collect();
    assert_eq!(kinds, [MisuseKind::NoContext]);
    // SAFETY: allocated above and not freed yet.
    raw(unsafe { sys::cuMemFree_v2(at) }).unwrap();
    bench.finish();
}

#[test]
fn the_wrong_context_is_logged() {
    let (one, two) = (Bench::new(), Bench::new());
    // The second context is current now.
    CurrentContext::set_current(&one.context).unwrap();
    let mine = buffer(&[1; 10]);
    CurrentContext::set_current(&two.context).unwrap();
    assert_eq!(read(&mine), [1; 10], "unified addressing makes it work");
    drop(mine);
    let kinds: Vec<_> = Sim::take_misuse(one.device).into_iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [MisuseKind::WrongContext, MisuseKind::WrongContext]);
    one.finish();
    two.finish();
}

#[test]
fn frees_that_a_driver_would_crash_on_are_refused_and_logged() {
    let bench = Bench::new();
    let mine = buffer(&[1; 1000]);
    let at = address(&mine);
    // SAFETY: refused, whatever the address.
    let free = |address| raw(unsafe { sys::cuMemFree_v2(address) });
    let invalid = Err(sys::CUresult::CUDA_ERROR_INVALID_VALUE);
    assert_eq!(free(at + 8), invalid, "not the start");
    assert_eq!(free(0x1000), invalid, "no device address");
    assert_eq!(free(at + (1 << 30)), invalid, "nothing there");
    drop(mine);
    assert_eq!(free(at), invalid, "a second time");
    let log = Sim::take_misuse(bench.device);
    let kinds: Vec<_> = log.iter().map(|misuse| misuse.kind).collect();
    use MisuseKind::{DoubleFree, UnknownAddress};
    assert_eq!(kinds, [UnknownAddress, UnknownAddress, UnknownAddress, DoubleFree]);
    assert!(log[3].to_string().contains("cuMemFree_v2"), "{}", log[3]);
    bench.finish();
}

#[test]
fn accesses_outside_an_allocation_are_illegal_addresses() {
    for (offset, len, freed, kind) in [
        (0_u64, 1001_usize, false, MisuseKind::OutOfBounds),
        (999, 2, false, MisuseKind::OutOfBounds),
        (1000, 1, false, MisuseKind::UnknownAddress),
        (0, 1, true, MisuseKind::UseAfterFree),
        (999, 1, true, MisuseKind::UseAfterFree),
    ] {
        let bench = Bench::new();
        let mine = buffer(&[1; 1000]);
        let at = address(&mine) + offset;
        if freed {
            drop(mine);
        } else {
            core::mem::forget(mine);
        }
        let bytes = vec![0_u8; len];
        // SAFETY: `bytes` is valid for `len` bytes.
        let copied = raw(unsafe { sys::cuMemcpyHtoD_v2(at, bytes.as_ptr().cast(), len) });
        assert_eq!(copied, Err(sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS), "{offset} {len}");
        assert_eq!(Sim::poisoned_by(bench.device), Some(700));
        let kinds: Vec<_> =
            Sim::take_misuse(bench.device).into_iter().map(|misuse| misuse.kind).collect();
        assert_eq!(kinds, [kind], "{offset} {len} {freed}");
        bench.reset();
        bench.finish();
    }
}

#[test]
fn freeing_what_queued_work_uses_is_logged() {
    let bench = Bench::new();
    let stream = Stream::new(StreamFlags::DEFAULT, None).unwrap();
    let source = LockedBuffer::new(&1_u8, 64).unwrap();
    let mut target = buffer(&[0; 64]);
    // SAFETY: the misuse that this test is about; the simulator stays sound.
    unsafe { target.async_copy_from(&source, &stream) }.unwrap();
    drop(source);
    // SAFETY: as above.
    let other = LockedBuffer::new(&1_u8, 64).unwrap();
    // SAFETY: as above.
    unsafe { target.async_copy_from(&other, &stream) }.unwrap();
    drop(target);
    let kinds: Vec<_> =
        Sim::take_misuse(bench.device).into_iter().map(|misuse| misuse.kind).collect();
    assert_eq!(kinds, [MisuseKind::FreedWhileQueued, MisuseKind::FreedWhileQueued]);
    drop((other, stream));
    bench.finish();
}

#[test]
fn what_is_left_is_listed_and_panics_at_the_end() {
    let bench = Bench::new();
    let device = bench.device;
    core::mem::forget(buffer(&[1; 100]));
    let stream = Stream::new(StreamFlags::DEFAULT, None).unwrap();
    core::mem::forget(LockedBuffer::new(&0_u8, 32).unwrap());
    let report = Sim::leak_report(device);
    assert_eq!((report.allocations.len(), report.streams, report.contexts), (1, 1, 1));
    assert_eq!(report.pinned.len(), 1);
    drop((stream, bench));
    // With its context the memory is gone, but it was never freed.
    let report = Sim::leak_report(device);
    assert_eq!((report.lost_with_context.len(), report.allocations.len()), (1, 0));
    let panic = std::panic::catch_unwind(|| Sim::assert_clean(device)).unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(text.contains("100 bytes") && text.contains("lost with its context"), "{text}");
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

    // A peer write that vanishes reports success: here it is the target that loses it.
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
fn pointer_attributes_tell_device_memory_from_what_only_looks_like_it() {
    for (backing, kind, managed, host) in [
        (Backing::Device, 2, 0, false),
        (Backing::Managed, 2, 1, true),
        (Backing::Host, 1, 0, true),
    ] {
        let bench = Bench::with(DeviceSpec { backing, ..DeviceSpec::default() });
        let mine = buffer(&[1; 100]);
        let at = address(&mine);
        use sys::CUpointer_attribute_enum as A;
        let ask = |attribute, data: *mut c_void| {
            // SAFETY: each `data` below is valid for its attribute.
            raw(unsafe { sys::cuPointerGetAttribute(data, attribute, at + 5) })
        };
        let (mut memory, mut flag, mut ordinal) = (0_u32, 0_u32, -1_i32);
        let (mut pointer, mut device) = (ptr::null_mut::<c_void>(), 0_u64);
        ask(A::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (&raw mut memory).cast()).unwrap();
        ask(A::CU_POINTER_ATTRIBUTE_IS_MANAGED, (&raw mut flag).cast()).unwrap();
        ask(A::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, (&raw mut ordinal).cast()).unwrap();
        ask(A::CU_POINTER_ATTRIBUTE_DEVICE_POINTER, (&raw mut device).cast()).unwrap();
        let has_host = ask(A::CU_POINTER_ATTRIBUTE_HOST_POINTER, (&raw mut pointer).cast()).is_ok();
        assert_eq!((memory, flag, has_host), (kind, managed, host), "{backing:?}");
        assert_eq!((u32::try_from(ordinal).unwrap(), device), (bench.device, at + 5));
        drop(mine);
        bench.finish();
    }
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
fn kernels_run_by_name_with_their_parameters() {
    const IMAGE: &str = ".version 6.0\n.target sm_70\n.address_size 64\n
        .visible .entry sim_test_xor(
            .param .u64 sim_test_xor_param_0, .param .u32 sim_test_xor_param_1,
            .param .u8 sim_test_xor_param_2)
        { ret; }
        .visible .entry sim_test_unknown() { ret; }";
    Sim::register_kernel("sim_test_xor", |launch| {
        let (at, len) = (launch.u64(0)?, launch.u32(1)?);
        let mask = launch.parameter(2).map_or(0, |bytes| bytes[0]);
        let mut bytes = launch.read(at, usize::try_from(len).unwrap())?;
        bytes.iter_mut().for_each(|byte| *byte ^= mask);
        launch.write(at, &bytes)
    });
    let bench = Bench::new();
    let module = cust::module::Module::from_ptx(IMAGE, &[]).unwrap();
    let kernel = module.get_function("sim_test_xor").unwrap();
    assert_eq!(module.get_function("sim_test_unknown").unwrap_err(), CudaError::NotFound);
    assert_eq!(Sim::take_misuse(bench.device).len(), 1, "a kernel without a body is told");
    assert_eq!(module.get_function("elsewhere").unwrap_err(), CudaError::NotFound);
    let stream = Stream::new(StreamFlags::DEFAULT, None).unwrap();
    let target = buffer(&[0; 100]);
    let at = target.as_device_ptr();
    // SAFETY: the kernel takes a pointer, a length and a byte, and stays within 100 bytes.
    unsafe { cust::launch!(kernel<<<1, 128, 0, stream>>>(at, 100_u32, 0x0F_u8)) }.unwrap();
    assert_eq!(Sim::inspect(bench.device, address(&target), 1), [0], "not before the wait");
    stream.synchronize().unwrap();
    assert_eq!(read(&target), [0x0F; 100]);
    // One byte too far is an illegal address, at the wait.
    // SAFETY: the simulator checks every access.
    unsafe { cust::launch!(kernel<<<1, 128, 0, stream>>>(at, 101_u32, 0_u8)) }.unwrap();
    assert_eq!(stream.synchronize().unwrap_err(), CudaError::IllegalAddress);
    let kinds: Vec<_> =
        Sim::take_misuse(bench.device).into_iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [MisuseKind::OutOfBounds]);
    bench.reset();
    core::mem::forget((target, stream, module));
    bench.finish();
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
