//! One GPU of a manager: its device, its region, who has which part of it, and its books.

use core::fmt;
use std::sync::{Arc, Weak};

use vram_alloc::{
    Alignment, Arena, ArenaError, ArenaReport, ByteLen, Capacity, DeviceOffset, Ledger, Placement,
};
use vram_gpu::{Device, DeviceState, GpuError};
use vram_seal::parallel::Threads;

use crate::error::VramError;
use crate::error::shortfall::Shortfall;
use crate::sync::{Mutex, lock};
use crate::vs::block::{Backing, Held, MemoryMode, Unreturned};
use crate::vs::health::{Health, Refused, UnderWay};
use crate::vs::pool::StagingPool;
use crate::vs::space::Space;

/// Whether device memory is overwritten before it is given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum WipePolicy {
    /// Every byte that held a shard is overwritten with zeros first.
    #[default]
    Always,
    /// Bytes stay until something else overwrites them. For cards that hold nothing secret, where
    /// the last bit of speed counts.
    Never,
}

/// What a GPU asks and tells those whom it is shared out to. It holds no lock meanwhile.
pub(crate) trait Tenants: fmt::Debug + Send + Sync {
    /// Takes back what was promised and has run out: the books are looked at next.
    fn sweep(&self);

    /// The device was lost. Called once for each loss.
    fn lost(&self, gpu: &Gpu, error: GpuError);

    /// Bytes could not be wiped or given back, and stay counted.
    fn not_returned(&self, gpu: u32, bytes: ByteLen);
}

/// What one call on a GPU may take of the host: threads, and bytes of staging.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Means {
    pub(crate) threads: Threads,
    pub(crate) staging_bytes: ByteLen,
}

/// One device and the region of its memory that this manager shares out.
#[derive(Debug)]
pub(crate) struct Gpu {
    /// Position in the manager's list: what callers name.
    pub(crate) index: u32,
    pub(crate) device: Arc<dyn Device>,
    pub(crate) backing: Backing,
    pub(crate) ledger: Ledger,
    /// Those whom it is shared out to.
    pub(crate) tenants: Arc<dyn Tenants>,
    pub(crate) health: Arc<Health>,
    pub(crate) arena: Mutex<Arena>,
    unreturned: Mutex<Vec<Unreturned>>,
    pub(crate) wipe: WipePolicy,
    pub(crate) pool: StagingPool,
    pub(crate) means: Means,
}

impl Gpu {
    #[expect(clippy::too_many_arguments, reason = "one for each thing that a GPU consists of")]
    pub(crate) fn new(
        index: u32,
        device: Arc<dyn Device>,
        backing: Backing,
        ledger: Ledger,
        tenants: Arc<dyn Tenants>,
        arena: Arena,
        wipe: WipePolicy,
        pool: StagingPool,
        means: Means,
    ) -> Self {
        Self {
            index,
            device,
            backing,
            ledger,
            tenants,
            health: Arc::default(),
            arena: Mutex::new(arena),
            unreturned: Mutex::default(),
            wipe,
            pool,
            means,
        }
    }

    /// # Errors
    ///
    /// [`VramError::DeviceLost`] after a sticky error. The device is not touched.
    pub(crate) fn ready(&self) -> Result<(), VramError> {
        let life = self.health.life();
        if let Some(error) = self.health.lost() {
            return Err(self.device_lost(error));
        }
        if let DeviceState::Lost { error } = self.device.state() {
            // Somebody else's call, through another manager or their own, met the sticky error.
            self.lose(error, Some(life));
        }
        match self.health.lost() {
            None => Ok(()),
            Some(error) => Err(self.device_lost(error)),
        }
    }

    pub(crate) fn lost(&self) -> Option<GpuError> {
        match self.ready() {
            Err(VramError::DeviceLost { source, .. }) => Some(*source),
            _ => None,
        }
    }

    /// Whether whoever is under way may bring to an end what it has begun there, and wipe and give
    /// back what it leaves: also while a reset, which may be refused yet, waits for it.
    pub(crate) fn winds_up(&self) -> bool {
        let life = self.health.life();
        if !self.health.winds_up() {
            return false;
        }
        if let DeviceState::Lost { error } = self.device.state() {
            self.lose(error, Some(life));
            return false;
        }
        true
    }

    /// As [`ready`](Self::ready), also for whoever [winds up](Self::winds_up).
    pub(crate) fn ready_to_the_end(&self) -> Result<(), VramError> {
        if self.winds_up() { Ok(()) } else { self.ready() }
    }

    fn device_lost(&self, error: GpuError) -> VramError {
        VramError::DeviceLost { gpu: self.index, source: Box::new(error) }
    }

    /// Begins to take memory, if the device takes calls and the manager is open.
    ///
    /// # Errors
    ///
    /// [`VramError::DeviceLost`], [`VramError::Closed`].
    pub(crate) fn enter(&self) -> Result<UnderWay, VramError> {
        self.ready()?;
        self.health.enter().map_err(|refused| match refused {
            Refused::Lost(error) => self.device_lost(error),
            Refused::Closed => VramError::Closed,
        })
    }

    /// Turns a device's answer into the caller's, and remembers one that took the device.
    pub(crate) fn failed(&self, error: GpuError) -> VramError {
        self.failed_in(self.health.life(), error)
    }

    /// As [`failed`](Self::failed), of memory of this life of the device: what is said of an earlier
    /// one is no loss of the present one.
    pub(crate) fn failed_in(&self, life: u64, error: GpuError) -> VramError {
        // Stale: somebody else has reset the device, and everything that lay there is gone.
        if error.is_sticky() || matches!(error, GpuError::StaleAllocation { .. }) {
            self.lose(error, Some(life));
            return self.device_lost(error);
        }
        match error {
            GpuError::HostMemory { wanted } => VramError::HostMemory { wanted },
            other => VramError::Device { gpu: self.index, source: Box::new(other) },
        }
    }

    /// Notes a loss, and tells of it once. The caller holds no lock but a shard's gate.
    pub(crate) fn lose(&self, error: GpuError, life: Option<u64>) {
        if !self.health.lose(error, life) {
            return;
        }
        self.tenants.lost(self, error);
    }

    /// Finds room for `len` bytes and takes it, in the arena and in the books at once; then a block
    /// of them, where the GPU is used block by block.
    ///
    /// # Errors
    ///
    /// [`VramError::InsufficientVram`] if either says no, [`VramError::DeviceLost`]; what the driver
    /// says if it is asked for a block.
    pub(crate) fn place(self: &Arc<Self>, len: ByteLen) -> Result<Space, VramError> {
        // Before the books: of a closed manager they do not move any more.
        let _under_way = self.enter()?;
        let mut space = match self.place_in_books(len) {
            // Others may have given back what they had taken.
            Err(VramError::InsufficientVram(lack)) if !lack.foreign.is_zero() => {
                self.ask_again()?;
                self.place_in_books(len)
            }
            placed => placed,
        }?;
        let Err(error) = space.open() else { return Ok(space) };
        drop(space);
        let needed = len.round_up(Alignment::GRANULE).unwrap_or(len);
        if error.is_capacity() && self.ledger.capacity().room() < needed {
            // The driver had no room, and now it is known who has it.
            return Err(self.no_room(len));
        }
        Err(error)
    }

    fn place_in_books(self: &Arc<Self>, len: ByteLen) -> Result<Space, VramError> {
        self.tenants.sweep();
        let mut arena = lock(&self.arena);
        let placement = match arena.place(len, Alignment::GRANULE) {
            Ok(placement) => placement,
            Err(ArenaError::NoHole { .. }) => return Err(self.shortfall(len, &arena.report())),
            Err(other) => return Err(VramError::config(other.to_string())),
        };
        match self.ledger.reserve(placement.footprint()) {
            Ok(reservation) => {
                drop(arena);
                Ok(Space::new(Arc::clone(self), placement, reservation))
            }
            Err(_no_room) => {
                self.take_back(&mut arena, placement);
                Err(self.shortfall(len, &arena.report()))
            }
        }
    }

    /// As [`place`](Self::place), exactly at `start`. None if that place is not free.
    ///
    /// # Errors
    ///
    /// [`VramError::InsufficientVram`] if the books say no, [`VramError::DeviceLost`].
    pub(crate) fn place_at(
        self: &Arc<Self>,
        start: DeviceOffset,
        len: ByteLen,
    ) -> Result<Option<Space>, VramError> {
        let _under_way = self.enter()?;
        let mut arena = lock(&self.arena);
        let Ok(placement) = arena.place_at(start, len) else { return Ok(None) };
        match self.ledger.reserve(placement.footprint()) {
            Ok(reservation) => {
                drop(arena);
                Ok(Some(Space::new(Arc::clone(self), placement, reservation)))
            }
            Err(_no_room) => {
                self.take_back(&mut arena, placement);
                Err(self.shortfall(len, &arena.report()))
            }
        }
    }

    /// Gives a placement back to the arena, whose lock the caller holds.
    #[expect(clippy::unused_self, reason = "the placement belongs to this GPU's arena")]
    pub(crate) fn take_back(&self, arena: &mut Arena, placement: Placement) {
        if let Err(error) = arena.release(placement) {
            // Each placement is released once, to the arena it came from.
            tracing::error!(%error, "the arena refused its own placement");
            debug_assert!(false, "the arena refused its own placement: {error}");
        }
    }

    pub(crate) fn shortfall(&self, len: ByteLen, report: &ArenaReport) -> VramError {
        let capacity = self.ledger.capacity();
        VramError::InsufficientVram(Box::new(Shortfall {
            gpu: self.index,
            others: 0,
            needed: len.round_up(Alignment::GRANULE).unwrap_or(len),
            room: capacity.room(),
            largest_hole: self.hole(capacity, report),
            foreign: capacity.foreign,
            headroom: capacity.headroom,
            ..Shortfall::none()
        }))
    }

    /// What a refusal for lack of room says now.
    pub(crate) fn no_room(&self, len: ByteLen) -> VramError {
        let report = lock(&self.arena).report();
        self.shortfall(len, &report)
    }

    /// The longest piece that could be placed: of blocks, all that there is room for.
    fn hole(&self, books: Capacity, report: &ArenaReport) -> ByteLen {
        match self.backing.mode() {
            MemoryMode::Region => report.largest_hole,
            MemoryMode::Blocks => books.room(),
        }
    }

    /// The count of blocks, if the GPU is used block by block.
    pub(crate) const fn blocks(&self) -> Option<&Held> {
        match &self.backing {
            Backing::Region(_) => None,
            Backing::Blocks(held) => Some(held),
        }
    }

    /// Sets a placement aside whose bytes could not be wiped, or not be given back.
    pub(crate) fn set_aside(&self, unreturned: Unreturned) {
        let (bytes, error) = (unreturned.placement.footprint(), unreturned.error);
        tracing::error!(gpu = self.index, bytes = bytes.get(), %error, "bytes could not be given back and stay counted");
        lock(&self.unreturned).push(unreturned);
        self.tenants.not_returned(self.index, bytes);
    }

    /// Takes out what could not be given back, to try again or because it is gone.
    pub(crate) fn take_unreturned(&self) -> Vec<Unreturned> {
        core::mem::take(&mut *lock(&self.unreturned))
    }

    /// Puts back what could not be given back this time either.
    pub(crate) fn still_unreturned(&self, unreturned: Unreturned) {
        lock(&self.unreturned).push(unreturned);
    }

    /// Lets bytes be handed out again that could not be given back before.
    pub(crate) fn returned(&self, unreturned: Unreturned) {
        let Unreturned { placement, kept, block, .. } = unreturned;
        let mut arena = lock(&self.arena);
        self.take_back(&mut arena, placement);
        // Under the arena's lock, so that nobody sees the room in one and not in the other.
        kept.release();
        drop(arena);
        drop(block);
    }

    /// Bytes that could not be given back.
    pub(crate) fn unreturned_bytes(&self) -> ByteLen {
        self.unreturned().map_or(ByteLen::ZERO, |(bytes, _last)| bytes)
    }

    /// Bytes that could not be given back, and the last reason.
    pub(crate) fn unreturned(&self) -> Option<(ByteLen, GpuError)> {
        let unreturned = lock(&self.unreturned);
        let bytes = unreturned
            .iter()
            .fold(ByteLen::ZERO, |sum, one| sum.saturating_add(one.placement.footprint()));
        unreturned.last().map(|last| (bytes, last.error))
    }

    /// The books at one moment.
    pub(crate) fn books(&self) -> Capacity {
        self.tenants.sweep();
        self.ledger.capacity()
    }

    /// The books and the arena at one moment.
    pub(crate) fn figures(&self) -> (Capacity, ArenaReport) {
        self.tenants.sweep();
        // Placing and giving back change both under the arena's lock.
        let arena = lock(&self.arena);
        let (books, mut report) = (self.ledger.capacity(), arena.report());
        drop(arena);
        if self.backing.region().ptr_eq(&Weak::new()) {
            // The arena is no region here: only the books say what there is.
            report.largest_hole = books.room();
            report.hole_count = usize::from(!books.room().is_zero());
            (report.capacity, report.free) = (books.total, books.free());
        }
        (books, report)
    }
}
