//! The facade over CUDA devices on the simulated driver, through the real cust, with device memory
//! as one region and block by block. Tests driver faults and their effect on the caller, and that
//! the ledger agrees with the driver's own count, to the byte.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking"
)]

#[macro_use]
extern crate vram_testkit;

mod batches;
mod carded;
mod kernels;
mod lists;
mod lost;
mod room;
mod shards;
mod shared;

use std::sync::Arc;

use cuda_sim::{CallKind, DeviceSpec, Fault, Sim};
use vram_gpu::{CudaDevice, Device, DeviceState, Sharing};
use vram_residency::{
    Budget, ByteLen, GpuIndex, MemoryMode, Protection, SealKey, SealRequest, SealedShard,
    SegmentSize, Threads, VramError, VramManager,
};
use vram_tests::reference::bytes;

const MODES: [MemoryMode; 2] = [MemoryMode::Region, MemoryMode::Blocks];
const CAPACITY: u64 = 2 << 20;
const BUDGET: u64 = 1 << 20;
const SEGMENT: usize = 4096;
const LEN: usize = 5 * SEGMENT + 9;
/// `CUDA_ERROR_UNKNOWN`: the call failed, and the device stays usable.
const UNKNOWN: u32 = 999;

/// Two simulated devices, and a manager over them.
struct Machine {
    mode: MemoryMode,
    ordinals: Vec<u32>,
    devices: Vec<Arc<CudaDevice>>,
    manager: VramManager,
    /// The content of each device's oldest allocation before the first seal: its region.
    fresh: Vec<Vec<u8>>,
}

impl Machine {
    fn new(mode: MemoryMode) -> Self {
        Self::of(mode, true, Sharing::Alone)
    }

    fn of(mode: MemoryMode, peers: bool, sharing: Sharing) -> Self {
        let ordinals: Vec<u32> = (0..2).map(|_| add_device(peers)).collect();
        let open = |(index, &ordinal)| {
            // What kernels take for themselves would be in the driver's count.
            let device = CudaDevice::open(ordinal, GpuIndex::new(index)).unwrap();
            device.shared(sharing).without_kernels()
        };
        let devices: Vec<_> = (0..).zip(&ordinals).map(open).collect();
        let manager = build(mode, &devices).unwrap();
        let fresh = ordinals.iter().map(|&ordinal| oldest(ordinal).1).collect();
        Self { mode, ordinals, devices, manager, fresh }
    }

    fn seal(&self, protection: Protection) -> SealedShard {
        let request = SealRequest::new("model", 0).protection(protection);
        self.manager.seal(request, &content()).unwrap()
    }

    fn used(&self, gpu: u32) -> u64 {
        self.manager.capacity(gpu).unwrap().used.get()
    }

    fn fault(&self, gpu: usize, kind: CallKind, fault: Fault) {
        Sim::faults(self.ordinals[gpu]).next(kind, fault);
    }

    /// Where the only shard of a GPU starts: at the first granule of its region that was written,
    /// or at the start of its block.
    fn address(&self, gpu: usize) -> u64 {
        let (start, now) = oldest(self.ordinals[gpu]);
        let granules = now.chunks(256).zip(self.fresh[gpu].chunks(256));
        let untouched = granules.take_while(|(now, before)| now == before).count();
        start + 256 * u64::try_from(untouched).unwrap()
    }

    /// P6: the ledger equals the driver's own count.
    fn books_agree(&self) {
        for (gpu, &ordinal) in (0..).zip(&self.ordinals) {
            let books = self.manager.capacity(gpu).unwrap();
            assert_eq!(books.reserved, ByteLen::ZERO);
            assert_eq!(books.used.get() + books.free.get(), BUDGET);
            let driver = match self.mode {
                MemoryMode::Blocks => books.used.get(),
                _ => BUDGET,
            };
            assert_eq!(Sim::used(ordinal), driver, "gpu {gpu}, {:?}", self.mode);
        }
    }

    /// Drops everything and checks that nothing is left and nothing was misused.
    fn finish(self) {
        drop(self.manager);
        for device in &self.devices {
            // Only a reset reclaims the memory of a lost device.
            if let DeviceState::Lost { .. } = device.state() {
                device.shared(Sharing::Alone).reset().unwrap();
            }
        }
        drop(self.devices);
        for ordinal in self.ordinals {
            Sim::assert_clean(ordinal);
            Sim::retire_device(ordinal);
        }
    }
}

/// Address and content of the oldest live allocation; empty if there is none.
fn oldest(ordinal: u32) -> (u64, Vec<u8>) {
    let live = Sim::live_allocations(ordinal);
    let first = live.iter().min_by_key(|allocation| allocation.serial);
    first.map_or((0, Vec::new()), |allocation| {
        let len = usize::try_from(allocation.len).unwrap();
        (allocation.address, Sim::inspect(ordinal, allocation.address, len))
    })
}

fn add_device(peers: bool) -> u32 {
    cuda_sim::install();
    // The same granularity as the facade's, so that both count the same.
    Sim::add_device(DeviceSpec {
        capacity: CAPACITY,
        granularity: 256,
        peer_group: peers.then_some(1),
        ..DeviceSpec::default()
    })
}

fn build(mode: MemoryMode, devices: &[Arc<CudaDevice>]) -> Result<VramManager, VramError> {
    let mut builder = VramManager::builder();
    for (gpu, device) in (0..).zip(devices) {
        let budget = Budget::Bytes(ByteLen::new(BUDGET));
        builder = builder.device(device.clone()).budget(gpu, budget).memory(gpu, mode);
    }
    builder
        .key(SealKey::from_bytes(&[7; 32]))
        .segment_size(SegmentSize::from_log2(12).unwrap())
        .threads(Threads::exactly(2))
        .build()
}

fn content() -> Vec<u8> {
    bytes(LEN, 1)
}
