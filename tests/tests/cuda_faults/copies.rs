//! Copies: when they run, how they fail, and that use after free cannot be expressed.

use cuda_sim::{CallKind, Fault, MisuseKind, Sim};
use cust::context::{Context, CurrentContext};
use cust::memory::{CopyDestination, DeviceBuffer};
use vram_alloc::{ByteLen, DeviceOffset};
use vram_gpu::{Device, DeviceState, GpuError, codes};

use crate::{Bench, LEN, bytes, lost, odd_ones, sticky, whole};

#[test]
fn a_write_has_happened_when_it_returns() {
    let bench = Bench::new();
    let memory = bench.filled(0);
    let address = memory.address().get();
    let content: Vec<u8> = (0..LEN).map(|i| u8::try_from(i % 251).unwrap()).collect();
    memory.write(whole(), &content).unwrap();
    // Inspected behind the driver: no later call could have done the work.
    assert!(Sim::inspect(bench.ordinal, address, LEN) == content);
    memory.fill(whole(), 9).unwrap();
    assert_eq!(odd_ones(&Sim::inspect(bench.ordinal, address, LEN), 9), 0);
    let other = bench.filled(3);
    memory.copy_from(whole(), &*other, whole()).unwrap();
    assert_eq!(odd_ones(&Sim::inspect(bench.ordinal, address, LEN), 3), 0);
    drop((memory, other));
    bench.finish();
}

#[test]
fn a_queued_copy_happens_at_its_wait_and_not_before() {
    let bench = Bench::new();
    let memory = bench.filled(1);
    let address = memory.address().get();
    let staging = bench.staging(2);
    assert!(staging.is_page_locked());
    let pending = memory.queue_write(DeviceOffset::START, staging, ByteLen::from_usize(LEN));
    assert_eq!(odd_ones(&Sim::inspect(bench.ordinal, address, LEN), 1), 0, "nobody waited yet");
    pending.wait().1.unwrap();
    assert_eq!(odd_ones(&Sim::inspect(bench.ordinal, address, LEN), 2), 0);
    drop(memory);
    bench.finish();
}

/// Kernels of `PyTorch` and of `candle` run in the default stream of the same context.
#[test]
fn our_copies_end_while_the_default_stream_has_unfinished_work_and_do_not_hold_it_up() {
    let bench = Bench::new();
    let (memory, other) = (bench.filled(0), bench.filled(1));
    let context = Context::new(cust::device::Device::get_device(bench.ordinal).unwrap()).unwrap();
    CurrentContext::set_current(&context).unwrap();
    let mut theirs = DeviceBuffer::<u8>::zeroed(LEN).unwrap();
    let address = theirs.as_device_ptr().as_raw();
    theirs.set_8(7).unwrap();
    let unfinished =
        |what| assert!(odd_ones(&Sim::inspect(bench.ordinal, address, LEN), 7) > 0, "{what}");
    unfinished("nobody waited yet");

    memory.write(whole(), &vec![2; LEN]).unwrap();
    unfinished("a write");
    assert_eq!(odd_ones(&bytes(&*memory), 2), 0);
    unfinished("a read");
    memory.fill(whole(), 3).unwrap();
    unfinished("a fill");
    memory.copy_from(whole(), &*other, whole()).unwrap();
    unfinished("a copy within the device");
    let len = ByteLen::from_usize(LEN);
    let (staging, outcome) = memory.queue_write(DeviceOffset::START, bench.staging(4), len).wait();
    outcome.unwrap();
    unfinished("a queued write");
    let (staging, outcome) = memory.queue_read(whole(), staging).wait();
    outcome.unwrap();
    unfinished("a queued read");

    // The other way: their wait ends while ours has not run.
    let pending = other.queue_write(DeviceOffset::START, staging, len);
    let mut seen = vec![0; LEN];
    theirs.copy_to(&mut seen).unwrap();
    assert_eq!(odd_ones(&seen, 7), 0);
    let ours = Sim::inspect(bench.ordinal, other.address().get(), LEN);
    assert_eq!(odd_ones(&ours, 1), 0, "their wait was for ours too");
    pending.wait().1.unwrap();
    drop((theirs, context, memory, other));
    bench.finish();
}

#[test]
fn an_asynchronous_error_surfaces_at_the_wait_of_its_own_copy() {
    let bench = Bench::new();
    let memory = bench.filled(1);
    let queue = || {
        let len = ByteLen::from_usize(LEN);
        memory.queue_write(DeviceOffset::START, bench.staging(2), len)
    };
    let first = queue();
    bench.next(CallKind::CopyIn, Fault::FailLater(999));
    let (second, third) = (queue(), queue());
    third.wait().1.unwrap();
    first.wait().1.unwrap();
    let (staging, outcome) = second.wait();
    assert!(matches!(outcome, Err(GpuError::Driver { code: 999, sticky: false, .. })));
    assert_eq!(staging.len(), ByteLen::from_usize(LEN), "the buffer comes back");
    assert!(bench.device.state().is_ready());

    bench.next(CallKind::CopyIn, Fault::FailLater(codes::ECC_UNCORRECTABLE));
    let pending = queue();
    assert!(bench.device.state().is_ready(), "nobody can know yet");
    assert_eq!(pending.wait().1, Err(sticky(codes::ECC_UNCORRECTABLE)));
    assert!(!bench.device.state().is_ready());
    drop((staging, memory));
    bench.finish();
}

#[test]
fn errors_at_any_step_of_a_copy_fail_it_and_leave_the_device_usable() {
    for (kind, fault) in [
        (CallKind::CopyIn, Fault::Fail(999)),
        (CallKind::CopyIn, Fault::FailLater(999)),
        (CallKind::Order, Fault::Fail(999)),
        (CallKind::Synchronize, Fault::Fail(999)),
    ] {
        let bench = Bench::new();
        let memory = bench.filled(1);
        for nth in 1..=3 {
            Sim::faults(bench.ordinal).nth(kind, nth, fault);
            let wrote = memory.write(whole(), &vec![2; LEN]);
            Sim::faults(bench.ordinal).clear();
            // A write of three windows waits twice: the third wait belongs to the next call.
            if nth < 3 || kind != CallKind::Synchronize {
                let code = wrote.unwrap_err();
                assert!(
                    matches!(code, GpuError::Driver { code: 999, .. }),
                    "{kind:?} {nth}: {code}"
                );
            }
            assert!(bench.device.state().is_ready());
            memory.write(whole(), &vec![3; LEN]).unwrap();
            assert_eq!(odd_ones(&bytes(&*memory), 3), 0, "{kind:?} {nth}");

            Sim::faults(bench.ordinal).next(kind, fault);
            let len = ByteLen::from_usize(LEN);
            let pending = memory.queue_write(DeviceOffset::START, bench.staging(4), len);
            let (staging, outcome) = pending.wait();
            assert!(outcome.is_err(), "{kind:?}");
            assert_eq!(staging.len(), len);
            Sim::faults(bench.ordinal).clear();
            assert!(bench.device.state().is_ready());
        }
        drop(memory);
        bench.finish();
    }
}

#[test]
fn a_copy_that_cannot_be_waited_for_takes_the_device_and_keeps_the_buffer() {
    let bench = Bench::new();
    let memory = bench.filled(1);
    let pending = memory.queue_read(whole(), bench.staging(0));
    // Neither the event nor the stream can be waited for: the copy may still be running.
    Sim::faults(bench.ordinal).always(CallKind::Synchronize, Fault::Fail(999));
    let (staging, outcome) = pending.wait();
    assert!(matches!(outcome, Err(GpuError::Driver { code: 999, .. })));
    assert!(staging.is_empty(), "nobody gets a buffer that may still be written to");
    assert_eq!(bench.device.state(), DeviceState::Lost { error: lost(999) });
    Sim::faults(bench.ordinal).clear();
    bench.device.reset().unwrap();
    assert!(bench.device.state().is_ready());
    drop(memory);
    bench.finish();
}

#[test]
fn damage_on_the_way_is_reported_as_success_and_shows_when_read_back() {
    let bench = Bench::new();
    let memory = bench.filled(0);
    bench.next(CallKind::CopyIn, Fault::FlipBit(8 * 1000 + 3));
    memory.write(whole(), &vec![0; LEN]).unwrap();
    let seen = bytes(&*memory);
    assert_eq!((odd_ones(&seen, 0), seen[1000]), (1, 8));

    bench.next(CallKind::CopyIn, Fault::StopAfter(10));
    memory.write(whole(), &vec![1; LEN]).unwrap();
    assert_eq!(bytes(&*memory)[..12], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]);

    memory.fill(whole(), 5).unwrap();
    bench.next(CallKind::CopyIn, Fault::Drop);
    let len = ByteLen::from_usize(LEN);
    memory.queue_write(DeviceOffset::START, bench.staging(6), len).wait().1.unwrap();
    assert_eq!(odd_ones(&bytes(&*memory), 5), 0);

    Sim::flip_bit(bench.ordinal, memory.address().get() + 77, 0);
    assert_eq!(odd_ones(&bytes(&*memory), 5), 1, "a flip at rest");
    drop(memory);
    bench.finish();
}

#[test]
fn use_after_free_cannot_be_expressed_and_copies_under_way_are_waited_for() {
    let bench = Bench::new();
    let memory = bench.filled(0);
    let len = ByteLen::from_usize(LEN);
    let pending = memory.queue_write(DeviceOffset::START, bench.staging(1), len);
    memory.free().unwrap();
    let dropped = bench.filled(0);
    let second = dropped.queue_write(DeviceOffset::START, bench.staging(1), len);
    drop(dropped);
    drop((pending, second));
    let log = Sim::misuse_of(bench.ordinal);
    assert!(log.iter().all(|entry| entry.kind != MisuseKind::FreedWhileQueued), "{log:?}");
    bench.finish();
}
