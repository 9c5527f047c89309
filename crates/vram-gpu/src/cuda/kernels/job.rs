//! Work over a list of spans, done slice by slice: while the device works on one slice, the list of
//! the next goes up and the results of the one before come down.

use std::collections::VecDeque;

use super::super::context::Bound;
use super::pool::Pool;
use super::slot::{Layout, Slot};
use crate::GpuError;

/// The most bytes that one launch reads: then it gives way to others after 0.1 to 0.3 ms.
pub(super) const SLICE_MAX: u64 = 256 << 20;

/// Slices of one call under way at once.
const AT_ONCE: usize = 2;

/// What one launch works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// The first span, and their number.
    pub(super) first: usize,
    pub(super) count: usize,
    /// Items, and merges behind them.
    pub(super) items: u32,
    pub(super) merges: u32,
    pub(super) layout: Layout,
}

/// Work over a list.
pub(super) trait Job {
    /// Number of spans.
    fn len(&self) -> usize;

    /// Writes what the device needs for as many spans as go into one slice, at least one. `first` is
    /// below [`len`](Self::len).
    fn stage(&self, first: usize, buffer: &mut [u8]) -> Slice;

    /// Starts the kernels of a slice, whose inputs are in the slot or on their way there.
    ///
    /// # Safety
    ///
    /// As for [`run`].
    unsafe fn launch(&self, slice: &Slice, slot: &Slot) -> Result<(), u32>;

    /// Takes the results of a slice. Slices come in the order of the list.
    fn collect(&mut self, slice: &Slice, results: &[u8]);
}

/// Runs a job to its end. When this returns, nothing of it runs, and no slot has anything of it.
///
/// # Safety
///
/// The spans of the job lie in allocations that live in the bound context until this returns; so do
/// the slots of the pool and the modules of the kernels.
pub(super) unsafe fn run(
    bound: &Bound<'_>,
    pool: &Pool<Slot>,
    job: &mut impl Job,
) -> Result<(), GpuError> {
    let mut flights = Flights { bound, pool, under_way: VecDeque::new() };
    let mut next = 0;
    loop {
        let slot = match flights.under_way.len() {
            _ if next >= job.len() => None,
            0 => Some(pool.take()),
            count if count < AT_ONCE => pool.try_take(),
            _ => None,
        };
        if let Some(mut slot) = slot {
            let slice = job.stage(next, slot.buffer());
            next = next.saturating_add(slice.count.max(1));
            // SAFETY: as the caller promises.
            let started = slot.fly(&slice.layout, |slot| unsafe { job.launch(&slice, slot) });
            flights.under_way.push_back((slot, slice));
            started.map_err(|code| bound.fail(code))?;
        } else if let Some((slot, slice)) = flights.under_way.front_mut() {
            let landed = slot.land(&slice.layout, |results| job.collect(slice, results));
            landed.map_err(|code| bound.fail(code))?;
            if let Some((slot, _)) = flights.under_way.pop_front() {
                pool.put(slot);
            }
        } else {
            bound.port().core.answered();
            return Ok(());
        }
    }
}

/// Launches under way. What is left of them after a failure is waited for, overwritten and returned.
struct Flights<'c, 'p> {
    bound: &'c Bound<'p>,
    pool: &'c Pool<Slot>,
    under_way: VecDeque<(Slot, Slice)>,
}

impl Drop for Flights<'_, '_> {
    fn drop(&mut self) {
        for (mut slot, _) in self.under_way.drain(..) {
            slot.settle(self.bound);
            self.pool.put(slot);
        }
    }
}

/// Writes numbers one behind another, little-endian as the device reads them.
pub(super) struct Writer<'b> {
    bytes: &'b mut [u8],
    at: usize,
}

impl<'b> Writer<'b> {
    pub(super) const fn new(bytes: &'b mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Writes bytes; those that do not fit, which no job has, are left out.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        let end = self.at.saturating_add(bytes.len());
        if let Some(place) = self.bytes.get_mut(self.at..end) {
            place.copy_from_slice(bytes);
        }
        self.at = end;
    }

    pub(super) fn put_u64(&mut self, number: u64) {
        self.put(&number.to_le_bytes());
    }

    pub(super) fn put_u32(&mut self, number: u32) {
        self.put(&number.to_le_bytes());
    }

    /// Bytes so far.
    pub(super) const fn written(&self) -> usize {
        self.at
    }
}
