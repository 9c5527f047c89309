//! Property: under any faults of the driver, kernels give right results or an error, and leave no
//! byte of a call in their own memory.
//!
//! Method: random calls of all kernels beside the same calls on a host device, while the simulated
//! driver fails calls by a seed, at once, later, or for good. A call that fails leaves its targets
//! unknown: both devices are then written anew. At the end nothing is left and nothing was misused.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "the numbers of the property are small"
)]

use cuda_sim::{CallKind, Fault, Sim};
use proptest::prelude::*;
use vram_alloc::{ByteLen, DeviceRange};
use vram_gpu::kernels::{CipherSpan, KernelError, NoKernels};
use vram_gpu::{Device, DeviceMemory, GpuError, codes};

use crate::{Bench, WAIT, cipher_span, hash_span, host, key, noise, range, whole};

/// Bytes of the memory.
const LEN: usize = 24 << 10;

#[derive(Clone, Copy, Debug)]
enum Call {
    Hash { at: usize, len: usize, count: usize },
    Fingerprint { at: usize, len: usize, two: bool },
    Tags { len: usize },
    SealAndOpen { len: usize, in_place: bool, bad: bool },
    Reset,
}

fn call() -> impl Strategy<Value = Call> {
    let at = || (0..LEN / 32).prop_map(|at| at * 16);
    let len = || prop_oneof![1..64_usize, 1..LEN / 4];
    prop_oneof![
        3 => (at(), len(), 1..40_usize).prop_map(|(at, len, count)| Call::Hash { at, len, count }),
        3 => (at(), len(), any::<bool>())
            .prop_map(|(at, len, two)| Call::Fingerprint { at, len, two }),
        2 => len().prop_map(|len| Call::Tags { len }),
        3 => (len(), any::<bool>(), any::<bool>())
            .prop_map(|(len, in_place, bad)| Call::SealAndOpen { len, in_place, bad }),
        1 => Just(Call::Reset),
    ]
}

/// The faults: of every call that a launch makes, mild and for good. Not of the overwriting: what is
/// left after that failed twice is a test of its own.
fn faults() -> Vec<(CallKind, Fault)> {
    let kinds = [
        CallKind::CopyIn,
        CallKind::Launch,
        CallKind::CopyOut,
        CallKind::Order,
        CallKind::Synchronize,
    ];
    let faults = [
        Fault::Fail(1),
        Fault::FailLater(1),
        Fault::Fail(999),
        Fault::FailLater(codes::ECC_UNCORRECTABLE),
    ];
    kinds.iter().flat_map(|&kind| faults.map(|fault| (kind, fault))).collect()
}

/// Both memories, with the same bytes.
struct Twins<'b> {
    bench: &'b Bench,
    card: Box<dyn DeviceMemory>,
    host: Box<dyn DeviceMemory>,
}

impl Twins<'_> {
    /// The same on both sides: the results agree, or the card's is an error of its driver. Returns
    /// whether it worked.
    fn both<T: PartialEq + core::fmt::Debug>(
        &self,
        host: &dyn vram_gpu::kernels::Kernels,
        compute: impl Fn(&dyn DeviceMemory, &dyn vram_gpu::kernels::Kernels) -> Result<T, KernelError>,
    ) -> Result<bool, TestCaseError> {
        let expected = compute(&*self.host, host).unwrap();
        let kernels = match self.bench.device.kernels() {
            Ok(kernels) => kernels,
            Err(NoKernels::Lost { .. }) => return Ok(false),
            Err(why) => return Err(TestCaseError::fail(why.to_string())),
        };
        match compute(&*self.card, &*kernels) {
            Ok(values) => {
                prop_assert_eq!(values, expected);
                Ok(true)
            }
            Err(KernelError::Device(GpuError::Driver { .. } | GpuError::Lost { .. })) => Ok(false),
            Err(error) => Err(TestCaseError::fail(error.to_string())),
        }
    }
}

/// A device that works, all of its kernels loaded, and its memory with these bytes.
fn ready(bench: &Bench, bytes: &[u8]) -> Box<dyn DeviceMemory> {
    Sim::faults(bench.ordinal).clear();
    if !bench.device.state().is_ready() {
        bench.device.reset().unwrap();
    }
    bench.device.wait_for_kernels(WAIT).unwrap();
    bench.holding(bytes)
}

fn run(calls: &[Call], seed: u64) -> Result<(), TestCaseError> {
    let bench = Bench::new();
    let (device, on_host) = host();
    let bytes = noise(LEN, seed);
    let len = ByteLen::from_usize(LEN);
    let written = || {
        let memory = device.allocate(len).unwrap();
        memory.write(DeviceRange::whole(len), &bytes).unwrap();
        memory
    };
    let mut twins = Twins { bench: &bench, card: ready(&bench, &bytes), host: written() };
    Sim::faults(bench.ordinal).seeded(seed, 3000, faults());
    for (number, call) in (0..).zip(calls) {
        let (old, new) = (key(number), key(number + 1));
        let secret = [[u8::try_from(number % 200).unwrap() + 1; 32]];
        let worked = match *call {
            Call::Hash { at, len, count } => {
                let spans: Vec<_> =
                    (0..count).map(|n| hash_span(at, len - n % len, 0, true)).collect();
                twins.both(&*on_host, |memory, kernels| kernels.hash(memory, &spans))?
            }
            Call::Fingerprint { at, len, two } => {
                let (spans, new) = ([range(at, len), range(0, 7)], two.then_some(&new));
                twins.both(&*on_host, |memory, kernels| {
                    kernels.fingerprint(memory, &spans, &old, new)
                })?
            }
            Call::Tags { len } => {
                let span = [cipher_span(32, len, 0, 3, false)];
                twins.both(&*on_host, |memory, kernels| kernels.tags(memory, &span, &secret))?
            }
            Call::SealAndOpen { len, in_place, bad } => {
                let target = if in_place { 0 } else { LEN / 2 };
                let span = [cipher_span(0, len, target, 5, true)];
                let back = [CipherSpan { source: range(target, len), ..span[0] }];
                twins.both(&*on_host, |memory, kernels| {
                    let mut tags = kernels.seal(memory, memory, &span, &secret)?;
                    tags[0][3] ^= u8::from(bad);
                    kernels.open(memory, memory, &back, &secret, &tags)
                })?
            }
            Call::Reset => false,
        };
        if !worked {
            if matches!(call, Call::Reset) {
                Sim::faults(bench.ordinal).clear();
                bench.device.reset().unwrap();
            }
            twins.card = ready(&bench, &bytes);
            twins.host = written();
            bench.assert_wiped(&format!("{call:?}"));
            Sim::faults(bench.ordinal).seeded(seed ^ number, 3000, faults());
        }
    }
    let Twins { card, host, .. } = twins;
    Sim::faults(bench.ordinal).clear();
    if bench.device.state().is_ready() {
        prop_assert!(whole(&*card) == whole(&*host));
        bench.assert_wiped("all calls");
    }
    drop((card, host));
    bench.finish();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: (ProptestConfig::default().cases / 16).max(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn results_are_right_or_errors_and_nothing_stays_behind(
        calls in prop::collection::vec(call(), 1..20),
        seed in any::<u64>(),
    ) {
        run(&calls, seed)?;
    }
}
