//! One allocation on a CUDA device.

use core::any::Any;
use core::fmt;
use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange, GpuIndex};

use super::allocation::{Allocation, Span};
use super::context::{Bound, Port};
use super::driver::{self, PeerEnd};
use super::lane::Lane;
use super::queued::{QueuedCopy, if_safe};
use super::transfer::{read_through, write_through};
use crate::memory::{Extent, overlaps};
use crate::{
    DeviceAddress, DeviceMemory, FreeError, GpuError, Pending, ShareHandle, Staging, codes,
};

/// Device memory that the driver allocated.
pub(super) struct CudaMemory {
    allocation: Arc<Allocation>,
    freed: bool,
}

impl CudaMemory {
    /// Allocates and checks that the memory is video memory.
    pub(super) fn new(port: &Port, len: ByteLen) -> Result<Self, GpuError> {
        let allocation = Arc::new(Allocation::new(port, len)?);
        Ok(Self { allocation, freed: false })
    }

    /// Memory that somebody else has, and frees: a part of an allocation of that epoch.
    pub(super) fn of_others(port: &Port, address: u64, len: ByteLen, epoch: u64) -> Self {
        let allocation = Arc::new(Allocation::part(port, address, len, epoch));
        Self { allocation, freed: true }
    }

    /// Opens memory of another process. Dropping it closes it.
    pub(super) fn open(port: &Port, handle: &ShareHandle) -> Result<Self, GpuError> {
        Ok(Self { allocation: Arc::new(Allocation::open(port, handle)?), freed: false })
    }

    /// The allocation, alive as long as this value.
    pub(super) fn allocation(&self) -> &Allocation {
        &self.allocation
    }

    fn extent(&self) -> Extent {
        self.allocation.extent()
    }

    fn bind(&self) -> Result<Bound<'_>, GpuError> {
        self.allocation.bind()
    }
}

impl DeviceMemory for CudaMemory {
    fn gpu(&self) -> GpuIndex {
        self.allocation.port.gpu
    }

    fn len(&self) -> ByteLen {
        self.allocation.len
    }

    fn address(&self) -> DeviceAddress {
        DeviceAddress::new(self.allocation.address)
    }

    #[tracing::instrument(level = "debug", skip_all, fields(gpu = %self.gpu(), bytes = to.len().get()))]
    fn write(&self, to: DeviceRange, source: &[u8]) -> Result<(), GpuError> {
        let to = self.allocation.span(self.extent().matching(to, source.len())?)?;
        let bound = self.bind()?;
        if to.len == 0 {
            return Ok(());
        }
        bound.through_bounce(|lane, bounce| write_through(lane, bounce, to, source))
    }

    #[tracing::instrument(level = "debug", skip_all, fields(gpu = %self.gpu(), bytes = from.len().get()))]
    fn read(&self, from: DeviceRange, target: &mut [u8]) -> Result<(), GpuError> {
        let from = self.allocation.span(self.extent().matching(from, target.len())?)?;
        let bound = self.bind()?;
        if from.len == 0 {
            return Ok(());
        }
        bound.through_bounce(|lane, bounce| read_through(lane, bounce, from, target))
    }

    #[tracing::instrument(level = "debug", skip_all, fields(gpu = %self.gpu(), bytes = range.len().get()))]
    fn fill(&self, range: DeviceRange, value: u8) -> Result<(), GpuError> {
        let span = self.allocation.span(self.extent().within(range)?)?;
        let bound = self.bind()?;
        if span.len == 0 {
            return Ok(());
        }
        bound.on_lane(|lane| {
            // SAFETY: the span lies in this allocation, which lives as long as `self`; the stream is
            // the borrowed lane's, here and below.
            unsafe { driver::fill(span.start, value, span.len, lane.stream()) }?;
            lane.wait()
        })
    }

    #[tracing::instrument(level = "debug", skip_all, fields(gpu = %self.gpu(), bytes = to.len().get()))]
    fn copy_from(
        &self,
        to: DeviceRange,
        source: &dyn DeviceMemory,
        from: DeviceRange,
    ) -> Result<(), GpuError> {
        let gpu = self.gpu();
        let unreachable = GpuError::PeerUnsupported { from: source.gpu(), to: gpu };
        let origin = source.backing().as_any().downcast_ref::<Self>().ok_or(unreachable)?;
        let (to, from) = (self.extent().within(to)?, origin.extent().within(from)?);
        if to.len() != from.len() {
            let (range_len, buffer_len) = (to.len(), from.len());
            return Err(GpuError::LengthMismatch { gpu, range_len, buffer_len });
        }
        if Arc::ptr_eq(&self.allocation, &origin.allocation) && overlaps(to, from) {
            let (len, from, to) = (to.len(), from.start(), to.start());
            return Err(GpuError::Overlap { gpu, from, to, len });
        }
        let (target, source) = (self.allocation.span(to)?, origin.allocation.span(from)?);
        if Arc::ptr_eq(&self.allocation.port.core, &origin.allocation.port.core) {
            let bound = self.bind()?;
            // Both allocations use the bound context, so the source must be of its epoch as well.
            if origin.allocation.epoch != self.allocation.epoch {
                return Err(GpuError::StaleAllocation { gpu });
            }
            if target.len == 0 {
                return Ok(());
            }
            bound.on_lane(|lane| {
                let (to, from, len) = (target.start, source.start, target.len);
                // SAFETY: both spans lie in live allocations of this context. If that is one
                // allocation, the spans were checked not to overlap.
                unsafe { driver::copy_within(to, from, len, lane.stream()) }?;
                lane.wait()
            })
        } else {
            self.copy_from_peer(target, origin, source)
        }
    }

    fn queue_write(&self, to: DeviceOffset, staging: Staging, len: ByteLen) -> Pending {
        let checked = self.extent().at(to, len).and_then(|range| {
            self.extent().staged(range, &staging)?;
            self.allocation.span(range)
        });
        self.queue(checked, staging, |span, staging, lane| {
            // SAFETY: the span lies in this allocation, which is freed only after the lane was
            // waited for. The buffer is at least as long, and the pending copy keeps it
            // inaccessible until then.
            unsafe {
                driver::copy_in(span.start, staging.as_slice().as_ptr(), span.len, lane.stream())
            }
        })
    }

    fn queue_read(&self, from: DeviceRange, staging: Staging) -> Pending {
        let checked = self.extent().staged(from, &staging);
        let checked = checked.and_then(|range| self.allocation.span(range));
        self.queue(checked, staging, |span, staging, lane| {
            let target = staging.as_mut_slice().as_mut_ptr();
            // SAFETY: as for `queue_write`, with the buffer as the target.
            unsafe { driver::copy_out(target, span.start, span.len, lane.stream()) }
        })
    }

    fn share(&self) -> Result<ShareHandle, GpuError> {
        self.allocation.share()
    }

    fn free(mut self: Box<Self>) -> Result<(), FreeError> {
        match self.allocation.release() {
            Ok(()) => {
                self.freed = true;
                Ok(())
            }
            Err(error) => Err(FreeError { memory: self, error }),
        }
    }

    fn backing(&self) -> &dyn DeviceMemory {
        self
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl CudaMemory {
    /// Copies from another device directly, or returns an error: otherwise the driver would copy
    /// through host memory of its own, which is never wiped.
    fn copy_from_peer(&self, target: Span, origin: &Self, source: Span) -> Result<(), GpuError> {
        let (here, there) = (&self.allocation, &origin.allocation);
        let unreachable = GpuError::PeerUnsupported { from: there.port.gpu, to: here.port.gpu };
        // Both contexts are held, in the order of their devices and independent of the direction of
        // the copy.
        let (here_first, own, other);
        if here.port.core.device().as_raw() < there.port.core.device().as_raw() {
            here_first = here.port.hold(Some(here.epoch))?;
            other = there.port.hold(Some(there.epoch))?;
            own = here_first;
        } else {
            other = there.port.hold(Some(there.epoch))?;
            own = here.port.hold(Some(here.epoch))?;
        }
        let bound = own.bind()?;
        let (device, peer) = (here.port.core.device().as_raw(), there.port.core.device().as_raw());
        if !driver::reaches(device, peer).map_err(|code| bound.fail(code))? {
            return Err(unreachable);
        }
        if target.len == 0 {
            return Ok(());
        }
        // SAFETY: the other context is held, so it is alive.
        let enabled = unsafe { driver::enable_peer(other.raw()) };
        enabled
            .map_err(|code| if codes::is_sticky(code) { bound.fail(code) } else { unreachable })?;
        bound.on_lane(|lane| {
            let to = PeerEnd { context: bound.raw(), address: target.start };
            let from = PeerEnd { context: other.raw(), address: source.start };
            // SAFETY: both contexts are held until the wait below is over, and both spans lie in
            // allocations that live as long as the two borrows.
            unsafe { driver::copy_peer(to, from, target.len, lane.stream()) }?;
            lane.wait()
        })
    }

    /// Starts a copy whose arguments were checked. If it cannot start, the wait returns the error.
    fn queue(
        &self,
        span: Result<Span, GpuError>,
        mut staging: Staging,
        start: impl FnOnce(Span, &mut Staging, &Lane) -> Result<(), u32>,
    ) -> Pending {
        let ready = span.and_then(|span| Ok((span, self.bind()?)));
        let (span, bound) = match ready {
            Ok(ready) => ready,
            Err(error) => return Pending::over(staging, Err(error)),
        };
        if span.len == 0 {
            return Pending::over(staging, Ok(()));
        }
        let lane = match bound.lane() {
            Ok(lane) => lane,
            Err(error) => {
                drop(bound);
                return Pending::over(staging, Err(error));
            }
        };
        let started = start(span, &mut staging, &lane).and_then(|()| lane.mark(0));
        if let Err(code) = started {
            // The copy may be queued although its event was refused: nothing may be left running.
            let settled = bound.settle(&lane, code);
            bound.put_lane(lane);
            let error = settled.err().map_or(GpuError::driver(self.gpu(), code), |c| bound.fail(c));
            let staging = if_safe(&bound, error, staging);
            drop(bound);
            return Pending::over(staging, Err(error));
        }
        let number = self.allocation.took_off(&lane);
        drop(bound);
        let allocation = Arc::clone(&self.allocation);
        Pending::queued(Box::new(QueuedCopy { allocation, lane, number, staging }))
    }
}

impl Drop for CudaMemory {
    fn drop(&mut self) {
        if !self.freed
            && let Err(error) = self.allocation.release()
        {
            tracing::warn!(%error, bytes = self.allocation.len.get(), "memory was not freed");
        }
    }
}

impl fmt::Debug for CudaMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaMemory")
            .field("gpu", &self.gpu())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
