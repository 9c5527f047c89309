//! A part of a GPU that holds, or will hold, one shard. It is wiped and released on every path.

pub(crate) mod dry_run;
mod filling;
pub(crate) mod place;
pub(crate) mod placements;

use core::fmt;
use std::sync::{Arc, Weak};

use vram_alloc::{
    ByteLen, ByteRange, Charge, DeviceOffset, DeviceRange, Kept, Placement, Reservation,
};
use vram_gpu::GpuError;

use crate::block::{Block, Stuck, Unreturned};
use crate::error::SpaceError;
use crate::gpu::{Gpu, WipePolicy};
use crate::life::pass::LifePass;
use crate::space::dry_run::DryRun;
use crate::space::filling::Filling;
use crate::sync::lock;

/// A placement and its grant in the ledger. Dropping it releases both together.
///
/// After the first write, releasing wipes the bytes first. If that fails, the bytes are set aside:
/// they stay counted and are handed out to nobody until a later try succeeds.
#[derive(Debug)]
pub struct Space {
    gpu: Arc<Gpu>,
    // Empty only while it is being released.
    held: Option<(Placement, Grant)>,
    /// The block behind this space, in mode `Blocks`.
    block: Option<Arc<Block>>,
    /// The region that contains this space, in mode `Region`.
    region: Weak<Block>,
    written: bool,
    filling: Filling,
}

/// The reservation that a space was taken from and returns to.
pub trait Origin: fmt::Debug + Send + Sync {
    /// Returns true if the reservation holds places with the memory behind them, and false if it
    /// holds only bytes.
    fn holds_places(&self) -> bool;

    /// Returns what was taken from the reservation: to it if it is still open, else to the free
    /// room. The caller holds no lock.
    fn take_back(
        self: Box<Self>,
        gpu: &Arc<Gpu>,
        placement: Placement,
        granted: Reservation,
        block: Option<Arc<Block>>,
    );
}

#[derive(Debug)]
enum Grant {
    Promised(Reservation),
    InUse(Charge),
}

impl Grant {
    /// Leaves the bytes counted permanently.
    fn keep(self) -> Kept {
        match self {
            Self::Promised(reservation) => reservation.commit().keep(),
            Self::InUse(charge) => charge.keep(),
        }
    }

    fn promised(self) -> Reservation {
        match self {
            Self::Promised(reservation) => reservation,
            Self::InUse(charge) => charge.revoke(),
        }
    }
}

/// The result of releasing a space.
#[derive(Clone, Copy, Debug)]
pub struct Returned {
    /// Bytes that can be handed out again.
    pub bytes: ByteLen,
    /// Whether the bytes were overwritten.
    pub wiped: bool,
    /// How the driver's count of free bytes changed, if a block was freed and the driver reports
    /// the count.
    pub driver_delta: Option<i64>,
}

impl Space {
    /// A space over a placement that is promised and not yet in use.
    pub fn new(gpu: Arc<Gpu>, placement: Placement, reservation: Reservation) -> Self {
        let held = Some((placement, Grant::Promised(reservation)));
        let region = gpu.backing.region();
        gpu.life.count_place();
        Self { gpu, held, block: None, region, written: false, filling: Filling::default() }
    }

    /// As [`new`](Self::new), taken from a reservation, to which it returns when released.
    pub(crate) fn out_of(
        origin: Box<dyn Origin>,
        gpu: Arc<Gpu>,
        placement: Placement,
        reservation: Reservation,
    ) -> Self {
        let mut space = Self::new(gpu, placement, reservation);
        space.set_origin(origin);
        space
    }

    /// Adds the block that already exists for this space.
    #[must_use]
    pub fn with_block(mut self, block: Option<Arc<Block>>) -> Self {
        self.block = block;
        self
    }

    /// Makes the space return to this reservation when released.
    pub fn set_origin(&mut self, origin: Box<dyn Origin>) {
        self.filling.set_origin(origin);
    }

    /// Makes the space permanent for its shard: when released later, it returns to the free room
    /// and not to a reservation.
    pub fn keep(&mut self) {
        drop(self.filling.take_origin());
    }

    /// Removes this space in a dry run. Returns false if the dry run does not contain it.
    pub fn remove_from(&self, dry_run: &mut DryRun) -> bool {
        let placement = self.held.as_ref().map(|(placement, _)| placement);
        placement.is_some_and(|placement| dry_run.remove(self.gpu.index, placement))
    }

    /// Bytes that it occupies in the arena.
    #[must_use]
    pub fn footprint(&self) -> ByteLen {
        self.held.as_ref().map_or(ByteLen::ZERO, |(placement, _)| placement.footprint())
    }

    /// Where it begins in the region; `None` if it is a block of its own.
    #[must_use]
    pub fn offset(&self) -> Option<DeviceOffset> {
        let (placement, _) = self.held.as_ref()?;
        self.block.is_none().then(|| placement.range().start())
    }

    /// Bytes of its block; zero without one.
    #[must_use]
    pub fn block_len(&self) -> ByteLen {
        self.block.as_ref().map_or(ByteLen::ZERO, |block| block.len())
    }

    /// The GPU that it is on.
    #[must_use]
    pub const fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Ensures that memory exists for this space, and that no reset takes it away before a shard
    /// lies there.
    ///
    /// # Errors
    ///
    /// [`SpaceError::DeviceLost`], [`SpaceError::Closed`]; in mode `Blocks`, the driver's error for
    /// the allocation.
    pub fn open(&mut self) -> Result<(), SpaceError> {
        if self.written {
            return Ok(());
        }
        self.pass()?;
        let Some(held) = self.gpu.blocks() else {
            // No byte was written yet, so after a reset the space belongs to the new region.
            self.region = self.gpu.backing.region();
            return Ok(());
        };
        let len = self.footprint();
        self.block = self.block.take().filter(|block| block.epoch() == self.gpu.life.epoch());
        if self.block.is_none() && !len.is_zero() {
            self.block = Some(self.gpu.allocate(held, len)?);
        }
        Ok(())
    }

    /// The call that this space is being filled by, which a reset and the close of the manager wait
    /// for.
    ///
    /// # Errors
    ///
    /// As [`Gpu::enter`].
    pub fn pass(&mut self) -> Result<Arc<LifePass>, SpaceError> {
        if let Some(pass) = self.filling.pass() {
            return Ok(Arc::clone(pass));
        }
        let pass = Arc::new(self.gpu.enter()?);
        self.filling.set_pass(Arc::clone(&pass));
        Ok(pass)
    }

    /// Marks placing as finished: a shard or a reservation now owns this space, so a reset and the
    /// close of the manager need not wait for it.
    pub fn finish_placing(&mut self) {
        drop(self.filling.take_pass());
    }

    /// Removes and returns its block, if that is of an earlier life of the device.
    pub fn take_stale(&mut self) -> Option<Arc<Block>> {
        let epoch = self.gpu.life.epoch();
        self.block.take_if(|block| block.epoch() != epoch)
    }

    /// Marks the bytes as written: they are wiped before they are released.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); then no byte may be written.
    pub fn written(&mut self) -> Result<(), SpaceError> {
        self.open()?;
        self.written = true;
        Ok(())
    }

    /// The memory that it lies in, if the device takes calls.
    ///
    /// # Errors
    ///
    /// [`SpaceError::DeviceLost`].
    pub fn memory(&self) -> Result<Arc<Block>, SpaceError> {
        self.gpu.memory_in(&self.behind())
    }

    /// The block or region that it lies in. The reference is weak: see [`Gpu::memory_in`].
    pub fn behind(&self) -> Weak<Block> {
        self.block.as_ref().map_or_else(|| Weak::clone(&self.region), Arc::downgrade)
    }

    /// Its whole range in the region, or in its block.
    #[must_use]
    pub fn range(&self) -> DeviceRange {
        let range = self.held.as_ref().map(|(placement, _)| placement.range());
        self.in_memory(range.unwrap_or(DeviceRange::whole(ByteLen::ZERO)))
    }

    /// A block starts where its shard does. Of its placement only the length counts.
    fn in_memory(&self, range: DeviceRange) -> DeviceRange {
        if self.gpu.blocks().is_some() { DeviceRange::whole(range.len()) } else { range }
    }

    /// Turns the promised bytes into used ones: the shard lies there now.
    pub fn commit(&mut self) {
        self.held = self.held.take().map(|(placement, grant)| match grant {
            Grant::Promised(reservation) => (placement, Grant::InUse(reservation.commit())),
            in_use @ Grant::InUse(_) => (placement, in_use),
        });
    }

    /// Moves this space to the start of `gap`. `gap` ends where this space begins and is not longer
    /// than it. The caller has wiped the bytes that are left behind; they are released together
    /// with the grant of the gap. Only for mode `Region`: blocks have no neighbours.
    pub fn slide_down(&mut self, mut gap: Self) {
        let (Some((low, promise)), Some((high, grant))) = (gap.held.take(), self.held.take())
        else {
            debug_assert!(false, "a space without a place cannot slide");
            return;
        };
        let (to, from, len) = (low.start(), high.start(), high.len());
        let mut arena = lock(&self.gpu.arena);
        self.gpu.take_back(&mut arena, low);
        self.gpu.take_back(&mut arena, high);
        // Under one lock: both places were just released, so one of the two calls succeeds.
        let placed = arena.place_at(to, len).or_else(|_taken| arena.place_at(from, len));
        self.held = placed.ok().map(|placement| (placement, grant));
        drop(promise);
        debug_assert_eq!(self.range().start(), to, "the gap was not below the shard");
    }

    /// Wipes the bytes and releases them; a block returns to the driver.
    ///
    /// # Errors
    ///
    /// Why they could not be wiped or released, and how many bytes stay counted.
    pub fn give_back(mut self) -> Result<Returned, (ByteLen, GpuError)> {
        self.release(true)
    }

    /// Takes the place out of use permanently and returns its length: it stays counted and is never
    /// handed out again. Wipes it if the device allows that.
    pub fn abandon(mut self, error: GpuError) -> ByteLen {
        let Some((placement, grant)) = self.held.take() else { return ByteLen::ZERO };
        let bytes = placement.footprint();
        let _under_way = self.gpu.life.begin_return();
        let _as_well_as_it_goes = self.wipe(&placement);
        let kept = grant.keep();
        let block = self.block.take().and_then(Arc::into_inner).map(Block::into_memory);
        self.gpu.set_aside_for_good(Unreturned { placement, kept, block, error });
        bytes
    }

    fn release(&mut self, measured: bool) -> Result<Returned, (ByteLen, GpuError)> {
        let Some((placement, grant)) = self.held.take() else {
            return Ok(Returned { bytes: ByteLen::ZERO, wiped: false, driver_delta: None });
        };
        let bytes = placement.footprint();
        // Registered before the state of the device is read: a reset waits for every call that
        // found the device usable.
        let _under_way = self.gpu.life.begin_return();
        let outcome = match self.wipe(&placement) {
            // A promised place keeps its memory: after a free, the driver could refuse to allocate
            // it again.
            Ok(wiped) if self.filling.origin().is_some_and(Origin::holds_places) => {
                Ok((wiped, None))
            }
            Ok(wiped) => self.give_back_block(measured).map(|delta| (wiped, delta)),
            Err(error) => {
                let block = self.block.take().and_then(Arc::into_inner).map(Block::into_memory);
                Err(Stuck { block, error })
            }
        };
        match outcome {
            Ok((wiped, driver_delta)) => {
                if let Some(origin) = self.filling.take_origin() {
                    let block = self.block.take();
                    origin.take_back(&self.gpu, placement, grant.promised(), block);
                    return Ok(Returned { bytes, wiped, driver_delta });
                }
                let mut arena = lock(&self.gpu.arena);
                self.gpu.take_back(&mut arena, placement);
                // Under the arena's lock, so that ledger and arena change together for every
                // reader.
                drop(grant);
                Ok(Returned { bytes, wiped, driver_delta })
            }
            Err(Stuck { block, error }) => {
                let kept = grant.keep();
                self.gpu.set_aside(Unreturned { placement, kept, block, error });
                Err((bytes, error))
            }
        }
    }

    /// Returns the block to the driver. If `measured`, also returns the change of the driver's free
    /// bytes.
    fn give_back_block(&mut self, measured: bool) -> Result<Option<i64>, Stuck> {
        let Some(block) = self.block.take() else { return Ok(None) };
        let before = if measured { self.gpu.driver_free() } else { None };
        self.gpu.give_back(block)?;
        let change = |before: ByteLen| {
            let (before, after) = (i64::try_from(before.get()).ok()?, self.gpu.driver_free()?);
            i64::try_from(after.get()).ok()?.checked_sub(before)
        };
        Ok(before.and_then(change))
    }

    fn wipe(&self, placement: &Placement) -> Result<bool, GpuError> {
        let range = self.in_memory(placement.footprint_range());
        if !self.written || range.is_empty() || self.gpu.wipe == WipePolicy::Never {
            return Ok(false);
        }
        // A lost device gets no calls and no placements: a reset returns its memory to the driver
        // as a whole. Memory of an earlier life is gone.
        let memory = if self.gpu.ready().is_ok() { self.behind().upgrade() } else { None };
        let memory = memory.filter(|memory| memory.epoch() == self.gpu.life.epoch());
        let Some(memory) = memory else { return Ok(false) };
        self.gpu.overwrite(&memory, range)
    }

    /// The bytes that would be wiped on release, if any were written.
    #[must_use]
    pub fn written_bytes(&self) -> Option<(Weak<Block>, DeviceRange)> {
        let (placement, _) = self.held.as_ref()?;
        let range = self.in_memory(placement.footprint_range());
        (self.written && !range.is_empty()).then(|| (self.behind(), range))
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // The failure was logged when the bytes were set aside.
        let _logged = self.release(false);
        self.gpu.life.uncount_place();
    }
}

/// Where a part of a shard lies in the region, for a shard at this range.
///
/// # Errors
///
/// [`SpaceError::Invalid`] never in practice: `part` was checked against the shard that lies there.
pub fn locate(shard: DeviceRange, part: ByteRange) -> Result<DeviceRange, SpaceError> {
    shard.slice(part).map_err(|error| SpaceError::Invalid { what: error.to_string() })
}
