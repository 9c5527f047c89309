//! Streams and events: queued work runs in order, and when a call waits for it.

use cuda_sim::{MisuseKind, Sim};
use cust::context::CurrentContext;
use cust::error::CudaError;
use cust::event::{Event, EventFlags, EventStatus};
use cust::memory::{AsyncCopyDestination, LockedBuffer};
use cust::stream::{Stream, StreamFlags, StreamWaitEventFlags};
use cust::sys;

use crate::bench::{Bench, address, buffer, non_blocking, raw, read};

#[test]
fn queued_copies_happen_when_somebody_waits_and_not_before() {
    let bench = Bench::new();
    let stream = Stream::new(StreamFlags::DEFAULT, None).unwrap();
    let mut source = LockedBuffer::from_slice(&[1_u8; 256]).unwrap();
    let mut target = buffer(&[0; 256]);
    // SAFETY: both buffers live until the wait below.
    unsafe { target.async_copy_from(&source, &stream) }.unwrap();
    assert_eq!(Sim::inspect(bench.device, address(&target), 256), [0; 256]);
    // Pinned memory is read late: the copy sees this write, as it may on a real device.
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
    // And in the other direction: the fill is on the default stream and not waited for.
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
fn kernels_run_by_name_with_their_parameters() {
    const IMAGE: &str = ".version 6.0\n.target sm_70\n.address_size 64\n
        .visible .entry sim_test_xor(
            .param .u64 sim_test_xor_param_0, .param .u32 sim_test_xor_param_1,
            .param .u8 sim_test_xor_param_2)
        { ret; }
        .visible .entry sim_test_nothing() { ret; }";
    Sim::register_kernel("sim_test_xor", |launch| {
        let (at, len) = (launch.u64(0)?, launch.u32(1)?);
        let mask = launch.parameter(2).map_or(0, |bytes| bytes[0]);
        let mut bytes = launch.read(at, usize::try_from(len).unwrap())?;
        for byte in &mut bytes {
            *byte ^= mask;
        }
        launch.write(at, &bytes)
    });
    let bench = Bench::new();
    let module = cust::module::Module::from_ptx(IMAGE, &[]).unwrap();
    let kernel = module.get_function("sim_test_xor").unwrap();
    assert!(module.get_function("sim_test_nothing").is_ok(), "it is run from its PTX");
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

/// In the past, freeing pinned memory ran everything that was queued on every device of the
/// process, which hid missing waits elsewhere.
#[test]
fn freeing_pinned_memory_runs_nothing_on_other_devices() {
    let bench = Bench::new();
    let mut target = buffer(&[1; 64]);
    target.set_8(2).unwrap();
    std::thread::spawn(|| {
        let other = Bench::new();
        drop(LockedBuffer::new(&0_u8, 64).unwrap());
        other.finish();
    })
    .join()
    .unwrap();
    let seen = Sim::inspect(bench.device, address(&target), 64);
    assert_eq!(seen, [1; 64], "nobody waited for the fill");
    CurrentContext::synchronize().unwrap();
    drop(target);
    bench.finish();
}
