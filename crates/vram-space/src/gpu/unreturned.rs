//! Bytes that could not be wiped or released.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use vram_alloc::ByteLen;
use vram_gpu::GpuError;

use crate::block::Unreturned;
use crate::gpu::Gpu;
use crate::sync::lock;

impl Gpu {
    /// Sets aside a placement whose bytes could not be wiped or released.
    pub fn set_aside(&self, unreturned: Unreturned) {
        let (bytes, error) = (unreturned.placement.footprint(), unreturned.error);
        tracing::error!(gpu = self.index, bytes = bytes.get(), %error, "bytes could not be given back and stay counted");
        lock(&self.unreturned).push(unreturned);
        self.tenants.not_returned(self.index, bytes);
    }

    /// Removes all entries, for another try or because the memory is gone.
    pub(crate) fn take_unreturned(&self) -> Vec<Unreturned> {
        core::mem::take(&mut *lock(&self.unreturned))
    }

    /// Sets an entry aside again after another failed try.
    pub(crate) fn still_unreturned(&self, unreturned: Unreturned) {
        lock(&self.unreturned).push(unreturned);
    }

    /// Releases an entry after a successful try: its bytes can be handed out again.
    pub(crate) fn returned(&self, unreturned: Unreturned) {
        let Unreturned { placement, kept, block, .. } = unreturned;
        let mut arena = lock(&self.arena);
        self.take_back(&mut arena, placement);
        // Under the arena's lock, so that ledger and arena change together for every reader.
        kept.release();
        drop(arena);
        drop(block);
    }

    /// The sum of the bytes that were set aside.
    pub(crate) fn unreturned_bytes(&self) -> ByteLen {
        self.unreturned().map_or(ByteLen::ZERO, |(bytes, _last)| bytes)
    }

    /// The sum of the bytes that were set aside, and the latest error.
    pub fn unreturned(&self) -> Option<(ByteLen, GpuError)> {
        let unreturned = lock(&self.unreturned);
        let bytes = unreturned
            .iter()
            .fold(ByteLen::ZERO, |sum, one| sum.saturating_add(one.placement.footprint()));
        unreturned.last().map(|last| (bytes, last.error))
    }

    /// Releases all entries after the device was emptied. Returns their bytes.
    pub fn settle_unreturned(&self) -> ByteLen {
        let mut bytes = ByteLen::ZERO;
        for one in self.take_unreturned() {
            bytes = bytes.saturating_add(one.placement.footprint());
            let _dropped = catch_unwind(AssertUnwindSafe(|| self.returned(one)));
        }
        bytes
    }
}
