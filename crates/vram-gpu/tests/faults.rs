//! Each fault on a device by itself: the error that the caller gets, and the state that remains.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[macro_use]
extern crate vram_testkit;

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange, GpuIndex};
use vram_gpu::fault::{Action, FaultPlan, Hook, InspectError, Op, When};
use vram_gpu::{Device, DeviceMemory, DeviceState, FaultDevice, GpuError, HostDevice, codes};

const GPU: GpuIndex = GpuIndex::new(2);
const LEN: usize = 1000;

fn device(plan: FaultPlan) -> Arc<FaultDevice> {
    let host = HostDevice::new(GPU, ByteLen::MIB).unwrap();
    FaultDevice::new(Arc::new(host), plan)
}

fn filled(device: &FaultDevice, value: u8) -> Box<dyn DeviceMemory> {
    let memory = device.allocate(ByteLen::from_usize(LEN)).unwrap();
    memory.fill(whole(), value).unwrap();
    memory
}

fn whole() -> DeviceRange {
    DeviceRange::whole(ByteLen::from_usize(LEN))
}

fn bytes(memory: &dyn DeviceMemory) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    memory.read(whole(), &mut bytes).unwrap();
    bytes
}

/// Positions at which the bytes are not `value`, with the byte found there.
fn odd_ones(bytes: &[u8], value: u8) -> Vec<(usize, u8)> {
    bytes.iter().copied().enumerate().filter(|&(_, byte)| byte != value).collect()
}

#[test]
fn out_of_memory_though_there_is_room_says_how_much_is_free_and_takes_nothing() {
    let device = device(FaultPlan::new(1));
    device.next(Op::Allocate, Action::OutOfMemory).unwrap();
    let wanted = ByteLen::new(64);
    let refused = device.allocate(wanted).unwrap_err();
    assert_eq!(refused, GpuError::OutOfMemory { gpu: GPU, wanted, free: Some(ByteLen::MIB) });
    assert!(device.live().is_empty());
    assert!(device.allocate(wanted).is_ok(), "only the next call was to fail");
}

#[test]
fn after_a_sticky_error_nothing_reaches_the_device_until_it_is_reset() {
    for code in [codes::ECC_UNCORRECTABLE, codes::ILLEGAL_ADDRESS, codes::LAUNCH_FAILED] {
        let device = device(FaultPlan::new(1));
        let memory = filled(&device, 1);
        device.next(Op::Write, Action::Driver(code)).unwrap();
        let first = memory.write(whole(), &[2; LEN]).unwrap_err();
        let name = codes::name(code);
        assert_eq!(first, GpuError::Driver { gpu: GPU, code, name, sticky: true });
        assert!(first.is_sticky());

        let lost = GpuError::Lost { gpu: GPU, code, name };
        assert_eq!(device.state(), DeviceState::Lost { error: lost });
        assert_eq!(device.calls_after_loss(), 0, "asking for the state is no call");
        assert_eq!(memory.write(whole(), &[2; LEN]), Err(lost));
        assert_eq!(memory.read(whole(), &mut [0; LEN]), Err(lost));
        assert_eq!(memory.fill(whole(), 0), Err(lost));
        assert_eq!(memory.copy_from(whole(), &*memory, whole()), Err(lost));
        assert_eq!(device.memory(), Err(lost));
        assert_eq!(device.allocate(ByteLen::new(1)).map(|_| ()), Err(lost));
        assert_eq!(device.staging(ByteLen::new(1)).map(|_| ()), Err(lost));
        assert_eq!(device.calls_after_loss(), 7, "a caller that goes on calling shows");
        let refused = memory.free().unwrap_err();
        assert_eq!(refused.error, lost);

        // No write was made: the bytes are unchanged.
        let counted = device.calls_after_loss();
        device.reset().unwrap();
        assert_eq!(device.calls_after_loss(), counted, "a reset is what helps");
        assert_eq!(device.state(), DeviceState::Ready);
        assert_eq!(refused.memory.fill(whole(), 0), Err(GpuError::StaleAllocation { gpu: GPU }));
        refused.memory.free().unwrap();
        assert_eq!(device.memory().unwrap().free, ByteLen::MIB);
        assert_eq!(odd_ones(&bytes(&*filled(&device, 9)), 9), []);
    }
}

#[test]
fn other_devices_go_on_when_one_is_lost() {
    let mut hosts = HostDevice::several(&[ByteLen::MIB; 2]).unwrap();
    let one = FaultDevice::new(hosts.remove(0), FaultPlan::new(1));
    let other = FaultDevice::new(hosts.remove(0), FaultPlan::new(1));
    let (here, there) = (filled(&one, 1), filled(&other, 2));
    one.next(Op::Read, Action::Driver(codes::ECC_UNCORRECTABLE)).unwrap();
    here.read(whole(), &mut [0; LEN]).unwrap_err();
    assert!(!one.state().is_ready());
    assert!(other.state().is_ready());
    assert_eq!(odd_ones(&bytes(&*there), 2), []);
}

#[test]
fn an_ordinary_driver_error_fails_one_call_and_takes_nothing_away() {
    let device = device(FaultPlan::new(1));
    let memory = filled(&device, 1);
    device.next(Op::Write, Action::Driver(46)).unwrap();
    let refused = memory.write(whole(), &[2; LEN]).unwrap_err();
    assert!(!refused.is_sticky() && device.state().is_ready());
    assert!(refused.to_string().contains("CUDA_ERROR_DEVICE_UNAVAILABLE"), "{refused}");
    assert_eq!(odd_ones(&bytes(&*memory), 1), []);
}

#[test]
fn a_bit_flips_on_the_way_to_the_device() {
    let device = device(FaultPlan::new(1));
    let memory = filled(&device, 0);
    device.next(Op::Write, Action::FlipBit { byte: 777, bit: 4 }).unwrap();
    memory.write(whole(), &[0; LEN]).unwrap();
    assert_eq!(odd_ones(&bytes(&*memory), 0), [(777, 16)]);
}

#[test]
fn a_bit_flips_on_the_way_back_and_the_device_is_sound() {
    let device = device(FaultPlan::new(1));
    let memory = filled(&device, 0);
    device.next(Op::Read, Action::FlipBit { byte: 3, bit: 7 }).unwrap();
    assert_eq!(odd_ones(&bytes(&*memory), 0), [(3, 128)]);
    assert_eq!(odd_ones(&bytes(&*memory), 0), []);
}

#[test]
fn a_bit_flips_at_rest_and_only_inspection_knows() {
    let device = device(FaultPlan::new(1));
    let _other = filled(&device, 5);
    let memory = filled(&device, 0);
    device.clear_log();
    let at = DeviceOffset::new(500);
    let numbers: Vec<_> = device.live().into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, [1, 2]);
    device.flip_bit_at(Some(2), at, 0).unwrap();
    assert_eq!(device.inspect(Some(2), at, ByteLen::new(2)).unwrap(), [1, 0]);
    device.flip_bit_at(None, at, 0).unwrap();
    assert_eq!(device.inspect(None, at, ByteLen::new(1)).unwrap(), [4], "the oldest is meant");
    assert!(device.calls().is_empty(), "nobody was told");
    assert_eq!(odd_ones(&bytes(&*memory), 0), [(500, 1)]);
    device.poke(Some(2), at, &[0, 7]).unwrap();
    assert_eq!(odd_ones(&bytes(&*memory), 0), [(501, 7)]);

    let outside = device.flip_bit_at(Some(2), DeviceOffset::from_usize(LEN), 0).unwrap_err();
    assert!(matches!(outside, InspectError::Gpu(GpuError::OutOfBounds { .. })));
    let nobody = device.inspect(Some(9), at, ByteLen::new(1)).unwrap_err();
    assert_eq!(nobody, InspectError::NoSuchAllocation { number: Some(9) });
}

#[test]
fn a_copy_stops_short_and_reports_success() {
    let device = device(FaultPlan::new(1));
    let (memory, other) = (filled(&device, 1), filled(&device, 2));
    let short = Action::ShortCopy { keep: 10 };
    let expect_short = |seen: &[u8], new: u8, old: u8| {
        assert_eq!(seen[..10], [new; 10]);
        assert_eq!(odd_ones(&seen[10..], old), []);
    };

    device.next(Op::Write, short.clone()).unwrap();
    memory.write(whole(), &[3; LEN]).unwrap();
    expect_short(&bytes(&*memory), 3, 1);

    device.next(Op::Copy, short.clone()).unwrap();
    memory.copy_from(whole(), &*other, whole()).unwrap();
    expect_short(&bytes(&*memory), 2, 1);

    device.next(Op::Fill, short.clone()).unwrap();
    memory.fill(whole(), 4).unwrap();
    expect_short(&bytes(&*memory), 4, 1);

    device.next(Op::QueueWrite, short.clone()).unwrap();
    let mut staging = device.staging(ByteLen::from_usize(LEN)).unwrap();
    staging.as_mut_slice().fill(5);
    let pending = memory.queue_write(DeviceOffset::START, staging, ByteLen::from_usize(LEN));
    pending.wait().1.unwrap();
    expect_short(&bytes(&*memory), 5, 1);

    device.next(Op::QueueRead, short.clone()).unwrap();
    let staging = device.staging(ByteLen::from_usize(LEN)).unwrap();
    let (staging, outcome) = memory.queue_read(whole(), staging).wait();
    outcome.unwrap();
    expect_short(staging.as_slice(), 5, 0);

    device.next(Op::Read, short).unwrap();
    let mut target = [9; LEN];
    memory.read(whole(), &mut target).unwrap();
    expect_short(&target, 5, 9);
}

#[test]
fn peer_writes_vanish_and_report_success() {
    let mut hosts = HostDevice::several(&[ByteLen::MIB; 2]).unwrap();
    let one = FaultDevice::new(hosts.remove(0), FaultPlan::new(1));
    let other = FaultDevice::new(hosts.remove(0), FaultPlan::new(1));
    let (target, source) = (filled(&one, 1), filled(&other, 2));
    one.add(Op::PeerCopy, When::From(1), Action::DropCopy).unwrap();
    target.copy_from(whole(), &*source, whole()).unwrap();
    assert_eq!(odd_ones(&bytes(&*target), 1), []);
    let near = filled(&one, 3);
    target.copy_from(whole(), &*near, whole()).unwrap();
    assert_eq!(odd_ones(&bytes(&*target), 3), [], "copies inside a device are not peer copies");
    one.clear();
    target.copy_from(whole(), &*source, whole()).unwrap();
    assert_eq!(odd_ones(&bytes(&*target), 2), []);
}

#[test]
fn a_late_error_surfaces_at_the_wait_of_its_own_copy() {
    let device = device(FaultPlan::new(1));
    let memory = filled(&device, 1);
    let queue = || {
        let staging = device.staging(ByteLen::new(10)).unwrap();
        memory.queue_write(DeviceOffset::START, staging, ByteLen::new(10))
    };
    device.add(Op::QueueWrite, When::Nth(2), Action::LateDriver(46)).unwrap();
    let (first, second, third) = (queue(), queue(), queue());
    assert!(device.state().is_ready());
    third.wait().1.unwrap();
    first.wait().1.unwrap();
    let (staging, outcome) = second.wait();
    assert!(matches!(outcome, Err(GpuError::Driver { code: 46, sticky: false, .. })));
    assert_eq!(staging.len(), ByteLen::new(10), "the buffer comes back all the same");

    device.next(Op::QueueWrite, Action::LateDriver(codes::ECC_UNCORRECTABLE)).unwrap();
    let pending = queue();
    assert!(device.state().is_ready(), "nobody knows before the wait");
    assert!(pending.wait().1.unwrap_err().is_sticky());
    assert!(!device.state().is_ready());
}

#[test]
fn a_copy_can_be_made_and_still_report_an_error() {
    let device = device(FaultPlan::new(1));
    let memory = filled(&device, 1);
    let error = GpuError::driver(GPU, 999);
    device.next(Op::Write, Action::FailAfterwards(error)).unwrap();
    assert_eq!(memory.write(whole(), &[2; LEN]), Err(error));
    assert_eq!(odd_ones(&bytes(&*memory), 2), []);
}

#[test]
fn a_refused_free_hands_the_memory_back_and_it_still_counts() {
    let device = device(FaultPlan::new(1));
    let memory = filled(&device, 1);
    let left = device.memory().unwrap().free;
    device.next(Op::Free, Action::Driver(codes::INVALID_VALUE)).unwrap();
    let refused = memory.free().unwrap_err();
    assert!(refused.to_string().contains("CUDA_ERROR_INVALID_VALUE"), "{refused}");
    assert_eq!(device.memory().unwrap().free, left);
    assert_eq!(odd_ones(&bytes(&*refused.memory), 1), [], "and it is as usable as before");
    refused.memory.free().unwrap();
    assert_eq!(device.memory().unwrap().free, ByteLen::MIB);
}

#[test]
fn a_forgotten_wait_shows_where_copies_are_as_late_as_allowed() {
    let device = device(FaultPlan::new(1).deferred());
    let memory = filled(&device, 1);
    let mut staging = device.staging(ByteLen::from_usize(LEN)).unwrap();
    staging.as_mut_slice().fill(2);
    let pending = memory.queue_write(DeviceOffset::START, staging, ByteLen::from_usize(LEN));
    assert_eq!(odd_ones(&bytes(&*memory), 1), [], "read without waiting: old bytes");
    pending.wait().1.unwrap();
    assert_eq!(odd_ones(&bytes(&*memory), 2), []);
}

#[test]
fn whether_memory_was_wiped_before_it_was_given_back_is_recorded() {
    let device = device(FaultPlan::new(1));
    drop(filled(&device, 1));
    device.watch_frees();
    assert!(device.freed().is_empty());
    drop(filled(&device, 1));
    filled(&device, 0).free().unwrap();
    let late = filled(&device, 0);
    device.flip_bit_at(None, DeviceOffset::from_usize(LEN - 1), 0).unwrap();
    drop(late);
    let wiped: Vec<_> = device.freed().iter().map(|f| (f.allocation, f.wiped)).collect();
    assert_eq!(wiped, [(2, Some(false)), (3, Some(true)), (4, Some(false))]);
}

#[test]
fn a_panic_halfway_leaves_device_and_memory_usable() {
    let device = device(FaultPlan::new(1));
    let memory = filled(&device, 1);
    for op in [Op::Write, Op::Read, Op::Fill, Op::Allocate, Op::QueueWrite] {
        device.next(op, Action::Panic).unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            memory.write(whole(), &[1; LEN]).unwrap();
            memory.fill(whole(), 1).unwrap();
            memory.read(whole(), &mut [0; LEN]).unwrap();
            let staging = device.staging(ByteLen::new(1)).unwrap();
            memory.queue_write(DeviceOffset::START, staging, ByteLen::ZERO).wait().1.unwrap();
            drop(filled(&device, 1));
        }));
        let message = *panicked.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("injected panic"), "{message}");
        assert_eq!(odd_ones(&bytes(&*memory), 1), []);
    }
    // Also from inside a call: a hook of the test that panics.
    device.next(Op::Read, Action::Run(Hook::new(|| panic!("from the hook")))).unwrap();
    catch_unwind(AssertUnwindSafe(|| memory.read(whole(), &mut [0; LEN]))).unwrap_err();
    assert_eq!(odd_ones(&bytes(&*memory), 1), []);
    assert_eq!(device.live().len(), 1);
}

#[test]
fn a_hook_runs_in_the_middle_of_a_call_and_may_call_the_device() {
    let device = device(FaultPlan::new(1));
    let memory: Arc<dyn DeviceMemory> = filled(&device, 1).into();
    let inside = Arc::clone(&memory);
    let meddle = Hook::new(move || inside.fill(whole(), 8).unwrap());
    device.next(Op::Read, Action::Run(meddle)).unwrap();
    assert_eq!(odd_ones(&bytes(&*memory), 8), []);
}

#[test]
fn the_log_says_what_was_called_and_what_was_injected() {
    let device = device(FaultPlan::new(1));
    let memory = filled(&device, 1);
    device.next(Op::Read, Action::DropCopy).unwrap();
    memory.read(whole(), &mut [0; LEN]).unwrap();
    drop(memory);
    let calls = device.calls();
    let ops: Vec<_> = calls.iter().map(|call| (call.number, call.op, call.allocation)).collect();
    assert_eq!(
        ops,
        [
            (1, Op::Allocate, None),
            (2, Op::Fill, Some(1)),
            (3, Op::Read, Some(1)),
            (4, Op::Drop, Some(1)),
        ]
    );
    assert_eq!(calls[1].len, Some(ByteLen::from_usize(LEN)));
    assert!(calls[1].injected.is_none() && calls[2].injected.is_some());
    assert_eq!((device.call_count(Op::Read), device.call_count(Op::Write)), (1, 0));
}

#[test]
fn stopped_faults_are_silent_and_resumed_ones_go_on() {
    let plan = FaultPlan::new(1).rule(Op::Read, When::From(1), Action::Driver(999)).unwrap();
    let device = device(plan);
    let memory = filled(&device, 1);
    memory.read(whole(), &mut [0; LEN]).unwrap_err();
    device.stop_faults();
    assert_eq!(odd_ones(&bytes(&*memory), 1), []);
    device.resume_faults();
    memory.read(whole(), &mut [0; LEN]).unwrap_err();
    device.clear();
    assert_eq!(odd_ones(&bytes(&*memory), 1), []);
}

#[test]
fn the_same_seed_gives_the_same_faults_and_another_gives_others() {
    let outcomes = |seed| {
        let plan = FaultPlan::new(seed)
            .rule(Op::Write, When::PerMillion(200_000), Action::FlipAnyBit)
            .unwrap()
            .rule(Op::Write, When::PerMillion(200_000), Action::Driver(999))
            .unwrap();
        let device = device(plan);
        let memory = filled(&device, 0);
        let step = |_| {
            let outcome = memory.write(whole(), &[0; LEN]);
            (outcome, odd_ones(&bytes(&*memory), 0))
        };
        (0..200).map(step).collect::<Vec<_>>()
    };
    let run = outcomes(42);
    assert_eq!(run, outcomes(42));
    assert_ne!(run, outcomes(43));
    let flips: Vec<_> =
        run.iter().filter(|(outcome, odd)| outcome.is_ok() && !odd.is_empty()).collect();
    let failures = run.iter().filter(|(outcome, _)| outcome.is_err()).count();
    assert!((20..60).contains(&flips.len()), "{} of 200 at one in five", flips.len());
    assert!((15..60).contains(&failures), "{failures} of the rest at one in five");
    assert!(flips.iter().all(|(_, odd)| odd.len() == 1 && odd[0].1.is_power_of_two()));
}

#[test]
fn an_injected_fault_never_hides_a_bad_argument() {
    let device = device(FaultPlan::new(1));
    let memory = filled(&device, 1);
    for action in [Action::FlipAnyBit, Action::ShortCopy { keep: 5 }] {
        device.next(Op::Write, action).unwrap();
        let refused = memory.write(whole(), &[0; 3]).unwrap_err();
        assert!(matches!(refused, GpuError::LengthMismatch { .. }), "{refused}");
    }
    assert_eq!(odd_ones(&bytes(&*memory), 1), []);
}
