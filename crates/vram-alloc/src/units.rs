//! Newtypes for device-memory quantities. All of them are 64 bits wide on every host.

use core::fmt;

/// A number of bytes: how much, never where.
///
/// There is deliberately no `Add`, `Sub`, `Deref` or `From<u64>`: every sum goes through a
/// `checked_*` method, and every raw integer is named at the point where it enters the type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct ByteLen(u64);

/// A power of two, in bytes, that a start must be a multiple of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "u64", into = "u64")
)]
pub struct Alignment(u64);

/// The index of a GPU, as people call it. Not a UUID, and not stable across reboots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct GpuIndex(u32);

impl ByteLen {
    /// The empty length.
    pub const ZERO: Self = Self(0);
    /// 1024 bytes.
    pub const KIB: Self = Self(1 << 10);
    /// 1024 KiB.
    pub const MIB: Self = Self(1 << 20);
    /// 1024 MiB.
    pub const GIB: Self = Self(1 << 30);
    /// The largest length that the type can hold.
    pub const MAX: Self = Self(u64::MAX);

    /// Wraps a raw count of bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The raw count, for driver calls and wire formats.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Wraps the length of a value in host memory.
    #[must_use]
    pub const fn from_usize(bytes: usize) -> Self {
        #[expect(clippy::as_conversions, reason = "a usize has at most 64 bits on every target")]
        Self(bytes as u64)
    }

    /// The length as a host size, or `None` if the host's addresses are too narrow.
    #[must_use]
    pub fn to_usize(self) -> Option<usize> {
        usize::try_from(self.0).ok()
    }

    /// `mib` MiB, or [`ByteLen::MAX`] if the product does not fit: exact below 2⁴⁴ MiB.
    #[must_use]
    pub const fn from_mib_saturating(mib: u64) -> Self {
        Self(mib.saturating_mul(Self::MIB.0))
    }

    /// `mib` MiB, or `None` if the product does not fit.
    #[must_use]
    pub const fn checked_from_mib(mib: u64) -> Option<Self> {
        Self::MIB.checked_mul(mib)
    }

    /// The sum, or `None` on overflow.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The difference, or `None` if `other` is larger.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(rest) => Some(Self(rest)),
            None => None,
        }
    }

    /// `count` times this length, or `None` on overflow.
    #[must_use]
    pub const fn checked_mul(self, count: u64) -> Option<Self> {
        match self.0.checked_mul(count) {
            Some(product) => Some(Self(product)),
            None => None,
        }
    }

    /// The sum, or [`ByteLen::MAX`] on overflow. For reports; never for a bound.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or zero if `other` is larger.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The smallest multiple of `alignment` that is not below this length, or `None` on overflow.
    #[must_use]
    pub const fn round_up(self, alignment: Alignment) -> Option<Self> {
        match self.0.checked_next_multiple_of(alignment.0) {
            Some(rounded) => Some(Self(rounded)),
            None => None,
        }
    }

    /// Returns true if this is the empty length.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// Defines a position type; the two kinds differ only in their origin.
macro_rules! offset {
    ($(#[$doc:meta])* $name:ident, $origin:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(
            feature = "serde",
            derive(serde::Serialize, serde::Deserialize),
            serde(transparent)
        )]
        pub struct $name(u64);

        impl $name {
            #[doc = concat!("The first byte of ", $origin, ".")]
            pub const START: Self = Self(0);

            #[doc = concat!("Wraps a raw distance, in bytes, from the start of ", $origin, ".")]
            #[must_use]
            pub const fn new(bytes: u64) -> Self {
                Self(bytes)
            }

            /// The raw distance, for driver calls and wire formats.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// Wraps a position in host memory.
            #[must_use]
            pub const fn from_usize(bytes: usize) -> Self {
                Self(ByteLen::from_usize(bytes).0)
            }

            /// The position as a host size, or `None` if the host's addresses are too narrow.
            #[must_use]
            pub fn to_usize(self) -> Option<usize> {
                usize::try_from(self.0).ok()
            }

            /// The position `len` bytes further on, or `None` on overflow.
            #[must_use]
            pub const fn checked_add(self, len: ByteLen) -> Option<Self> {
                match self.0.checked_add(len.0) {
                    Some(end) => Some(Self(end)),
                    None => None,
                }
            }

            /// The distance from `earlier` to this position, or `None` if this position is before
            /// it.
            #[must_use]
            pub const fn checked_since(self, earlier: Self) -> Option<ByteLen> {
                match self.0.checked_sub(earlier.0) {
                    Some(bytes) => Some(ByteLen(bytes)),
                    None => None,
                }
            }

            /// Returns true if the position is a multiple of `alignment`.
            #[must_use]
            pub const fn is_aligned(self, alignment: Alignment) -> bool {
                self.0.is_multiple_of(alignment.0)
            }
        }

        /// The raw distance: errors write `offset 4096`.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

offset! {
    /// A position, in bytes from the start of one shard: where, never how much.
    ///
    /// It does not convert to a [`DeviceOffset`]; only a placement knows where a shard lies.
    ByteOffset, "a shard"
}
offset! {
    /// A position, in bytes from the start of one device region or allocation.
    ///
    /// It does not convert to a [`ByteOffset`].
    DeviceOffset, "a device region"
}

/// The number is not a power of two, so it is no alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an alignment of {bytes} bytes is not a power of two")]
#[non_exhaustive]
pub struct AlignmentError {
    /// The number of the call.
    pub bytes: u64,
}

impl Alignment {
    /// No constraint.
    pub const ONE: Self = Self(1);
    /// The multiple to which the arena rounds footprints and starts: 256 bytes. It satisfies every
    /// driver allocation and every vector load of a kernel.
    pub const GRANULE: Self = Self(256);
    /// The alignment of direct I/O and host pages.
    pub const KIB_4: Self = Self(4 << 10);
    /// The multiple to which older devices round peer mappings.
    pub const KIB_64: Self = Self(64 << 10);
    /// A page of device virtual memory.
    pub const MIB_2: Self = Self(2 << 20);

    /// Checks that `bytes` is a power of two: 1, 2, 4 … 2⁶³.
    ///
    /// # Errors
    ///
    /// [`AlignmentError`] for 0 and for everything that is not a power of two.
    pub const fn new(bytes: u64) -> Result<Self, AlignmentError> {
        if bytes.is_power_of_two() { Ok(Self(bytes)) } else { Err(AlignmentError { bytes }) }
    }

    /// The alignment in bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for Alignment {
    type Error = AlignmentError;

    fn try_from(bytes: u64) -> Result<Self, Self::Error> {
        Self::new(bytes)
    }
}

impl From<Alignment> for u64 {
    fn from(alignment: Alignment) -> Self {
        alignment.0
    }
}

impl fmt::Display for Alignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ByteLen(self.0).fmt(f)
    }
}

impl GpuIndex {
    /// Wraps an index.
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// The raw index.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for GpuIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gpu {}", self.0)
    }
}
