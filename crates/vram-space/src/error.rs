//! Why device memory cannot be allocated or used.

use vram_alloc::ByteLen;
use vram_gpu::GpuError;

/// Why a GPU refuses memory or a call.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpaceError {
    /// The budget or the arena has no room.
    #[error("gpu {} has no room for {}", .0.gpu, .0.needed)]
    NoRoom(Box<NoRoom>),
    /// The device or its driver failed with an error that is not sticky. The device stays usable.
    #[error("{source}")]
    Device {
        /// The GPU, as its owner counts them.
        gpu: u32,
        /// The device's error.
        #[source]
        source: Box<GpuError>,
    },
    /// A sticky driver error made the GPU unusable. No more calls are sent to it.
    #[error("gpu {gpu} is lost: {source}")]
    DeviceLost {
        /// The GPU, as its owner counts them.
        gpu: u32,
        /// The sticky error.
        #[source]
        source: Box<GpuError>,
    },
    /// The device works, and a reset of it waits or has begun: the same call can succeed later.
    #[error("gpu {gpu} is about to be reset by its owner")]
    InUse {
        /// The GPU, as its owner counts them.
        gpu: u32,
    },
    /// Other calls hold the staging memory of the manager.
    #[error("{needed} of staging wanted, {taken} of {limit} are taken by other calls")]
    Staging {
        /// Bytes that the call cannot do without.
        needed: ByteLen,
        /// Bytes that other calls hold.
        taken: ByteLen,
        /// The bound of the manager.
        limit: ByteLen,
    },
    /// The host has no memory for a buffer.
    #[error("the host has no memory for {wanted}")]
    HostMemory {
        /// Bytes that were asked for.
        wanted: ByteLen,
    },
    /// The GPU was closed and refuses every call.
    #[error("the gpu is closed")]
    Closed,
    /// The request cannot be met by any GPU of this kind.
    #[error("{what}")]
    Invalid {
        /// What is wrong, and what would be accepted.
        what: String,
    },
}

/// The figures behind a refusal for lack of room, all read at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NoRoom {
    /// The GPU, as its owner counts them.
    pub gpu: u32,
    /// Bytes that were requested, in whole granules.
    pub needed: ByteLen,
    /// Bytes that could be granted.
    pub room: ByteLen,
    /// The longest piece that could be placed.
    pub largest_hole: ByteLen,
    /// Bytes of the budget that other processes hold, according to the driver.
    pub foreign: ByteLen,
    /// Bytes that the configuration keeps free.
    pub headroom: ByteLen,
    /// The most bytes that could be granted if nobody else held any.
    pub most: ByteLen,
}

impl SpaceError {
    /// Returns true if memory is what is missing: in the ledger, or at the driver.
    #[must_use]
    pub fn is_capacity(&self) -> bool {
        match self {
            Self::NoRoom(_) => true,
            Self::Device { source, .. } => source.is_out_of_memory(),
            _ => false,
        }
    }
}
