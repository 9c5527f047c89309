//! An allocation as the driver knows it, shared by its owner and its running copies.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cust::memory::{DeviceBuffer, DevicePointer};
use vram_alloc::{ByteLen, DeviceRange};

use super::context::{Bound, Port};
use super::driver;
use super::lane::Lane;
use crate::memory::Extent;
use crate::{GpuError, SHARE_UNIT, ShareHandle, codes};

/// `CUDA_ERROR_INVALID_DEVICE`, and so on.
const INVALID_DEVICE: u32 = 101;
const INVALID_CONTEXT: u32 = 201;
const INVALID_HANDLE: u32 = 400;
const NOT_SUPPORTED: u32 = 801;

const UNSUPPORTED: &str = "the driver does not support that for this device";

/// The data that an allocation and its queued copies share.
pub(super) struct Allocation {
    pub(super) port: Port,
    pub(super) address: u64,
    pub(super) len: ByteLen,
    pub(super) epoch: u64,
    origin: Origin,
    flying: Mutex<Flying>,
}

/// Where an allocation comes from, and therefore how it ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The driver allocated it for this process.
    Own,
    /// It is a part of one that somebody else frees.
    Part,
    /// Another process has it, and this one opened it.
    Opened,
}

/// The queued copies that no call has waited for, by number.
#[derive(Default)]
struct Flying {
    lanes: BTreeMap<u64, Arc<Lane>>,
    started: u64,
}

/// A checked range, as addresses: it lies in the live allocation that it was made from.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) len: usize,
}

impl Allocation {
    /// Allocates in a bound context and checks that the memory is video memory.
    pub(super) fn new(port: &Port, len: ByteLen) -> Result<Self, GpuError> {
        let gpu = port.gpu;
        let bound = port.bind(None)?;
        let full = |bound: &Bound<'_>| {
            // Uses the same bound context: a second bind could wait for a reset that waits for this
            // call.
            let free = driver::through_cust(cust::memory::mem_get_info).ok();
            let free = free.map(|(free, _)| ByteLen::from_usize(free));
            bound.port().core.answered();
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
        // From here on only the address is kept. The drop of `DeviceBuffer` could run on any thread
        // without a current context, and would then leak without an error.
        core::mem::forget(buffer);
        let epoch = port.core.epoch();
        let flying = Mutex::new(Flying::default());
        let origin = Origin::Own;
        let allocation = Self { port: port.clone(), address, len, epoch, origin, flying };

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
                // An attempt only: memory that cannot be freed stays counted by the driver.
                let _already_failing = allocation.give_back(&bound);
            }
            return Err(error);
        }
        port.core.answered();
        Ok(allocation)
    }

    /// A part of an allocation, which is never freed by itself.
    pub(super) fn part(port: &Port, address: u64, len: ByteLen, epoch: u64) -> Self {
        let flying = Mutex::new(Flying::default());
        Self { port: port.clone(), address, len, epoch, origin: Origin::Part, flying }
    }

    /// Opens an allocation of another process, whole.
    pub(super) fn open(port: &Port, handle: &ShareHandle) -> Result<Self, GpuError> {
        let bound = port.bind(None)?;
        let refused = |reason| GpuError::NotShareable { gpu: port.gpu, reason };
        let address = driver::import(handle.to_bytes()).map_err(|code| match code {
            codes::INVALID_VALUE | INVALID_HANDLE => refused(
                "the handle names no memory; it was freed, or its process has ended: ask for a \
                 new one",
            ),
            INVALID_CONTEXT => refused(
                "the process that made a handle cannot open it; use the memory by its lease",
            ),
            INVALID_DEVICE => refused("the handle is of another device; compare their UUIDs"),
            NOT_SUPPORTED => refused(UNSUPPORTED),
            code => bound.fail(code),
        })?;
        // The driver knows how much was opened; what the other process says is not asked.
        let (base, len) = match driver::extent_of(address) {
            Ok(extent) => extent,
            Err(code) => {
                // SAFETY: opened a moment ago; nothing uses it.
                driver::log_failure("closing memory", unsafe { driver::close(address) });
                return Err(bound.fail(code));
            }
        };
        let epoch = port.core.epoch();
        let (len, flying) = (ByteLen::from_usize(len), Mutex::new(Flying::default()));
        let opened =
            Self { port: port.clone(), address, len, epoch, origin: Origin::Opened, flying };
        if base != address {
            let _already_failing = opened.give_back(&bound);
            return Err(refused("the driver opened more than one allocation"));
        }
        port.core.answered();
        Ok(opened)
    }

    /// The name by which another process opens all of it.
    pub(super) fn share(&self) -> Result<ShareHandle, GpuError> {
        let gpu = self.port.gpu;
        let refused = |reason| GpuError::NotShareable { gpu, reason };
        match self.origin {
            Origin::Own if self.len.get().is_multiple_of(SHARE_UNIT.get()) => {}
            Origin::Own => {
                return Err(refused(
                    "its length is no multiple of 2 MiB, so its neighbours would be shared too",
                ));
            }
            Origin::Part => return Err(refused("it is a part of an allocation")),
            Origin::Opened => return Err(refused("it belongs to another process")),
        }
        let bound = self.bind()?;
        // SAFETY: the allocation is of the bound context's epoch, and lives as long as `self`.
        let handle = unsafe { driver::export(self.address) }.map_err(|code| match code {
            NOT_SUPPORTED => refused(UNSUPPORTED),
            code => bound.fail(code),
        })?;
        self.port.core.answered();
        Ok(ShareHandle::from_bytes(handle))
    }

    pub(super) fn extent(&self) -> Extent {
        Extent { gpu: self.port.gpu, len: self.len }
    }

    pub(super) fn bind(&self) -> Result<Bound<'_>, GpuError> {
        self.port.bind(Some(self.epoch))
    }

    /// A checked range as addresses. The allocation fits both integer types, so a range in it does
    /// too.
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

    /// Records a copy that was queued. The memory is not freed before that copy was waited for.
    pub(super) fn took_off(&self, lane: &Arc<Lane>) -> u64 {
        let mut flying = self.flying();
        flying.started = flying.started.wrapping_add(1);
        let number = flying.started;
        flying.lanes.insert(number, Arc::clone(lane));
        number
    }

    /// Removes the record of a copy that has ended.
    pub(super) fn landed(&self, number: u64) {
        self.flying().lanes.remove(&number);
    }

    fn flying(&self) -> MutexGuard<'_, Flying> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no queued copy uses the memory, then frees it.
    pub(super) fn release(&self) -> Result<(), GpuError> {
        match self.bind() {
            Ok(bound) => {
                let lanes: Vec<_> = self.flying().lanes.values().cloned().collect();
                for lane in lanes {
                    // The call that waits for the copy gets its result; here it only has to have
                    // ended.
                    if let Err(code) = lane.wait_for(0) {
                        if codes::is_sticky(code) {
                            return Err(bound.fail(code));
                        }
                        lane.wait().map_err(|code| bound.fail(code))?;
                    }
                }
                self.give_back(&bound)
            }
            // The reset has already freed it.
            Err(GpuError::StaleAllocation { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn give_back(&self, bound: &Bound<'_>) -> Result<(), GpuError> {
        match self.origin {
            Origin::Own => {}
            Origin::Part => return Ok(()),
            Origin::Opened => {
                // SAFETY: `open` opened it in this context's epoch; every copy that used it was
                // waited for, and this runs once, or again after a failure that closed nothing.
                return unsafe { driver::close(self.address) }.map_err(|code| bound.fail(code));
            }
        }
        let count = self.len.to_usize().unwrap_or(usize::MAX);
        let pointer = DevicePointer::<u8>::from_raw(self.address);
        // SAFETY: these are the parts of the buffer that `new` took apart, and no other value has
        // them. This function runs once, or again after a failure that freed nothing.
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
