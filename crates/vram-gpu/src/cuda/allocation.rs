//! An allocation as the driver knows it, shared by its owner and the copies under way on it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cust::memory::{DeviceBuffer, DevicePointer};
use vram_alloc::{ByteLen, DeviceRange};

use super::context::{Bound, Port};
use super::driver;
use super::lane::Lane;
use crate::memory::Extent;
use crate::{GpuError, codes};

/// What an allocation and its queued copies share.
pub(super) struct Allocation {
    pub(super) port: Port,
    pub(super) address: u64,
    pub(super) len: ByteLen,
    pub(super) epoch: u64,
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
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) len: usize,
}

impl Allocation {
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
        let allocation = Self { port: port.clone(), address, len, epoch, flying };

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
        Ok(allocation)
    }

    pub(super) fn extent(&self) -> Extent {
        Extent { gpu: self.port.gpu, len: self.len }
    }

    pub(super) fn bind(&self) -> Result<Bound<'_>, GpuError> {
        self.port.bind(Some(self.epoch))
    }

    /// A checked range as addresses. An allocation that exists fits both, so a range in it does.
    pub(super) fn span(&self, range: DeviceRange) -> Result<Span, GpuError> {
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

    /// Notes a copy that was queued; it is to be waited for before the memory goes away.
    pub(super) fn took_off(&self, lane: &Arc<Lane>) -> u64 {
        let mut flying = self.flying();
        flying.started = flying.started.wrapping_add(1);
        let number = flying.started;
        flying.lanes.insert(number, Arc::clone(lane));
        number
    }

    /// Forgets a copy that is over.
    pub(super) fn landed(&self, number: u64) {
        self.flying().lanes.remove(&number);
    }

    fn flying(&self) -> MutexGuard<'_, Flying> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees the memory once no queued copy uses it any more.
    pub(super) fn release(&self) -> Result<(), GpuError> {
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
