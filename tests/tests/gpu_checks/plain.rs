//! The reference: page-locked memory of the driver and its blocking copies, without code of this
//! workspace.

use core::time::Duration;

use cust::context::{Context, CurrentContext};
use cust::device::Device;
use cust::memory::{CopyDestination, DeviceBuffer, LockedBuffer};
use vram_alloc::ByteLen;

use crate::measure::timed;

/// A page-locked buffer and two device buffers of one length, in the device's primary context,
/// which stays current on this thread while this value exists.
pub(crate) struct Plain {
    pub(crate) locked: LockedBuffer<u8>,
    pub(crate) memory: DeviceBuffer<u8>,
    other: DeviceBuffer<u8>,
    // The last field: the buffers are dropped before their context.
    _context: Context,
}

impl Plain {
    pub(crate) fn new(ordinal: u32, len: ByteLen) -> Self {
        let context = context(ordinal);
        let len = len.to_usize().unwrap();
        let locked = LockedBuffer::new(&7, len).unwrap();
        // SAFETY: every byte is set before it is read.
        let mut memory = unsafe { DeviceBuffer::uninitialized(len) }.unwrap();
        // SAFETY: every byte is set before it is read.
        let mut other = unsafe { DeviceBuffer::uninitialized(len) }.unwrap();
        memory.copy_from(locked.as_slice()).unwrap();
        other.copy_from(locked.as_slice()).unwrap();
        Self { locked, memory, other, _context: context }
    }

    /// Host to device.
    pub(crate) fn copy_in(&mut self) -> Duration {
        timed(|| self.memory.copy_from(self.locked.as_slice()).unwrap())
    }

    /// Device to host.
    pub(crate) fn copy_out(&mut self) -> Duration {
        timed(|| self.memory.copy_to(self.locked.as_mut_slice()).unwrap())
    }

    /// From one buffer of the device to another.
    pub(crate) fn within(&mut self) -> Duration {
        timed(|| {
            self.other.copy_from(&*self.memory).unwrap();
            // The driver does not wait for such a copy.
            CurrentContext::synchronize().unwrap();
        })
    }

    /// Setting every byte.
    pub(crate) fn fill(&mut self) -> Duration {
        timed(|| {
            self.other.set_8(7).unwrap();
            CurrentContext::synchronize().unwrap();
        })
    }
}

/// The device's primary context, made current on this thread.
pub(crate) fn context(ordinal: u32) -> Context {
    let context = Context::new(Device::get_device(ordinal).unwrap()).unwrap();
    CurrentContext::set_current(&context).unwrap();
    context
}
