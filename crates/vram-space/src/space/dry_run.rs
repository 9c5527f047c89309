//! Dry runs: copies of arenas and ledgers that change without an effect on the GPUs.

use core::cmp::Reverse;
use std::sync::Arc;

use vram_alloc::{Alignment, Arena, ByteLen, Capacity, Fit, ModelPlan, Placement};

use crate::block::MemoryMode;
use crate::gpu::Gpu;
use crate::space::placements::PlannedPlace;
use crate::sync::lock;

/// Copies of the arenas and ledgers of some GPUs.
#[derive(Clone, Debug)]
pub struct DryRun {
    pub(super) gpus: Vec<Imagined>,
}

/// The copy for one GPU.
#[derive(Clone, Debug)]
pub(super) struct Imagined {
    pub(super) index: u32,
    pub(super) mode: MemoryMode,
    pub(super) arena: Arena,
    pub(super) books: Capacity,
    /// Beside the books: what kernels take.
    pub(super) scratch: ByteLen,
    /// The part of what is reserved that this dry run placed.
    pub(super) placed: ByteLen,
}

/// The first piece that finds no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stuck {
    piece: usize,
    largest_hole: ByteLen,
    /// True if a hole is long enough and the ledger refuses.
    has_hole: bool,
}

/// The room on a GPU after a planned eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct RoomAfter {
    /// The GPU.
    pub gpu: u32,
    /// Bytes that could be granted.
    pub room: ByteLen,
    /// The longest piece that the arena could place, if the ledger has room for it.
    pub largest_hole: ByteLen,
}

impl DryRun {
    /// Copies the present state of the GPUs, each at one moment.
    pub fn of(gpus: &[Arc<Gpu>]) -> Self {
        let imagine = |gpu: &Arc<Gpu>| {
            gpu.tenants.sweep();
            let arena = lock(&gpu.arena);
            let (mode, books) = (gpu.backing.mode(), gpu.ledger.capacity());
            let (arena, placed) = (arena.clone(), ByteLen::ZERO);
            Imagined { index: gpu.index, mode, arena, books, scratch: gpu.scratch, placed }
        };
        Self { gpus: gpus.iter().map(imagine).collect() }
    }

    /// Returns true if a plan would fit.
    #[must_use]
    pub fn fit(&self, plan: &ModelPlan) -> Fit {
        let room = self.room();
        let whole = || Fit::ShortOf {
            needed: plan.footprint(),
            room,
            largest_hole: self.largest_hole(),
            piece: None,
            name: String::new(),
        };
        let lens: Vec<ByteLen> = plan.pieces().iter().map(|piece| piece.len).collect();
        if self.exceeded_by(&lens) {
            return whole();
        }
        match self.clone().place_all(&lens) {
            Ok(footprint) => Fit::Fits { footprint },
            Err(Stuck { has_hole: true, .. }) => whole(),
            Err(Stuck { piece, largest_hole, .. }) => {
                let (needed, name) =
                    plan.pieces().get(piece).map_or((ByteLen::ZERO, String::new()), |piece| {
                        (piece.len, piece.name.clone())
                    });
                Fit::ShortOf { needed, room, largest_hole, piece: Some(piece), name }
            }
        }
    }

    /// Returns false if pieces of this length altogether, in whole granules, with this longest one,
    /// are known not to fit without placing any.
    #[must_use]
    pub fn could_take(&self, longest: ByteLen, footprint: ByteLen) -> bool {
        longest <= self.largest_hole() && footprint <= self.room_with_slack()
    }

    /// Returns true if pieces of these lengths would be placed, in this order.
    #[must_use]
    pub fn takes(&self, lens: &[ByteLen]) -> bool {
        let longest = lens.iter().max().copied().unwrap_or(ByteLen::ZERO);
        // Most answers are known without placing anything.
        longest <= self.largest_hole()
            && !self.exceeded_by(lens)
            && self.clone().place_all(lens).is_ok()
    }

    /// Whether it has a copy of this GPU.
    #[must_use]
    pub fn covers(&self, gpu: u32) -> bool {
        self.gpus.iter().any(|one| one.index == gpu)
    }

    /// Releases the copy of a real placement. Returns false if the dry run does not contain it.
    pub fn remove(&mut self, gpu: u32, placement: &Placement) -> bool {
        let Some(gpu) = self.gpus.iter_mut().find(|one| one.index == gpu) else { return false };
        let removed = gpu.arena.release_copy(placement).is_ok();
        if removed {
            gpu.books.used = gpu.books.used.saturating_sub(placement.footprint());
        }
        removed
    }

    /// The room on each GPU, in ascending order of their indices.
    #[must_use]
    pub fn rooms(&self) -> Vec<RoomAfter> {
        let mut rooms: Vec<_> = self
            .gpus
            .iter()
            .map(|gpu| RoomAfter {
                gpu: gpu.index,
                room: gpu.books.room(),
                largest_hole: gpu.largest_hole(),
            })
            .collect();
        rooms.sort_by_key(|room| room.gpu);
        rooms
    }

    /// Bytes that could be granted on all GPUs together.
    #[must_use]
    pub fn room(&self) -> ByteLen {
        let sum = |sum: ByteLen, gpu: &Imagined| sum.saturating_add(gpu.books.room());
        self.gpus.iter().fold(ByteLen::ZERO, sum)
    }

    /// The longest piece that could be placed on any of the GPUs.
    #[must_use]
    pub fn largest_hole(&self) -> ByteLen {
        self.gpus.iter().map(Imagined::largest_hole).max().unwrap_or(ByteLen::ZERO)
    }

    /// Returns true if these pieces exceed the total room, regardless of the holes.
    fn exceeded_by(&self, lens: &[ByteLen]) -> bool {
        let granule = Alignment::GRANULE;
        let sum =
            |sum: ByteLen, len: &ByteLen| sum.saturating_add(len.round_up(granule).unwrap_or(*len));
        let footprint = lens.iter().fold(ByteLen::ZERO, sum);
        footprint > self.room_with_slack()
    }

    /// The total room, and what the last granule of each region can be short of: all but one byte.
    fn room_with_slack(&self) -> ByteLen {
        let short = Alignment::GRANULE.get().saturating_sub(1);
        let slack = ByteLen::from_usize(self.gpus.len()).checked_mul(short);
        self.room().saturating_add(slack.unwrap_or(ByteLen::ZERO))
    }

    /// Places pieces in order, each on the first GPU that accepts it, starting with the GPU that
    /// has the most room. Returns the number of bytes taken.
    fn place_all(&mut self, lens: &[ByteLen]) -> Result<ByteLen, Stuck> {
        let mut sum = ByteLen::ZERO;
        self.place_each(lens, |place| sum = sum.saturating_add(place.footprint))?;
        Ok(sum)
    }

    /// As [`place_all`](Self::place_all), and tells where each piece is placed.
    pub(super) fn place_each(
        &mut self,
        lens: &[ByteLen],
        mut placed_at: impl FnMut(PlannedPlace),
    ) -> Result<(), Stuck> {
        self.gpus.sort_by_key(|gpu| (Reverse(gpu.books.room()), gpu.index));
        for (piece, len) in lens.iter().enumerate() {
            let mut has_hole = false;
            let placed = self.gpus.iter_mut().find_map(|gpu| {
                let placement = gpu.arena.place(*len, Alignment::GRANULE).ok()?;
                let footprint = placement.footprint();
                if footprint <= gpu.books.room() {
                    gpu.books.reserved = gpu.books.reserved.saturating_add(footprint);
                    gpu.placed = gpu.placed.saturating_add(footprint);
                    let lies = gpu.mode == MemoryMode::Region && !placement.is_empty();
                    let offset = lies.then(|| placement.start());
                    return Some(PlannedPlace { gpu: gpu.index, offset, footprint });
                }
                has_hole = true;
                let released = gpu.arena.release(placement);
                debug_assert!(released.is_ok(), "it was placed a moment ago");
                None
            });
            let Some(place) = placed else {
                return Err(Stuck { piece, largest_hole: self.largest_hole(), has_hole });
            };
            placed_at(place);
        }
        Ok(())
    }
}

impl Imagined {
    fn largest_hole(&self) -> ByteLen {
        match self.mode {
            MemoryMode::Region => self.arena.report().largest_hole,
            // In mode `Blocks` only the ledger limits the length.
            MemoryMode::Blocks | MemoryMode::SharedBlocks => self.books.room(),
        }
    }
}
