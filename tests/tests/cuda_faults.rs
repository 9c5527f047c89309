//! What goes wrong on a CUDA device, over the simulated driver and the real cust: what the caller
//! sees, what is left, and that nothing leaks.
//!
//! What holds the device up was taken out, one line at a time, to see who notices:
//!
//! | taken out | fails |
//! |---|---|
//! | a wait of a write, a read, a fill or a queued copy | the contract on CUDA devices (`bytes_come_back_as_written`, `fill_…`, `queued_copies_…`) |
//! | the wait of a copy inside a device | `a_write_has_happened_when_it_returns` |
//! | the wait of a copy between devices | `peers_that_copy_both_ways_at_once_do_not_wait_for_each_other` |
//! | the wait for queued copies before a free | the contract (`memory_may_be_freed_under_a_queued_copy`) |
//! | the wait after a copy that failed halfway | `what_passed_through_host_memory_is_wiped` |
//! | binding the context | the contract, every check |
//! | giving the thread its own context back | `calls_come_from_threads_…`, `opening_and_resetting_leave_…` |
//! | the bounds check | the contract (`ranges_outside_are_refused_…`) |
//! | asking whether the device is lost | `after_a_sticky_error_no_call_reaches_the_driver_until_a_reset` |
//! | asking whether the allocation is of this epoch | the contract (`a_reset_empties_…`) |
//! | looking where the memory really is | `memory_that_is_not_video_memory_is_refused_and_given_back` |
//! | wiping what passed through | `what_passed_through_host_memory_is_wiped` |

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use cuda_sim::{Backing, CallKind, DeviceSpec, Fault, MisuseKind, Sim};
use cust::context::{Context, CurrentContext};
use vram_alloc::{ByteLen, DeviceOffset, DeviceRange, GpuIndex};
use vram_gpu::{
    CudaDevice, CudaUnavailable, Device, DeviceKind, DeviceMemory, DeviceState, GpuError, Staging,
    codes,
};

const GPU: GpuIndex = GpuIndex::new(4);
const CAPACITY: u64 = 64 << 20;
const LEN: usize = 3 << 20;

/// One simulated device, opened.
struct Bench {
    ordinal: u32,
    device: Arc<CudaDevice>,
}

impl Bench {
    fn new() -> Self {
        Self::with(DeviceSpec::default())
    }

    fn with(spec: DeviceSpec) -> Self {
        cuda_sim::install();
        let ordinal = Sim::add_device(DeviceSpec { capacity: CAPACITY, ..spec });
        let device = CudaDevice::open(ordinal, GPU).unwrap();
        Self { ordinal, device }
    }

    /// An allocation full of one value.
    fn filled(&self, value: u8) -> Box<dyn DeviceMemory> {
        let memory = self.device.allocate(ByteLen::from_usize(LEN)).unwrap();
        memory.fill(whole(), value).unwrap();
        memory
    }

    fn staging(&self, value: u8) -> Staging {
        let mut staging = self.device.staging(ByteLen::from_usize(LEN)).unwrap();
        staging.as_mut_slice().fill(value);
        staging
    }

    fn next(&self, kind: CallKind, fault: Fault) {
        Sim::faults(self.ordinal).next(kind, fault);
    }

    /// Counted driver calls of any kind so far.
    fn calls(&self) -> u64 {
        Sim::faults(self.ordinal).all_calls()
    }

    /// Drops the device and checks that nothing is left and nothing was done wrong.
    fn finish(self) {
        let Self { ordinal, device } = self;
        drop(device);
        Sim::assert_clean(ordinal);
        Sim::retire_device(ordinal);
    }
}

fn whole() -> DeviceRange {
    DeviceRange::whole(ByteLen::from_usize(LEN))
}

fn bytes(memory: &dyn DeviceMemory) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    memory.read(whole(), &mut bytes).unwrap();
    bytes
}

fn odd_ones(bytes: &[u8], value: u8) -> usize {
    bytes.iter().filter(|&&byte| byte != value).count()
}

fn sticky(code: u32) -> GpuError {
    GpuError::Driver { gpu: GPU, code, name: codes::name(code), sticky: true }
}

fn lost(code: u32) -> GpuError {
    GpuError::Lost { gpu: GPU, code, name: codes::name(code) }
}

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
fn a_write_has_happened_when_it_returns() {
    let bench = Bench::new();
    let memory = bench.filled(0);
    let address = memory.address().get();
    let content: Vec<u8> = (0..LEN).map(|i| u8::try_from(i % 251).unwrap()).collect();
    memory.write(whole(), &content).unwrap();
    // Seen from behind the driver: no later call could have done the work.
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
    assert!(staging.is_special(), "staging is page-locked");
    let pending = memory.queue_write(DeviceOffset::START, staging, ByteLen::from_usize(LEN));
    assert_eq!(odd_ones(&Sim::inspect(bench.ordinal, address, LEN), 1), 0, "nobody waited yet");
    pending.wait().1.unwrap();
    assert_eq!(odd_ones(&Sim::inspect(bench.ordinal, address, LEN), 2), 0);
    drop(memory);
    bench.finish();
}

#[test]
fn calls_come_from_threads_without_a_context_or_with_another() {
    let (one, two) = (Bench::new(), Bench::new());
    let memory = one.filled(1);
    std::thread::scope(|scope| {
        // A thread that never saw CUDA; it ends with the device's memory given back.
        scope.spawn(|| {
            assert_eq!(odd_ones(&bytes(&*memory), 1), 0);
            let own = one.filled(2);
            assert_eq!(odd_ones(&bytes(&*own), 2), 0);
        });
        // A thread that works with another device through cust itself.
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
            // A write of three windows waits twice: its third wait is the next call's.
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
    // Neither the event nor the stream can be waited for: the copy may still be under way.
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
fn devices_that_cannot_reach_each_other_say_so_and_copy_nothing() {
    let apart = |group| DeviceSpec { peer_group: group, ..DeviceSpec::default() };
    let (one, two) = (Bench::with(apart(Some(1))), Bench::with(apart(None)));
    let (target, source) = (one.filled(1), two.filled(2));
    assert!(!one.device.can_copy_from_peer(&*two.device));
    let refused = target.copy_from(whole(), &*source, whole());
    assert_eq!(refused, Err(GpuError::PeerUnsupported { from: GPU, to: GPU }));
    assert_eq!(odd_ones(&bytes(&*target), 1), 0);
    // The pair says yes and the driver will not: the same answer, and the caller goes by the host.
    Sim::set_peer(one.ordinal, two.ordinal, true);
    one.next(CallKind::PeerAccess, Fault::Fail(217));
    let refused = target.copy_from(whole(), &*source, whole());
    assert_eq!(refused, Err(GpuError::PeerUnsupported { from: GPU, to: GPU }));
    target.copy_from(whole(), &*source, whole()).unwrap();
    assert_eq!(odd_ones(&bytes(&*target), 2), 0);
    drop((target, source));
    one.finish();
    two.finish();
}

#[test]
fn peer_writes_that_vanish_are_reported_as_success() {
    let (one, two) = (Bench::new(), Bench::new());
    let (target, source) = (one.filled(1), two.filled(2));
    one.next(CallKind::CopyPeer, Fault::Drop);
    target.copy_from(whole(), &*source, whole()).unwrap();
    assert_eq!(odd_ones(&bytes(&*target), 1), 0);
    drop((target, source));
    one.finish();
    two.finish();
}

#[test]
fn peers_that_copy_both_ways_at_once_do_not_wait_for_each_other() {
    let (one, two) = (Bench::new(), Bench::new());
    let (here, there) = (one.filled(1), two.filled(1));
    std::thread::scope(|scope| {
        scope.spawn(|| (0..40).for_each(|_| here.copy_from(whole(), &*there, whole()).unwrap()));
        scope.spawn(|| (0..40).for_each(|_| there.copy_from(whole(), &*here, whole()).unwrap()));
        scope.spawn(|| (0..40).for_each(|_| assert!(one.device.memory().is_ok())));
    });
    drop((here, there));
    one.finish();
    two.finish();
}

#[test]
fn peers_that_copy_both_ways_while_both_are_reset_end_well() {
    let (one, two) = (Bench::new(), Bench::new());
    let copy = |to: &Bench, from: &Bench| {
        for _ in 0..60 {
            let made = |bench: &Bench| bench.device.allocate(ByteLen::new(4096));
            let (Ok(target), Ok(source)) = (made(to), made(from)) else { continue };
            let range = DeviceRange::whole(target.len());
            if let Err(error) = target.copy_from(range, &*source, range) {
                assert_eq!(error, GpuError::StaleAllocation { gpu: GPU });
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| copy(&one, &two));
        scope.spawn(|| copy(&two, &one));
        scope.spawn(|| (0..60).for_each(|_| one.device.reset().unwrap()));
        scope.spawn(|| (0..60).for_each(|_| two.device.reset().unwrap()));
    });
    one.finish();
    two.finish();
}

/// Memory that a driver still has locked must not go back to the host: it would be somebody
/// else's, and locking it again is refused.
#[test]
fn host_memory_that_cannot_be_unlocked_is_kept() {
    let pinned = |bench: &Bench| Sim::leak_report(bench.ordinal).pinned;
    let (one, two) = (Bench::new(), Bench::new());
    let first = one.staging(1);
    one.next(CallKind::Unpin, Fault::Fail(999));
    drop(first);
    let kept = pinned(&one);
    assert_eq!(kept.len(), 1, "it is still locked");
    let second = one.staging(2);
    assert_eq!(pinned(&one).len(), 2, "so the next buffer lies elsewhere");

    // A device that is lost is not even asked.
    let memory = one.device.allocate(ByteLen::new(1)).unwrap();
    one.next(CallKind::Fill, Fault::Fail(codes::ECC_UNCORRECTABLE));
    memory.fill(DeviceRange::whole(memory.len()), 0).unwrap_err();
    drop((second, memory));
    let third = two.staging(3);
    assert_eq!(pinned(&two).len(), 1, "another device's buffer lies elsewhere as well");
    drop(third);
    one.finish();
    two.finish();
}

#[test]
fn page_locking_that_is_refused_only_costs_speed() {
    let bench = Bench::new();
    Sim::faults(bench.ordinal).always(CallKind::Pin, Fault::Fail(801));
    let memory = bench.filled(0);
    memory.write(whole(), &vec![7; LEN]).unwrap();
    assert_eq!(odd_ones(&bytes(&*memory), 7), 0);
    let len = ByteLen::from_usize(LEN);
    let (staging, outcome) = memory.queue_write(DeviceOffset::START, bench.staging(8), len).wait();
    outcome.unwrap();
    assert_eq!(odd_ones(&bytes(&*memory), 8), 0);
    let (staging, outcome) = memory.queue_read(whole(), staging).wait();
    outcome.unwrap();
    assert_eq!(odd_ones(staging.as_slice(), 8), 0);
    drop((staging, memory));
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

    // It still works for a new allocation, locked or not.
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
    // Done, but the new context is refused: the device is lost, and the next reset helps.
    bench.next(CallKind::Context, Fault::Fail(999));
    assert!(bench.device.reset().is_err());
    assert_eq!(bench.device.state(), DeviceState::Lost { error: lost(999) });
    bench.device.reset().unwrap();
    assert_eq!(memory.fill(whole(), 0), Err(GpuError::StaleAllocation { gpu: GPU }));
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

#[test]
fn what_passed_through_host_memory_is_wiped() {
    const SECRET: [u8; 64] = [0xA7; 64];
    let bench = Bench::new();
    let memory = bench.filled(0);
    let first = DeviceRange::whole(ByteLen::from_usize(SECRET.len()));
    let pinned_secrets = || {
        let blocks = Sim::inspect_pinned(bench.ordinal);
        assert!(blocks.len() >= 2, "copies go through page-locked buffers");
        blocks.iter().filter(|bytes| bytes.windows(64).any(|part| part == SECRET)).count()
    };
    memory.write(first, &SECRET).unwrap();
    assert_eq!(pinned_secrets(), 0, "after a write");
    memory.read(first, &mut [0; 64]).unwrap();
    assert_eq!(pinned_secrets(), 0, "after a read");
    bench.next(CallKind::Order, Fault::Fail(999));
    memory.write(first, &SECRET).unwrap_err();
    assert_eq!(pinned_secrets(), 0, "after a write that failed");

    let mut staging = bench.staging(0);
    staging.as_mut_slice()[..64].copy_from_slice(&SECRET);
    assert_eq!(pinned_secrets(), 1, "a buffer in somebody's hands is theirs");
    staging.wipe();
    assert_eq!(pinned_secrets(), 0);
    drop((memory, staging));
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
