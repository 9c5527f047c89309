//! Memory that another process opens: the handle, and the unit in which a driver gives memory out.

use core::fmt;

use vram_alloc::ByteLen;

/// Bytes of a [`ShareHandle`].
pub const SHARE_HANDLE_LEN: usize = 64;

/// Only allocations of a multiple of this are shared: 2 MiB. The CUDA driver takes smaller ones from a
/// block of this length, and a handle opens the whole block, with whatever else lies in it.
pub const SHARE_UNIT: ByteLen = ByteLen::new(2 << 20);

/// The name by which another process on the same machine opens an allocation: see
/// [`DeviceMemory::share`](crate::DeviceMemory::share).
///
/// Whoever has these bytes, and the right to use the device, can read **and write** all of the
/// allocation. They are therefore not shown by `Debug`; [`to_bytes`](Self::to_bytes) gives them to a
/// program that sends them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ShareHandle([u8; SHARE_HANDLE_LEN]);

impl ShareHandle {
    /// A handle that another process made.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; SHARE_HANDLE_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, which only the driver interprets.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; SHARE_HANDLE_LEN] {
        self.0
    }
}

impl fmt::Debug for ShareHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShareHandle(..)")
    }
}
