//! The values that a seal is bound to, given when sealing.

use vram_alloc::ByteLen;

use crate::digest::ContentDigest;
use crate::error::SealError;

/// The longest model id, in bytes.
pub const MODEL_ID_LEN_MAX: usize = 1024;

/// The identity of a sealed shard: its model, the caller's context and metadata, its index and
/// revision.
///
/// The record contains hashes of the first three. A reader of the record can therefore confirm a
/// guess of them, and learns nothing else.
#[derive(Clone, Copy, Debug)]
pub struct SealContext<'a> {
    binding: Binding<'a>,
    metadata: [u8; 32],
    shard_index: u64,
    revision: u64,
}

impl<'a> SealContext<'a> {
    /// The context of a shard of this model: no further context, no metadata, shard 0, revision 0.
    ///
    /// # Errors
    ///
    /// [`SealError::ModelId`] unless the id has 1 to 1024 bytes. The bytes are used unchanged,
    /// without normalisation.
    pub fn new(model_id: &'a str) -> Result<Self, SealError> {
        Ok(Self {
            binding: Binding::new(model_id)?,
            metadata: metadata_hash(&[]),
            shard_index: 0,
            revision: 0,
        })
    }

    /// Adds the caller's context, such as a tenant. Opening requires the same context.
    #[must_use]
    pub const fn context(mut self, context: &'a [u8]) -> Self {
        self.binding.context = context;
        self
    }

    /// Adds a description of the content, such as dtype and shape.
    #[must_use]
    pub fn metadata(mut self, metadata: &[u8]) -> Self {
        self.metadata = metadata_hash(metadata);
        self
    }

    /// Adds the BLAKE3 digest of such a description.
    #[must_use]
    pub const fn metadata_digest(mut self, digest: &ContentDigest) -> Self {
        self.metadata = *digest.as_bytes();
        self
    }

    /// Sets the shard's number within its model.
    #[must_use]
    pub const fn shard_index(mut self, index: u64) -> Self {
        self.shard_index = index;
        self
    }

    /// Sets the caller's revision of the content.
    #[must_use]
    pub const fn revision(mut self, revision: u64) -> Self {
        self.revision = revision;
        self
    }

    /// Header bytes 64 to 95.
    pub(crate) fn binding_hash(&self) -> [u8; 32] {
        self.binding.hash()
    }

    pub(super) const fn binding(&self) -> Binding<'a> {
        self.binding
    }

    pub(crate) const fn metadata_hash(&self) -> [u8; 32] {
        self.metadata
    }

    pub(crate) const fn index(&self) -> u64 {
        self.shard_index
    }

    pub(crate) const fn revision_number(&self) -> u64 {
        self.revision
    }
}

/// Model id and context. The record contains one hash over both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Binding<'a> {
    model_id: &'a str,
    pub(super) context: &'a [u8],
}

impl<'a> Binding<'a> {
    pub(super) fn new(model_id: &'a str) -> Result<Self, SealError> {
        if model_id.is_empty() || model_id.len() > MODEL_ID_LEN_MAX {
            return Err(SealError::ModelId { len: ByteLen::from_usize(model_id.len()).get() });
        }
        Ok(Self { model_id, context: &[] })
    }

    /// Each part is preceded by its length, so that no two pairs give the same bytes.
    pub(super) fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for part in [self.model_id.as_bytes(), self.context] {
            hasher.update(&ByteLen::from_usize(part.len()).get().to_le_bytes());
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }
}

pub(super) fn metadata_hash(metadata: &[u8]) -> [u8; 32] {
    *blake3::hash(metadata).as_bytes()
}
