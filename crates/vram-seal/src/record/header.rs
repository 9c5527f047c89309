//! The seal record: 256 bytes that authenticate a shard of any size.

use core::ops::{Deref, DerefMut};

use vram_alloc::ByteLen;

use crate::error::SealError;
use crate::key::id::KeyId;
use crate::key::mac::MacKey;

pub(crate) const MAGIC: [u8; 8] = *b"VRSEAL1\0";
pub(crate) const VERSION: u16 = 1;
pub(crate) const HASH_PROFILE: u8 = 1;

/// The bytes that are bound into every key of the seal: all values that are known before sealing.
pub(crate) const BOUND_LEN: usize = 128;
pub(crate) const MACED_LEN: usize = 224;

/// The seal record of one shard, as it is stored and sent.
///
/// It is the same for the same key, context and content. It contains no secret: only header fields,
/// and keyed codes of the content, of model id and context, and of the metadata.
/// It can be read and altered like a byte slice; opening refuses an altered record.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SealRecord([u8; SealRecord::LEN]);

impl SealRecord {
    /// The length of every record, in bytes.
    pub const LEN: usize = 256;

    /// Wraps the bytes of a record. They are checked when the record is opened.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes of the record.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The code over the whole record. Tickets and manifests can pin the record by it.
    #[must_use]
    pub fn mac(&self) -> [u8; 32] {
        *self.parts().header_mac
    }

    /// Checks magic, version and hash profile, which decide how the rest is read.
    pub(crate) fn check_format(&self) -> Result<(), SealError> {
        let parts = self.parts();
        if *parts.magic != MAGIC {
            return Err(SealError::NotASeal);
        }
        let version = u16::from_le_bytes(*parts.version);
        if version != VERSION {
            return Err(SealError::UnsupportedVersion { found: version });
        }
        let [_, _, _, hash, _, _] = *parts.algorithms;
        if hash != HASH_PROFILE {
            return Err(SealError::UnsupportedHash { found: hash });
        }
        Ok(())
    }

    pub(crate) fn key_id(&self) -> KeyId {
        KeyId::from_bytes(*self.parts().key_id)
    }

    /// Checks the record's code, in constant time.
    pub(crate) fn check_mac(&self, key: &MacKey) -> Result<(), SealError> {
        let parts = self.parts();
        if key.verify(parts.maced, parts.header_mac) {
            Ok(())
        } else {
            Err(SealError::RecordMismatch)
        }
    }

    pub(crate) fn bound(&self) -> &[u8] {
        self.parts().bound
    }

    pub(super) fn parts(&self) -> Parts<'_> {
        Parts::of(&self.0)
    }
}

impl Deref for SealRecord {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for SealRecord {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl AsRef<[u8]> for SealRecord {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&[u8]> for SealRecord {
    type Error = SealError;

    fn try_from(bytes: &[u8]) -> Result<Self, SealError> {
        match bytes.try_into() {
            Ok(array) => Ok(Self(array)),
            Err(_) => Err(SealError::WrongLength {
                what: "a seal record",
                expected: 256,
                found: ByteLen::from_usize(bytes.len()).get(),
            }),
        }
    }
}

/// The record's bytes by field, in the order of the format's table.
pub(super) struct Parts<'a> {
    pub(super) bound: &'a [u8],
    pub(super) maced: &'a [u8],
    pub(super) magic: &'a [u8; 8],
    pub(super) version: &'a [u8; 2],
    pub(super) algorithms: &'a [u8; 6],
    pub(super) len: &'a [u8; 8],
    pub(super) count: &'a [u8; 8],
    pub(super) shard_index: &'a [u8; 8],
    pub(super) revision: &'a [u8; 8],
    pub(super) key_id: &'a [u8; 16],
    pub(super) binding: &'a [u8; 32],
    pub(super) metadata: &'a [u8; 32],
    pub(super) siv: &'a [u8; 32],
    pub(super) table_mac: &'a [u8; 32],
    pub(super) reserved: &'a [u8; 32],
    pub(super) header_mac: &'a [u8; 32],
}

impl<'a> Parts<'a> {
    fn of(bytes: &'a [u8; SealRecord::LEN]) -> Self {
        let mut rest = &bytes[..];
        Self {
            bound: &bytes[..BOUND_LEN],
            maced: &bytes[..MACED_LEN],
            magic: take(&mut rest),
            version: take(&mut rest),
            algorithms: take(&mut rest),
            len: take(&mut rest),
            count: take(&mut rest),
            shard_index: take(&mut rest),
            revision: take(&mut rest),
            key_id: take(&mut rest),
            binding: take(&mut rest),
            metadata: take(&mut rest),
            siv: take(&mut rest),
            table_mac: take(&mut rest),
            reserved: take(&mut rest),
            header_mac: take(&mut rest),
        }
    }
}

/// Takes the next `N` bytes. The field lengths add up to the record's length, so all of them exist.
fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> &'a [u8; N] {
    const { assert!(N <= SealRecord::LEN) };
    match rest.split_first_chunk() {
        Some((head, tail)) => {
            *rest = tail;
            head
        }
        None => &[0; N],
    }
}
