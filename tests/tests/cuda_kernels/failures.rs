//! Failures of calls: the error, the state that remains, and that no key stays behind.

use cuda_sim::{CallKind, Fault, Sim};
use vram_alloc::{ByteLen, DeviceRange};
use vram_gpu::kernels::{FingerprintKey, KernelError, Kernels, NoKernels};
use vram_gpu::{Device, DeviceMemory, GpuError, codes};

use crate::{Bench, WAIT, cipher_span, hash_span, key, noise, range};

/// One launch under a secret key.
fn fingerprint(
    kernels: &dyn Kernels,
    memory: &dyn DeviceMemory,
    key: &FingerprintKey,
) -> Result<(), KernelError> {
    let spans = [range(0, 4096), range(64, 5)];
    kernels.fingerprint(memory, &spans, key, None).map(drop)
}

/// What a launch calls the driver for, in this order.
const STEPS: [CallKind; 6] = [
    CallKind::CopyIn,
    CallKind::Launch,
    CallKind::CopyOut,
    CallKind::Fill,
    CallKind::Order,
    CallKind::Synchronize,
];

fn code_of(outcome: Result<(), KernelError>) -> u32 {
    match outcome {
        Err(KernelError::Device(GpuError::Driver { code, .. } | GpuError::Lost { code, .. })) => {
            code
        }
        answer => panic!("{answer:?}"),
    }
}

#[test]
fn errors_at_any_step_fail_the_call_and_leave_nothing_behind() {
    let bench = Bench::new();
    let (memory, kernels, key) = (bench.holding(&noise(4096, 1)), bench.kernels(), key(1));
    for kind in STEPS {
        for fault in [Fault::Fail(1), Fault::FailLater(1)] {
            bench.next(kind, fault);
            let code = code_of(fingerprint(&*kernels, &*memory, &key));
            assert_eq!(code, 1, "{kind:?} {fault:?}");
            Sim::faults(bench.ordinal).clear();
            bench.assert_wiped(&format!("{kind:?} {fault:?}"));
            assert!(bench.device.state().is_ready());
            fingerprint(&*kernels, &*memory, &key).unwrap();
        }
    }
    drop((memory, kernels));
    bench.finish();
}

/// With a launch before it under way, and with one behind it that never starts.
#[test]
fn errors_of_one_launch_of_several_leave_nothing_running() {
    let bench = Bench::new();
    let (memory, kernels) = (bench.holding(&noise(4096, 1)), bench.kernels());
    let spans: Vec<_> = (0..3100).map(|at| hash_span(at % 200 * 16, 16, 0, true)).collect();
    for (kind, nth) in STEPS.into_iter().flat_map(|kind| [(kind, 1), (kind, 2)]) {
        let memory = bench.holding(&noise(4096, 2));
        Sim::faults(bench.ordinal).nth(kind, nth, Fault::Fail(1));
        assert_eq!(code_of(kernels.hash(&*memory, &spans).map(drop)), 1, "{kind:?} {nth}");
        Sim::faults(bench.ordinal).clear();
        bench.assert_wiped(&format!("{kind:?} {nth}"));
        // The driver logs it if a launch still uses it.
        memory.free().unwrap();
    }
    kernels.hash(&*memory, &spans[..9]).unwrap();
    drop((memory, kernels));
    bench.finish();
}

#[test]
fn keys_that_could_not_be_overwritten_are_before_anything_else() {
    let bench = Bench::new();
    let (memory, kernels) = (bench.holding(&noise(4096, 1)), bench.kernels());
    let span = [cipher_span(0, 1000, 0, 1, true)];
    let secret = [0xC3; 32];
    Sim::faults(bench.ordinal).always(CallKind::Fill, Fault::Fail(1));
    let failed = kernels.tags(&*memory, &span, &[secret]).map(drop);
    assert_eq!(code_of(failed), 1);
    Sim::faults(bench.ordinal).clear();
    // The slot that has it is overwritten by its next use, whatever that is.
    for _each_slot in 0..4 {
        kernels.hash(&*memory, &[hash_span(0, 16, 0, true)]).unwrap();
    }
    bench.assert_wiped("a failed overwrite");
    drop((memory, kernels));
    bench.finish();
}

#[test]
fn keys_that_could_not_be_overwritten_are_when_the_device_is_given_up() {
    let bench = Bench::new();
    let (memory, kernels) = (bench.holding(&noise(4096, 1)), bench.kernels());
    let len = bench.device.kernel_scratch().get();
    let live = Sim::live_allocations(bench.ordinal);
    let address = live.iter().find(|allocation| allocation.len == len).unwrap().address;
    let span = [cipher_span(0, 1000, 0, 1, true)];
    Sim::faults(bench.ordinal).always(CallKind::Fill, Fault::Fail(1));
    kernels.tags(&*memory, &span, &[[0xC3; 32]]).unwrap_err();
    let left = || Sim::inspect(bench.ordinal, address, usize::try_from(len).unwrap());
    assert!(left().contains(&0xC3), "this test tests nothing");
    Sim::faults(bench.ordinal).clear();
    drop((memory, kernels));
    let ordinal = bench.ordinal;
    drop(bench.device);
    let left = Sim::inspect(ordinal, address, usize::try_from(len).unwrap());
    assert!(left.iter().all(|byte| *byte == 0), "freed with a key in it");
    Sim::assert_clean(ordinal);
}

#[test]
fn a_sticky_error_of_a_launch_loses_the_device_and_a_reset_brings_kernels_again() {
    for code in [700, 716, codes::LAUNCH_FAILED] {
        for fault in [Fault::Fail(code), Fault::FailLater(code)] {
            let bench = Bench::new();
            let (memory, kernels, key) = (bench.holding(&noise(4096, 1)), bench.kernels(), key(1));
            bench.next(CallKind::Launch, fault);
            assert_eq!(code_of(fingerprint(&*kernels, &*memory, &key)), code);
            assert!(!bench.device.state().is_ready());
            bench.assert_host_wiped("a sticky error");
            let calls = Sim::faults(bench.ordinal).all_calls();
            assert_eq!(bench.device.kernels().map(drop), Err(NoKernels::Lost { code }));
            assert_eq!(code_of(fingerprint(&*kernels, &*memory, &key)), code);
            assert_eq!(Sim::faults(bench.ordinal).all_calls(), calls, "a lost device was called");

            bench.device.reset().unwrap();
            let fresh = bench.holding(&noise(4096, 1));
            let stale = kernels.hash(&*memory, &[hash_span(0, 16, 0, true)]);
            assert!(
                matches!(stale, Err(KernelError::Device(GpuError::StaleAllocation { .. }))),
                "{stale:?}"
            );
            let old = kernels.hash(&*fresh, &[hash_span(0, 16, 0, true)]);
            assert!(matches!(old, Err(KernelError::Unfit { .. })), "{old:?}");
            let again = bench.device.wait_for_kernels(WAIT).unwrap();
            fingerprint(&*again, &*fresh, &key).unwrap();
            bench.assert_wiped("a reset");
            drop((memory, fresh, kernels, again));
            bench.finish();
        }
    }
}

#[test]
fn work_that_cannot_be_waited_for_takes_the_device_and_keeps_the_buffers() {
    let bench = Bench::new();
    let (memory, kernels, key) = (bench.holding(&noise(4096, 1)), bench.kernels(), key(1));
    Sim::faults(bench.ordinal).always(CallKind::Synchronize, Fault::Fail(1));
    assert_eq!(code_of(fingerprint(&*kernels, &*memory, &key)), 1);
    assert!(!bench.device.state().is_ready(), "what may still run holds the device");
    Sim::faults(bench.ordinal).clear();
    assert_eq!(bench.device.kernels().map(drop), Err(NoKernels::Lost { code: 1 }));
    bench.device.reset().unwrap();
    drop((kernels, memory));
    bench.kernels();
    bench.assert_wiped("a reset");
    bench.finish();
}

#[test]
fn a_device_that_is_lost_with_kernels_and_never_reset_leaves_nothing_of_ours() {
    let bench = Bench::new();
    let (memory, kernels) = (bench.holding(&noise(4096, 1)), bench.kernels());
    bench.next(CallKind::Fill, Fault::Fail(codes::ECC_UNCORRECTABLE));
    memory.fill(DeviceRange::whole(ByteLen::new(4096)), 1).unwrap_err();
    drop((memory, kernels));
    bench.finish();
}

/// A launch that the driver says it did and did not do.
#[test]
fn results_of_a_launch_that_did_not_run_are_never_a_good_verdict() {
    let bench = Bench::new();
    let (memory, kernels) = (bench.holding(&noise(4096, 1)), bench.kernels());
    let span = [cipher_span(0, 1000, 0, 1, true)];
    let tags = kernels.seal(&*memory, &*memory, &span, &[[7; 32]]).unwrap();
    bench.next(CallKind::Launch, Fault::Drop);
    let failed = kernels.open(&*memory, &*memory, &span, &[[7; 32]], &tags).map(drop);
    assert_eq!(code_of(failed), 999);
    // No word of it counts from now on.
    let now = bench.device.kernels().map(drop);
    assert!(matches!(now, Err(NoKernels::WrongAnswer { .. })), "{now:?}");
    bench.assert_wiped("a launch that did not run");
    drop((memory, kernels));
    bench.finish();
}
