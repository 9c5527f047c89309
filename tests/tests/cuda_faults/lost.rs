//! Lost devices and their resets.

use cuda_sim::{CallKind, Fault, Sim};
use vram_alloc::{ByteLen, DeviceOffset, DeviceRange, GpuIndex};
use vram_gpu::{CudaDevice, Device, DeviceState, GpuError, codes};

use crate::{Bench, GPU, LEN, bytes, lost, odd_ones, sticky, whole};

#[test]
fn after_a_sticky_error_no_call_reaches_the_driver_until_a_reset() {
    for code in [codes::ECC_UNCORRECTABLE, codes::ILLEGAL_ADDRESS, codes::LAUNCH_FAILED] {
        let bench = Bench::new();
        let memory = bench.filled(1);
        let staging = bench.staging(5);
        bench.next(CallKind::CopyIn, Fault::Fail(code));
        assert_eq!(memory.write(whole(), &vec![0; LEN]), Err(sticky(code)));
        let refused = Err(lost(code));
        let calls = bench.calls();

        assert_eq!(bench.device.state(), DeviceState::Lost { error: lost(code) });
        assert_eq!(memory.write(whole(), &vec![0; LEN]), refused);
        assert_eq!(memory.read(whole(), &mut vec![0; LEN]), refused);
        assert_eq!(memory.fill(whole(), 0), refused);
        assert_eq!(
            memory.copy_from(whole(), &*memory, whole()).map_err(|e| e.is_sticky()),
            Err(false)
        );
        assert_eq!(bench.device.memory().map(|_| ()), refused);
        assert_eq!(bench.device.allocate(ByteLen::new(9)).map(|_| ()), refused);
        assert_eq!(bench.device.staging(ByteLen::new(9)).map(|_| ()), refused);
        let (staging, outcome) =
            memory.queue_write(DeviceOffset::START, staging, ByteLen::new(1)).wait();
        assert_eq!(outcome, refused);
        drop(staging);
        let kept = memory.free().unwrap_err();
        assert_eq!(kept.error, lost(code));
        drop(kept);
        assert_eq!(bench.calls(), calls, "a lost device was called");

        bench.device.reset().unwrap();
        assert_eq!(bench.device.state(), DeviceState::Ready);
        assert_eq!(Sim::used(bench.ordinal), 0);
        let fresh = bench.filled(6);
        assert_eq!(odd_ones(&bytes(&*fresh), 6), 0);
        drop(fresh);
        bench.finish();
    }
}

#[test]
fn a_lost_device_that_is_never_reset_is_left_without_a_leak_of_ours() {
    let bench = Bench::new();
    let memory = bench.filled(1);
    let staging = bench.staging(5);
    bench.next(CallKind::Fill, Fault::Fail(codes::ECC_UNCORRECTABLE));
    assert_eq!(memory.fill(whole(), 0), Err(sticky(codes::ECC_UNCORRECTABLE)));
    drop((memory, staging));
    bench.finish();
}

#[test]
fn other_devices_go_on_when_one_is_lost() {
    let (one, two) = (Bench::new(), Bench::new());
    let (here, there) = (one.filled(1), two.filled(2));
    one.next(CallKind::CopyOut, Fault::Fail(codes::ECC_UNCORRECTABLE));
    here.read(whole(), &mut vec![0; LEN]).unwrap_err();
    assert!(!one.device.state().is_ready());
    assert!(two.device.state().is_ready());
    assert_eq!(odd_ones(&bytes(&*there), 2), 0);
    drop((here, there));
    one.finish();
    two.finish();
}

#[test]
fn a_refused_free_hands_the_memory_back_and_it_still_counts() {
    let bench = Bench::new();
    let memory = bench.filled(1);
    let used = Sim::used(bench.ordinal);
    bench.next(CallKind::Free, Fault::Fail(codes::INVALID_VALUE));
    let refused = memory.free().unwrap_err();
    assert!(matches!(refused.error, GpuError::Driver { code: codes::INVALID_VALUE, .. }));
    assert_eq!(Sim::used(bench.ordinal), used);
    assert_eq!(odd_ones(&bytes(&*refused.memory), 1), 0, "it is as usable as before");
    refused.memory.free().unwrap();
    assert_eq!(Sim::used(bench.ordinal), 0);
    bench.finish();
}

#[test]
fn a_buffer_that_somebody_holds_outlives_a_reset() {
    let bench = Bench::new();
    let mut staging = bench.staging(4);
    let memory = bench.filled(0);
    let flying = memory.queue_write(DeviceOffset::START, bench.staging(9), ByteLen::new(5));
    bench.device.reset().unwrap();
    assert_eq!(odd_ones(staging.as_slice(), 4), 0);
    staging.as_mut_slice().fill(3);
    let (back, outcome) = flying.wait();
    assert_eq!(outcome, Err(GpuError::StaleAllocation { gpu: GPU }));
    assert_eq!(back.len(), ByteLen::from_usize(LEN));

    // It still works for a new allocation, with or without page lock.
    let fresh = bench.filled(0);
    let (staging, outcome) =
        fresh.queue_write(DeviceOffset::START, staging, ByteLen::from_usize(LEN)).wait();
    outcome.unwrap();
    assert_eq!(odd_ones(&bytes(&*fresh), 3), 0);
    drop((staging, back, memory, fresh));
    bench.finish();
}

#[test]
fn a_reset_that_is_refused_changes_nothing() {
    let bench = Bench::new();
    let memory = bench.filled(1);
    bench.next(CallKind::Reset, Fault::Fail(999));
    assert!(matches!(bench.device.reset(), Err(GpuError::Driver { code: 999, .. })));
    assert_eq!(odd_ones(&bytes(&*memory), 1), 0);
    // The reset succeeds, but the new context is refused: the device is lost, and the next reset
    // makes it usable again.
    bench.next(CallKind::Context, Fault::Fail(999));
    assert!(bench.device.reset().is_err());
    assert_eq!(bench.device.state(), DeviceState::Lost { error: lost(999) });
    bench.device.reset().unwrap();
    assert_eq!(memory.fill(whole(), 0), Err(GpuError::StaleAllocation { gpu: GPU }));
    // The context is there, and its first call fails: nothing else is tried in it.
    bench.next(CallKind::MemoryInfo, Fault::Fail(codes::LAUNCH_FAILED));
    assert!(bench.device.reset().is_err());
    assert_eq!(bench.device.state(), DeviceState::Lost { error: lost(codes::LAUNCH_FAILED) });
    bench.device.reset().unwrap();
    drop((memory, bench.filled(2)));
    bench.finish();
}

/// P62: a card that fell off the bus answers 999, or another code that says nothing, to everything.
#[test]
fn a_device_that_answers_nothing_three_times_in_a_row_is_lost() {
    for code in [3, 4, 46, 101, 802, 999] {
        let bench = Bench::new();
        let memory = bench.filled(1);
        Sim::set_gone(bench.ordinal, Some(code));
        let allocate = || bench.device.allocate(ByteLen::new(9)).map(drop);
        for _ in 0..2 {
            assert!(matches!(allocate(), Err(GpuError::Driver { sticky: false, .. })));
            assert!(bench.device.state().is_ready(), "{code}");
        }
        assert_eq!(allocate(), Err(sticky(code)), "the error that tells of the loss");
        assert_eq!(bench.device.state(), DeviceState::Lost { error: lost(code) });
        let calls = bench.calls();
        assert_eq!(allocate(), Err(lost(code)));
        assert_eq!(memory.fill(whole(), 0), Err(lost(code)));
        assert_eq!(bench.calls(), calls, "a lost device was called");

        assert!(bench.device.reset().is_err(), "it is still gone");
        Sim::set_gone(bench.ordinal, None);
        bench.device.reset().unwrap();
        drop((memory, bench.filled(2)));
        bench.finish();
    }
}

/// P62: the memory figures are only asked for.
#[test]
fn a_device_that_cannot_say_how_much_is_free_is_lost_at_once() {
    let bench = Bench::new();
    bench.next(CallKind::MemoryInfo, Fault::Fail(999));
    assert_eq!(bench.device.memory().map(drop), Err(sticky(999)));
    assert_eq!(bench.device.state(), DeviceState::Lost { error: lost(999) });
    bench.finish();

    let bench = Bench::new();
    bench.next(CallKind::MemoryInfo, Fault::Fail(codes::INVALID_VALUE));
    bench.device.memory().unwrap_err();
    assert!(bench.device.state().is_ready(), "an answer, though a strange one");
    bench.finish();
}

/// P62: any answer between them begins the count anew.
#[test]
fn codes_that_say_nothing_are_survived_if_there_are_answers_between_them() {
    let bench = Bench::new();
    let memory = bench.filled(1);
    let silent = || {
        for _ in 0..2 {
            bench.next(CallKind::Alloc, Fault::Fail(999));
            bench.device.allocate(ByteLen::new(9)).unwrap_err();
        }
    };
    let len = ByteLen::from_usize(LEN);
    let answers: [&dyn Fn(); 6] = [
        &|| drop(bench.device.allocate(len).unwrap()),
        &|| memory.fill(whole(), 2).unwrap(),
        &|| assert!(bench.device.memory().is_ok()),
        &|| drop(bench.staging(3)),
        &|| assert!(bench.device.allocate(bench.device.info().total).is_err()),
        &|| {
            bench.next(CallKind::Alloc, Fault::Fail(codes::INVALID_VALUE));
            bench.device.allocate(len).unwrap_err();
        },
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        silent();
        answer();
        silent();
        assert!(bench.device.state().is_ready(), "answer {number}");
        answer();
    }
    let staging = bench.staging(5);
    silent();
    memory.queue_write(DeviceOffset::START, staging, len).wait().1.unwrap();
    silent();
    assert!(bench.device.state().is_ready());
    drop(memory);
    bench.finish();
}

#[test]
fn resets_and_calls_from_many_threads_end_well() {
    let bench = Bench::new();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let device = &bench.device;
            scope.spawn(move || {
                for _ in 0..30 {
                    let Ok(memory) = device.allocate(ByteLen::from_usize(1 << 16)) else {
                        continue;
                    };
                    let range = DeviceRange::whole(memory.len());
                    let staging = device.staging(ByteLen::from_usize(1 << 16)).unwrap();
                    let pending = memory.queue_write(DeviceOffset::START, staging, memory.len());
                    let filled = pending.wait().1.and_then(|()| memory.fill(range, thread));
                    let mut seen = vec![0; 1 << 16];
                    match filled.and_then(|()| memory.read(range, &mut seen)) {
                        Ok(()) => assert!(seen.iter().all(|&byte| byte == thread)),
                        Err(error) => {
                            assert_eq!(error, GpuError::StaleAllocation { gpu: GPU });
                        }
                    }
                }
            });
        }
        scope.spawn(|| (0..30).for_each(|_| bench.device.reset().unwrap()));
    });
    bench.finish();
}

#[test]
fn two_values_of_one_device_share_it_and_its_resets() {
    let bench = Bench::new();
    let twin = CudaDevice::open(bench.ordinal, GpuIndex::new(9)).unwrap();
    let (own, others) = (bench.filled(1), twin.allocate(ByteLen::from_usize(LEN)).unwrap());
    assert_eq!((own.gpu(), others.gpu()), (GPU, GpuIndex::new(9)));
    others.copy_from(whole(), &*own, whole()).unwrap();
    assert_eq!(odd_ones(&bytes(&*others), 1), 0);
    bench.device.reset().unwrap();
    let stale = Err(GpuError::StaleAllocation { gpu: GpuIndex::new(9) });
    assert_eq!(others.fill(whole(), 0), stale);
    drop((own, others, twin));
    bench.finish();
}
