//! A manager over devices that fail on command, with checks of its ledger, its devices and their
//! bytes.

use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceOffset};
use vram_gpu::FaultDevice;
use vram_gpu::fault::{Action, FaultPlan, Op};
use vram_residency::{
    GpuCapacity, Limits, MemoryMode, Protection, SealKey, SealRequest, SealedShard, SegmentSize,
    Suite, Threads, VramError, VramManager, VramManagerBuilder,
};

use crate::devices::{compute, devices};

/// Bytes of a segment of a rig's shards: the smallest, so that small shards have many segments.
pub const SEGMENT: usize = 4096;

/// A granule of a region: a shard starts at a multiple of it.
const GRANULE: usize = 256;

/// Windows of two segments, so that small shards have many windows.
fn short_windows() -> Limits {
    Limits::default().staging_bytes(ByteLen::from_usize(4 * SEGMENT))
}

/// A manager, and the devices below it.
#[derive(Debug)]
pub struct Rig {
    /// The manager.
    pub manager: VramManager,
    /// One for each GPU.
    pub devices: Vec<Arc<FaultDevice>>,
    mode: MemoryMode,
    /// The content of each region before the first write.
    untouched: Vec<Vec<u8>>,
}

impl Rig {
    /// GPUs of these lengths, one region each. Windows are two segments long and one thread works,
    /// so that the n-th call is the same in every run.
    #[must_use]
    pub fn new(totals: &[usize]) -> Self {
        Self::with(totals, |builder| builder)
    }

    /// The same, with further settings of the builder.
    #[must_use]
    pub fn with(
        totals: &[usize],
        also: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder,
    ) -> Self {
        Self::over(devices(totals, &FaultPlan::new(1)), MemoryMode::Region, |builder| {
            also(builder.limits(short_windows()))
        })
    }

    /// The same in either memory mode. The devices check whether freed memory was wiped.
    #[must_use]
    pub fn in_mode(
        mode: MemoryMode,
        totals: &[usize],
        also: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder,
    ) -> Self {
        let devices = devices(totals, &FaultPlan::new(1));
        for device in &devices {
            device.watch_frees();
        }
        Self::over(devices, mode, |builder| also(builder.limits(short_windows())))
    }

    /// A manager over given devices, with windows of the usual length.
    #[must_use]
    pub fn over(
        devices: Vec<Arc<FaultDevice>>,
        mode: MemoryMode,
        also: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder,
    ) -> Self {
        let mut builder = VramManager::builder()
            .key(SealKey::from_bytes(&[7; 32]))
            .segment_size(SegmentSize::MIN)
            .threads(Threads::ONE);
        for (gpu, device) in (0..).zip(&devices) {
            builder = builder.device(Arc::<FaultDevice>::clone(device)).memory(gpu, mode);
        }
        if let Some(compute) = compute() {
            builder = builder.compute(compute).suite(Suite::ChaCha20Poly1305);
        }
        let manager = also(builder).build().unwrap();
        let mut rig = Self { manager, devices, mode, untouched: Vec::new() };
        rig.untouched = (0..rig.devices.len()).map(|gpu| rig.region(gpu)).collect();
        rig
    }

    /// Seals bytes as a shard of "model", with owner "me".
    #[must_use]
    pub fn seal(&self, gpu: u32, protection: Protection, bytes: &[u8]) -> SealedShard {
        let request = SealRequest::new("model", gpu).protection(protection).owner("me");
        self.manager.seal(request, bytes).unwrap()
    }

    /// Makes a GPU lost with an uncorrectable ECC error in a read of `shard`.
    pub fn lose(&self, shard: &SealedShard) {
        let device = &self.devices[usize::try_from(shard.gpu_index).unwrap()];
        device.next(Op::Read, Action::Driver(214)).unwrap();
        let refused = self.manager.unseal_model(shard).unwrap_err();
        assert!(matches!(refused, VramError::DeviceLost { .. }), "{refused}");
        device.clear();
    }

    /// Ends all faults of all devices.
    pub fn clear(&self) {
        for device in &self.devices {
            device.clear();
        }
    }

    /// The manager's figures of a GPU.
    #[must_use]
    pub fn books(&self, gpu: u32) -> GpuCapacity {
        self.manager.capacity(gpu).unwrap()
    }

    /// Bytes in use on a GPU. Also checks that no bytes are promised and that the figures add up.
    #[must_use]
    pub fn used(&self, gpu: u32) -> u64 {
        let books = self.books(gpu);
        assert_eq!(books.reserved, ByteLen::ZERO, "a promise was forgotten");
        assert_eq!(books.used.get() + books.free.get(), books.total.get());
        books.used.get()
    }

    /// Bytes of a device's live allocations: the driver's own count.
    #[must_use]
    pub fn driver(&self, gpu: usize) -> u64 {
        self.devices[gpu].live().iter().map(|(_, len)| len.get()).sum()
    }

    /// P6: checks that the ledger equals the driver's count, and that a lost device got no calls.
    pub fn books_agree(&self, what: &str) {
        for (gpu, device) in (0..).zip(&self.devices) {
            let books = self.books(gpu);
            assert_eq!(books.reserved, ByteLen::ZERO, "gpu {gpu}: {what}");
            assert_eq!(books.used.get() + books.free.get(), books.total.get(), "{what}");
            let index = usize::try_from(gpu).unwrap();
            let held = match self.mode {
                MemoryMode::Blocks => books.used,
                _ => ByteLen::from_usize(self.untouched[index].len()),
            };
            assert_eq!(held.get(), self.driver(index), "gpu {gpu}, {:?}: {what}", self.mode);
            assert_eq!(device.calls_after_loss(), 0, "gpu {gpu} was called: {what}");
        }
    }

    /// P18: checks that only zeros were freed to the driver. Needs devices that check frees: see
    /// [`Self::in_mode`].
    pub fn all_frees_were_wiped(&self, what: &str) {
        for freed in self.devices.iter().flat_map(|device| device.freed()) {
            assert_eq!(freed.wiped, Some(true), "{what}");
        }
    }

    /// All device bytes of a GPU's region; none if there is no region.
    #[must_use]
    pub fn region(&self, gpu: usize) -> Vec<u8> {
        let device = &self.devices[gpu];
        let Some((number, len)) = device.live().first().copied() else { return Vec::new() };
        device.inspect(Some(number), DeviceOffset::START, len).unwrap()
    }

    /// Where the first shard lies in a GPU's region: the start of the first granule whose content
    /// is neither the initial one nor wiped.
    #[must_use]
    pub fn written_at(&self, gpu: usize) -> u64 {
        let region = self.region(gpu);
        let mut granules = region.chunks(GRANULE).zip(self.untouched[gpu].chunks(GRANULE));
        let written =
            |(now, then): (&[u8], &[u8])| now != then && now.iter().any(|byte| *byte != 0);
        let at = granules.position(written).expect("nothing was written");
        u64::try_from(at * GRANULE).unwrap()
    }

    /// Flips a bit of a GPU's region.
    pub fn flip(&self, gpu: usize, at: u64, bit: u8) {
        self.devices[gpu].flip_bit_at(None, DeviceOffset::new(at), bit).unwrap();
    }

    /// Frees everything and checks that the ledger, and if `look_at_bytes` the devices' bytes, are
    /// as at the start.
    pub fn settle(&self, look_at_bytes: bool) {
        for shard in self.manager.shards() {
            self.manager.free_shard(&shard).unwrap();
        }
        for (gpu, then) in (0..).zip(&self.untouched) {
            let books = self.books(gpu);
            assert_eq!(self.used(gpu), books.unreturned.get(), "bytes were lost");
            if look_at_bytes && books.unreturned.is_zero() {
                let left = self.region(usize::try_from(gpu).unwrap());
                let kept = left.iter().zip(then).position(|(now, then)| *now != 0 && now != then);
                assert_eq!(kept, None, "bytes of a shard were left readable");
                self.is_whole(gpu);
            }
        }
    }

    /// Checks that a GPU is empty, and that all of it can be allocated in one piece.
    pub fn is_whole(&self, gpu: u32) {
        assert_eq!(self.used(gpu), 0);
        let all = vec![3; usize::try_from(self.books(gpu).total.get()).unwrap()];
        let shard = self.manager.seal_model("all", gpu, &all).unwrap();
        assert!(self.manager.unseal_and_free(&shard).unwrap() == all);
        self.books_agree("emptied");
    }
}
