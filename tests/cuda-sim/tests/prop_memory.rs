//! Property: after any allocations, frees, fills and copies, device memory has the same content as
//! a plain map of byte vectors, and the driver's count is the sum of its rounded lengths.
//!
//! Method: the simulated driver and the map execute the same steps. Copies and fills are queued on
//! the default stream or on a blocking one, which together keep the order of the calls, so the map
//! may execute each step at once; reading waits. The map does not know the content of fresh memory,
//! so every allocation begins with a fill.

#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "helpers of tests are tests"
)]

#[macro_use]
extern crate vram_testkit;

use core::ptr;

use cuda_sim::{DeviceSpec, Sim};
use cust::context::{Context, CurrentContext};
use cust::device::Device;
use cust::sys;
use proptest::prelude::*;
use proptest::sample::Index;

const CAPACITY: u64 = 1 << 20;
const GRANULARITY: u64 = 512;

#[derive(Clone, Debug)]
enum Step {
    Allocate { len: usize, byte: u8 },
    Free(Index),
    Fill { at: Index, part: (Index, Index), byte: u8, queued: bool },
    Write { at: Index, part: (Index, Index), seed: u8, queued: bool },
    Copy { from: Index, to: Index, len: Index, queued: bool },
    Read { at: Index, part: (Index, Index) },
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![1..=1024_usize, 60_000..=140_000_usize, Just(1 << 20), Just(1 << 19)];
    let part = || (any::<Index>(), any::<Index>());
    prop_oneof![
        3 => (len, any::<u8>()).prop_map(|(len, byte)| Step::Allocate { len, byte }),
        1 => any::<Index>().prop_map(Step::Free),
        2 => (any::<Index>(), part(), any::<u8>(), any::<bool>())
            .prop_map(|(at, part, byte, queued)| Step::Fill { at, part, byte, queued }),
        2 => (any::<Index>(), part(), any::<u8>(), any::<bool>())
            .prop_map(|(at, part, seed, queued)| Step::Write { at, part, seed, queued }),
        2 => (any::<Index>(), any::<Index>(), any::<Index>(), any::<bool>())
            .prop_map(|(from, to, len, queued)| Step::Copy { from, to, len, queued }),
        2 => (any::<Index>(), part()).prop_map(|(at, part)| Step::Read { at, part }),
        1 => Just(Step::Wait),
    ]
}

/// Start and length of a part of `len` bytes; may be empty or the whole.
fn cut(len: usize, part: &(Index, Index)) -> (usize, usize) {
    let start = part.0.index(len + 1);
    (start, part.1.index(len - start + 1))
}

fn ok(result: sys::CUresult) {
    assert_eq!(result, sys::CUresult::CUDA_SUCCESS);
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap()
}

struct Run {
    /// The expected content of the device.
    live: Vec<(u64, Vec<u8>)>,
    stream: sys::CUstream,
}

impl Run {
    fn stream(&self, queued: bool) -> sys::CUstream {
        if queued { self.stream } else { ptr::null_mut() }
    }

    fn apply(&mut self, device: u32, step: &Step) {
        if let Step::Allocate { len, byte } = step {
            return self.allocate(device, *len, *byte);
        }
        if self.live.is_empty() {
            return;
        }
        match step {
            Step::Allocate { .. } => {}
            Step::Free(at) => {
                // The driver waits for queued work itself, but programs must not rely on that.
                // SAFETY: no memory is named.
                ok(unsafe { sys::cuCtxSynchronize() });
                let (address, _) = self.live.swap_remove(at.index(self.live.len()));
                // SAFETY: allocated by this run and not freed yet.
                ok(unsafe { sys::cuMemFree_v2(address) });
            }
            Step::Fill { at, part, byte, queued } => {
                let stream = self.stream(*queued);
                let index = at.index(self.live.len());
                let (address, bytes) = &mut self.live[index];
                let (start, len) = cut(bytes.len(), part);
                bytes[start..start + len].fill(*byte);
                let address = *address + wide(start);
                // SAFETY: the range lies in a live allocation.
                ok(unsafe { sys::cuMemsetD8Async(address, *byte, len, stream) });
            }
            Step::Write { at, part, seed, queued } => {
                let stream = self.stream(*queued);
                let index = at.index(self.live.len());
                let (address, bytes) = &mut self.live[index];
                let (start, len) = cut(bytes.len(), part);
                for (value, byte) in (0..251_u8).cycle().zip(&mut bytes[start..start + len]) {
                    *byte = value ^ seed;
                }
                let address = *address + wide(start);
                let source = bytes[start..].as_ptr().cast();
                // SAFETY: pageable memory is taken during the call; the range is live.
                ok(unsafe { sys::cuMemcpyHtoDAsync_v2(address, source, len, stream) });
            }
            Step::Copy { from, to, len, queued } => {
                let (from, to) = (from.index(self.live.len()), to.index(self.live.len()));
                // Within one allocation the ranges would overlap, which the driver forbids.
                if from == to {
                    return;
                }
                let most = self.live[from].1.len().min(self.live[to].1.len());
                let len = len.index(most + 1);
                let source = self.live[from].1[..len].to_vec();
                self.live[to].1[..len].copy_from_slice(&source);
                let (from, to) = (self.live[from].0, self.live[to].0);
                let stream = self.stream(*queued);
                // SAFETY: both ranges lie in live allocations.
                ok(unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, len, stream) });
            }
            Step::Read { at, part } => {
                let (address, bytes) = &self.live[at.index(self.live.len())];
                let (start, len) = cut(bytes.len(), part);
                let mut back = vec![0_u8; len];
                let address = *address + wide(start);
                // SAFETY: `back` is valid for `len` bytes; the range is live.
                ok(unsafe { sys::cuMemcpyDtoH_v2(back.as_mut_ptr().cast(), address, len) });
                assert!(back == bytes[start..start + len], "{len} bytes at {address:#x} differ");
            }
            // SAFETY: no memory is named.
            Step::Wait => ok(unsafe { sys::cuCtxSynchronize() }),
        }
    }

    fn allocate(&mut self, device: u32, len: usize, byte: u8) {
        let needed = wide(len).next_multiple_of(GRANULARITY);
        let fits = Sim::used(device) + needed <= CAPACITY;
        let mut address = 0;
        // SAFETY: `address` is valid for writing.
        let answer = unsafe { sys::cuMemAlloc_v2(&raw mut address, len) };
        assert_eq!(answer == sys::CUresult::CUDA_SUCCESS, fits, "{answer:?}");
        if fits {
            // SAFETY: just allocated.
            ok(unsafe { sys::cuMemsetD8_v2(address, byte, len) });
            self.live.push((address, vec![byte; len]));
        }
    }
}

proptest! {
    #[test]
    fn device_memory_agrees_with_a_map_of_byte_vectors(
        steps in prop::collection::vec(step(), 1..40),
        seed in any::<u64>(),
    ) {
        cuda_sim::install();
        let spec = DeviceSpec { capacity: CAPACITY, granularity: GRANULARITY, seed, ..DeviceSpec::default() };
        let device = Sim::add_device(spec);
        cust::init(cust::CudaFlags::empty()).unwrap();
        let context = Context::new(Device::get_device(device).unwrap()).unwrap();
        CurrentContext::set_current(&context).unwrap();
        let mut run = Run { live: Vec::new(), stream: ptr::null_mut() };
        // SAFETY: `stream` is valid for writing.
        ok(unsafe { sys::cuStreamCreate(&raw mut run.stream, 0) });

        for step in &steps {
            run.apply(device, step);
            let sum: u64 =
                run.live.iter().map(|(_, bytes)| wide(bytes.len()).next_multiple_of(GRANULARITY)).sum();
            prop_assert_eq!(Sim::used(device), sum);
        }
        // SAFETY: no memory is named.
        ok(unsafe { sys::cuCtxSynchronize() });
        for (address, bytes) in run.live.drain(..) {
            prop_assert!(Sim::inspect(device, address, bytes.len()) == bytes);
            // SAFETY: allocated by this run and not freed yet.
            ok(unsafe { sys::cuMemFree_v2(address) });
        }
        // SAFETY: made above, and not used again.
        ok(unsafe { sys::cuStreamDestroy_v2(run.stream) });
        drop(context);
        Sim::assert_clean(device);
        Sim::retire_device(device);
    }
}
