//! The budget of a GPU.

use vram_alloc::ByteLen;

use crate::sync::lock;
use crate::vs::gpu::Gpu;

impl Gpu {
    /// Bytes of the region that this manager took.
    pub(crate) fn region_len(&self) -> ByteLen {
        lock(&self.arena).capacity()
    }
}
