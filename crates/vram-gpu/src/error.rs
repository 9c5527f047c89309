//! The error type of this crate: what the device refused, where, and for how many bytes.

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
    /// The device has no room. Other processes may hold its memory, so this can happen although the
    /// caller's ledger has room.
    #[error("{gpu} is out of memory: {wanted} wanted{}", FreeFigure(*.free))]
    OutOfMemory {
        /// The device that refused.
        gpu: GpuIndex,
        /// Bytes requested.
        wanted: ByteLen,
        /// Free bytes according to the driver just after the refusal, if it still answered.
        free: Option<ByteLen>,
    },
    /// An allocation of zero bytes: drivers refuse it, so an empty shard allocates nothing.
    #[error("{gpu} cannot allocate zero bytes")]
    ZeroLength {
        /// The device that refused.
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
        /// Bytes requested.
        wanted: ByteLen,
    },
    /// A host device larger than this crate accounts for.
    #[error("a device of {total} is larger than the {max} this library accounts for")]
    TotalTooLarge {
        /// Bytes requested.
        total: ByteLen,
        /// The largest total, inclusive.
        max: ByteLen,
    },
    /// The two devices cannot copy to each other directly: go through host memory.
    #[error("{from} cannot copy directly to {to}")]
    PeerUnsupported {
        /// The device that holds the source bytes.
        from: GpuIndex,
        /// The device that should have received them.
        to: GpuIndex,
    },
    /// The device's memory would not be video memory, so no bytes are placed there.
    #[error("memory of {gpu} is not video memory: {reason}")]
    NotVram {
        /// The device.
        gpu: GpuIndex,
        /// The property that shows this.
        reason: &'static str,
    },
    /// The driver reported a failure.
    #[error(
        "driver error {code} ({name}) on {gpu}{}",
        if *.sticky { "; the device is unusable until it is reset" } else { "" }
    )]
    Driver {
        /// The device that the call was sent to.
        gpu: GpuIndex,
        /// The driver's own code, unchanged.
        code: u32,
        /// The driver's name for the code, or `unknown`.
        name: &'static str,
        /// Whether the error is sticky: every later call fails too until a reset.
        sticky: bool,
    },
    /// The device is lost after an earlier sticky error; the call was not sent to it.
    #[error("{gpu} was lost to driver error {code} ({name}) and was not asked; reset it first")]
    Lost {
        /// The lost device.
        gpu: GpuIndex,
        /// The code of that sticky error.
        code: u32,
        /// That code's name.
        name: &'static str,
    },
    /// A reset would destroy what other code of this process has on the device.
    #[error(
        "{gpu} is not reset: other code of this process may use it, and a reset would destroy its \
         context; restart the process, or say that nothing else uses it (Sharing::Alone)"
    )]
    NotAlone {
        /// The device.
        gpu: GpuIndex,
    },
    /// The memory cannot be shared with another process, or what another process shares cannot be
    /// opened.
    #[error("memory of {gpu} is not shared between processes: {reason}")]
    NotShareable {
        /// The device.
        gpu: GpuIndex,
        /// Why not, and what would help.
        reason: &'static str,
    },
    /// The allocation was made before the device was reset: its bytes are gone.
    #[error("the allocation on {gpu} is from before the device was reset")]
    StaleAllocation {
        /// The device that was reset.
        gpu: GpuIndex,
    },
}

impl GpuError {
    /// The error for a driver's raw result code. Callers report out of memory as
    /// [`GpuError::OutOfMemory`] instead, since they know how many bytes were requested.
    #[must_use]
    pub fn driver(gpu: GpuIndex, code: u32) -> Self {
        Self::Driver { gpu, code, name: codes::name(code), sticky: codes::is_sticky(code) }
    }

    /// The error of every later call on a device that this error made unusable.
    #[must_use]
    pub const fn as_lost(&self) -> Option<Self> {
        match *self {
            Self::Driver { gpu, code, name, sticky: true } | Self::Lost { gpu, code, name } => {
                Some(Self::Lost { gpu, code, name })
            }
            _ => None,
        }
    }

    /// Whether the device is unusable until it is reset: true for a sticky driver error, and for
    /// the refusal of a call after one.
    #[must_use]
    pub const fn is_sticky(&self) -> bool {
        matches!(self, Self::Driver { sticky: true, .. } | Self::Lost { .. })
    }

    /// Whether the device had no room; the same call can succeed after memory was freed.
    #[must_use]
    pub const fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::OutOfMemory { .. })
    }

    /// Whether the caller's arguments were wrong: the same call can never succeed.
    #[must_use]
    pub const fn is_caller_error(&self) -> bool {
        matches!(
            self,
            Self::ZeroLength { .. }
                | Self::OutOfBounds { .. }
                | Self::LengthMismatch { .. }
                | Self::Overlap { .. }
                | Self::TotalTooLarge { .. }
                | Self::NotAlone { .. }
                | Self::NotShareable { .. }
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
            | Self::NotAlone { gpu }
            | Self::NotShareable { gpu, .. }
            | Self::StaleAllocation { gpu } => Some(gpu),
            Self::PeerUnsupported { to, .. } => Some(to),
            Self::HostMemory { .. } | Self::TotalTooLarge { .. } => None,
        }
    }

    /// Adds the device to an error of the shared bounds check.
    #[must_use]
    pub fn from_bounds(gpu: GpuIndex, error: BoundsError, capacity: ByteLen) -> Self {
        match error {
            BoundsError::Overflow { offset, len } => {
                Self::OutOfBounds { gpu, offset: DeviceOffset::new(offset), len, capacity }
            }
            BoundsError::OutOfBounds { offset, len, capacity } => {
                Self::OutOfBounds { gpu, offset: DeviceOffset::new(offset), len, capacity }
            }
            // Kinds of refusal that are added later also mean that the range does not fit.
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
