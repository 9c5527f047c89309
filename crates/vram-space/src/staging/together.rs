//! Places that lie side by side, of which one buffer and one copy take many.

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange};
use vram_gpu::DeviceKind;

use crate::error::SpaceError;
use crate::gpu::Gpu;
use crate::space::Space;
use crate::staging::lanes::{Lanes, Wanted};

/// The longest copy of several places.
const LEN_MAX: ByteLen = ByteLen::MIB;

/// The longest on a host device, which copies quickest what is still in the cache.
const HOST_LEN_MAX: ByteLen = ByteLen::new(256 << 10);

/// Where places lie that join, and fill it. The bytes between a shard and the next are the rest of its last
/// granule, and no other shard's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    start: DeviceOffset,
    end: DeviceOffset,
}

impl Span {
    /// That of one place; `None` if it is a block of its own.
    #[must_use]
    pub fn of(space: &Space) -> Option<Self> {
        let start = space.offset()?;
        Some(Self { start, end: start.checked_add(space.footprint())? })
    }

    /// Both, if one begins where the other ends, and one copy may take them on this GPU: at most 1 MiB, 256
    /// KiB on a host device, and half of what a call may stage, so that another has as much.
    #[must_use]
    pub fn joined(self, other: Self, gpu: &Gpu) -> Option<Self> {
        let both = if self.end == other.start {
            Self { start: self.start, end: other.end }
        } else if other.end == self.start {
            Self { start: other.start, end: self.end }
        } else {
            return None;
        };
        let is_host = gpu.device.info().kind == DeviceKind::Host;
        let quick = if is_host { HOST_LEN_MAX } else { LEN_MAX };
        let most = quick.min(ByteLen::new(gpu.means.staging_bytes.get() >> 1));
        (both.len() <= most).then_some(both)
    }

    const fn len(self) -> ByteLen {
        ByteLen::new(self.end.get().saturating_sub(self.start.get()))
    }

    /// The one buffer for all of it. The calling thread holds no other lanes.
    ///
    /// # Errors
    ///
    /// [`SpaceError::Staging`]: other calls hold too much of the staging memory.
    pub fn lanes(self, gpu: &Gpu) -> Result<Lanes<'_>, SpaceError> {
        Lanes::take(gpu, self.wanted())
    }

    /// As [`lanes`](Self::lanes), at once or not at all.
    ///
    /// # Errors
    ///
    /// [`SpaceError::Staging`].
    pub fn try_lanes(self, gpu: &Gpu) -> Result<Lanes<'_>, SpaceError> {
        Lanes::try_take(gpu, self.wanted())
    }

    const fn wanted(self) -> Wanted {
        Wanted { buffer_len: self.len(), least: 1, most: 1, workers: 1 }
    }
}

/// From the start of the lowest range to the end of the highest; `None` without any.
#[must_use]
pub fn hull(ranges: impl Iterator<Item = DeviceRange> + Clone) -> Option<DeviceRange> {
    let start = ranges.clone().map(DeviceRange::start).min()?;
    let end = ranges.map(DeviceRange::end).max()?;
    let len = ByteLen::new(end.get().checked_sub(start.get())?);
    DeviceRange::checked(start, len, ByteLen::new(end.get())).ok()
}

/// A buffer of the `whole`, from where `own` begins; `None` if it does not begin there.
#[must_use]
pub fn rest_from(buffer: &mut [u8], whole: DeviceRange, own: DeviceRange) -> Option<&mut [u8]> {
    let skip = own.start().get().checked_sub(whole.start().get())?;
    buffer.get_mut(ByteLen::new(skip).to_usize()?..)
}
