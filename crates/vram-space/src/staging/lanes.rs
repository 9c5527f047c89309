//! The staging buffers of the workers of one call, and their running copies.

use crate::staging::at_work::AtWork;
use std::collections::VecDeque;

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange};
use vram_gpu::{DeviceMemory, GpuError, Pending, Staging};

use crate::error::SpaceError;
use crate::gpu::Gpu;
use crate::sync::{Mutex, lock};

/// All lanes of one call. On every path, each copy has ended and each buffer was wiped before this
/// value is gone. A later wipe of device memory therefore comes after all of the copies.
#[derive(Debug)]
pub struct Lanes<'a> {
    gpu: &'a Gpu,
    buffer_len: ByteLen,
    buffers: u64,
    parked: Mutex<Vec<Lane>>,
}

/// One worker's buffers. When the worker ends, they return to the [`Lanes`] together with the
/// running copies, so that errors of those copies are not lost.
#[derive(Debug)]
pub struct Worker<'a> {
    lanes: &'a Lanes<'a>,
    lane: Lane,
    #[expect(dead_code, reason = "held for its drop")]
    at_work: AtWork,
}

#[derive(Debug, Default)]
struct Lane {
    idle: Vec<Staging>,
    under_way: VecDeque<Pending>,
    made: u64,
}

impl<'a> Lanes<'a> {
    /// The lanes of one call: at most `buffers` for each worker, each of at least `buffer_len`
    /// bytes.
    pub fn new(gpu: &'a Gpu, buffer_len: ByteLen, buffers: u64) -> Self {
        Self { gpu, buffer_len, buffers, parked: Mutex::default() }
    }

    /// Buffers for one thread of the call.
    pub fn worker(&'a self) -> Worker<'a> {
        Worker { lanes: self, lane: Lane::default(), at_work: AtWork::begin() }
    }

    /// Waits for every copy.
    ///
    /// # Errors
    ///
    /// The first copy that failed.
    pub fn finish(self) -> Result<(), SpaceError> {
        self.end().map_err(|error| self.gpu.failed(error))
    }

    fn end(&self) -> Result<(), GpuError> {
        let mut outcome = Ok(());
        for lane in core::mem::take(&mut *lock(&self.parked)) {
            for pending in lane.under_way {
                let (staging, ended) = pending.wait();
                self.gpu.pool.give(staging);
                outcome = outcome.and(ended);
            }
            lane.idle.into_iter().for_each(|staging| self.gpu.pool.give(staging));
        }
        outcome
    }
}

impl Drop for Lanes<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            // The call already fails for another reason; a sticky error is still recorded.
            let _failed_anyway = self.gpu.failed(error);
        }
    }
}

impl Worker<'_> {
    /// A buffer that no copy uses, of at least the lanes' length. If all buffers are in use, waits
    /// for the oldest copy.
    ///
    /// # Errors
    ///
    /// Why that copy failed, or why the host has no memory for a buffer.
    pub fn buffer(&mut self) -> Result<Staging, SpaceError> {
        if let Some(staging) = self.lane.idle.pop() {
            return Ok(staging);
        }
        let gpu = self.lanes.gpu;
        if self.lane.made < self.lanes.buffers {
            gpu.ready()?;
            let staging = gpu.pool.take(&*gpu.device, self.lanes.buffer_len);
            let staging = staging.map_err(|error| gpu.failed(error))?;
            self.lane.made = self.lane.made.saturating_add(1);
            return Ok(staging);
        }
        match self.lane.under_way.pop_front() {
            Some(pending) => {
                let (staging, ended) = pending.wait();
                if let Err(error) = ended {
                    self.lane.idle.push(staging);
                    return Err(gpu.failed(error));
                }
                Ok(staging)
            }
            // Each buffer is idle, in a running copy or with the worker, and the worker asks for
            // one at a time.
            None => Err(SpaceError::HostMemory { wanted: self.lanes.buffer_len }),
        }
    }

    /// Takes back an unused buffer.
    pub fn put(&mut self, staging: Staging) {
        self.lane.idle.push(staging);
    }

    /// Starts copying the first `len` bytes of `staging` to the device.
    pub fn queue_write(
        &mut self,
        memory: &dyn DeviceMemory,
        to: DeviceOffset,
        staging: Staging,
        len: ByteLen,
    ) {
        self.lane.under_way.push_back(memory.queue_write(to, staging, len));
    }

    /// Copies a range of the device to a buffer, and waits.
    ///
    /// # Errors
    ///
    /// The device's error.
    pub fn read(
        &mut self,
        memory: &dyn DeviceMemory,
        from: DeviceRange,
    ) -> Result<Staging, SpaceError> {
        let mut staging = self.buffer()?;
        let target = from.len().to_usize().and_then(|len| staging.as_mut_slice().get_mut(..len));
        let outcome = match target {
            Some([]) => Ok(()),
            Some(target) => memory.read(from, target),
            None => Err(GpuError::HostMemory { wanted: from.len() }),
        };
        match outcome {
            Ok(()) => Ok(staging),
            Err(error) => {
                self.put(staging);
                Err(self.lanes.gpu.failed(error))
            }
        }
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        lock(&self.lanes.parked).push(core::mem::take(&mut self.lane));
    }
}
