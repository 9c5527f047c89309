//! Each fault of kernels by itself: what the caller gets, and the state that remains.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[macro_use]
extern crate vram_testkit;

use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange, GpuIndex};
use vram_gpu::fault::{Action, FaultPlan, Op, PlanError, When};
use vram_gpu::kernels::{
    CipherSpan, FingerprintKey, HashSpan, KernelError, Kernels, NoKernels, Site, Unfit,
};
use vram_gpu::{Device, DeviceMemory, DeviceState, FaultDevice, GpuError, HostDevice, codes};

const GPU: GpuIndex = GpuIndex::new(2);
const LEN: ByteLen = ByteLen::new(8192);

fn device() -> Arc<FaultDevice> {
    let host = HostDevice::builder(GPU, ByteLen::MIB).kernels().build().unwrap();
    FaultDevice::new(Arc::new(host), FaultPlan::new(1))
}

fn filled(device: &FaultDevice) -> (Box<dyn DeviceMemory>, Arc<dyn Kernels>) {
    let memory = device.allocate(LEN).unwrap();
    memory.fill(DeviceRange::whole(LEN), 7).unwrap();
    (memory, device.kernels().unwrap())
}

fn range(start: u64, len: u64) -> DeviceRange {
    DeviceRange::checked(DeviceOffset::new(start), ByteLen::new(len), LEN).unwrap()
}

fn spans() -> [HashSpan; 3] {
    [0, 1024, 4096].map(|at| HashSpan { range: range(at, 1000), first_chunk: 0, root: true })
}

fn key(byte: u8) -> FingerprintKey {
    let material: Vec<u8> = (0..FingerprintKey::LEN).map(|at| at.to_le_bytes()[0] ^ byte).collect();
    FingerprintKey::from_random(material.into_boxed_slice().try_into().unwrap())
}

fn segments() -> [CipherSpan; 2] {
    [0, 2048].map(|at| CipherSpan {
        source: range(at, 100),
        target: DeviceOffset::new(at),
        index: 1,
        last: false,
    })
}

/// The number of bits in which two values differ.
fn distance(one: &[u8], other: &[u8]) -> u32 {
    one.iter().zip(other).map(|(one, other)| (one ^ other).count_ones()).sum()
}

#[test]
fn a_host_device_offers_kernels_only_on_request() {
    let plain = HostDevice::new(GPU, ByteLen::MIB).unwrap();
    assert_eq!(plain.kernels().unwrap_err(), NoKernels::NotOffered);
    let wrapped = FaultDevice::new(Arc::new(plain), FaultPlan::new(1));
    assert_eq!(wrapped.kernels().unwrap_err(), NoKernels::NotOffered);
    let device = device();
    let kernels = device.kernels().unwrap();
    assert_eq!(kernels.site(), Site::Host);
    assert_eq!(device.kernel_scratch(), ByteLen::ZERO);
    assert!(device.calls().is_empty(), "asking for kernels is no call");
}

#[test]
fn one_bit_of_one_result_is_wrong_and_the_bytes_are_sound() {
    let device = device();
    let (memory, kernels) = filled(&device);
    let right = kernels.hash(&*memory, &spans()).unwrap();
    device.next(Op::Hash, Action::FlipResult { span: 4, bit: 9 }).unwrap();
    let wrong = kernels.hash(&*memory, &spans()).unwrap();
    // The fourth of three is the first again.
    let at: Vec<_> = (0..3).map(|at| distance(&right[at], &wrong[at])).collect();
    assert_eq!((at, right[1][1] ^ wrong[1][1]), (vec![0, 1, 0], 2));
    assert_eq!(kernels.hash(&*memory, &spans()).unwrap(), right, "only the next call was to lie");
    device.next(Op::Hash, Action::FlipResult { span: 0, bit: 0 }).unwrap();
    assert!(kernels.hash(&*memory, &[]).unwrap().is_empty());
}

#[test]
fn either_fingerprint_of_a_pass_may_be_wrong_alone() {
    let device = device();
    let (memory, kernels) = filled(&device);
    let (key, renewed, span) = (key(1), key(2), [range(16, 5000)]);
    let pass = |renewed| kernels.fingerprint(&*memory, &span, &key, renewed).unwrap()[0];
    let right = pass(Some(&renewed));
    for (bit, first, second) in [(127, 1, 0), (128, 0, 1), (255, 0, 1), (256, 1, 0)] {
        device.next(Op::Fingerprint, Action::FlipResult { span: 0, bit }).unwrap();
        let wrong = pass(Some(&renewed));
        let value = distance(wrong.value.as_bytes(), right.value.as_bytes());
        let new = distance(wrong.renewed.unwrap().as_bytes(), right.renewed.unwrap().as_bytes());
        assert_eq!((value, new), (first, second), "{bit}");
    }
    device.next(Op::Fingerprint, Action::FlipResult { span: 0, bit: 255 }).unwrap();
    assert_eq!(distance(pass(None).value.as_bytes(), right.value.as_bytes()), 1);
}

#[test]
fn everything_looks_altered_on_demand() {
    let device = device();
    let (memory, kernels) = filled(&device);
    let keys = [[1; 32], [2; 32]];
    let right = kernels.hash(&*memory, &spans()).unwrap();
    device.next(Op::Hash, Action::FlipResults).unwrap();
    let wrong = kernels.hash(&*memory, &spans()).unwrap();
    assert!(right.iter().zip(&wrong).all(|(right, wrong)| right != wrong));

    let tags = kernels.seal(&*memory, &*memory, &segments(), &keys).unwrap();
    device.next(Op::Tags, Action::FlipResults).unwrap();
    let wrong = kernels.tags(&*memory, &segments(), &keys).unwrap();
    assert!(tags.iter().zip(&wrong).all(|(right, wrong)| right != wrong));
    device.next(Op::Open, Action::FlipResults).unwrap();
    let opened = kernels.open(&*memory, &*memory, &segments(), &keys, &tags).unwrap();
    assert_eq!(opened, [false, false]);
    // Now they are plaintext, whose tags are others.
    device.next(Op::Open, Action::FlipResults).unwrap();
    let opened = kernels.open(&*memory, &*memory, &segments(), &keys, &tags).unwrap();
    assert_eq!(opened, [false, false], "what is altered looks so too");
    let mut bytes = [0; 100];
    memory.read(range(2048, 100), &mut bytes).unwrap();
    assert_eq!(bytes, [7; 100], "it was opened even so");
}

#[test]
fn kernels_see_what_the_device_altered_and_no_copy_shows() {
    let device = device();
    let (memory, kernels) = filled(&device);
    let before = kernels.hash(&*memory, &spans()).unwrap();
    device.flip_bit_at(None, DeviceOffset::new(1999), 7).unwrap();
    let after = kernels.hash(&*memory, &spans()).unwrap();
    let changed: Vec<_> = (0..3).filter(|at| before[*at] != after[*at]).collect();
    assert_eq!(changed, [1]);
}

#[test]
fn kernels_that_do_not_apply_are_refused_by_name_and_the_device_stays() {
    let device = device();
    let (memory, kernels) = filled(&device);
    let why = Unfit::Unaligned { at: 3 };
    device.next(Op::Seal, Action::Unfit(why)).unwrap();
    let refused = kernels.seal(&*memory, &*memory, &segments(), &[[1; 32]; 2]).unwrap_err();
    assert_eq!(refused, KernelError::Unfit { gpu: GPU, why });
    let mut bytes = [0; 100];
    memory.read(range(0, 100), &mut bytes).unwrap();
    assert_eq!(bytes, [7; 100], "the call was not made");
    assert!(device.state().is_ready());
    // What the wrapped kernels refuse comes through.
    let refused = kernels.seal(&*memory, &*memory, &segments(), &[]).unwrap_err();
    let why = Unfit::Lists { spans: 2, others: 0 };
    assert_eq!(refused, KernelError::Unfit { gpu: GPU, why });
}

#[test]
fn a_sticky_error_of_a_kernel_loses_the_device_and_its_kernels_until_a_reset() {
    for (op, afterwards) in [(Op::Hash, false), (Op::Hash, true)] {
        let device = device();
        let (memory, kernels) = filled(&device);
        let code = codes::ILLEGAL_ADDRESS;
        let error = GpuError::driver(GPU, code);
        let action = if afterwards { Action::FailAfterwards(error) } else { Action::Driver(code) };
        device.next(op, action).unwrap();
        let refused = kernels.hash(&*memory, &spans()).unwrap_err();
        assert_eq!(refused, KernelError::Device(error));

        let lost = GpuError::Lost { gpu: GPU, code, name: codes::name(code) };
        assert_eq!(device.state(), DeviceState::Lost { error: lost });
        assert_eq!(device.kernels().unwrap_err(), NoKernels::Lost { code });
        assert_eq!(kernels.hash(&*memory, &spans()), Err(KernelError::Device(lost)));
        assert_eq!(device.calls_after_loss(), 1);

        device.reset().unwrap();
        let stale = KernelError::Device(GpuError::StaleAllocation { gpu: GPU });
        let kernels = device.kernels().unwrap();
        assert_eq!(kernels.hash(&*memory, &spans()), Err(stale));
        let (memory, kernels) = filled(&device);
        assert!(kernels.hash(&*memory, &spans()).is_ok());
    }
    let device = device();
    let (memory, kernels) = filled(&device);
    device.next(Op::Hash, Action::Driver(codes::INVALID_VALUE)).unwrap();
    assert!(kernels.hash(&*memory, &spans()).is_err());
    assert!(kernels.hash(&*memory, &spans()).is_ok(), "an error that is not sticky passes");
}

#[test]
fn a_sticky_error_of_the_wrapped_kernels_loses_the_wrapper() {
    let inner = device();
    let outer = FaultDevice::new(Arc::<FaultDevice>::clone(&inner), FaultPlan::new(2));
    let (memory, kernels) = filled(&outer);
    inner.next(Op::Hash, Action::Driver(codes::LAUNCH_FAILED)).unwrap();
    assert!(kernels.hash(&*memory, &spans()).is_err());
    assert!(kernels.hash(&*memory, &spans()).is_err());
    assert_eq!(outer.calls_after_loss(), 1);
    assert_eq!(inner.call_count(Op::Hash), 1, "nothing reaches a lost device");
}

#[test]
fn kernels_are_withheld_for_any_reason_and_offered_again() {
    let device = device();
    let (memory, kernels) = filled(&device);
    for why in [
        NoKernels::Loading,
        NoKernels::Refused { code: 222 },
        NoKernels::WrongAnswer { kernel: "hash" },
    ] {
        device.withhold_kernels(Some(why));
        assert_eq!(device.kernels().unwrap_err(), why);
        assert!(kernels.hash(&*memory, &spans()).is_ok(), "whoever has them goes on");
    }
    device.withhold_kernels(None);
    assert!(device.kernels().is_ok());
}

#[test]
fn calls_of_kernels_are_logged_with_their_memory_and_bytes() {
    let device = device();
    let _other = device.allocate(LEN).unwrap();
    let (memory, kernels) = filled(&device);
    device.clear_log();
    device.next(Op::Fingerprint, Action::FlipResults).unwrap();
    kernels.hash(&*memory, &spans()[1..]).unwrap();
    kernels.fingerprint(&*memory, &[range(16, 5)], &key(1), None).unwrap();
    let calls = device.calls();
    let [hash, fingerprint] = calls.as_slice() else { panic!("{calls:?}") };
    assert_eq!((hash.op, hash.allocation, hash.len), (Op::Hash, Some(2), Some(ByteLen::new(2000))));
    assert_eq!(hash.offset, Some(DeviceOffset::new(1024)));
    assert!(hash.injected.is_none() && !hash.after_loss);
    assert!(matches!(fingerprint.injected, Some(Action::FlipResults)));
    assert_eq!(device.call_count(Op::Hash), 1);
}

#[test]
fn a_rule_of_kernels_means_nothing_for_copies_nor_one_of_copies_for_kernels() {
    let device = device();
    for (op, action) in [
        (Op::Write, Action::FlipResults),
        (Op::Read, Action::FlipResult { span: 0, bit: 0 }),
        (Op::Allocate, Action::Unfit(Unfit::Overlap)),
        (Op::Hash, Action::ShortCopy { keep: 1 }),
        (Op::Open, Action::DropCopy),
    ] {
        let refused = device.add(op, When::Nth(1), action).unwrap_err();
        assert!(matches!(refused, PlanError::DoesNotApply { .. }), "{refused}");
    }
}
