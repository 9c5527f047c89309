//! The values that a record must be bound to, compared when opening.

use crate::error::{ContextField, SealError};
use crate::key::master::SealKey;
use crate::record::context::{Binding, SealContext};
use crate::record::fields::RecordFields;
use crate::record::metadata::{Metadata, MetadataCode};
use crate::record::params::{SealParams, SivScope, Suite};
use crate::record::protection::Protection;

/// The values that a record must be bound to before it is opened.
///
/// Model id, context and protection are always compared: otherwise the sealed image of one model
/// would be accepted as another's under the same key, and plaintext where ciphertext was meant.
/// [`Encrypted`](Protection::Encrypted) is expected unless another protection is named. Other
/// values are compared only if they were set.
///
/// The context is given together with the model id: the record contains one code over both, so a
/// context alone could not be compared.
///
/// ```compile_fail,E0599
/// use vram_seal::Expected;
///
/// let expected = Expected::anything().context(b"tenant-1"); // no such method
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    // `None` only if the caller chose `anything`.
    binding: Option<Binding<'a>>,
    metadata: Option<Metadata<'a>>,
    shard_index: Option<u64>,
    revision: Option<u64>,
    protection: Option<Protection>,
    scope: Option<SivScope>,
    suite: Option<Suite>,
}

impl<'a> Expected<'a> {
    /// Expects an encrypted shard of this model, no context, and any metadata, shard index,
    /// revision, scope and suite.
    ///
    /// # Errors
    ///
    /// [`SealError::ModelId`] unless the id has 1 to 1024 bytes.
    pub fn new(model_id: &'a str) -> Result<Self, SealError> {
        Self::in_context(model_id, &[])
    }

    /// As [`new`](Self::new), and expects this context, such as a tenant.
    ///
    /// # Errors
    ///
    /// [`SealError::ModelId`] unless the id has 1 to 1024 bytes.
    pub fn in_context(model_id: &'a str, context: &'a [u8]) -> Result<Self, SealError> {
        let binding = Some(Binding::new(model_id, context)?);
        Ok(Self { binding, protection: Some(Protection::Encrypted), ..Self::anything() })
    }

    /// Accepts every record that was sealed under the key: of any model and context, ciphertext or
    /// plaintext.
    ///
    /// For tools that show or convert any file. A caller that uses the content must set the
    /// expected values, or the image of one model is accepted as another's.
    #[must_use]
    pub const fn anything() -> Self {
        Self {
            binding: None,
            metadata: None,
            shard_index: None,
            revision: None,
            protection: None,
            scope: None,
            suite: None,
        }
    }

    /// Expects this description of the content; an empty one means that there is none.
    #[must_use]
    pub const fn metadata(mut self, metadata: &'a [u8]) -> Self {
        self.metadata = Some(Metadata::Bytes(metadata));
        self
    }

    /// Expects the description behind a code of another record under the same key.
    #[must_use]
    pub const fn metadata_code(mut self, code: MetadataCode) -> Self {
        self.metadata = Some(Metadata::Code(code));
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

    /// Expects this protection, in place of Encrypted.
    #[must_use]
    pub const fn protection(mut self, protection: Protection) -> Self {
        self.protection = Some(protection);
        self
    }

    /// Accepts plaintext as well as ciphertext.
    #[must_use]
    pub const fn any_protection(mut self) -> Self {
        self.protection = None;
        self
    }

    /// Expects this scope of the synthetic IV. An authenticated shard has none.
    #[must_use]
    pub const fn scope(mut self, scope: SivScope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Expects this cipher. An authenticated shard has none.
    #[must_use]
    pub const fn suite(mut self, suite: Suite) -> Self {
        self.suite = Some(suite);
        self
    }

    /// Expects protection, scope and suite of a seal that was made with these parameters. The
    /// segment size is not compared.
    #[must_use]
    pub const fn params(self, params: SealParams) -> Self {
        let these = self.protection(params.protection());
        match params.protection() {
            Protection::Encrypted => these.scope(params.scope()).suite(params.suite()),
            Protection::Authenticated => Self { scope: None, suite: None, ..these },
        }
    }

    /// Compares with the fields of a record that is genuine under `key`, in the order of the
    /// format.
    pub(crate) fn check(&self, key: &SealKey, fields: &RecordFields) -> Result<(), SealError> {
        let another = |field| Err(SealError::ContextMismatch { field });
        if let Some(binding) = &self.binding
            && binding.code(key.derived()) != blake3::Hash::from_bytes(fields.binding)
        {
            return another(ContextField::ModelAndContext);
        }
        if let Some(metadata) = &self.metadata
            && metadata.code(key.id(), key.derived())
                != Ok(blake3::Hash::from_bytes(fields.metadata))
        {
            return another(ContextField::Metadata);
        }
        if self.shard_index.is_some_and(|index| index != fields.shard_index()) {
            return another(ContextField::ShardIndex);
        }
        if self.revision.is_some_and(|revision| revision != fields.revision()) {
            return another(ContextField::Revision);
        }
        let found = fields.protection();
        if let Some(expected) = self.protection.filter(|expected| *expected != found) {
            return Err(SealError::ProtectionMismatch { expected, found });
        }
        if self.scope.is_some() && self.scope != fields.scope() {
            return another(ContextField::Scope);
        }
        if self.suite.is_some() && self.suite != fields.suite() {
            return another(ContextField::Suite);
        }
        Ok(())
    }
}

impl<'a> From<&SealContext<'a>> for Expected<'a> {
    /// Expects exactly the values that a shard was sealed with, and that it is encrypted.
    fn from(context: &SealContext<'a>) -> Self {
        Self {
            binding: Some(context.binding()),
            metadata: Some(context.described()),
            shard_index: Some(context.index()),
            revision: Some(context.revision_number()),
            protection: Some(Protection::Encrypted),
            ..Self::anything()
        }
    }
}
