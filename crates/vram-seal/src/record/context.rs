//! What a seal is bound to: stated when sealing, compared when opening.

use vram_alloc::ByteLen;

use crate::digest::ContentDigest;
use crate::error::{ContextField, SealError};
use crate::record::fields::RecordFields;

/// The longest model id, in bytes.
pub const MODEL_ID_LEN_MAX: usize = 1024;

/// What a shard is sealed as: its model, the caller's context and metadata, its place and revision.
///
/// The record holds hashes of the first three, so a reader of the record can confirm a guess of
/// them and learns nothing else.
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
    /// [`SealError::ModelId`] unless the id has 1 to 1024 bytes. It is taken byte by byte: nothing
    /// is normalised.
    pub fn new(model_id: &'a str) -> Result<Self, SealError> {
        Ok(Self {
            binding: Binding::new(model_id)?,
            metadata: metadata_hash(&[]),
            shard_index: 0,
            revision: 0,
        })
    }

    /// With the caller's context, such as a tenant. Opening demands the same again.
    #[must_use]
    pub const fn context(mut self, context: &'a [u8]) -> Self {
        self.binding.context = context;
        self
    }

    /// With a description of the content, such as dtype and shape.
    #[must_use]
    pub fn metadata(mut self, metadata: &[u8]) -> Self {
        self.metadata = metadata_hash(metadata);
        self
    }

    /// With the BLAKE3 digest of such a description.
    #[must_use]
    pub const fn metadata_digest(mut self, digest: &ContentDigest) -> Self {
        self.metadata = *digest.as_bytes();
        self
    }

    /// With the shard's number within its model.
    #[must_use]
    pub const fn shard_index(mut self, index: u64) -> Self {
        self.shard_index = index;
        self
    }

    /// With the caller's revision of the content.
    #[must_use]
    pub const fn revision(mut self, revision: u64) -> Self {
        self.revision = revision;
        self
    }

    /// Header bytes 64 to 95.
    pub(crate) fn binding_hash(&self) -> [u8; 32] {
        self.binding.hash()
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

/// What a record must be bound to for it to be opened.
///
/// Model id and context are always compared: otherwise the sealed image of one model would pass for
/// another's under the same key. The rest is compared where it is given, and may be anything where
/// it is not.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    // `None` only where the caller said so by name.
    binding: Option<Binding<'a>>,
    metadata: Option<[u8; 32]>,
    shard_index: Option<u64>,
    revision: Option<u64>,
}

impl<'a> Expected<'a> {
    /// Expects this model, no context, and any metadata, shard index and revision.
    ///
    /// # Errors
    ///
    /// [`SealError::ModelId`] unless the id has 1 to 1024 bytes.
    pub fn new(model_id: &'a str) -> Result<Self, SealError> {
        Ok(Self {
            binding: Some(Binding::new(model_id)?),
            metadata: None,
            shard_index: None,
            revision: None,
        })
    }

    /// Expects nothing: whatever was sealed under the key will do, of any model and context.
    ///
    /// For tools that show or convert what they are given. Whoever is going to use the content must
    /// say what it should be, or the image of one model passes for another's.
    #[must_use]
    pub const fn anything() -> Self {
        Self { binding: None, metadata: None, shard_index: None, revision: None }
    }

    /// Expects this context. Without a model id there is nothing to compare it with, since the
    /// record holds one hash over both.
    #[must_use]
    pub const fn context(mut self, context: &'a [u8]) -> Self {
        if let Some(binding) = &mut self.binding {
            binding.context = context;
        }
        self
    }

    /// Expects this description of the content.
    #[must_use]
    pub fn metadata(mut self, metadata: &[u8]) -> Self {
        self.metadata = Some(metadata_hash(metadata));
        self
    }

    /// Expects a description of this BLAKE3 digest.
    #[must_use]
    pub const fn metadata_digest(mut self, digest: &ContentDigest) -> Self {
        self.metadata = Some(*digest.as_bytes());
        self
    }

    /// Expects this shard index.
    #[must_use]
    pub const fn shard_index(mut self, index: u64) -> Self {
        self.shard_index = Some(index);
        self
    }

    /// Expects this revision.
    #[must_use]
    pub const fn revision(mut self, revision: u64) -> Self {
        self.revision = Some(revision);
        self
    }

    /// Compares with what a record states. All of it is public, so no constant time is needed.
    pub(crate) fn check(&self, fields: &RecordFields) -> Result<(), SealError> {
        let differs = |expected: Option<u64>, found| expected.is_some_and(|value| value != found);
        let field = if self.binding.is_some_and(|binding| binding.hash() != *fields.binding_hash())
        {
            ContextField::ModelAndContext
        } else if self.metadata.is_some_and(|hash| hash != *fields.metadata_hash()) {
            ContextField::Metadata
        } else if differs(self.shard_index, fields.shard_index()) {
            ContextField::ShardIndex
        } else if differs(self.revision, fields.revision()) {
            ContextField::Revision
        } else {
            return Ok(());
        };
        Err(SealError::ContextMismatch { field })
    }
}

impl<'a> From<&SealContext<'a>> for Expected<'a> {
    /// Expects exactly what a shard was sealed as.
    fn from(context: &SealContext<'a>) -> Self {
        Self {
            binding: Some(context.binding),
            metadata: Some(context.metadata),
            shard_index: Some(context.shard_index),
            revision: Some(context.revision),
        }
    }
}

/// Model id and context, which the record holds one hash of.
#[derive(Clone, Copy, Debug)]
struct Binding<'a> {
    model_id: &'a str,
    context: &'a [u8],
}

impl<'a> Binding<'a> {
    fn new(model_id: &'a str) -> Result<Self, SealError> {
        if model_id.is_empty() || model_id.len() > MODEL_ID_LEN_MAX {
            return Err(SealError::ModelId { len: ByteLen::from_usize(model_id.len()).get() });
        }
        Ok(Self { model_id, context: &[] })
    }

    /// Each part after its length, so that no two pairs give the same bytes.
    fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for part in [self.model_id.as_bytes(), self.context] {
            hasher.update(&ByteLen::from_usize(part.len()).get().to_le_bytes());
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }
}

fn metadata_hash(metadata: &[u8]) -> [u8; 32] {
    *blake3::hash(metadata).as_bytes()
}
