//! The values that a record must be bound to, compared when opening.

use crate::digest::ContentDigest;
use crate::error::{ContextField, SealError};
use crate::record::context::{Binding, SealContext, metadata_hash};
use crate::record::fields::RecordFields;

/// The values that a record must be bound to before it is opened.
///
/// Model id and context are always compared: otherwise the sealed image of one model would be
/// accepted as another's under the same key. Other values are compared only if they were set.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    // `None` only if the caller chose `anything`.
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

    /// Accepts every record that was sealed under the key, of any model and context.
    ///
    /// For tools that show or convert any file. A caller that uses the content must set the
    /// expected values, or the image of one model is accepted as another's.
    #[must_use]
    pub const fn anything() -> Self {
        Self { binding: None, metadata: None, shard_index: None, revision: None }
    }

    /// Expects this context. Has no effect without a model id, since the record contains one hash
    /// over both.
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

    /// Compares with the record's fields. All of them are public, so the comparison need not take
    /// constant time.
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
    /// Expects exactly the values that a shard was sealed with.
    fn from(context: &SealContext<'a>) -> Self {
        Self {
            binding: Some(context.binding()),
            metadata: Some(context.metadata_hash()),
            shard_index: Some(context.index()),
            revision: Some(context.revision_number()),
        }
    }
}
