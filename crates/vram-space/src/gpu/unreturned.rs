//! Bytes that could not be wiped or given back.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use vram_alloc::ByteLen;
use vram_gpu::GpuError;

use crate::block::Unreturned;
use crate::gpu::Gpu;
use crate::sync::lock;

impl Gpu {
    /// Sets a placement aside whose bytes could not be wiped, or not be given back.
    pub fn set_aside(&self, unreturned: Unreturned) {
        let (bytes, error) = (unreturned.placement.footprint(), unreturned.error);
        tracing::error!(gpu = self.index, bytes = bytes.get(), %error, "bytes could not be given back and stay counted");
        lock(&self.unreturned).push(unreturned);
        self.tenants.not_returned(self.index, bytes);
    }

    /// Takes out what could not be given back, to try again or because it is gone.
    pub(crate) fn take_unreturned(&self) -> Vec<Unreturned> {
        core::mem::take(&mut *lock(&self.unreturned))
    }

    /// Puts back what could not be given back this time either.
    pub(crate) fn still_unreturned(&self, unreturned: Unreturned) {
        lock(&self.unreturned).push(unreturned);
    }

    /// Lets bytes be handed out again that could not be given back before.
    pub(crate) fn returned(&self, unreturned: Unreturned) {
        let Unreturned { placement, kept, block, .. } = unreturned;
        let mut arena = lock(&self.arena);
        self.take_back(&mut arena, placement);
        // Under the arena's lock, so that nobody sees the room in one and not in the other.
        kept.release();
        drop(arena);
        drop(block);
    }

    /// Bytes that could not be given back.
    pub(crate) fn unreturned_bytes(&self) -> ByteLen {
        self.unreturned().map_or(ByteLen::ZERO, |(bytes, _last)| bytes)
    }

    /// Bytes that could not be given back, and the last reason.
    pub fn unreturned(&self) -> Option<(ByteLen, GpuError)> {
        let unreturned = lock(&self.unreturned);
        let bytes = unreturned
            .iter()
            .fold(ByteLen::ZERO, |sum, one| sum.saturating_add(one.placement.footprint()));
        unreturned.last().map(|last| (bytes, last.error))
    }

    /// Lets what could not be given back before be handed out again: the device was emptied.
    pub fn settle_unreturned(&self) -> ByteLen {
        let mut bytes = ByteLen::ZERO;
        for one in self.take_unreturned() {
            bytes = bytes.saturating_add(one.placement.footprint());
            let _dropped = catch_unwind(AssertUnwindSafe(|| self.returned(one)));
        }
        bytes
    }
}
