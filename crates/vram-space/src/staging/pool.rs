//! Reuse of host buffers: page-locking memory is slow, and so is the first access to fresh memory.

use core::hint::black_box;

use vram_alloc::ByteLen;
use vram_gpu::Staging;

use crate::error::SpaceError;
use crate::staging::bound::{Share, StagingBound, Wish};

/// Smallest buffer length, so that tiny shards share buffers of one size.
pub const SMALLEST: u64 = 4096;

/// The staging buffers of one GPU, within the bound of its manager.
#[derive(Debug)]
pub struct StagingPool {
    bound: StagingBound,
    gpu: u32,
    /// The maximum of idle bytes; buffers beyond it are freed to the host.
    idle_max: ByteLen,
}

/// The buffers that one call may hold. Dropping this value gives them back, wiped.
#[derive(Debug)]
pub(crate) struct Grant {
    bound: StagingBound,
    gpu: u32,
    idle_max: ByteLen,
    len: ByteLen,
    buffers: u64,
    /// Buffers that exist and no worker has.
    idle: Vec<Staging>,
    /// So many of them, from the first on, this call has not used: they are wiped.
    fresh: usize,
}

impl StagingPool {
    /// A pool that keeps at most `idle_max` bytes for reuse.
    pub(crate) const fn new(bound: StagingBound, gpu: u32, idle_max: ByteLen) -> Self {
        Self { bound, gpu, idle_max }
    }

    /// Takes between `least` and `most` buffers of at least `len` bytes each; the length is rounded
    /// up to a power of two. If not enough is left, it `waits`, or is refused at once.
    ///
    /// # Errors
    ///
    /// [`SpaceError::Staging`].
    pub(crate) fn grant(
        &self,
        len: ByteLen,
        [least, most]: [u64; 2],
        waits: bool,
    ) -> Result<Grant, SpaceError> {
        let len = len.get().max(SMALLEST);
        let len = len.checked_next_power_of_two().unwrap_or(len);
        let wish = Wish { gpu: self.gpu, len, least, most: most.max(least), waits };
        let Share { buffers, idle } = self.bound.take(wish)?;
        let (bound, gpu, idle_max) = (self.bound.clone(), self.gpu, self.idle_max);
        let (len, fresh) = (ByteLen::new(len), idle.len());
        Ok(Grant { bound, gpu, idle_max, len, buffers, idle, fresh })
    }

    /// Frees all idle buffers to the host.
    pub fn clear(&self) {
        self.bound.clear(self.gpu);
    }
}

impl Drop for StagingPool {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Grant {
    /// How many buffers the call may hold.
    pub(crate) const fn buffers(&self) -> u64 {
        self.buffers
    }

    /// The length of each buffer.
    pub(crate) const fn len(&self) -> ByteLen {
        self.len
    }

    /// A buffer that exists already. It holds what this call left in it.
    pub(crate) fn idle(&mut self) -> Option<Staging> {
        let staging = self.idle.pop();
        self.fresh = self.fresh.min(self.idle.len());
        staging
    }

    /// Takes back a buffer, for the next use by this call.
    pub(crate) fn give(&mut self, staging: Staging) {
        self.idle.push(staging);
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let mut buffers = core::mem::take(&mut self.idle);
        for staging in buffers.iter_mut().skip(self.fresh) {
            staging.as_mut_slice().fill(0);
            // Later users could read the buffer, so the compiler must not remove the fill above.
            black_box(staging.as_slice());
        }
        let granted = self.len.get().saturating_mul(self.buffers);
        self.bound.give(self.gpu, granted, buffers, self.idle_max);
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    /// What one call leaves in a buffer is plaintext that the next must not see.
    #[test]
    fn a_buffer_that_a_call_used_is_wiped_before_another_call_has_it() {
        let all = ByteLen::MIB;
        let pool = StagingPool::new(StagingBound::new(all, Duration::ZERO), 0, all);
        let mut grant = pool.grant(ByteLen::new(SMALLEST), [1, 1], true).unwrap();
        let mut staging = Staging::unpinned(grant.len()).unwrap();
        staging.as_mut_slice().fill(7);
        grant.give(staging);
        let mut mine = grant.idle().unwrap();
        assert!(mine.as_slice().iter().all(|byte| *byte == 7), "it is still this call's");
        mine.as_mut_slice().fill(9);
        grant.give(mine);
        drop(grant);
        let mut next = pool.grant(ByteLen::new(SMALLEST), [1, 1], true).unwrap();
        assert!(next.idle().unwrap().as_slice().iter().all(|byte| *byte == 0));
    }
}
