//! The one bounds check. Its answer is a type, which no other code checks again.

use core::ops::Range;

use crate::units::{ByteLen, ByteOffset, DeviceOffset};

/// Why a range was refused.
///
/// Offsets are raw numbers here, since both kinds of range share the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BoundsError {
    /// `offset + len` is beyond 2⁶⁴ − 1.
    #[error("offset {offset} plus {} bytes is more than 2^64 - 1", len.get())]
    Overflow {
        /// Start of the wanted range.
        offset: u64,
        /// Length of the wanted range.
        len: ByteLen,
    },
    /// The range ends after the capacity.
    #[error("{} bytes at offset {offset} do not fit into {} bytes", len.get(), capacity.get())]
    OutOfBounds {
        /// Start of the wanted range.
        offset: u64,
        /// Length of the wanted range.
        len: ByteLen,
        /// Bytes that there are.
        capacity: ByteLen,
    },
}

/// Defines a range over one kind of position.
macro_rules! range {
    ($(#[$doc:meta])* $name:ident, $offset:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name {
            // Invariant: start <= end <= the capacity given to `checked`.
            start: $offset,
            end: $offset,
        }

        impl $name {
            /// Checks that `len` bytes at `offset` lie inside `capacity` bytes.
            ///
            /// An empty range is accepted anywhere from the start up to the end itself.
            ///
            /// # Errors
            ///
            /// [`BoundsError::Overflow`] if `offset + len` exceeds `u64::MAX`, else
            /// [`BoundsError::OutOfBounds`] if it exceeds `capacity`.
            pub const fn checked(
                offset: $offset,
                len: ByteLen,
                capacity: ByteLen,
            ) -> Result<Self, BoundsError> {
                let Some(end) = offset.checked_add(len) else {
                    return Err(BoundsError::Overflow { offset: offset.get(), len });
                };
                if end.get() <= capacity.get() {
                    Ok(Self { start: offset, end })
                } else {
                    Err(BoundsError::OutOfBounds { offset: offset.get(), len, capacity })
                }
            }

            /// The whole of `len` bytes: `0..len`.
            #[must_use]
            pub const fn whole(len: ByteLen) -> Self {
                Self { start: $offset::START, end: $offset::new(len.get()) }
            }

            /// Position of the first byte.
            #[must_use]
            pub const fn start(self) -> $offset {
                self.start
            }

            /// Position after the last byte.
            #[must_use]
            pub const fn end(self) -> $offset {
                self.end
            }

            /// Number of bytes in the range.
            #[must_use]
            pub const fn len(self) -> ByteLen {
                #[expect(clippy::arithmetic_side_effects, reason = "start <= end by construction")]
                ByteLen::new(self.end.get() - self.start.get())
            }

            /// Returns true if the range holds no byte.
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.start.get() == self.end.get()
            }

            /// The part `sub` of this range, where `sub` counts from the start of this range.
            ///
            /// # Errors
            ///
            /// [`BoundsError::OutOfBounds`] if `sub` ends after this range.
            pub const fn slice(self, sub: ByteRange) -> Result<Self, BoundsError> {
                let (len, capacity) = (sub.len(), self.len());
                if sub.end.get() > capacity.get() {
                    return Err(BoundsError::OutOfBounds { offset: sub.start.get(), len, capacity });
                }
                #[expect(
                    clippy::arithmetic_side_effects,
                    reason = "start + sub.end <= start + len = end, which is a u64"
                )]
                let (start, end) =
                    (self.start.get() + sub.start.get(), self.start.get() + sub.end.get());
                Ok(Self { start: $offset::new(start), end: $offset::new(end) })
            }

            /// The range as host indices, or `None` if the host's addresses are too narrow.
            #[must_use]
            pub fn to_usize_range(self) -> Option<Range<usize>> {
                Some(self.start.to_usize()?..self.end.to_usize()?)
            }
        }
    };
}

range! {
    /// A half-open range of one shard, known to lie inside the capacity it was checked against.
    ///
    /// Holding one is the proof: functions that take a `ByteRange` do not check again.
    ByteRange, ByteOffset
}
range! {
    /// A half-open range of one device region, known to lie inside the capacity it was checked
    /// against. The device-side twin of [`ByteRange`]; neither converts to the other.
    DeviceRange, DeviceOffset
}

impl DeviceRange {
    /// `len` bytes at `start`, which the caller knows to lie inside its region.
    pub(crate) const fn spanning(start: DeviceOffset, len: ByteLen) -> Self {
        Self { start, end: DeviceOffset::new(start.get().saturating_add(len.get())) }
    }
}

/// `len` bytes of content plus `overhead` bytes around it, or `None` on overflow.
#[must_use]
pub const fn checked_shard_size(len: ByteLen, overhead: ByteLen) -> Option<ByteLen> {
    len.checked_add(overhead)
}

#[cfg(kani)]
mod verification {
    use super::*;

    /// For every input in the 2¹⁹² space: `Ok` exactly when the mathematical end fits.
    #[kani::proof]
    fn checked_agrees_with_unbounded_integers() {
        let (offset, len, capacity): (u64, u64, u64) = (kani::any(), kani::any(), kani::any());
        let end = u128::from(offset) + u128::from(len);
        let answer =
            ByteRange::checked(ByteOffset::new(offset), ByteLen::new(len), ByteLen::new(capacity));
        assert!(answer.is_ok() == (end <= u128::from(capacity)));
    }

    /// A slice of a range lies inside it and has the wanted length.
    #[kani::proof]
    fn a_slice_lies_inside_its_range() {
        let (offset, len, capacity): (u64, u64, u64) = (kani::any(), kani::any(), kani::any());
        let (sub_offset, sub_len): (u64, u64) = (kani::any(), kani::any());
        let outer = DeviceRange::checked(
            DeviceOffset::new(offset),
            ByteLen::new(len),
            ByteLen::new(capacity),
        );
        let sub =
            ByteRange::checked(ByteOffset::new(sub_offset), ByteLen::new(sub_len), ByteLen::MAX);
        if let (Ok(outer), Ok(sub)) = (outer, sub) {
            match outer.slice(sub) {
                Ok(inner) => {
                    assert!(outer.start() <= inner.start() && inner.end() <= outer.end());
                    assert!(inner.len() == sub.len());
                }
                Err(_) => assert!(sub.end().get() > outer.len().get()),
            }
        }
    }
}
