//! Where a piece lies: a deterministic sub-allocator over one device region, all of it on the host.

mod error;
pub(crate) mod holes;
mod placement;

use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use self::holes::{End, Holes, Span};
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
    holes: Holes,
    live: Vec<Slot>,
    /// Vacant slots of `live`; the last one is reused first.
    vacant: Vec<usize>,
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

/// The arena's record of one live placement.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// `None` while vacant.
    serial: Option<u64>,
    start: u64,
    footprint: u64,
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
            holes: Holes::whole(capacity),
            live: Vec::new(),
            vacant: Vec::new(),
            used: 0,
            next_serial: 0,
            original: None,
        })
    }

    /// Places `len` bytes at a multiple of `align`. An empty piece always fits and takes no byte.
    ///
    /// # Errors
    ///
    /// [`ArenaError::NoHole`] only if no single hole holds the piece at that alignment.
    pub fn place(&mut self, len: ByteLen, align: Alignment) -> Result<Placement, ArenaError> {
        let mut span = Span { start: 0, end: 0 };
        if !len.is_zero() {
            let found = self.find(len, align);
            let (hole, found) = found.ok_or_else(|| self.no_hole(len, align))?;
            self.holes.take(hole, found);
            self.used = self.used.saturating_add(found.len());
            span = found;
        }
        Ok(self.placement(span, len))
    }

    /// Places `len` bytes exactly at `start`, for a caller that moves placements together. An empty
    /// piece always fits and takes no byte.
    ///
    /// # Errors
    ///
    /// [`ArenaError::NoHole`] if `start` is not a multiple of 256, or if no single hole holds all
    /// bytes from `start` on.
    pub fn place_at(&mut self, start: DeviceOffset, len: ByteLen) -> Result<Placement, ArenaError> {
        let mut span = Span { start: 0, end: 0 };
        if !len.is_zero() {
            let found = self.find_at(start.get(), len);
            let (hole, found) = found.ok_or_else(|| self.no_hole(len, Alignment::GRANULE))?;
            self.holes.take(hole, found);
            self.used = self.used.saturating_add(found.len());
            span = found;
        }
        Ok(self.placement(span, len))
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
        self.holes = Holes::whole(self.capacity);
        self.live.clear();
        self.vacant.clear();
        self.used = 0;
    }

    /// The figures. Every call keeps them up to date, so this counts nothing.
    #[must_use]
    pub fn report(&self) -> ArenaReport {
        ArenaReport {
            capacity: self.capacity(),
            used: ByteLen::new(self.used),
            free: self.free(),
            largest_hole: ByteLen::new(self.holes.largest()),
            hole_count: self.holes.count(),
            live_count: self.live.len().saturating_sub(self.vacant.len()),
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

    /// The holes in address order, for dumps and tests.
    pub fn holes(&self) -> impl Iterator<Item = DeviceRange> + '_ {
        self.holes.iter().filter_map(|span| self.range(span))
    }

    /// The footprints of live placements in address order, for dumps and tests: O(n log n).
    pub fn live(&self) -> impl Iterator<Item = DeviceRange> + '_ {
        let live = self.live.iter().filter(|slot| slot.serial.is_some());
        let mut spans: Vec<_> = live
            .map(|s| Span { start: s.start, end: s.start.saturating_add(s.footprint) })
            .collect();
        spans.sort_unstable_by_key(|span| (span.start, span.end));
        spans.into_iter().filter_map(|span| self.range(span))
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

    /// The hole to use for `len` bytes, which is at least 1, and the footprint to take from it.
    fn find(&self, len: ByteLen, align: Alignment) -> Option<(Span, Span)> {
        let end = if len <= self.policy.small_max { End::High } else { End::Low };
        let align = align.max(Alignment::GRANULE);
        let (hole, start) = self.holes.best_fit(len.get(), align.get(), end)?;
        // A hole ends at a granule or at the end of the region; only the latter can cut a
        // footprint.
        let footprint = len.round_up(Alignment::GRANULE)?;
        let end = start.checked_add(footprint.get())?.min(hole.end);
        Some((hole, Span { start, end }))
    }

    /// Makes the placement of `span`, which was just taken from a hole.
    fn placement(&mut self, span: Span, len: ByteLen) -> Placement {
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        let slot = Slot { serial: Some(serial), start: span.start, footprint: span.len() };
        Placement {
            arena: self.id,
            slot: self.occupy(slot),
            serial,
            start: DeviceOffset::new(span.start),
            len,
            footprint: ByteLen::new(span.len()),
        }
    }

    /// The hole that holds `len` bytes from `start` on, `len` at least 1, and the footprint at
    /// `start`.
    fn find_at(&self, start: u64, len: ByteLen) -> Option<(Span, Span)> {
        if start & Alignment::GRANULE.get().wrapping_sub(1) != 0 {
            return None;
        }
        let hole = self.holes.containing(start)?;
        if start.checked_add(len.get())? > hole.end {
            return None;
        }
        let footprint = len.round_up(Alignment::GRANULE)?;
        let end = start.checked_add(footprint.get())?.min(hole.end);
        Some((hole, Span { start, end }))
    }

    fn no_hole(&self, needed: ByteLen, align: Alignment) -> ArenaError {
        let largest_hole = ByteLen::new(self.holes.largest());
        ArenaError::NoHole { needed, align, largest_hole, free: self.free() }
    }

    /// Frees the bytes of a slot, if the slot still belongs to the placement of that serial.
    fn vacate(&mut self, index: usize, serial: u64) -> Option<()> {
        let slot = self.live.get_mut(index).filter(|slot| slot.serial == Some(serial))?;
        slot.serial = None;
        let span = Span { start: slot.start, end: slot.start.saturating_add(slot.footprint) };
        self.vacant.push(index);
        self.used = self.used.saturating_sub(span.len());
        self.holes.give(span);
        Some(())
    }

    /// Stores `slot` and returns its index.
    fn occupy(&mut self, slot: Slot) -> usize {
        if let Some(index) = self.vacant.pop()
            && let Some(vacant) = self.live.get_mut(index)
        {
            *vacant = slot;
            return index;
        }
        self.live.push(slot);
        self.live.len().saturating_sub(1)
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
            holes: self.holes.clone(),
            live: self.live.clone(),
            vacant: self.vacant.clone(),
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
