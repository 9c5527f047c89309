//! The caller's description of the content, and the code of it that a record contains.

use core::fmt;

use crate::error::SealError;
use crate::key::derived::DerivedKeys;
use crate::key::id::KeyId;
use crate::key::schedule::code;

/// The code of the caller's metadata in a record: bytes 96 to 127, with the id of their key.
///
/// The code is keyed: without the key it confirms no guess of the metadata. It serves to seal a
/// shard anew, under the same key, by a program that does not know the metadata itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MetadataCode {
    key_id: KeyId,
    code: blake3::Hash,
}

impl MetadataCode {
    pub(super) const fn new(key_id: KeyId, code: [u8; 32]) -> Self {
        Self { key_id, code: blake3::Hash::from_bytes(code) }
    }

    /// The id of the key that the code was computed with.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The bytes of the code.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.code.as_bytes()
    }
}

impl fmt::Debug for MetadataCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetadataCode").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// The caller's metadata, or its code.
#[derive(Clone, Copy)]
pub(super) enum Metadata<'a> {
    Bytes(&'a [u8]),
    Code(MetadataCode),
}

impl Metadata<'_> {
    /// Record bytes 96 to 127 under the key with this id.
    ///
    /// # Errors
    ///
    /// [`SealError::MetadataKey`] for a code that was computed with another key.
    pub(super) fn code(&self, id: KeyId, keys: &DerivedKeys) -> Result<blake3::Hash, SealError> {
        match self {
            Self::Bytes([]) => Ok(keys.no_metadata),
            Self::Bytes(bytes) => Ok(code(&keys.metadata, &[bytes])),
            Self::Code(known) if known.key_id == id => Ok(known.code),
            Self::Code(known) => Err(SealError::MetadataKey { expected: id, found: known.key_id }),
        }
    }
}

impl fmt::Debug for Metadata<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Metadata({} bytes)", bytes.len()),
            Self::Code(code) => code.fmt(f),
        }
    }
}
