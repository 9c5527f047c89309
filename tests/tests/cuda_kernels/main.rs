//! Kernels of a CUDA device, over the simulated driver, which runs the PTX that is shipped, and the
//! real cust.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may panic, and its numbers are small"
)]

#[macro_use]
extern crate vram_testkit;

mod failures;
mod random;
mod states;
mod values;

use core::time::Duration;
use std::sync::Arc;

use cuda_sim::{CallKind, DeviceSpec, Fault, Sim};
use vram_alloc::{ByteLen, DeviceOffset, DeviceRange, GpuIndex};
use vram_gpu::kernels::{CipherSpan, FingerprintKey, HashSpan, Kernels};
use vram_gpu::{CudaDevice, Device, DeviceMemory, HostDevice, Sharing};

const GPU: GpuIndex = GpuIndex::new(4);

/// The longest that any test waits for kernels.
const WAIT: Duration = Duration::from_secs(30);

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
        let ordinal = Sim::add_device(DeviceSpec { capacity: 64 << 20, ..spec });
        let device = CudaDevice::open(ordinal, GPU).unwrap().shared(Sharing::Alone);
        Self { ordinal, device }
    }

    /// All kernels, loaded.
    fn kernels(&self) -> Arc<dyn Kernels> {
        self.device.wait_for_kernels(WAIT).unwrap()
    }

    /// Memory with these bytes.
    fn holding(&self, bytes: &[u8]) -> Box<dyn DeviceMemory> {
        let memory = self.device.allocate(ByteLen::from_usize(bytes.len())).unwrap();
        memory.write(DeviceRange::whole(memory.len()), bytes).unwrap();
        memory
    }

    fn next(&self, kind: CallKind, fault: Fault) {
        Sim::faults(self.ordinal).next(kind, fault);
    }

    /// The bytes of the kernels' own memory, looked at behind the driver.
    fn scratch(&self) -> Vec<u8> {
        let len = self.device.kernel_scratch().get();
        let live = Sim::live_allocations(self.ordinal);
        let scratch = live.iter().find(|allocation| allocation.len == len).unwrap();
        Sim::inspect(self.ordinal, scratch.address, usize::try_from(len).unwrap())
    }

    /// Checks that nothing of any call is left in the kernels' own memory, nor in page-locked
    /// memory of the host.
    fn assert_wiped(&self, after: &str) {
        assert!(self.scratch().iter().all(|byte| *byte == 0), "on the device, after {after}");
        self.assert_host_wiped(after);
    }

    /// The same, of the host alone: a device that is lost takes no calls.
    fn assert_host_wiped(&self, after: &str) {
        for block in Sim::inspect_pinned(self.ordinal) {
            assert!(block.iter().all(|byte| *byte == 0), "on the host, after {after}");
        }
    }

    /// Drops the device and checks that nothing is left and nothing was misused.
    fn finish(self) {
        let Self { ordinal, device } = self;
        drop(device);
        Sim::assert_clean(ordinal);
        Sim::retire_device(ordinal);
    }
}

/// A host device with kernels: what they compute is compared with.
fn host() -> (Arc<HostDevice>, Arc<dyn Kernels>) {
    let builder = HostDevice::builder(GPU, ByteLen::from_mib_saturating(64)).kernels();
    let device = Arc::new(builder.build().unwrap());
    let kernels = device.kernels().unwrap();
    (device, kernels)
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    core::iter::repeat_with(next).take(len).collect()
}

fn key(seed: u64) -> FingerprintKey {
    let random = noise(FingerprintKey::LEN, seed).into_boxed_slice();
    FingerprintKey::from_random(random.try_into().unwrap())
}

fn range(start: usize, len: usize) -> DeviceRange {
    let all = ByteLen::new(u64::MAX);
    DeviceRange::checked(DeviceOffset::from_usize(start), ByteLen::from_usize(len), all).unwrap()
}

fn hash_span(start: usize, len: usize, first_chunk: u64, root: bool) -> HashSpan {
    HashSpan { range: range(start, len), first_chunk, root }
}

fn cipher_span(start: usize, len: usize, target: usize, index: u32, last: bool) -> CipherSpan {
    CipherSpan { source: range(start, len), target: DeviceOffset::from_usize(target), index, last }
}

fn whole(memory: &dyn DeviceMemory) -> Vec<u8> {
    let mut bytes = vec![0; memory.len().to_usize().unwrap()];
    memory.read(DeviceRange::whole(memory.len()), &mut bytes).unwrap();
    bytes
}
