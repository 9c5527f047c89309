//! The allocators that are compared, behind one interface.

use core::ops::Range;
use core::time::Duration;

use offset_allocator::{Allocation, Allocator as OffsetAllocator};
use range_alloc::RangeAllocator;
use vram_alloc::{Alignment, Arena, ByteLen, Placement};

use crate::{Call, timed};

const GRANULE: u64 = 256;

/// Places pieces that are numbered in the order in which they are asked for.
pub(crate) trait Allocator {
    /// Returns true if the piece was placed; a refused one has a number as well.
    fn place(&mut self, len: u64, align: u64) -> bool;
    fn release(&mut self, piece: usize);
    /// The time of these calls, one after the other.
    fn repeat(&mut self, calls: &[Call], align: u64) -> Duration;
}

/// One allocator's own calls, so that a repetition is compiled for each of them.
pub(crate) trait Peer {
    type Held;
    fn take(&mut self, len: u64, align: u64) -> Option<Self::Held>;
    fn give(&mut self, held: Self::Held);
}

struct Kept<P: Peer> {
    peer: P,
    held: Vec<Option<P::Held>>,
    /// The number of the next piece.
    next: usize,
}

impl<P: Peer> Allocator for Kept<P> {
    fn place(&mut self, len: u64, align: u64) -> bool {
        let held = self.peer.take(len, align);
        let placed = held.is_some();
        match self.held.get_mut(self.next) {
            Some(slot) => *slot = held,
            None => self.held.push(held),
        }
        self.next += 1;
        placed
    }

    fn release(&mut self, piece: usize) {
        if let Some(held) = self.held.get_mut(piece).and_then(Option::take) {
            self.peer.give(held);
        }
    }

    fn repeat(&mut self, calls: &[Call], align: u64) -> Duration {
        // Touched before: the pages of what the calls leave are not their time.
        self.held.resize_with(self.next + calls.len(), || None);
        timed(|| {
            for call in calls {
                match *call {
                    Call::Place { len } => {
                        self.place(len, align);
                    }
                    Call::Release { piece } => self.release(piece),
                }
            }
        })
    }
}

/// Wraps an allocator.
pub(crate) fn kept<P: Peer + 'static>(peer: P) -> Box<dyn Allocator> {
    Box::new(Kept { peer, held: Vec::new(), next: 0 })
}

impl Peer for Arena {
    type Held = Placement;

    fn take(&mut self, len: u64, align: u64) -> Option<Placement> {
        self.place(ByteLen::new(len), Alignment::new(align).ok()?).ok()
    }

    fn give(&mut self, held: Placement) {
        let released = self.release(held);
        debug_assert!(released.is_ok());
    }
}

/// In granules, since it counts in 32 bits. It knows no alignment: a piece takes enough for any
/// start.
pub(crate) struct Offsets(OffsetAllocator);

impl Offsets {
    pub(crate) fn new(region: u64) -> Self {
        Self(OffsetAllocator::new(u32::try_from(region / GRANULE).unwrap_or(u32::MAX)))
    }

    /// For more blocks than it takes by default.
    pub(crate) fn with_blocks(region: u64, blocks: u32) -> Self {
        let granules = u32::try_from(region / GRANULE).unwrap_or(u32::MAX);
        Self(OffsetAllocator::with_max_allocs(granules, blocks))
    }
}

impl Peer for Offsets {
    type Held = Allocation;

    fn take(&mut self, len: u64, align: u64) -> Option<Allocation> {
        self.0.allocate(u32::try_from(granules(len, align)).ok()?)
    }

    fn give(&mut self, held: Allocation) {
        self.0.free(held);
    }
}

/// Scans a list of holes for the smallest one. It knows no alignment either.
pub(crate) struct Ranges(RangeAllocator<u64>);

impl Ranges {
    pub(crate) fn new(region: u64) -> Self {
        Self(RangeAllocator::new(0..region / GRANULE))
    }
}

impl Peer for Ranges {
    type Held = Range<u64>;

    fn take(&mut self, len: u64, align: u64) -> Option<Range<u64>> {
        self.0.allocate_range(granules(len, align)).ok()
    }

    fn give(&mut self, held: Range<u64>) {
        self.0.free_range(held);
    }
}

const fn granules(len: u64, align: u64) -> u64 {
    len.div_ceil(GRANULE) + align / GRANULE - 1
}
