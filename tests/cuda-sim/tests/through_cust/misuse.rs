//! Misuse: errors that would crash a real driver are refused, logged and listed.

use cuda_sim::{MisuseKind, Sim};
use cust::context::CurrentContext;
use cust::error::CudaError;
use cust::memory::{AsyncCopyDestination, DeviceBuffer, LockedBuffer};
use cust::stream::{Stream, StreamFlags};
use cust::sys;

use crate::bench::{Bench, address, buffer, raw, read};

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
    assert_eq!(
        kinds,
        [
            MisuseKind::UnknownAddress,
            MisuseKind::UnknownAddress,
            MisuseKind::UnknownAddress,
            MisuseKind::DoubleFree,
        ]
    );
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
    // The memory is gone with its context, but it was never freed.
    let report = Sim::leak_report(device);
    assert_eq!((report.lost_with_context.len(), report.allocations.len()), (1, 0));
    let panic = std::panic::catch_unwind(|| Sim::assert_clean(device)).unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(text.contains("100 bytes") && text.contains("lost with its context"), "{text}");
}
