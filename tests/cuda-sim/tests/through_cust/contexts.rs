//! Contexts: per thread, reference-counted, and the counts of their calls.

use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};

use cuda_sim::{CallKind, DeviceSpec, Fault, MisuseKind, Sim};
use cust::context::{Context, CurrentContext};
use cust::device::Device;
use cust::error::CudaError;
use cust::memory::{AsyncCopyDestination, CopyDestination, DeviceBuffer, LockedBuffer};
use cust::stream::{Stream, StreamFlags};
use cust::sys;

use crate::bench::{Bench, address, buffer, non_blocking, raw, read};

#[test]
fn a_context_is_current_per_thread() {
    let bench = Bench::new();
    let elsewhere = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let before = CurrentContext::synchronize();
            CurrentContext::set_current(&bench.context).unwrap();
            (before, CurrentContext::synchronize(), CurrentContext::get_device().map(drop))
        });
        thread.join().unwrap()
    });
    assert_eq!(elsewhere, (Err(CudaError::InvalidContext), Ok(()), Ok(())));
    bench.finish();
}

#[test]
fn a_primary_context_lives_until_its_last_release() {
    let bench = Bench::new();
    let second = Context::new(Device::get_device(bench.device).unwrap()).unwrap();
    let device = bench.device;
    let kept = buffer(&[1; 10]);
    drop(bench);
    assert_eq!(read(&kept), [1; 10], "one retain is left");
    drop(kept);
    drop(second);
    assert_eq!(CurrentContext::synchronize().unwrap_err(), CudaError::ContextIsDestroyed);
    Sim::assert_clean(device);
}

#[test]
fn contexts_are_stacked() {
    let bench = Bench::new();
    let ordinal = i32::try_from(bench.device).unwrap();
    let mut own = ptr::null_mut();
    // SAFETY: `own` is valid for writing.
    raw(unsafe { sys::cuCtxCreate_v2(&raw mut own, 0, ordinal) }).unwrap();
    let current = || {
        let mut context = ptr::null_mut();
        // SAFETY: `context` is valid for writing.
        raw(unsafe { sys::cuCtxGetCurrent(&raw mut context) }).unwrap();
        context
    };
    assert_eq!(current(), own, "created and pushed");
    let mine = buffer(&[1; 10]);
    assert_eq!(read(&mine), [1; 10]);
    drop(mine);
    // SAFETY: made above, and not used again.
    raw(unsafe { sys::cuCtxDestroy_v2(own) }).unwrap();
    assert_ne!(current(), own, "popped with its end");
    // SAFETY: refused: the context of this handle was destroyed.
    let refused = raw(unsafe { sys::cuCtxPushCurrent_v2(own) });
    assert_eq!(refused, Err(sys::CUresult::CUDA_ERROR_INVALID_CONTEXT));
    bench.finish();
}

#[test]
fn calls_to_a_lost_device_are_refused_and_counted() {
    let bench = Bench::new();
    let faults = Sim::faults(bench.device);
    faults.next(CallKind::MemoryInfo, Fault::Fail(719));
    assert_eq!(cust::memory::mem_get_info().unwrap_err(), CudaError::LaunchFailed);
    let before = faults.all_calls();
    assert!(CurrentContext::get_device().is_ok(), "asking which device is no call to it");
    assert_eq!(faults.all_calls(), before);
    assert!(CurrentContext::synchronize().is_err());
    // SAFETY: never read.
    assert!(unsafe { DeviceBuffer::<u8>::uninitialized(1) }.is_err());
    assert_eq!(faults.all_calls(), before + 2, "a call that is refused is a call");
    bench.reset();
    bench.finish();
}

#[test]
fn a_reset_does_not_release() {
    let bench = Bench::new();
    bench.reset();
    assert_eq!(Sim::leak_report(bench.device).contexts, 1);
    let again = Context::new(Device::get_device(bench.device).unwrap()).unwrap();
    assert_eq!(Sim::leak_report(bench.device).contexts, 2);
    assert_eq!(read(&buffer(&[3; 3])), [3; 3], "still current on this thread, and usable again");
    drop(again);
    bench.finish();
}

#[test]
fn nothing_of_nothing_is_an_error_or_nothing() {
    let bench = Bench::new();
    let mut at = 0;
    // SAFETY: `at` is valid for writing.
    let allocated = raw(unsafe { sys::cuMemAlloc_v2(&raw mut at, 0) });
    assert_eq!(allocated, Err(sys::CUresult::CUDA_ERROR_INVALID_VALUE));
    // SAFETY: as above.
    let allocated = raw(unsafe { sys::cuMemAlloc_v2(&raw mut at, usize::MAX) });
    assert_eq!(allocated, Err(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY));
    let mine = buffer(&[1; 10]);
    // SAFETY: no byte is copied.
    raw(unsafe { sys::cuMemcpyHtoD_v2(address(&mine), [0_u8].as_ptr().cast(), 0) }).unwrap();
    // SAFETY: no byte is written.
    raw(unsafe { sys::cuMemsetD8_v2(address(&mine), 0, 0) }).unwrap();
    // SAFETY: refused.
    let copied = raw(unsafe { sys::cuMemcpyHtoD_v2(address(&mine), ptr::null(), 10) });
    assert_eq!(copied, Err(sys::CUresult::CUDA_ERROR_INVALID_VALUE));
    // SAFETY: refused.
    let filled = raw(unsafe { sys::cuMemsetD32_v2(address(&mine) + 2, 0, 1) });
    assert_eq!(filled, Err(sys::CUresult::CUDA_ERROR_INVALID_VALUE), "not aligned");
    assert_eq!(read(&mine), [1; 10]);
    drop(mine);
    bench.finish();
}

#[test]
fn the_same_seed_gives_the_same_faults() {
    let run = |seed| {
        let bench = Bench::new();
        let choices = vec![
            (CallKind::CopyIn, Fault::FlipBit(11)),
            (CallKind::CopyIn, Fault::Fail(999)),
            (CallKind::CopyOut, Fault::StopAfter(1)),
        ];
        Sim::faults(bench.device).seeded(seed, 1 << 14, choices);
        let mut target = buffer(&[0; 4]);
        let outcomes: Vec<_> = (0..64_u8)
            .map(|round| {
                let copied = target.copy_from(&[round; 4]);
                let mut back = [0xEE; 4];
                let returned = target.copy_to(&mut back);
                (copied, returned, back)
            })
            .collect();
        Sim::faults(bench.device).clear();
        drop(target);
        bench.finish();
        outcomes
    };
    // The bytes that a fault leaves unwritten are the device's garbage, which differs.
    let shape = |seed| run(seed).into_iter().map(|(a, b, _)| (a, b)).collect::<Vec<_>>();
    assert_eq!(shape(5), shape(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn work_of_a_destroyed_stream_goes_on() {
    let bench = Bench::new();
    let stream = Stream::new(StreamFlags::DEFAULT, None).unwrap();
    let source = LockedBuffer::new(&1_u8, 64).unwrap();
    let mut target = buffer(&[0; 64]);
    // SAFETY: both buffers live until the wait.
    unsafe { target.async_copy_from(&source, &stream) }.unwrap();
    drop(stream);
    assert_eq!(Sim::leak_report(bench.device).queued, 1);
    CurrentContext::synchronize().unwrap();
    assert_eq!(read(&target), [1; 64]);
    drop((source, target));
    bench.finish();
}

#[test]
fn streams_that_wait_for_each_other_ten_thousand_times_come_to_an_end() {
    let bench = Bench::new();
    let streams = [non_blocking(), non_blocking()];
    let target = buffer(&[0; 4]);
    let mut event = ptr::null_mut();
    // SAFETY: `event` is valid for writing.
    raw(unsafe { sys::cuEventCreate(&raw mut event, 2) }).unwrap();
    for round in 0..10_000_u32 {
        let (here, there) = if round % 2 == 0 { (0, 1) } else { (1, 0) };
        // SAFETY: the memory is live until the wait below.
        raw(unsafe { sys::cuMemsetD32Async(address(&target), round, 1, streams[here]) }).unwrap();
        // SAFETY: event and stream are live.
        raw(unsafe { sys::cuEventRecord(event, streams[here]) }).unwrap();
        // SAFETY: as above.
        raw(unsafe { sys::cuStreamWaitEvent(streams[there], event, 0) }).unwrap();
    }
    // SAFETY: the stream is live.
    raw(unsafe { sys::cuStreamSynchronize(streams[0]) }).unwrap();
    assert_eq!(read(&target), 9_999_u32.to_le_bytes());
    // SAFETY: not used again.
    raw(unsafe { sys::cuEventDestroy_v2(event) }).unwrap();
    for stream in streams {
        // SAFETY: not used again.
        raw(unsafe { sys::cuStreamDestroy_v2(stream) }).unwrap();
    }
    drop(target);
    bench.finish();
}

#[test]
fn a_host_function_runs_in_order_and_may_not_call_the_driver() {
    static ANSWER: AtomicU32 = AtomicU32::new(0);
    unsafe extern "C" fn ask(_data: *mut c_void) {
        let mut count = 0;
        // SAFETY: `count` is valid for writing.
        let answer = unsafe { sys::cuDeviceGetCount(&raw mut count) };
        ANSWER.store(cuda_shim::last_raw_code(), Ordering::SeqCst);
        assert_ne!(answer, sys::CUresult::CUDA_SUCCESS);
    }
    let bench = Bench::new();
    let stream = non_blocking();
    // SAFETY: the function takes any data.
    raw(unsafe { sys::cuLaunchHostFunc(stream, Some(ask), ptr::null_mut()) }).unwrap();
    assert_eq!(ANSWER.load(Ordering::SeqCst), 0, "not before the wait");
    // SAFETY: the stream is live.
    raw(unsafe { sys::cuStreamSynchronize(stream) }).unwrap();
    assert_eq!(ANSWER.load(Ordering::SeqCst), 800);
    let logged =
        Sim::misuse().into_iter().any(|misuse| misuse.kind == MisuseKind::CallFromCallback);
    assert!(logged);
    // SAFETY: not used again.
    raw(unsafe { sys::cuStreamDestroy_v2(stream) }).unwrap();
    bench.finish();
}

#[test]
fn a_free_that_the_driver_refuses_leaves_the_memory_taken() {
    let bench = Bench::with(DeviceSpec { capacity: 1 << 20, ..DeviceSpec::default() });
    let mine = buffer(&[1; 1000]);
    Sim::faults(bench.device).next(CallKind::Free, Fault::Fail(999));
    let (error, mine) = DeviceBuffer::drop(mine).unwrap_err();
    assert_eq!((error, Sim::used(bench.device)), (CudaError::UnknownError, 1024));
    DeviceBuffer::drop(mine).unwrap();
    assert_eq!(Sim::used(bench.device), 0);
    bench.finish();
}
