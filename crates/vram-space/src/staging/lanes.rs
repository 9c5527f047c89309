//! The staging buffers of the workers of one call, and their running copies.

use std::collections::VecDeque;

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange};
use vram_gpu::{DeviceMemory, GpuError, Pending, Staging};

use crate::error::SpaceError;
use crate::gpu::Gpu;
use crate::staging::at_work::AtWork;
use crate::staging::pool::Grant;
use crate::sync::{Mutex, lock};

/// All lanes of one call, and the call's share of the staging memory. On every path, each copy has ended and each buffer was wiped before this
/// value is gone. A later wipe of device memory therefore comes after all of the copies.
#[derive(Debug)]
pub struct Lanes<'a> {
    gpu: &'a Gpu,
    workers: usize,
    /// Buffers of one worker.
    buffers: u64,
    parked: Mutex<Vec<Lane>>,
    grant: Mutex<Grant>,
}

/// What a call wants of the staging memory.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Bytes of one buffer, at least.
    pub buffer_len: ByteLen,
    /// Buffers that one worker cannot do without.
    pub least: u64,
    /// Buffers with which one worker is quickest.
    pub most: u64,
    /// Workers.
    pub workers: usize,
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
    /// Reads that were begun, the oldest first.
    reading: VecDeque<Pending>,
    made: u64,
}

impl<'a> Lanes<'a> {
    /// The lanes of one call. While other calls hold most of the staging memory, they are fewer than
    /// wanted, with fewer buffers: at least one worker with its least.
    ///
    /// The call must hold no other lanes on this thread: it waits while nothing is left.
    ///
    /// # Errors
    ///
    /// [`SpaceError::Staging`] if nothing was left in time, or if the bound of the manager is less
    /// than one worker needs.
    pub fn take(gpu: &'a Gpu, wanted: Wanted) -> Result<Self, SpaceError> {
        Self::take_if(gpu, wanted, true)
    }

    /// As [`take`](Self::take), at once or not at all: it neither waits nor stands in the queue.
    ///
    /// # Errors
    ///
    /// [`SpaceError::Staging`] if nothing is left now.
    pub fn try_take(gpu: &'a Gpu, wanted: Wanted) -> Result<Self, SpaceError> {
        Self::take_if(gpu, wanted, false)
    }

    fn take_if(gpu: &'a Gpu, wanted: Wanted, waits: bool) -> Result<Self, SpaceError> {
        let Wanted { buffer_len, least, most, workers } = wanted;
        let (least, workers) = (least.max(1), workers.max(1));
        let all = u64::try_from(workers).unwrap_or(u64::MAX).saturating_mul(most.max(least));
        let grant = gpu.pool.grant(buffer_len, [least, all], waits)?;
        let fitting = grant.buffers().checked_div(least).unwrap_or(1).max(1);
        let workers = workers.min(usize::try_from(fitting).unwrap_or(usize::MAX));
        let each = u64::try_from(workers).ok().and_then(|count| grant.buffers().checked_div(count));
        let buffers = each.unwrap_or(least).clamp(least, most.max(least));
        Ok(Self { gpu, workers, buffers, parked: Mutex::default(), grant: Mutex::new(grant) })
    }

    /// The number of workers that may exist at the same time.
    #[must_use]
    pub const fn workers(&self) -> usize {
        self.workers
    }

    /// Buffers for one thread of the call.
    pub fn worker(&'a self) -> Worker<'a> {
        Worker { lanes: self, lane: Lane::default(), at_work: AtWork::begin() }
    }

    /// Waits for every copy. No worker exists any more; new ones may begin afterwards.
    ///
    /// # Errors
    ///
    /// The first copy that failed.
    pub fn finish(&self) -> Result<(), SpaceError> {
        self.end().map_err(|error| self.gpu.failed(error))
    }

    fn end(&self) -> Result<(), GpuError> {
        let mut outcome = Ok(());
        for lane in core::mem::take(&mut *lock(&self.parked)) {
            for pending in lane.under_way.into_iter().chain(lane.reading) {
                let (staging, ended) = pending.wait();
                lock(&self.grant).give(staging);
                outcome = outcome.and(ended);
            }
            lane.idle.into_iter().for_each(|staging| lock(&self.grant).give(staging));
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
            let mut grant = lock(&self.lanes.grant);
            let (idle, len) = (grant.idle(), grant.len());
            drop(grant);
            let staging = match idle {
                Some(staging) => staging,
                None => gpu.device.staging(len).map_err(|error| gpu.failed(error))?,
            };
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
            None => Err(SpaceError::HostMemory { wanted: lock(&self.lanes.grant).len() }),
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
        if staging.is_page_locked() && !from.len().is_zero() {
            // The device writes into the buffer itself; a read would copy the bytes once more on the
            // host, through buffers of its own.
            return self.ended(memory.queue_read(from, staging));
        }
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

impl Worker<'_> {
    /// Whether a read can be begun while the bytes of another are worked on: there are two buffers.
    #[must_use]
    pub const fn reads_ahead(&self) -> bool {
        self.lanes.buffers > 1
    }

    /// Starts copying a range of the device to a buffer, which [`landed`](Self::landed) hands out.
    ///
    /// # Errors
    ///
    /// As [`buffer`](Self::buffer).
    pub fn begin_read(
        &mut self,
        memory: &dyn DeviceMemory,
        from: DeviceRange,
    ) -> Result<(), SpaceError> {
        let staging = self.buffer()?;
        self.lane.reading.push_back(memory.queue_read(from, staging));
        Ok(())
    }

    /// The bytes of the oldest read that was begun; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Why the read failed.
    pub fn landed(&mut self) -> Result<Option<Staging>, SpaceError> {
        self.lane.reading.pop_front().map(|pending| self.ended(pending)).transpose()
    }

    /// Waits for a read.
    fn ended(&mut self, pending: Pending) -> Result<Staging, SpaceError> {
        let (staging, outcome) = pending.wait();
        let Err(error) = outcome else { return Ok(staging) };
        // A device that may still write to the buffer has kept it.
        if staging.is_empty() {
            self.lane.made = self.lane.made.saturating_sub(1);
        } else {
            self.put(staging);
        }
        Err(self.lanes.gpu.failed(error))
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        lock(&self.lanes.parked).push(core::mem::take(&mut self.lane));
    }
}
