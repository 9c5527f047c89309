//! A part of a GPU that holds, or will hold, one shard; wiped and given back whatever happens.

pub(crate) mod dry_run;
mod place;

use core::fmt;
use std::sync::{Arc, Weak};

use vram_alloc::{ByteLen, ByteRange, Charge, DeviceRange, Kept, Placement, Reservation};
use vram_gpu::GpuError;

use crate::block::{Block, Stuck, Unreturned};
use crate::error::SpaceError;
use crate::gpu::{Gpu, WipePolicy};
use crate::health::UnderWay;
use crate::space::dry_run::DryRun;
use crate::sync::lock;

/// A placement and its entry in the books, given back together when dropped.
///
/// From the first write on, giving back means wiping first. If that fails, the bytes are set aside:
/// they stay counted and are never handed out again.
#[derive(Debug)]
pub struct Space {
    gpu: Arc<Gpu>,
    // Empty only while it is being given back.
    held: Option<(Placement, Grant)>,
    /// The block that it is, on a GPU that is used block by block.
    block: Option<Arc<Block>>,
    /// The region that it is a part of, on any other.
    region: Weak<Block>,
    written: bool,
    /// Held from before the first write until a shard lies here.
    under_way: Option<UnderWay>,
    /// The reservation that it was taken out of, and goes back to until it is settled.
    home: Option<Box<dyn Home>>,
}

/// Where a space goes back to that was taken out of a promise.
pub trait Home: fmt::Debug + Send + Sync {
    /// Whether what goes back is a place, with the memory behind it, and not bytes anywhere.
    fn holds_places(&self) -> bool;

    /// Takes back what was taken out of the promise: into it if it is still open, else for
    /// everybody. The caller holds no lock.
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
    /// Leaves the bytes counted for good.
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

/// What giving back did.
#[derive(Clone, Copy, Debug)]
pub struct Returned {
    /// Bytes that can be handed out again.
    pub bytes: ByteLen,
    /// Whether they were overwritten.
    pub wiped: bool,
    /// How the driver's count of free bytes changed, if a block went back to it and it says.
    pub driver_delta: Option<i64>,
}

impl Space {
    /// A space over a placement, promised and not yet in use.
    pub fn new(gpu: Arc<Gpu>, placement: Placement, reservation: Reservation) -> Self {
        let held = Some((placement, Grant::Promised(reservation)));
        let region = gpu.backing.region();
        gpu.health.count_place();
        Self { gpu, held, block: None, region, written: false, under_way: None, home: None }
    }

    /// As [`new`](Self::new), out of a reservation: given back, it goes there.
    pub(crate) fn out_of(
        home: Box<dyn Home>,
        gpu: Arc<Gpu>,
        placement: Placement,
        reservation: Reservation,
    ) -> Self {
        let mut space = Self::new(gpu, placement, reservation);
        space.home = Some(home);
        space
    }

    /// As [`new`](Self::new), with the memory that is behind it already.
    #[must_use]
    pub fn with_block(mut self, block: Option<Arc<Block>>) -> Self {
        self.block = block;
        self
    }

    /// From now on it goes back to this reservation.
    pub fn set_home(&mut self, home: Box<dyn Home>) {
        self.home = Some(home);
    }

    /// What it holds stays: given back later, it goes to everybody.
    pub fn settle(&mut self) {
        self.home = None;
    }

    /// Gives it back in a dry run. False if it is not there.
    pub fn remove_from(&self, dry_run: &mut DryRun) -> bool {
        let placement = self.held.as_ref().map(|(placement, _)| placement);
        placement.is_some_and(|placement| dry_run.remove(self.gpu.index, placement))
    }

    /// Bytes that it takes of the region.
    #[must_use]
    pub fn footprint(&self) -> ByteLen {
        self.held.as_ref().map_or(ByteLen::ZERO, |(placement, _)| placement.footprint())
    }

    /// Bytes of the block that it is, if it is one.
    #[must_use]
    pub fn block_len(&self) -> ByteLen {
        self.block.as_ref().map_or(ByteLen::ZERO, |block| block.len())
    }

    /// The GPU that it is on.
    #[must_use]
    pub const fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Makes sure that there is memory behind it, and that no reset takes it away before a shard
    /// lies there.
    ///
    /// # Errors
    ///
    /// [`SpaceError::DeviceLost`], [`SpaceError::Closed`]; on a GPU that is used block by block, what
    /// the driver says to the allocation.
    pub fn open(&mut self) -> Result<(), SpaceError> {
        if self.written {
            return Ok(());
        }
        if self.under_way.is_none() {
            self.under_way = Some(self.gpu.enter()?);
        }
        let Some(held) = self.gpu.blocks() else {
            // Nothing was written yet: after a reset it is a part of the new region.
            self.region = self.gpu.backing.region();
            return Ok(());
        };
        let len = self.footprint();
        self.block = self.block.take().filter(|block| block.life() == self.gpu.health.life());
        if self.block.is_none() && !len.is_zero() {
            self.block = Some(self.gpu.allocate(held, len)?);
        }
        Ok(())
    }

    /// A shard lies here, or a reservation holds it: nobody is under way to it.
    pub fn rest(&mut self) {
        self.under_way = None;
    }

    /// Takes its block out, if that is of an earlier life of the device.
    pub fn take_stale(&mut self) -> Option<Arc<Block>> {
        let life = self.gpu.health.life();
        self.block.take_if(|block| block.life() != life)
    }

    /// From now on the bytes count as written: they are wiped before they are given back.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open): nothing may be written.
    pub fn written(&mut self) -> Result<(), SpaceError> {
        self.open()?;
        self.written = true;
        Ok(())
    }

    /// The memory it lies in, if the device takes calls.
    ///
    /// # Errors
    ///
    /// [`SpaceError::DeviceLost`].
    pub fn memory(&self) -> Result<Arc<Block>, SpaceError> {
        self.gpu.memory_in(&self.behind())
    }

    /// What it lies in. Not owned: see [`Gpu::memory_in`].
    pub fn behind(&self) -> Weak<Block> {
        self.block.as_ref().map_or_else(|| Weak::clone(&self.region), Arc::downgrade)
    }

    /// Where all of it lies in the region, or in its block.
    #[must_use]
    pub fn range(&self) -> DeviceRange {
        let range = self.held.as_ref().map(|(placement, _)| placement.range());
        self.in_memory(range.unwrap_or(DeviceRange::whole(ByteLen::ZERO)))
    }

    /// A block starts where its shard does; its placement says how long it is and nothing more.
    fn in_memory(&self, range: DeviceRange) -> DeviceRange {
        if self.gpu.blocks().is_some() { DeviceRange::whole(range.len()) } else { range }
    }

    /// The shard is there: what was promised is in use.
    pub fn commit(&mut self) {
        self.held = self.held.take().map(|(placement, grant)| match grant {
            Grant::Promised(reservation) => (placement, Grant::InUse(reservation.commit())),
            in_use @ Grant::InUse(_) => (placement, in_use),
        });
    }

    /// Moves to the start of `gap`, which ends where this begins and is no longer than it. What is
    /// left behind was wiped by the caller, and is given back with the promise for the gap. Only in
    /// a region: blocks have no neighbours.
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
        // Under one lock: both places were just given back, so either can be had.
        let placed = arena.place_at(to, len).or_else(|_taken| arena.place_at(from, len));
        self.held = placed.ok().map(|placement| (placement, grant));
        drop(promise);
        debug_assert_eq!(self.range().start(), to, "the gap was not below the shard");
    }

    /// Wipes the bytes and gives them back; a block goes back to the driver.
    ///
    /// # Errors
    ///
    /// Why they could not be wiped or given back, and how many stay counted.
    pub fn give_back(mut self) -> Result<Returned, (ByteLen, GpuError)> {
        self.release(true)
    }

    /// Takes the place out of use for good, and says how long it is: it stays counted, and is never
    /// handed out again. Wiped as well as it goes.
    pub fn abandon(mut self, error: GpuError) -> ByteLen {
        let Some((placement, grant)) = self.held.take() else { return ByteLen::ZERO };
        let bytes = placement.footprint();
        let _under_way = self.gpu.health.leave();
        let _as_well_as_it_goes = self.wipe(&placement);
        let kept = grant.keep();
        let block = self.block.take().and_then(Arc::into_inner).map(Block::into_memory);
        self.gpu.set_aside(Unreturned { placement, kept, block, error });
        bytes
    }

    fn release(&mut self, measured: bool) -> Result<Returned, (ByteLen, GpuError)> {
        let Some((placement, grant)) = self.held.take() else {
            return Ok(Returned { bytes: ByteLen::ZERO, wiped: false, driver_delta: None });
        };
        let bytes = placement.footprint();
        // Before the device is looked at: a reset waits for those who saw it well.
        let _under_way = self.gpu.health.leave();
        let outcome = match self.wipe(&placement) {
            // A place that is promised keeps the memory behind it: it may not be had again.
            Ok(wiped) if self.home.as_ref().is_some_and(|home| home.holds_places()) => {
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
                if let Some(home) = self.home.take() {
                    let block = self.block.take();
                    home.take_back(&self.gpu, placement, grant.promised(), block);
                    return Ok(Returned { bytes, wiped, driver_delta });
                }
                let mut arena = lock(&self.gpu.arena);
                self.gpu.take_back(&mut arena, placement);
                // Under the arena's lock, so that nobody sees the room in one and not in the other.
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

    /// Gives the block back to the driver, and looks what it says if that is wanted.
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
        // Nothing more is sent to a lost device, and nothing more is placed on it: its memory goes
        // back to the driver as a whole. Of an earlier life it is gone.
        let memory = if self.gpu.winds_up() { self.behind().upgrade() } else { None };
        let memory = memory.filter(|memory| memory.life() == self.gpu.health.life());
        let Some(memory) = memory else { return Ok(false) };
        self.gpu.overwrite(&memory, range)
    }

    /// The bytes that would be wiped before it is given back, if any were written.
    #[must_use]
    pub fn written_bytes(&self) -> Option<(Weak<Block>, DeviceRange)> {
        let (placement, _) = self.held.as_ref()?;
        let range = self.in_memory(placement.footprint_range());
        (self.written && !range.is_empty()).then(|| (self.behind(), range))
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // A failure was logged where the bytes were set aside.
        let _logged = self.release(false);
        self.gpu.health.uncount_place();
    }
}

/// Where a part of a shard lies in the region, given where the shard lies.
///
/// # Errors
///
/// [`SpaceError::Invalid`] never in practice: `part` was checked against the shard that lies there.
pub fn locate(shard: DeviceRange, part: ByteRange) -> Result<DeviceRange, SpaceError> {
    shard.slice(part).map_err(|error| SpaceError::Invalid { what: error.to_string() })
}
