//! The one error type of this crate: what the device refused, where, and how much was asked.

use thiserror::Error;
use vram_alloc::{BoundsError, ByteLen, DeviceOffset, GpuIndex};

use crate::codes;

/// What a device, or the checks in front of it, refused.
///
/// Each variant names the GPU and the figures; none carries content or pointers, so the error can
/// be logged as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GpuError {
    /// The device has no room. Others may hold it: the caller's own books can say otherwise.
    #[error("{gpu} is out of memory: {wanted} wanted{}", FreeFigure(*.free))]
    OutOfMemory {
        /// The device asked.
        gpu: GpuIndex,
        /// Bytes asked for.
        wanted: ByteLen,
        /// Free bytes according to the driver just after the refusal, if it still answered.
        free: Option<ByteLen>,
    },
    /// An allocation of zero bytes: drivers refuse it, so an empty shard allocates nothing.
    #[error("{gpu} cannot allocate zero bytes")]
    ZeroLength {
        /// The device asked.
        gpu: GpuIndex,
    },
    /// The range does not lie inside the allocation it was used on.
    #[error("range of {len} at byte {} is outside the allocation of {capacity} on {gpu}", .offset.get())]
    OutOfBounds {
        /// The device that holds the allocation.
        gpu: GpuIndex,
        /// Start of the range, in bytes from the start of the allocation.
        offset: DeviceOffset,
        /// Bytes in the range.
        len: ByteLen,
        /// Bytes in the allocation.
        capacity: ByteLen,
    },
    /// The range and the buffer (or the other range) differ in length.
    #[error(
        "a device range of {range_len} cannot be copied to or from a buffer of {buffer_len} on {gpu}"
    )]
    LengthMismatch {
        /// The device that holds the range.
        gpu: GpuIndex,
        /// Bytes in the device range.
        range_len: ByteLen,
        /// Bytes in the buffer, or in the other range.
        buffer_len: ByteLen,
    },
    /// Source and target of a copy inside one allocation share bytes; drivers leave that undefined.
    #[error("copy of {len} from byte {} to byte {} overlaps itself on {gpu}", .from.get(), .to.get())]
    Overlap {
        /// The device that holds both ranges.
        gpu: GpuIndex,
        /// Start of the source range.
        from: DeviceOffset,
        /// Start of the target range.
        to: DeviceOffset,
        /// Bytes in each range.
        len: ByteLen,
    },
    /// The host could not provide memory for a buffer, or for the bytes behind a host device.
    #[error("the host has no memory for {wanted}")]
    HostMemory {
        /// Bytes asked for.
        wanted: ByteLen,
    },
    /// A host device larger than this crate accounts for.
    #[error("a device of {total} is larger than the {max} this library accounts for")]
    TotalTooLarge {
        /// Bytes asked for.
        total: ByteLen,
        /// The largest total, inclusive.
        max: ByteLen,
    },
    /// The two devices cannot copy to each other directly: go through host memory.
    #[error("{from} cannot copy directly to {to}")]
    PeerUnsupported {
        /// The device that holds the source bytes.
        from: GpuIndex,
        /// The device that was to receive them.
        to: GpuIndex,
    },
    /// The device's memory would not be video memory, so nothing is placed there.
    #[error("memory of {gpu} is not video memory: {reason}")]
    NotVram {
        /// The device.
        gpu: GpuIndex,
        /// What gave it away.
        reason: &'static str,
    },
    /// The driver reported a failure.
    #[error(
        "driver error {code} ({name}) on {gpu}{}",
        if *.sticky { "; the device is unusable until it is reset" } else { "" }
    )]
    Driver {
        /// The device the call went to.
        gpu: GpuIndex,
        /// The driver's own code, unchanged.
        code: u32,
        /// The driver's name for the code, or `unknown`.
        name: &'static str,
        /// Whether the error poisons the device: every later call fails too until a reset.
        sticky: bool,
    },
    /// An earlier sticky error took the device away; nothing was sent to it.
    #[error("{gpu} was lost to driver error {code} ({name}) and was not asked; reset it first")]
    Lost {
        /// The lost device.
        gpu: GpuIndex,
        /// The code of the error that took it.
        code: u32,
        /// That code's name.
        name: &'static str,
    },
    /// The allocation was made before the device was reset: its bytes are gone.
    #[error("the allocation on {gpu} is from before the device was reset")]
    StaleAllocation {
        /// The device that was reset.
        gpu: GpuIndex,
    },
}

impl GpuError {
    /// The error that a driver's result code stands for, by its raw number; out of memory is
    /// reported as [`GpuError::OutOfMemory`] by whoever knows how much was asked for.
    #[must_use]
    pub fn driver(gpu: GpuIndex, code: u32) -> Self {
        Self::Driver { gpu, code, name: codes::name(code), sticky: codes::is_sticky(code) }
    }

    /// What every later call answers once this error took the device.
    #[must_use]
    pub const fn as_lost(&self) -> Option<Self> {
        match *self {
            Self::Driver { gpu, code, name, sticky: true } | Self::Lost { gpu, code, name } => {
                Some(Self::Lost { gpu, code, name })
            }
            _ => None,
        }
    }

    /// Whether the device is unusable until it is reset: a sticky driver error, or the refusal
    /// that follows one.
    #[must_use]
    pub const fn is_sticky(&self) -> bool {
        matches!(self, Self::Driver { sticky: true, .. } | Self::Lost { .. })
    }

    /// Whether the device had no room; the same call can succeed once something was freed.
    #[must_use]
    pub const fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::OutOfMemory { .. })
    }

    /// Whether the caller's arguments were at fault: the same call can never succeed.
    #[must_use]
    pub const fn is_caller_error(&self) -> bool {
        matches!(
            self,
            Self::ZeroLength { .. }
                | Self::OutOfBounds { .. }
                | Self::LengthMismatch { .. }
                | Self::Overlap { .. }
                | Self::TotalTooLarge { .. }
        )
    }

    /// The device that refused, where one was involved.
    #[must_use]
    pub const fn gpu(&self) -> Option<GpuIndex> {
        match *self {
            Self::OutOfMemory { gpu, .. }
            | Self::ZeroLength { gpu }
            | Self::OutOfBounds { gpu, .. }
            | Self::LengthMismatch { gpu, .. }
            | Self::Overlap { gpu, .. }
            | Self::NotVram { gpu, .. }
            | Self::Driver { gpu, .. }
            | Self::Lost { gpu, .. }
            | Self::StaleAllocation { gpu } => Some(gpu),
            Self::PeerUnsupported { to, .. } => Some(to),
            Self::HostMemory { .. } | Self::TotalTooLarge { .. } => None,
        }
    }

    /// Places a refusal of the shared bounds check on a device.
    #[must_use]
    pub fn from_bounds(gpu: GpuIndex, error: BoundsError, capacity: ByteLen) -> Self {
        match error {
            BoundsError::Overflow { offset, len } => {
                Self::OutOfBounds { gpu, offset: DeviceOffset::new(offset), len, capacity }
            }
            BoundsError::OutOfBounds { offset, len, capacity } => {
                Self::OutOfBounds { gpu, offset: DeviceOffset::new(offset), len, capacity }
            }
            // A later kind of refusal still says that the range does not fit.
            _ => Self::OutOfBounds {
                gpu,
                offset: DeviceOffset::START,
                len: ByteLen::new(u64::MAX),
                capacity,
            },
        }
    }
}

/// Shows the free figure of an out-of-memory error where there is one.
struct FreeFigure(Option<ByteLen>);

impl core::fmt::Display for FreeFigure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(free) => write!(f, ", {free} free"),
            None => Ok(()),
        }
    }
}
