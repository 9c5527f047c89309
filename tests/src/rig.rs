//! Devices that fail on command, and a manager over them.

use std::sync::Arc;

use vram_alloc::DeviceOffset;
use vram_gpu::fault::{FaultPlan, Op};
use vram_gpu::{Device, FaultDevice};
use vram_residency::{SealKey, SealedShard, SegmentSize, Threads, TicketKey, VramManager};
use vram_residency::{VramError, VramManagerBuilder};

pub use vram_test_rigs::SEGMENT;

/// The keys of the rig's managers; the first one is active at the start.
#[must_use]
pub fn keys() -> [SealKey; 2] {
    [SealKey::from_bytes(&[7; 32]), SealKey::from_bytes(&[8; 32])]
}

/// A manager, and the devices below it.
#[derive(Debug)]
pub struct Rig {
    /// One for each GPU.
    pub devices: Vec<Arc<FaultDevice>>,
    /// The manager.
    pub manager: Arc<VramManager>,
}

impl Rig {
    /// A manager with a fixed key over host devices of these capacities; no fault is injected yet.
    pub fn new(capacities: &[u64], seed: u64) -> Result<Self, VramError> {
        Self::with(capacities, seed, |builder| builder)
    }

    /// The same, with further settings of the builder.
    pub fn with(
        capacities: &[u64],
        seed: u64,
        configure: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder,
    ) -> Result<Self, VramError> {
        let lens: Vec<_> = capacities.iter().map(|capacity| *capacity as usize).collect();
        let devices = vram_test_rigs::devices(&lens, &FaultPlan::new(seed));
        let [first, second] = keys();
        let builder = VramManager::builder()
            .devices(devices.iter().map(|device| Arc::clone(device) as Arc<dyn Device>))
            .key(first)
            .segment_size(SegmentSize::from_log2(12).expect("4 KiB is a segment size"))
            .threads(Threads::exactly(2))
            .ticket_key(TicketKey::from_bytes(&[9; 32]))
            .id_seed(seed);
        let manager = Arc::new(configure(builder).build()?);
        manager.add_key(second)?;
        Ok(Self { devices, manager })
    }

    /// The start of a resident, readable, non-empty shard on its device, and its allocation: reads
    /// one byte of the shard and takes both from the device's log.
    #[must_use]
    pub fn position(&self, shard: &SealedShard, gpu: u32) -> Option<(u64, DeviceOffset)> {
        let device = &self.devices[gpu as usize];
        device.clear_log();
        self.manager.read_shard_at_offset(shard, 0, 1).ok()?;
        let call =
            device.calls().into_iter().find(|call| matches!(call.op, Op::Read | Op::QueueRead))?;
        Some((call.allocation?, call.offset?))
    }

    /// Flips one bit of a shard's device bytes, as a failing cell would.
    #[must_use]
    pub fn flip(&self, shard: &SealedShard, gpu: u32, byte: usize, bit: u8) -> bool {
        let Some((allocation, start)) = self.position(shard, gpu) else { return false };
        let at = DeviceOffset::new(start.get() + byte as u64);
        self.devices[gpu as usize].flip_bit_at(Some(allocation), at, bit).is_ok()
    }
}
