//! Converts errors of device memory and of seals into the errors that a caller sees.

use vram_seal::SealError;
use vram_space::{NoRoom, SpaceError};

use crate::error::{Shortfall, VramError};

impl From<SpaceError> for VramError {
    fn from(error: SpaceError) -> Self {
        match error {
            SpaceError::NoRoom(lack) => Self::InsufficientVram(Box::new((*lack).into())),
            SpaceError::Device { gpu, source } => Self::Device { gpu, source },
            SpaceError::DeviceLost { gpu, source } => Self::DeviceLost { gpu, source },
            SpaceError::HostMemory { wanted } => Self::HostMemory { wanted },
            SpaceError::InUse { gpu } => {
                Self::GpuInUse { gpu, why: "a reset of it waits for calls that run there" }
            }
            SpaceError::Staging { needed, limit, .. } if needed > limit => {
                let (what, limit, wanted) =
                    ("staging bytes of all calls", limit.get(), needed.get());
                Self::LimitExceeded { what, limit, wanted }
            }
            SpaceError::Staging { needed, taken, limit } => {
                Self::StagingLimit { needed, taken, limit }
            }
            SpaceError::Closed => Self::Closed,
            // `Invalid`: no other kind is left.
            other => Self::Config { what: other.to_string() },
        }
    }
}

impl From<SealError> for VramError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Key(error) => Self::Key(error),
            SealError::HostMemory { wanted } => Self::HostMemory { wanted },
            other => Self::Seal(other),
        }
    }
}

impl From<NoRoom> for Shortfall {
    fn from(lack: NoRoom) -> Self {
        Self {
            gpu: lack.gpu,
            needed: lack.needed,
            room: lack.room,
            largest_hole: lack.largest_hole,
            foreign: lack.foreign,
            headroom: lack.headroom,
            most: lack.most,
            ..Self::none()
        }
    }
}
