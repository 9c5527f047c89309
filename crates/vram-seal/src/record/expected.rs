//! What a record must be bound to, compared when opening.

use crate::digest::ContentDigest;
use crate::error::{ContextField, SealError};
use crate::record::context::{Binding, SealContext, metadata_hash};
use crate::record::fields::RecordFields;

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
    /// For tools that show or convert what they are given. A caller that is going to use the content
    /// must say what it should be, or the image of one model passes for another's.
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
            binding: Some(context.binding()),
            metadata: Some(context.metadata_hash()),
            shard_index: Some(context.index()),
            revision: Some(context.revision_number()),
        }
    }
}
