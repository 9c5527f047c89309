//! The values that a seal is bound to, given when sealing.

use core::fmt;

use vram_alloc::ByteLen;

use crate::error::SealError;
use crate::key::derived::DerivedKeys;
use crate::key::schedule::code;
use crate::record::metadata::{Metadata, MetadataCode};

/// The longest model id, in bytes.
pub const MODEL_ID_LEN_MAX: usize = 1024;

/// The longest context, and the longest metadata, in bytes. A manager keeps both for each shard, to
/// seal it anew.
pub const CONTEXT_LEN_MAX: usize = 64 << 10;

/// The identity of a sealed shard: its model, the caller's context and metadata, its index and
/// revision.
///
/// The record contains keyed codes of the first three. A reader of the record without the key
/// cannot confirm a guess of them; under one key, equal values show as equal. `Debug` shows their
/// lengths alone.
#[derive(Clone, Copy, Debug)]
pub struct SealContext<'a> {
    binding: Binding<'a>,
    metadata: Metadata<'a>,
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
            binding: Binding::new(model_id, &[])?,
            metadata: Metadata::Bytes(&[]),
            shard_index: 0,
            revision: 0,
        })
    }

    /// Adds the caller's context, such as a tenant: at most 64 KiB, or sealing is refused. Opening
    /// requires the same context.
    #[must_use]
    pub const fn context(mut self, context: &'a [u8]) -> Self {
        self.binding.context = context;
        self
    }

    /// Adds a description of the content, such as dtype and shape: at most 64 KiB, or sealing is
    /// refused.
    #[must_use]
    pub const fn metadata(mut self, metadata: &'a [u8]) -> Self {
        self.metadata = Metadata::Bytes(metadata);
        self
    }

    /// Adds the description behind a code of another record, without knowing the description. The
    /// new seal must be made under the key of that record.
    #[must_use]
    pub const fn metadata_code(mut self, code: MetadataCode) -> Self {
        self.metadata = Metadata::Code(code);
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

    /// Checks that context and metadata are short enough to be sealed in.
    ///
    /// # Errors
    ///
    /// [`SealError::ContextTooLong`].
    pub(crate) fn check(&self) -> Result<(), SealError> {
        check_len("context", self.binding.context)?;
        match self.metadata {
            Metadata::Bytes(bytes) => check_len("metadata", bytes),
            Metadata::Code(_) => Ok(()),
        }
    }

    pub(super) const fn binding(&self) -> Binding<'a> {
        self.binding
    }

    pub(super) const fn described(&self) -> Metadata<'a> {
        self.metadata
    }

    pub(crate) const fn index(&self) -> u64 {
        self.shard_index
    }

    pub(crate) const fn revision_number(&self) -> u64 {
        self.revision
    }
}

/// # Errors
///
/// [`SealError::ContextTooLong`].
fn check_len(what: &'static str, bytes: &[u8]) -> Result<(), SealError> {
    if bytes.len() <= CONTEXT_LEN_MAX {
        return Ok(());
    }
    Err(SealError::ContextTooLong {
        what,
        len: ByteLen::from_usize(bytes.len()).get(),
        max: ByteLen::from_usize(CONTEXT_LEN_MAX).get(),
    })
}

/// Model id and context. The record contains one code over both.
#[derive(Clone, Copy)]
pub(super) struct Binding<'a> {
    model_id: &'a str,
    context: &'a [u8],
}

impl<'a> Binding<'a> {
    pub(super) fn new(model_id: &'a str, context: &'a [u8]) -> Result<Self, SealError> {
        if model_id.is_empty() || model_id.len() > MODEL_ID_LEN_MAX {
            return Err(SealError::ModelId { len: ByteLen::from_usize(model_id.len()).get() });
        }
        Ok(Self { model_id, context })
    }

    /// Record bytes 64 to 95. Each part is preceded by its length, so that no two pairs give the
    /// same bytes.
    pub(super) fn code(&self, keys: &DerivedKeys) -> blake3::Hash {
        let len = |part: &[u8]| ByteLen::from_usize(part.len()).get().to_le_bytes();
        let model_id = self.model_id.as_bytes();
        let parts = [&len(model_id)[..], model_id, &len(self.context), self.context];
        code(&keys.binding, &parts)
    }
}

/// Lengths alone: the record hides both values, and a print must not show them either.
impl fmt::Debug for Binding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (model_id, context) = (self.model_id.len(), self.context.len());
        write!(f, "Binding(model id of {model_id} bytes, context of {context} bytes)")
    }
}
