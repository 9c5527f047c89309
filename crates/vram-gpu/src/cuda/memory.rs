//! One allocation on a CUDA device.

use core::any::Any;
use core::fmt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cust::memory::{DeviceBuffer, DevicePointer};
use vram_alloc::{ByteLen, DeviceOffset, DeviceRange, GpuIndex};

use super::context::{Bound, Port};
use super::driver::{self, PeerEnd};
use super::lane::{BOUNCE_LEN, Bounce, Lane};
use crate::memory::{Extent, overlaps};
use crate::{
    Completion, DeviceAddress, DeviceMemory, FreeError, GpuError, Pending, Staging, codes,
};

/// Device memory of the driver's.
pub(super) struct CudaMemory {
    allocation: Arc<Allocation>,
    freed: bool,
}

/// What an allocation and its queued copies share.
struct Allocation {
    port: Port,
    address: u64,
    len: ByteLen,
    epoch: u64,
    flying: Mutex<Flying>,
}

/// The queued copies that nobody has waited for, by number.
#[derive(Default)]
struct Flying {
    lanes: BTreeMap<u64, Arc<Lane>>,
    started: u64,
}

/// A range that was checked, as addresses: it lies in the live allocation that it came from.
#[derive(Clone, Copy)]
struct Span {
    start: u64,
    len: usize,
}

impl CudaMemory {
    /// Allocates in a bound context and makes sure that what came is video memory.
    pub(super) fn new(port: &Port, len: ByteLen) -> Result<Self, GpuError> {
        let gpu = port.gpu;
        let bound = port.bind(None)?;
        let full = |bound: &Bound<'_>| {
            // In the same context: a second bind could wait for a reset that waits for this one.
            let free = driver::through_cust(cust::memory::mem_get_info).ok();
            let free = free.map(|(free, _)| ByteLen::from_usize(free));
            GpuError::OutOfMemory { gpu: bound.port().gpu, wanted: len, free }
        };
        let Some(count) = len.to_usize() else { return Err(full(&bound)) };
        let buffer = driver::through_cust(|| {
            // SAFETY: the bytes are never taken for initialised: they are only looked at as bytes,
            // for which any pattern is valid.
            unsafe { DeviceBuffer::<u8>::uninitialized(count) }
        });
        let buffer = buffer.map_err(|code| match code {
            codes::OUT_OF_MEMORY => full(&bound),
            code => bound.fail(code),
        })?;
        let address = buffer.as_device_ptr().as_raw();
        // From here on the address is what is kept: cust's own drop could come on any thread,
        // without a context, and would leak in silence.
        core::mem::forget(buffer);
        let epoch = port.core.epoch();
        let flying = Mutex::new(Flying::default());
        let allocation = Arc::new(Allocation { port: port.clone(), address, len, epoch, flying });

        let checked = match driver::residence(address) {
            Ok(found) if found.on_device && !found.managed && !found.host_mapped => Ok(()),
            Ok(found) => {
                let reason = if found.managed {
                    "the driver gave managed memory, which moves to the host"
                } else {
                    "the driver gave host memory"
                };
                Err(GpuError::NotVram { gpu, reason })
            }
            Err(code) => Err(bound.fail(code)),
        };
        if let Err(error) = checked {
            if !error.is_sticky() {
                // It is tried; what cannot be given back is the driver's to count.
                let _already_failing = allocation.give_back(&bound);
            }
            return Err(error);
        }
        Ok(Self { allocation, freed: false })
    }

    fn extent(&self) -> Extent {
        self.allocation.extent()
    }

    fn bind(&self) -> Result<Bound<'_>, GpuError> {
        self.allocation.bind()
    }
}

impl Allocation {
    fn extent(&self) -> Extent {
        Extent { gpu: self.port.gpu, len: self.len }
    }

    fn bind(&self) -> Result<Bound<'_>, GpuError> {
        self.port.bind(Some(self.epoch))
    }

    /// A checked range as addresses. An allocation that exists fits both, so a range in it does.
    fn span(&self, range: DeviceRange) -> Result<Span, GpuError> {
        let outside = GpuError::OutOfBounds {
            gpu: self.port.gpu,
            offset: range.start(),
            len: range.len(),
            capacity: self.len,
        };
        let start = self.address.checked_add(range.start().get()).ok_or(outside)?;
        let len = range.len().to_usize().ok_or(outside)?;
        Ok(Span { start, len })
    }

    fn flying(&self) -> MutexGuard<'_, Flying> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees the memory once no queued copy uses it any more.
    fn release(&self) -> Result<(), GpuError> {
        match self.bind() {
            Ok(bound) => {
                let lanes: Vec<_> = self.flying().lanes.values().cloned().collect();
                for lane in lanes {
                    // How the copy went is for whoever waits for it; here it only has to be over.
                    if let Err(code) = lane.wait_for(0) {
                        if codes::is_sticky(code) {
                            return Err(bound.fail(code));
                        }
                        lane.wait().map_err(|code| bound.fail(code))?;
                    }
                }
                self.give_back(&bound)
            }
            // The reset has given it back.
            Err(GpuError::StaleAllocation { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn give_back(&self, bound: &Bound<'_>) -> Result<(), GpuError> {
        let count = self.len.to_usize().unwrap_or(usize::MAX);
        let pointer = DevicePointer::<u8>::from_raw(self.address);
        // SAFETY: the parts of the buffer that was taken apart when this was made, and that
        // exists once: this is called once, or again after a failure that freed nothing.
        let buffer = unsafe { DeviceBuffer::from_raw_parts(pointer, count) };
        let freed = driver::through_cust(|| {
            DeviceBuffer::drop(buffer).map_err(|(error, buffer)| {
                core::mem::forget(buffer);
                error
            })
        });
        freed.map_err(|code| bound.fail(code))
    }
}

/// Copies through the pair of buffers: one is filled while the device fetches the other.
fn write_through(lane: &Lane, bounce: &mut Bounce, to: Span, source: &[u8]) -> Result<(), u32> {
    let mut target = to.start;
    for (turn, chunk) in source.chunks(BOUNCE_LEN).enumerate() {
        if turn > 1 {
            lane.wait_for(turn)?;
        }
        let part = bounce.part(turn, chunk.len());
        part.copy_from_slice(chunk);
        // SAFETY: the chunks lie one behind the other in `to`, which is as long as `source`. The
        // buffer is not touched again before its event was waited for: two turns on, or at the end.
        unsafe { driver::copy_in(target, part.as_ptr(), chunk.len(), lane.stream()) }?;
        lane.mark(turn)?;
        target = target.saturating_add(ByteLen::from_usize(chunk.len()).get());
    }
    lane.wait()
}

/// Copies through the pair of buffers the other way: one is emptied while the other is filled.
fn read_through(
    lane: &Lane,
    bounce: &mut Bounce,
    from: Span,
    target: &mut [u8],
) -> Result<(), u32> {
    let mut source = from.start;
    let mut arriving: Option<(usize, &mut [u8])> = None;
    for (turn, chunk) in target.chunks_mut(BOUNCE_LEN).enumerate() {
        let part = bounce.part(turn, chunk.len());
        // SAFETY: the chunks lie one behind the other in `from`, which is as long as `target`. The
        // buffer's last content was taken out two turns ago, and it is read only after its event.
        unsafe { driver::copy_out(part.as_mut_ptr(), source, chunk.len(), lane.stream()) }?;
        lane.mark(turn)?;
        source = source.saturating_add(ByteLen::from_usize(chunk.len()).get());
        if let Some((turn, chunk)) = arriving.replace((turn, chunk)) {
            lane.wait_for(turn)?;
            chunk.copy_from_slice(bounce.part(turn, chunk.len()));
        }
    }
    if let Some((turn, chunk)) = arriving {
        lane.wait_for(turn)?;
        chunk.copy_from_slice(bounce.part(turn, chunk.len()));
    }
    Ok(())
}

impl Bound<'_> {
    /// Runs a copy on a lane with a pair of buffers, which are wiped afterwards.
    fn through_bounce(
        &self,
        copy: impl FnOnce(&Lane, &mut Bounce) -> Result<(), u32>,
    ) -> Result<(), GpuError> {
        let mut bounce = self.bounce()?;
        let outcome = self.on_lane(|lane| copy(lane, &mut bounce));
        if self.port().core.lost().is_some() {
            // The device may not be done with them: nobody gets them before its context is gone.
            for pages in bounce.into_pages() {
                self.port().core.bury(pages);
            }
        } else {
            bounce.wipe();
            self.put_bounce(bounce);
        }
        outcome
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
            // SAFETY: the span lies in this allocation, which lives as long as `self`.
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
            // Both are of the bound context, so the second has to be of its epoch as well.
            if origin.allocation.epoch != self.allocation.epoch {
                return Err(GpuError::StaleAllocation { gpu });
            }
            if target.len == 0 {
                return Ok(());
            }
            bound.on_lane(|lane| {
                let (to, from, len) = (target.start, source.start, target.len);
                // SAFETY: both spans lie in live allocations of this context, and were checked
                // not to overlap if that is the same one.
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
            // waited for. The buffer is at least as long, and is kept in the pending copy, out of
            // reach, until then.
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
    /// Copies from another device, directly or not at all: the driver would otherwise pass the
    /// bytes through host memory of its own, which nobody wipes.
    fn copy_from_peer(&self, target: Span, origin: &Self, source: Span) -> Result<(), GpuError> {
        let (here, there) = (&self.allocation, &origin.allocation);
        let unreachable = GpuError::PeerUnsupported { from: there.port.gpu, to: here.port.gpu };
        // Both contexts are held, in the order of their devices whichever way the copy goes.
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

    /// Starts a copy with an end that was checked, or says at the wait why not.
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
            // It may have been queued and only its mark refused: nothing may be left under way.
            let settled = bound.settle(&lane, code);
            bound.put_lane(lane);
            let error = settled.err().map_or(GpuError::driver(self.gpu(), code), |c| bound.fail(c));
            let staging = if_safe(&bound, error, staging);
            drop(bound);
            return Pending::over(staging, Err(error));
        }
        let number = {
            let mut flying = self.allocation.flying();
            flying.started = flying.started.wrapping_add(1);
            let number = flying.started;
            flying.lanes.insert(number, Arc::clone(&lane));
            number
        };
        drop(bound);
        let allocation = Arc::clone(&self.allocation);
        Pending::queued(Box::new(QueuedCopy { allocation, lane, number, staging }))
    }
}

/// The buffer, if the device is done with it for certain. Otherwise its memory is kept until the
/// context is gone, and an empty one takes its place.
fn if_safe(bound: &Bound<'_>, error: GpuError, staging: Staging) -> Staging {
    // A sticky error has ended all work of the context. Any other that took the device did so
    // because its work could not be waited for.
    if error.is_sticky() || bound.port().core.lost().is_none() {
        staging
    } else {
        staging.abandon();
        Staging::empty()
    }
}

/// A copy on its way.
struct QueuedCopy {
    allocation: Arc<Allocation>,
    lane: Arc<Lane>,
    number: u64,
    staging: Staging,
}

impl Completion for QueuedCopy {
    fn finish(self: Box<Self>) -> (Staging, Result<(), GpuError>) {
        let Self { allocation, lane, number, mut staging } = *self;
        let outcome = match allocation.bind() {
            Ok(bound) => {
                let waited = lane.wait_for(0).or_else(|code| bound.settle(&lane, code));
                bound.put_lane(Arc::clone(&lane));
                waited.map_err(|code| {
                    let error = bound.fail(code);
                    let kept = core::mem::replace(&mut staging, Staging::empty());
                    staging = if_safe(&bound, error, kept);
                    error
                })
            }
            // A reset or a sticky error has ended all work of the context, this copy too.
            Err(error) => Err(error),
        };
        allocation.flying().lanes.remove(&number);
        (staging, outcome)
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

impl fmt::Debug for QueuedCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuedCopy")
            .field("gpu", &self.allocation.port.gpu)
            .field("staging", &self.staging)
            .finish_non_exhaustive()
    }
}
