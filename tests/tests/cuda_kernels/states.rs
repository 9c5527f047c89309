//! How kernels come to be offered, and why they are not.

use core::time::Duration;
use std::thread::sleep;

use cuda_sim::{CallKind, DeviceSpec, Fault, Sim};
use vram_alloc::{ByteLen, DeviceRange};
use vram_gpu::kernels::{KernelError, NoKernels, Unfit};
use vram_gpu::{CudaDevice, Device};

use crate::{Bench, GPU, WAIT, cipher_span, hash_span, noise, whole};

/// Copies work, whatever becomes of the kernels.
fn copies_work(bench: &Bench) {
    let bytes = noise(10_000, 3);
    assert!(whole(&*bench.holding(&bytes)) == bytes);
}

#[test]
fn nothing_is_loaded_before_somebody_asks_and_asking_waits_for_nothing() {
    let bench = Bench::new();
    copies_work(&bench);
    assert_eq!(Sim::faults(bench.ordinal).calls(CallKind::Module), 0);
    assert_eq!(Sim::used(bench.ordinal), 0);
    assert_eq!(bench.device.kernels().map(drop), Err(NoKernels::Loading));
    bench.kernels();
    assert!(bench.device.kernels().is_ok());
    assert!(Sim::used(bench.ordinal) >= bench.device.kernel_scratch().get());
    bench.assert_wiped("loading");
    bench.finish();
}

/// Kernels of `PyTorch` and of `candle` run in the default stream of the same context.
#[test]
fn kernels_end_while_the_default_stream_has_unfinished_work() {
    use cust::context::{Context, CurrentContext};
    let bench = Bench::new();
    let (memory, kernels) = (bench.holding(&noise(4096, 1)), bench.kernels());
    let context = Context::new(cust::device::Device::get_device(bench.ordinal).unwrap()).unwrap();
    CurrentContext::set_current(&context).unwrap();
    let mut theirs = cust::memory::DeviceBuffer::<u8>::zeroed(64).unwrap();
    let address = theirs.as_device_ptr().as_raw();
    theirs.set_8(7).unwrap();
    kernels.hash(&*memory, &[hash_span(0, 4096, 0, true)]).unwrap();
    assert!(Sim::inspect(bench.ordinal, address, 64) != [7; 64], "it waited for theirs");
    drop((theirs, context, memory, kernels));
    bench.finish();
}

#[test]
fn all_values_of_a_device_share_its_kernels() {
    let bench = Bench::new();
    let second = CudaDevice::open(bench.ordinal, vram_alloc::GpuIndex::new(9)).unwrap();
    let (kernels, same) = (bench.kernels(), second.wait_for_kernels(WAIT).unwrap());
    assert!(std::sync::Arc::ptr_eq(&kernels, &same));
    let loads = Sim::faults(bench.ordinal).calls(CallKind::Module);
    // Errors have the index of who asks.
    let memory = second.allocate(ByteLen::new(64)).unwrap();
    let refused = same.hash(&*memory, &[hash_span(8, 16, 0, true)]);
    assert!(matches!(refused, Err(KernelError::Unfit { gpu, .. }) if gpu.get() == 9));
    // They outlive the value that they came from.
    drop((second, kernels));
    same.hash(&*memory, &[hash_span(0, 16, 0, true)]).unwrap();
    assert_eq!(Sim::faults(bench.ordinal).calls(CallKind::Module), loads);
    drop((same, memory));
    bench.finish();
}

#[test]
fn kernels_that_are_turned_off_are_not_loaded_and_take_nothing() {
    let bench = Bench::new();
    let off = bench.device.without_kernels();
    assert_eq!(off.kernels().map(drop), Err(NoKernels::NotOffered));
    assert_eq!(off.wait_for_kernels(WAIT).map(drop), Err(NoKernels::NotOffered));
    assert_eq!(off.kernel_scratch(), ByteLen::ZERO);
    assert_eq!(Sim::faults(bench.ordinal).calls(CallKind::Module), 0);
    drop(off);
    bench.finish();
}

#[test]
fn devices_may_be_dropped_while_their_kernels_are_loaded() {
    for round in 0..20 {
        let bench = Bench::new();
        let _loading = bench.device.kernels();
        sleep(Duration::from_micros(round * 300));
        // Checks that no thread has anything of the device any more.
        bench.finish();
    }
}

#[test]
fn cards_that_are_too_old_are_refused_without_a_call() {
    let bench = Bench::with(DeviceSpec { compute_capability: (7, 5), ..DeviceSpec::default() });
    let refused = Err(NoKernels::Refused { code: 209 });
    assert_eq!(bench.device.wait_for_kernels(WAIT).map(drop), refused);
    bench.device.reset().unwrap();
    assert_eq!(bench.device.kernels().map(drop), refused);
    assert_eq!(Sim::faults(bench.ordinal).calls(CallKind::Module), 0);
    copies_work(&bench);
    bench.finish();
}

#[test]
fn a_module_that_the_driver_refuses_is_refused_with_its_code() {
    // Each module and each function of those that verify.
    for (nth, code) in (1..=6).zip([218, 209, 222, 221, 218, 1]) {
        let bench = Bench::new();
        Sim::faults(bench.ordinal).nth(CallKind::Module, nth, Fault::Fail(code));
        let refused = bench.device.wait_for_kernels(WAIT).map(drop);
        assert_eq!(refused, Err(NoKernels::Refused { code }), "call {nth}");
        assert_eq!(Sim::used(bench.ordinal), 0, "what was taken is given back");
        copies_work(&bench);
        // It is not tried again before a reset.
        assert_eq!(bench.device.kernels().map(drop), Err(NoKernels::Refused { code }));
        bench.device.reset().unwrap();
        bench.kernels();
        bench.finish();
    }
}

#[test]
fn without_ciphers_the_others_are_as_good_as_before() {
    for nth in 7..=10 {
        let bench = Bench::new();
        Sim::faults(bench.ordinal).nth(CallKind::Module, nth, Fault::Fail(218));
        let kernels = bench.kernels();
        let memory = bench.holding(&noise(4096, 1));
        kernels.hash(&*memory, &[hash_span(0, 4096, 0, true)]).unwrap();
        let refused = kernels.tags(&*memory, &[cipher_span(0, 16, 0, 0, true)], &[[1; 32]]);
        let why = Unfit::NotLoaded { kernel: "chacha" };
        assert_eq!(refused, Err(KernelError::Unfit { gpu: GPU, why }));
        drop((kernels, memory));
        bench.finish();
    }
}

/// A card that computes wrong: each kernel is tried before it is offered.
#[test]
fn a_kernel_that_computes_wrong_is_found_before_it_is_offered() {
    for (spoiled, kernel) in [
        ("blake3_items", "hash"),
        ("blake3_merge", "hash"),
        ("fingerprint", "fingerprint"),
        ("fingerprint_renew", "fingerprint"),
        ("chacha_seal", "seal"),
        ("chacha_tag", "tags"),
    ] {
        let bench = Bench::new();
        Sim::spoil_kernel(bench.ordinal, spoiled);
        let wrong = Err(NoKernels::WrongAnswer { kernel });
        assert_eq!(bench.device.wait_for_kernels(WAIT).map(drop), wrong, "{spoiled}");
        assert_eq!(bench.device.kernels().map(drop), wrong);
        copies_work(&bench);
        assert_eq!(Sim::used(bench.ordinal), 0, "what was taken is given back");
        Sim::mend_kernel(bench.ordinal, spoiled);
        assert_eq!(bench.device.wait_for_kernels(WAIT).map(drop), wrong, "until a reset");
        bench.device.reset().unwrap();
        bench.kernels();
        bench.finish();
    }
    // Words that mean nothing, where a verdict should stand.
    let bench = Bench::new();
    Sim::spoil_kernel(bench.ordinal, "chacha_open");
    let failed = bench.device.wait_for_kernels(WAIT).map(drop);
    assert_eq!(failed, Err(NoKernels::WrongAnswer { kernel: "open" }));
    bench.finish();
}

#[test]
fn without_room_they_are_refused_and_tried_again_after_a_second() {
    let bench = Bench::new();
    Sim::set_foreign(bench.ordinal, (64 << 20) - (1 << 20));
    let no_room = Err(NoKernels::Refused { code: 2 });
    assert_eq!(bench.device.wait_for_kernels(WAIT).map(drop), no_room);
    copies_work(&bench);
    Sim::set_foreign(bench.ordinal, 0);
    let calls = Sim::faults(bench.ordinal).all_calls();
    assert_eq!(bench.device.kernels().map(drop), no_room);
    // A thread that should not be there would have called by then.
    sleep(Duration::from_millis(200));
    assert_eq!(Sim::faults(bench.ordinal).all_calls(), calls, "no more often than each second");
    sleep(Duration::from_secs(1));
    bench.kernels();
    bench.finish();
}

#[test]
fn a_device_that_is_lost_while_loading_has_no_kernels_until_a_reset() {
    let bench = Bench::new();
    Sim::faults(bench.ordinal).nth(CallKind::Launch, 2, Fault::FailLater(700));
    let lost = bench.device.wait_for_kernels(WAIT).map(drop);
    assert_eq!(lost, Err(NoKernels::Lost { code: 700 }));
    assert!(!bench.device.state().is_ready());
    bench.device.reset().unwrap();
    bench.kernels();
    bench.finish();
}

#[test]
fn a_reset_brings_them_again_without_being_asked() {
    let bench = Bench::new();
    bench.kernels();
    let loads = || Sim::faults(bench.ordinal).calls(CallKind::Module);
    let before = loads();
    bench.device.reset().unwrap();
    let again = bench.kernels();
    assert_eq!(loads(), 2 * before);
    let memory = bench.holding(&noise(4096, 1));
    again.hash(&*memory, &[hash_span(0, 4096, 0, true)]).unwrap();
    memory.fill(DeviceRange::whole(memory.len()), 0).unwrap();
    drop((memory, again));
    bench.finish();
}
