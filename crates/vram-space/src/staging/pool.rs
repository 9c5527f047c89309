//! Reuse of host buffers: page-locking memory is slow, and so is the first access to fresh memory.

use core::hint::black_box;
use std::collections::BTreeMap;

use vram_alloc::ByteLen;
use vram_gpu::{Device, GpuError, Staging};

use crate::sync::{Mutex, lock};

/// Smallest buffer length, so that tiny shards share buffers of one size.
pub const SMALLEST: u64 = 4096;

/// Idle staging buffers of one GPU, by size, all wiped.
#[derive(Debug)]
pub struct StagingPool {
    idle: Mutex<Idle>,
    /// The maximum of idle bytes; buffers beyond it are freed to the host.
    idle_max: ByteLen,
}

#[derive(Debug, Default)]
struct Idle {
    bytes: ByteLen,
    by_len: BTreeMap<ByteLen, Vec<Staging>>,
}

impl StagingPool {
    /// A pool that keeps at most `idle_max` bytes.
    #[must_use]
    pub fn new(idle_max: ByteLen) -> Self {
        Self { idle: Mutex::default(), idle_max }
    }

    /// Returns a wiped buffer of at least `len` bytes; the length is rounded up to a power of two.
    ///
    /// # Errors
    ///
    /// The device's error where a new buffer is needed.
    pub fn take(&self, device: &dyn Device, len: ByteLen) -> Result<Staging, GpuError> {
        let len = len.get().max(SMALLEST);
        let len = ByteLen::new(len.checked_next_power_of_two().unwrap_or(len));
        let mut idle = lock(&self.idle);
        if let Some(staging) = idle.by_len.get_mut(&len).and_then(Vec::pop) {
            idle.bytes = idle.bytes.saturating_sub(len);
            return Ok(staging);
        }
        drop(idle);
        device.staging(len)
    }

    /// Frees all idle buffers to the host.
    pub fn clear(&self) {
        let idle = core::mem::take(&mut *lock(&self.idle));
        // Outside the lock: freeing page-locked memory calls the driver.
        drop(idle);
    }

    /// Wipes a buffer and keeps it for later use.
    pub(crate) fn give(&self, mut staging: Staging) {
        staging.as_mut_slice().fill(0);
        // Later users could read the buffer, so the compiler must not remove the fill above.
        black_box(staging.as_slice());
        let len = staging.len();
        let mut idle = lock(&self.idle);
        let bytes = idle.bytes.saturating_add(len);
        if bytes <= self.idle_max {
            idle.bytes = bytes;
            idle.by_len.entry(len).or_default().push(staging);
        }
    }
}

#[cfg(test)]
mod tests {
    use vram_alloc::GpuIndex;
    use vram_gpu::HostDevice;

    use super::*;

    #[test]
    fn a_buffer_comes_back_wiped_and_is_used_again() {
        let device = HostDevice::new(GpuIndex::new(0), ByteLen::MIB).unwrap();
        let pool = StagingPool::new(ByteLen::new(3 * 4096));
        let mut staging = pool.take(&device, ByteLen::new(10)).unwrap();
        assert_eq!(staging.len().get(), 4096);
        staging.as_mut_slice().fill(0xAB);
        pool.give(staging);
        assert_eq!(lock(&pool.idle).bytes.get(), 4096);

        let staging = pool.take(&device, ByteLen::new(4096)).unwrap();
        assert!(staging.as_slice().iter().all(|byte| *byte == 0));
        assert_eq!(lock(&pool.idle).bytes.get(), 0);
    }

    #[test]
    fn idle_buffers_are_bounded() {
        let device = HostDevice::new(GpuIndex::new(0), ByteLen::MIB).unwrap();
        let pool = StagingPool::new(ByteLen::new(2 * 4096));
        let taken: Vec<_> = (0..5).map(|_| pool.take(&device, ByteLen::new(1)).unwrap()).collect();
        for staging in taken {
            pool.give(staging);
        }
        assert_eq!(lock(&pool.idle).bytes.get(), 2 * 4096);
    }
}
