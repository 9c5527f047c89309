//! Where the pieces of a plan would lie, and what would be left.

use vram_alloc::{ByteLen, Capacity, DeviceOffset, Fit, ModelPlan};
use vram_gpu::MemoryInfo;

use crate::block::MemoryMode;
use crate::error::SpaceError;
use crate::gpu::accounts::{GpuCapacity, capacity_of, without_region};
use crate::gpu::driver::foreign;
use crate::gpu::{total_of, wrong_budget};
use crate::space::dry_run::{DryRun, Imagined};

/// Where the pieces of a plan would be placed, to the byte, and what each GPU would have left.
///
/// Admitting the same plan next, with the same choice of GPUs, gives exactly these places.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placements {
    /// Whether all of it fits, and what is short if it does not.
    pub fit: Fit,
    /// The place of each piece, in the order of the plan. If the plan does not fit, only those before
    /// the first piece that finds no place.
    pub pieces: Vec<PlannedPlace>,
    /// The figures of each GPU of the choice before, in ascending order of their indices.
    pub before: Vec<GpuCapacity>,
    /// The figures of the same GPUs with these pieces in place.
    pub after: Vec<GpuCapacity>,
}

/// Where one piece would lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedPlace {
    /// The GPU.
    pub gpu: u32,
    /// Where it begins, from the start of the manager's region on that GPU; `None` in mode
    /// [`Blocks`](MemoryMode::Blocks), in which the driver decides, and for an empty piece.
    pub offset: Option<DeviceOffset>,
    /// Bytes that it would take, in whole granules.
    pub footprint: ByteLen,
}

/// A GPU of which nothing is taken yet, for a dry run without one.
#[derive(Clone, Copy, Debug)]
pub struct EmptyGpu {
    /// Position in its owner's list.
    pub index: u32,
    /// Bytes that may be taken from the device.
    pub budget: ByteLen,
    /// Those that its kernels take for themselves: see [`scratch_of`](crate::scratch_of).
    pub scratch: ByteLen,
    /// Bytes of the budget that are never granted.
    pub headroom: ByteLen,
    /// Whether the budget is allocated at once, or block by block.
    pub mode: MemoryMode,
    /// The driver's current figures.
    pub memory: MemoryInfo,
}

impl DryRun {
    /// A dry run on GPUs of which nothing is taken, as [`Gpu::open`](crate::Gpu::open) makes them. Makes no device
    /// call.
    ///
    /// # Errors
    ///
    /// [`SpaceError::Invalid`] for a budget of more than 2^48 - 1 bytes, or of less than the
    /// kernels take.
    pub fn of_empty(gpus: &[EmptyGpu]) -> Result<Self, SpaceError> {
        let imagine = |gpu: &EmptyGpu| {
            let EmptyGpu { index, budget, scratch, headroom, mode, memory } = *gpu;
            let total = total_of(index, budget, scratch)?;
            let arena = mode.arena(total).map_err(|error| wrong_budget(index, budget, &error))?;
            let mut books = Capacity::default();
            (books.total, books.headroom) = (total, headroom);
            if mode.is_by_block() {
                books.foreign = foreign(total, ByteLen::ZERO, memory);
            }
            Ok(Imagined { index, mode, arena, books, scratch, placed: ByteLen::ZERO })
        };
        Ok(Self { gpus: gpus.iter().map(imagine).collect::<Result<_, _>>()? })
    }

    /// Where the pieces of a plan would be placed.
    #[must_use]
    pub fn placements(&self, plan: &ModelPlan) -> Placements {
        let lens: Vec<ByteLen> = plan.pieces().iter().map(|piece| piece.len).collect();
        let mut after = self.clone();
        let mut pieces = Vec::new();
        // The fit says what is short.
        let _outcome = after.place_each(&lens, |place| pieces.push(place));
        // What is promised in a dry run would be in use.
        for gpu in &mut after.gpus {
            gpu.books.used = gpu.books.used.saturating_add(gpu.placed);
            gpu.books.reserved = gpu.books.reserved.saturating_sub(gpu.placed);
        }
        Placements {
            fit: self.fit(plan),
            pieces,
            before: self.capacities(),
            after: after.capacities(),
        }
    }

    fn capacities(&self) -> Vec<GpuCapacity> {
        let figures = |gpu: &Imagined| {
            let report = gpu.arena.report();
            let report = match gpu.mode {
                MemoryMode::Region if !gpu.books.total.is_zero() => report,
                _ => without_region(gpu.books, report),
            };
            capacity_of(gpu.index, gpu.scratch, gpu.books, report)
        };
        let mut capacities: Vec<_> = self.gpus.iter().map(figures).collect();
        capacities.sort_by_key(|capacity| capacity.gpu);
        capacities
    }
}
