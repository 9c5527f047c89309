//! What a GPU asks of, and tells, those who share its memory.

use core::fmt;

use vram_alloc::ByteLen;
use vram_gpu::GpuError;

/// The owner of what lies on a GPU. Calls name the GPU by its index; it holds no lock of
/// its own during them.
pub trait Tenants: fmt::Debug + Send + Sync {
    /// Takes back promises that have expired. The GPU reads its books next.
    fn sweep(&self);

    /// The device was lost. Called once for each loss.
    fn lost(&self, gpu: u32, error: GpuError);

    /// Bytes could not be wiped or given back, and stay counted.
    fn not_returned(&self, gpu: u32, bytes: ByteLen);
}
