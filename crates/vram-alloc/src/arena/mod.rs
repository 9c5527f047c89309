//! Where a piece lies: a deterministic sub-allocator over one device region, all of it on the host.

mod blocks;
mod error;
mod placement;
mod sizes;
pub(crate) mod span;
#[cfg(test)]
mod tests;

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use self::blocks::Blocks;
use self::span::{End, Span};
use crate::bounds::DeviceRange;
use crate::ledger::MAX_TOTAL;
use crate::report::ArenaReport;
use crate::units::{Alignment, ByteLen, DeviceOffset};

pub use self::error::{ArenaError, Misfit, ReleaseError, ReleaseReason};
pub use self::placement::Placement;

/// Places pieces in one region of device memory, and releases them.
///
/// Best fit: the smallest hole that holds the piece, large pieces from its low end and small ones
/// from its high end, so that the two kinds do not mingle. Footprints are rounded up to 256 bytes,
/// cut at the end of the region, so a region of any length can be filled to its last byte.
/// Neighbouring holes are joined at once. The same calls give the same placements on every machine.
///
/// The arena never touches the device, so no metadata lies in device memory. Positions and
/// alignments count from the start of the region: a region must itself start at a multiple of the
/// largest alignment that device addresses must have.
///
/// A clone is an independent arena with the same layout, for dry runs: placements of the original
/// are foreign to it, and the other way round.
pub struct Arena {
    id: u64,
    capacity: u64,
    policy: ArenaPolicy,
    /// Footprints are multiples of this.
    granule: Alignment,
    blocks: Blocks,
    used: u64,
    /// The serial of the next placement; never used twice.
    next_serial: u64,
    /// For a clone: the arena whose placements it holds copies of.
    original: Option<Original>,
}

/// The arena that a clone was made from.
#[derive(Clone, Copy, Debug)]
struct Original {
    id: u64,
    /// The original's next serial when it was cloned: the clone holds only placements with a
    /// smaller one.
    next_serial: u64,
}

/// How an arena places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaPolicy {
    /// Pieces of at most this many bytes count as small and go to the high end of their hole.
    pub small_max: ByteLen,
}

impl Default for ArenaPolicy {
    fn default() -> Self {
        Self { small_max: ByteLen::MIB }
    }
}

impl Arena {
    /// An empty arena over a region of `capacity` bytes, which may be zero.
    ///
    /// # Errors
    ///
    /// [`ArenaError::CapacityTooLarge`] above [`MAX_TOTAL`].
    pub fn new(capacity: ByteLen) -> Result<Self, ArenaError> {
        Self::with_policy(capacity, ArenaPolicy::default())
    }

    /// An empty arena that places by `policy`.
    ///
    /// # Errors
    ///
    /// As [`Arena::new`].
    pub fn with_policy(capacity: ByteLen, policy: ArenaPolicy) -> Result<Self, ArenaError> {
        if capacity > MAX_TOTAL {
            return Err(ArenaError::CapacityTooLarge { capacity, max: MAX_TOTAL });
        }
        let capacity = capacity.get();
        Ok(Self {
            id: fresh_id(),
            capacity,
            policy,
            granule: Alignment::GRANULE,
            blocks: Blocks::whole(capacity),
            used: 0,
            next_serial: 0,
            original: None,
        })
    }

    /// An empty arena whose footprints are whole granules of this many bytes instead of 256, or of 256
    /// if it is less: for memory that is given out in larger pages.
    ///
    /// # Errors
    ///
    /// As [`Arena::new`].
    pub fn with_granule(capacity: ByteLen, granule: Alignment) -> Result<Self, ArenaError> {
        let granule = granule.max(Alignment::GRANULE);
        Ok(Self { granule, ..Self::new(capacity)? })
    }

    /// The unit of footprints: 256 bytes unless the arena was made [otherwise](Self::with_granule).
    #[must_use]
    pub const fn granule(&self) -> Alignment {
        self.granule
    }

    /// Places `len` bytes at a multiple of `align`. An empty piece always fits and takes no byte.
    ///
    /// # Errors
    ///
    /// [`ArenaError::NoHole`] only if no single hole holds the piece at that alignment.
    pub fn place(&mut self, len: ByteLen, align: Alignment) -> Result<Placement, ArenaError> {
        if len.is_zero() {
            return Ok(self.nothing());
        }
        let found = self.find(len, align);
        let (hole, start) = found.ok_or_else(|| self.no_hole(len, align))?;
        Ok(self.take(hole, start, len))
    }

    /// Places `len` bytes exactly at `start`, for a caller that moves placements together. An empty
    /// piece always fits and takes no byte.
    ///
    /// # Errors
    ///
    /// [`ArenaError::NoHole`] if `start` is not a multiple of the granule, or if no single hole holds all
    /// bytes from `start` on.
    pub fn place_at(&mut self, start: DeviceOffset, len: ByteLen) -> Result<Placement, ArenaError> {
        if len.is_zero() {
            return Ok(self.nothing());
        }
        let found = self.find_at(start.get(), len);
        let hole = found.ok_or_else(|| self.no_hole(len, self.granule))?;
        Ok(self.take(hole, start.get(), len))
    }

    /// Releases `placement`; its bytes join the holes beside them.
    ///
    /// # Errors
    ///
    /// [`ReleaseError`] with the placement in it, if it belongs to another arena or to the time
    /// before a [`Arena::reset`]. Nothing changes then.
    pub fn release(&mut self, placement: Placement) -> Result<(), ReleaseError> {
        if placement.arena != self.id {
            return Err(ReleaseError { placement, reason: ReleaseReason::Foreign });
        }
        match self.vacate(placement.slot, placement.serial) {
            Some(()) => Ok(()),
            None => Err(ReleaseError { placement, reason: ReleaseReason::Stale }),
        }
    }

    /// In a clone: releases the copy of a placement of the original. The clone then shows what
    /// would be free if the original released it; the original does not change.
    ///
    /// # Errors
    ///
    /// [`ReleaseReason::Foreign`] if the clone was not made from that arena,
    /// [`ReleaseReason::Stale`] if the placement is younger than the clone, or its copy was
    /// released already. Nothing changes then.
    pub fn release_copy(&mut self, placement: &Placement) -> Result<(), ReleaseReason> {
        let original = self.original.filter(|original| original.id == placement.arena);
        let original = original.ok_or(ReleaseReason::Foreign)?;
        if placement.serial >= original.next_serial {
            return Err(ReleaseReason::Stale);
        }
        let (slot, serial) = (placement.slot, placement.serial);
        self.vacate(slot, serial).ok_or(ReleaseReason::Stale)
    }

    /// Forgets every placement, as after the loss of the device: all of them become stale.
    pub fn reset(&mut self) {
        self.blocks = Blocks::whole(self.capacity);
        self.used = 0;
    }

    /// The figures. Every call keeps them up to date, so this counts nothing.
    #[must_use]
    pub fn report(&self) -> ArenaReport {
        ArenaReport {
            capacity: self.capacity(),
            used: ByteLen::new(self.used),
            free: self.free(),
            largest_hole: ByteLen::new(self.blocks.largest_hole()),
            hole_count: self.blocks.hole_count(),
            live_count: self.blocks.live_count(),
        }
    }

    /// How many pieces were placed so far, those included that were released since: if this figure
    /// is as before, nothing has come.
    #[must_use]
    pub const fn placed_count(&self) -> u64 {
        self.next_serial
    }

    /// Bytes in the region.
    #[must_use]
    pub fn capacity(&self) -> ByteLen {
        ByteLen::new(self.capacity)
    }

    /// The holes in address order, for dumps and tests: O(n log n).
    pub fn holes(&self) -> impl Iterator<Item = DeviceRange> + '_ {
        self.blocks.holes().filter_map(|span| self.range(span))
    }

    /// The footprints of live placements in address order, for dumps and tests: O(n log n).
    pub fn live(&self) -> impl Iterator<Item = DeviceRange> + '_ {
        self.blocks.live().filter_map(|span| self.range(span))
    }

    /// Checks whether pieces of these lengths and alignments would all fit, placed in this order.
    /// The answer comes from a dry run and is exact: placing them next, in this order, has the same
    /// outcome.
    ///
    /// # Errors
    ///
    /// [`Misfit`] for the first piece that finds no hole.
    pub fn fits(
        &self,
        pieces: impl IntoIterator<Item = (ByteLen, Alignment)>,
    ) -> Result<(), Misfit> {
        let mut dry_run = self.clone();
        for (index, (needed, align)) in pieces.into_iter().enumerate() {
            if dry_run.place(needed, align).is_err() {
                let ArenaReport { largest_hole, free, .. } = dry_run.report();
                return Err(Misfit { index, needed, largest_hole, free });
            }
        }
        Ok(())
    }

    /// The hole to use for `len` bytes, which is at least 1, and the start in it.
    fn find(&self, len: ByteLen, align: Alignment) -> Option<(usize, u64)> {
        let end = if len <= self.policy.small_max { End::High } else { End::Low };
        let align = align.max(self.granule);
        self.blocks.best_fit(len.get(), align.get(), end)
    }

    /// The hole that holds `len` bytes from `start` on, `len` at least 1.
    fn find_at(&mut self, start: u64, len: ByteLen) -> Option<usize> {
        if start & self.granule.get().wrapping_sub(1) != 0 {
            return None;
        }
        let index = self.blocks.hole_at(start)?;
        let hole = self.blocks.span(index);
        if start.checked_add(len.get())? > hole.end {
            return None;
        }
        Some(index)
    }

    /// Takes the footprint of `len` bytes at `start` from a hole that holds them.
    fn take(&mut self, hole: usize, start: u64, len: ByteLen) -> Placement {
        // A hole ends at a granule or at the end of the region; only the latter can cut a
        // footprint.
        let footprint = len.round_up(self.granule).unwrap_or(len);
        let end = start.saturating_add(footprint.get()).min(self.blocks.span(hole).end);
        let (span, serial) = (Span { start, end }, self.serial());
        let slot = self.blocks.take(hole, span, serial);
        self.used = self.used.saturating_add(span.len());
        Placement {
            arena: self.id,
            slot,
            serial,
            start: DeviceOffset::new(start),
            len,
            footprint: ByteLen::new(span.len()),
        }
    }

    fn nothing(&mut self) -> Placement {
        let serial = self.serial();
        Placement {
            arena: self.id,
            slot: self.blocks.take_nothing(serial),
            serial,
            start: DeviceOffset::new(0),
            len: ByteLen::ZERO,
            footprint: ByteLen::ZERO,
        }
    }

    fn serial(&mut self) -> u64 {
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        serial
    }

    fn no_hole(&self, needed: ByteLen, align: Alignment) -> ArenaError {
        let largest_hole = ByteLen::new(self.blocks.largest_hole());
        ArenaError::NoHole { needed, align, largest_hole, free: self.free() }
    }

    /// Frees the bytes of a slot, if the slot still belongs to the placement of that serial.
    fn vacate(&mut self, slot: usize, serial: u64) -> Option<()> {
        let len = self.blocks.release(slot, serial)?;
        self.used = self.used.saturating_sub(len);
        Some(())
    }

    fn free(&self) -> ByteLen {
        ByteLen::new(self.capacity.saturating_sub(self.used))
    }

    fn range(&self, span: Span) -> Option<DeviceRange> {
        let (start, len) = (DeviceOffset::new(span.start), ByteLen::new(span.len()));
        DeviceRange::checked(start, len, self.capacity()).ok()
    }
}

/// A number that no other arena of this process has; no placement depends on its value.
fn fresh_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The same layout under a new identity.
impl Clone for Arena {
    fn clone(&self) -> Self {
        Self {
            id: fresh_id(),
            capacity: self.capacity,
            policy: self.policy,
            granule: self.granule,
            blocks: self.blocks.clone(),
            used: self.used,
            next_serial: self.next_serial,
            // A clone of a clone holds copies of the same placements.
            original: Some(
                self.original.unwrap_or(Original { id: self.id, next_serial: self.next_serial }),
            ),
        }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Arena").field(&self.report()).finish()
    }
}
