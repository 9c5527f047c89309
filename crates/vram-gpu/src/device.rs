//! The trait that every device implements: the only interface between policy and device memory.

use core::any::Any;
use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use vram_alloc::ByteLen;

use crate::kernels::{Kernels, NoKernels};
use crate::{DeviceInfo, DeviceMemory, DeviceState, GpuError, MemoryInfo, ShareHandle, Staging};

/// A device that holds memory.
///
/// Calls may come from any thread and at the same time, and each blocks until it is done. A failed
/// call changes only what its error says. After a sticky error every call returns
/// [`GpuError::Lost`] and makes no driver call, until [`reset`](Self::reset).
pub trait Device: Send + Sync + fmt::Debug {
    /// Identity and attributes, read when the device was opened.
    fn info(&self) -> &DeviceInfo;

    /// The driver's present figures for the whole device.
    ///
    /// # Errors
    ///
    /// [`GpuError::Lost`], or [`GpuError::Driver`] if the driver does not answer.
    fn memory(&self) -> Result<MemoryInfo, GpuError>;

    /// Allocates `len` bytes. Their contents are undefined: callers must not rely on zeros.
    ///
    /// # Arguments
    ///
    /// * `len`: bytes, at least 1.
    ///
    /// # Errors
    ///
    /// [`GpuError::ZeroLength`], [`GpuError::OutOfMemory`] with the driver's own free figure,
    /// [`GpuError::HostMemory`], [`GpuError::Lost`] or [`GpuError::Driver`].
    fn allocate(&self, len: ByteLen) -> Result<Box<dyn DeviceMemory>, GpuError>;

    /// Opens memory of this device that another process has [shared](DeviceMemory::share): all of the
    /// allocation, in place. No byte is copied, and the memory counts where it was allocated. Dropping
    /// or freeing the value closes it here and frees nothing there. The default refuses.
    ///
    /// Both processes see every write of the other, in no promised order.
    ///
    /// # Errors
    ///
    /// [`GpuError::NotShareable`] with the reason: the handle is of this process, of another device, or
    /// of memory that was freed; or the kind of device shares none. [`GpuError::Lost`] or
    /// [`GpuError::Driver`].
    fn open_shared(&self, _handle: &ShareHandle) -> Result<Box<dyn DeviceMemory>, GpuError> {
        let reason = "this kind of device opens no memory of another process";
        Err(GpuError::NotShareable { gpu: self.info().index, reason })
    }

    /// Allocates a host buffer that this device copies to and from quickly (pinned where
    /// supported). It starts as zeros and is wiped when dropped; `len` may be zero.
    ///
    /// # Errors
    ///
    /// [`GpuError::HostMemory`] if the host has no room, [`GpuError::Lost`] or [`GpuError::Driver`].
    fn staging(&self, len: ByteLen) -> Result<Staging, GpuError>;

    /// Whether the device takes calls. Makes no driver call.
    fn state(&self) -> DeviceState;

    /// Whether [`reset`](Self::reset) may be tried. Makes no driver call. The default says yes.
    ///
    /// # Errors
    ///
    /// [`GpuError::NotAlone`] if a reset would destroy what others have on the device.
    fn may_reset(&self) -> Result<(), GpuError> {
        Ok(())
    }

    /// Empties the device and makes it usable again after a sticky error. From then on every
    /// allocation made before returns [`GpuError::StaleAllocation`].
    ///
    /// # Errors
    ///
    /// Those of [`may_reset`](Self::may_reset); [`GpuError::Driver`] if the driver refuses, and the
    /// device is unchanged; or if it gives nothing new, and the device is lost.
    fn reset(&self) -> Result<(), GpuError>;

    /// Whether memory of this device can receive a direct copy from memory of `other`.
    fn can_copy_from_peer(&self, other: &dyn Device) -> bool;

    /// Kernels over the memory of this device. Makes no driver call and waits for nothing. The
    /// default offers none.
    ///
    /// # Errors
    ///
    /// [`NoKernels`]: why there are none at present. The caller computes on the host then.
    fn kernels(&self) -> Result<Arc<dyn Kernels>, NoKernels> {
        Err(NoKernels::NotOffered)
    }

    /// As [`kernels`](Self::kernels), after they were loaded, which may take a driver seconds when
    /// it sees them first; waits no longer than `most`. The default waits for nothing.
    ///
    /// # Errors
    ///
    /// [`NoKernels`]: why there are none then.
    fn wait_for_kernels(&self, _most: Duration) -> Result<Arc<dyn Kernels>, NoKernels> {
        self.kernels()
    }

    /// The most device memory that the kernels take for themselves, in bytes: zero without kernels.
    fn kernel_scratch(&self) -> ByteLen {
        ByteLen::ZERO
    }

    /// The device that does the work: `self`, or the wrapped device of a wrapper.
    fn backing(&self) -> &dyn Device;

    /// Lets a backend recognise its own type.
    fn as_any(&self) -> &dyn Any;
}
