//! The trait of one live allocation, and the checks that every backend runs first.

use core::any::Any;
use core::fmt;

use thiserror::Error;
use vram_alloc::{ByteLen, DeviceOffset, DeviceRange, GpuIndex};

use crate::{GpuError, Pending, ShareHandle, Staging};

/// One allocation on one device.
///
/// All calls take `&self` and may come from many threads. Calls on disjoint ranges do not disturb
/// each other. Concurrent calls on overlapping ranges give some interleaving of bytes and no other
/// harm; the caller orders them. When a copy fails, the bytes of its target range are unspecified.
/// Dropping the memory frees it and only logs a refusal; callers that need the result call
/// [`free`](Self::free).
pub trait DeviceMemory: Send + Sync + fmt::Debug {
    /// The device that holds the bytes.
    fn gpu(&self) -> GpuIndex;

    /// Bytes in the allocation, exactly as requested.
    fn len(&self) -> ByteLen;

    /// Whether it has no bytes; always false for an allocation.
    fn is_empty(&self) -> bool {
        self.len().is_zero()
    }

    /// The device address, for kernels. It does not keep the allocation alive.
    fn address(&self) -> DeviceAddress;

    /// Copies `source` to the device; returns when the bytes are there.
    ///
    /// # Errors
    ///
    /// [`GpuError::OutOfBounds`], [`GpuError::LengthMismatch`] if range and slice differ in length,
    /// [`GpuError::HostMemory`], [`GpuError::StaleAllocation`], [`GpuError::Lost`] or
    /// [`GpuError::Driver`].
    fn write(&self, to: DeviceRange, source: &[u8]) -> Result<(), GpuError>;

    /// Copies device bytes to `target`; after an error the content of `target` is unspecified.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    fn read(&self, from: DeviceRange, target: &mut [u8]) -> Result<(), GpuError>;

    /// Sets every byte of `range` to `value`; returns when that is done.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    fn fill(&self, range: DeviceRange, value: u8) -> Result<(), GpuError>;

    /// Copies from another allocation on the same device or a reachable one; returns when done.
    ///
    /// # Arguments
    ///
    /// * `to`: where the bytes go, in this allocation.
    /// * `source`, `from`: where they come from; `from` is as long as `to`.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write), [`GpuError::PeerUnsupported`] if the devices cannot reach each
    /// other (stage through the host then), [`GpuError::Overlap`] if both ranges share bytes.
    fn copy_from(
        &self,
        to: DeviceRange,
        source: &dyn DeviceMemory,
        from: DeviceRange,
    ) -> Result<(), GpuError>;

    /// Starts copying the first `len` bytes of `staging` to the device. The pending copy owns the
    /// buffer until it was waited for. [`Pending::wait`] returns errors, including those of bad
    /// arguments.
    ///
    /// A queued copy takes effect at any time up to its wait. To order two copies that share device
    /// bytes, wait for one before the other is started.
    fn queue_write(&self, to: DeviceOffset, staging: Staging, len: ByteLen) -> Pending;

    /// Starts copying `from` to the start of `staging`; otherwise as
    /// [`queue_write`](Self::queue_write).
    fn queue_read(&self, from: DeviceRange, staging: Staging) -> Pending;

    /// Gives the name by which another process of this machine opens the memory, with
    /// [`Device::open_shared`](crate::Device::open_shared): all of it, to read and to write. Calling
    /// this again gives the same name. The default refuses.
    ///
    /// The memory must not be freed before every such process has closed it or has ended: what happens
    /// then is undefined, and no driver tells. The owner has to know who has it open.
    ///
    /// # Errors
    ///
    /// [`GpuError::NotShareable`] with the reason: the kind of device, a length that is no multiple of
    /// [`SHARE_UNIT`](crate::SHARE_UNIT), memory that is not an allocation of its own.
    /// [`GpuError::StaleAllocation`], [`GpuError::Lost`] or [`GpuError::Driver`].
    fn share(&self) -> Result<ShareHandle, GpuError> {
        let reason = "this kind of device has no memory that another process could open";
        Err(GpuError::NotShareable { gpu: self.gpu(), reason })
    }

    /// Frees the memory and reports whether the driver agreed. Freeing an allocation from before a
    /// reset succeeds: the reset has already freed it.
    ///
    /// # Errors
    ///
    /// [`FreeError`] contains the memory, which is still allocated and still counts.
    fn free(self: Box<Self>) -> Result<(), FreeError>;

    /// The memory that holds the bytes: `self`, or the wrapped memory of a wrapper.
    fn backing(&self) -> &dyn DeviceMemory;

    /// Lets a backend recognise its own type.
    fn as_any(&self) -> &dyn Any;
}

/// An explicit free that the driver refused. It contains the memory, which still counts.
///
/// Dropping that memory tries to free it once more and only logs a failure. A caller that cannot
/// free it now keeps it, so that its bytes stay counted and its addresses are never reused.
#[derive(Debug, Error)]
#[error("the device refused to free {}: {error}", .memory.len())]
pub struct FreeError {
    /// The memory, unchanged.
    pub memory: Box<dyn DeviceMemory>,
    /// Why the driver refused.
    #[source]
    pub error: GpuError,
}

/// The start address of an allocation on its device. Opaque, and hidden from logs.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceAddress(u64);

impl DeviceAddress {
    /// Wraps a device pointer.
    #[must_use]
    pub const fn new(address: u64) -> Self {
        Self(address)
    }

    /// The device pointer.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for DeviceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceAddress(..)")
    }
}

/// The properties of an allocation that a backend needs to check a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) gpu: GpuIndex,
    pub(crate) len: ByteLen,
}

impl Extent {
    /// Returns the range if it lies inside this allocation; it may have been checked against
    /// another.
    pub(crate) fn within(self, range: DeviceRange) -> Result<DeviceRange, GpuError> {
        DeviceRange::checked(range.start(), range.len(), self.len)
            .map_err(|error| GpuError::from_bounds(self.gpu, error, self.len))
    }

    /// Returns the range of `len` bytes at `offset`, if it lies inside.
    pub(crate) fn at(self, offset: DeviceOffset, len: ByteLen) -> Result<DeviceRange, GpuError> {
        DeviceRange::checked(offset, len, self.len)
            .map_err(|error| GpuError::from_bounds(self.gpu, error, self.len))
    }

    /// Returns the range if it lies inside and is exactly as long as a host buffer.
    pub(crate) fn matching(
        self,
        range: DeviceRange,
        buffer_len: usize,
    ) -> Result<DeviceRange, GpuError> {
        let range = self.within(range)?;
        let buffer_len = ByteLen::from_usize(buffer_len);
        if range.len() == buffer_len {
            Ok(range)
        } else {
            Err(GpuError::LengthMismatch { gpu: self.gpu, range_len: range.len(), buffer_len })
        }
    }

    /// Returns the range if it lies inside and a staging buffer is at least as long.
    pub(crate) fn staged(
        self,
        range: DeviceRange,
        staging: &Staging,
    ) -> Result<DeviceRange, GpuError> {
        let range = self.within(range)?;
        if range.len() <= staging.len() {
            Ok(range)
        } else {
            let buffer_len = staging.len();
            Err(GpuError::LengthMismatch { gpu: self.gpu, range_len: range.len(), buffer_len })
        }
    }
}

/// Whether two ranges of one allocation share a byte.
pub(crate) fn overlaps(a: DeviceRange, b: DeviceRange) -> bool {
    a.start() < b.end() && b.start() < a.end() && !a.is_empty() && !b.is_empty()
}
