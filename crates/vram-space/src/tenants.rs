//! The calls that a GPU makes to the owner of what lies on it.

use core::fmt;

use vram_alloc::ByteLen;
use vram_gpu::GpuError;

use crate::gpu::compute::KernelsIdle;

/// The owner of what lies on a GPU. Calls name the GPU by its index; the GPU holds none of its own
/// locks during them, except during [`lost`](Self::lost).
pub trait Tenants: fmt::Debug + Send + Sync {
    /// Reclaims expired promises. The GPU reads its ledger right after this.
    fn sweep(&self);

    /// The owner's own time stamp for what it is told next. Called with no lock held, so that it
    /// may ask a clock.
    fn stamp(&self) -> u64;

    /// Reports that the device was lost, and returns how much of the owner's was lost with it. Called
    /// once for each loss, under the lock of the GPU's life, so that the owner hears of arrivals,
    /// losses and resets in their order: it only takes note.
    fn lost(&self, stamp: u64, gpu: u32, error: GpuError) -> usize;

    /// Reports bytes that could not be wiped or released, and stay counted.
    fn not_returned(&self, gpu: u32, bytes: ByteLen);

    /// Reports that bytes which were not returned could be wiped and released after all.
    fn came_back(&self, gpu: u32, bytes: ByteLen);

    /// Reports that the device's kernels are used from now on, or why they are not. The default
    /// takes no note.
    fn kernels(&self, _gpu: u32, _idle: Option<KernelsIdle>) {}

    /// Reports segments that the kernels called altered and the host found sound. The default takes
    /// no note.
    fn kernels_disagreed(&self, _gpu: u32, _segments: u64) {}
}
