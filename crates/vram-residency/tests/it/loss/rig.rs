//! Two GPUs, each behind a fault device, in either memory mode.

use std::sync::Arc;

use vram_residency::device::fault::{Action, FaultPlan, Op};
use vram_residency::device::{FaultDevice, HostDevice};
use vram_residency::{
    ByteLen, GpuCapacity, Limits, MemoryMode, Protection, SealKey, SealRequest, SealedShard,
    SegmentSize, Threads, VramError, VramManager, VramManagerBuilder,
};

pub(crate) const MODES: [MemoryMode; 2] = [MemoryMode::Region, MemoryMode::Blocks];
pub(crate) const KINDS: [Protection; 2] = [Protection::Encrypted, Protection::Authenticated];
pub(crate) const SEGMENT: usize = 4096;
pub(crate) const TOTAL: usize = 32 * SEGMENT;
pub(crate) const LEN: usize = 5 * SEGMENT + 9;
pub(crate) const TAKEN: usize = LEN.next_multiple_of(256);

/// Uncorrectable ECC.
pub(crate) const ECC: u32 = 214;

pub(crate) struct Rig {
    pub(crate) manager: VramManager,
    pub(crate) devices: Vec<Arc<FaultDevice>>,
    mode: MemoryMode,
}

impl Rig {
    pub(crate) fn new(mode: MemoryMode) -> Self {
        Self::with(mode, |builder| builder)
    }

    pub(crate) fn with(
        mode: MemoryMode,
        change: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder,
    ) -> Self {
        let total = ByteLen::from_usize(TOTAL);
        let hosts = HostDevice::several(&[total, total]).unwrap();
        let devices: Vec<_> =
            hosts.into_iter().map(|host| FaultDevice::new(host, FaultPlan::new(5))).collect();
        let mut builder = VramManager::builder();
        for (gpu, device) in (0..).zip(&devices) {
            builder = builder.device(device.clone()).memory(gpu, mode);
        }
        let builder = builder
            .key(SealKey::from_bytes([7; 32]))
            .segment_size(SegmentSize::MIN)
            .threads(Threads::ONE)
            .limits(Limits::default().staging_bytes(ByteLen::from_usize(4 * SEGMENT)));
        Self { manager: change(builder).build().unwrap(), devices, mode }
    }

    pub(crate) fn seal(&self, gpu: u32, protection: Protection, seed: u8) -> SealedShard {
        let request = SealRequest::new("model", gpu).protection(protection).owner("me");
        self.manager.seal(request, &content(LEN, seed)).unwrap()
    }

    /// Takes a GPU away with a sticky error, as a read of `shard` meets it.
    pub(crate) fn lose(&self, shard: &SealedShard) {
        let device = &self.devices[usize::try_from(shard.gpu_index).unwrap()];
        device.next(Op::Read, Action::Driver(ECC)).unwrap();
        let refused = self.manager.unseal_model(shard).unwrap_err();
        assert!(matches!(refused, VramError::DeviceLost { .. }), "{refused}");
        device.clear();
    }

    pub(crate) fn books(&self, gpu: u32) -> GpuCapacity {
        self.manager.capacity(gpu).unwrap()
    }

    pub(crate) fn used(&self, gpu: u32) -> usize {
        let books = self.books(gpu);
        assert_eq!(books.reserved, ByteLen::ZERO, "a promise was forgotten");
        assert_eq!(books.used.get() + books.free.get(), books.total.get());
        books.used.to_usize().unwrap()
    }

    /// P6, and that the lost device was left alone.
    pub(crate) fn books_agree(&self, what: &str) {
        for (gpu, device) in (0..).zip(&self.devices) {
            let driver: u64 = device.live().iter().map(|(_, len)| len.get()).sum();
            let books = match self.mode {
                MemoryMode::Blocks => self.books(gpu).used.get(),
                _ => u64::try_from(TOTAL).unwrap(),
            };
            assert_eq!(driver, books, "gpu {gpu}, {:?}, {what}", self.mode);
            assert_eq!(device.calls_after_loss(), 0, "gpu {gpu} was called, {what}");
        }
    }

    /// Everything can be had again, in one piece.
    pub(crate) fn is_whole(&self, gpu: u32) {
        assert_eq!(self.used(gpu), 0);
        let all = self.manager.seal_model("all", gpu, &vec![3; TOTAL]).unwrap();
        assert!(self.manager.unseal_and_free(&all).unwrap() == vec![3; TOTAL]);
        self.books_agree("emptied");
    }
}

pub(crate) fn content(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 31 + at / 255) % 251).unwrap() ^ seed).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "an answer is looked at once")]
pub(crate) fn is_lost<T>(result: Result<T, VramError>) -> bool {
    matches!(result, Err(VramError::DeviceLost { gpu: 0, .. }))
}

#[expect(clippy::needless_pass_by_value, reason = "an answer is looked at once")]
pub(crate) fn is_stale<T>(result: Result<T, VramError>) -> bool {
    matches!(result, Err(VramError::StaleHandle { .. }))
}

#[expect(clippy::needless_pass_by_value, reason = "an answer is looked at once")]
pub(crate) fn is_freed<T>(result: Result<T, VramError>) -> bool {
    matches!(result, Err(VramError::ShardFreed { .. }))
}
