//! The calls that a GPU makes to the owner of what lies on it.

use core::fmt;

use vram_alloc::ByteLen;
use vram_gpu::GpuError;

/// The owner of what lies on a GPU. Calls name the GPU by its index; the GPU holds none of its own
/// locks during them.
pub trait Tenants: fmt::Debug + Send + Sync {
    /// Reclaims expired promises. The GPU reads its ledger right after this.
    fn sweep(&self);

    /// Reports that the device was lost. Called once for each loss.
    fn lost(&self, gpu: u32, error: GpuError);

    /// Reports bytes that could not be wiped or released, and stay counted.
    fn not_returned(&self, gpu: u32, bytes: ByteLen);

    /// Reports that bytes which were not returned could be wiped and released after all.
    fn came_back(&self, gpu: u32, bytes: ByteLen);
}
