//! One seal of a shard, and the properties that it is bound to.

pub(crate) mod prints;

use core::fmt;
use core::ops::{Deref, DerefMut};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use vram_alloc::{ByteLen, Piece};
use vram_seal::{
    CONTEXT_LEN_MAX, ContentDigest, Expected, KeyId, MetadataCode, Opener, Protection, SealContext,
    SealError, SealParams, SealRecord, SegmentHash,
};

use crate::error::VramError;
use crate::shard::Member;
use crate::shard::entry::member::described_len;
use crate::shard::seal::prints::Prints;
use crate::sync::{Mutex, lock};

/// Counts the seals under each key, resident and parked.
#[derive(Debug, Default)]
pub struct KeyUses {
    by_key: Mutex<BTreeMap<KeyId, Weak<()>>>,
}

/// A use of one key by one seal, until dropped.
#[derive(Debug)]
pub(crate) struct KeyUse {
    #[expect(dead_code, reason = "held to be counted")]
    token: Arc<()>,
}

impl KeyUses {
    /// Counts one more use of a key.
    pub(crate) fn take(&self, key: KeyId) -> KeyUse {
        let mut by_key = lock(&self.by_key);
        let known = by_key.get(&key).and_then(Weak::upgrade);
        let token = known.unwrap_or_else(|| {
            let token = Arc::new(());
            by_key.insert(key, Arc::downgrade(&token));
            token
        });
        KeyUse { token }
    }

    /// The number of seals under a key.
    pub(crate) fn count(&self, key: &KeyId) -> usize {
        lock(&self.by_key).get(key).map_or(0, Weak::strong_count)
    }
}

/// One seal of a shard. It never changes; it is only replaced.
#[derive(Debug)]
pub(crate) struct Seal {
    /// Of record and table, made with the shard or authenticated once when it became resident.
    pub(crate) opener: Opener,
    pub(crate) params: SealParams,
    pub(crate) digest: ContentDigest,
    pub(crate) prints: Prints,
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) key_use: KeyUse,
}

impl Seal {
    pub(crate) const fn protection(&self) -> Protection {
        self.params.protection()
    }

    pub(crate) fn record(&self) -> SealRecord {
        self.opener.record()
    }

    pub(crate) const fn key_id(&self) -> KeyId {
        self.opener.fields().key_id()
    }

    /// Whether `hashes` are those of the content that was sealed.
    pub(crate) fn is_of(&self, hashes: &[SegmentHash]) -> Result<bool, SealError> {
        match self.opener.check_digest(hashes) {
            Ok(digest) => Ok(digest == self.digest),
            Err(SealError::DigestMismatch | SealError::SegmentMismatch { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The properties that a shard's seal is bound to. It derefs to those that the shards of one request
/// have in common, and share until one of them is changed.
#[derive(Clone)]
pub(crate) struct SealedAs {
    common: Arc<Common>,
    pub(crate) metadata: Description,
    pub(crate) shard_index: u64,
    pub(crate) revision: u64,
}

#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) model_id: Arc<str>,
    pub(crate) context: Arc<[u8]>,
}

impl Deref for SealedAs {
    type Target = Common;

    fn deref(&self) -> &Common {
        &self.common
    }
}

impl DerefMut for SealedAs {
    fn deref_mut(&mut self) -> &mut Common {
        Arc::make_mut(&mut self.common)
    }
}

impl SealedAs {
    /// Shard 0, revision 0 of this model, without context and description.
    pub(crate) fn new(model_id: &str) -> Self {
        let common = Common { model_id: model_id.into(), context: Arc::from([]) };
        Self {
            common: Arc::new(common),
            metadata: Description::Given(Metadata::default()),
            shard_index: 0,
            revision: 0,
        }
    }

    /// # Errors
    ///
    /// [`SealError::ModelId`] unless the model id has 1 to 1024 bytes;
    /// [`VramError::LimitExceeded`] for a context or a description that is too long.
    pub(crate) fn check(&self) -> Result<(), VramError> {
        SealContext::new(&self.model_id)?;
        check_len("bytes of a shard's context", self.context.len())?;
        self.metadata.check()
    }

    /// What a record is bound to. `described` takes the description, where it is made anew.
    ///
    /// # Errors
    ///
    /// [`SealError::ModelId`] unless the model id has 1 to 1024 bytes.
    pub(crate) fn context<'a>(
        &'a self,
        described: &'a mut Vec<u8>,
    ) -> Result<SealContext<'a>, SealError> {
        let context = SealContext::new(&self.model_id)?
            .context(&self.context)
            .shard_index(self.shard_index)
            .revision(self.revision);
        Ok(match &self.metadata {
            Description::Given(Metadata::Known(bytes)) => context.metadata(bytes),
            Description::Given(Metadata::Coded(code)) => context.metadata_code(**code),
            Description::Piece(member) => {
                *described = member.described();
                context.metadata(described)
            }
        })
    }
}

const METADATA: &str = "bytes of a shard's metadata";

/// The limit of the seal, checked before anything is taken.
///
/// # Errors
///
/// [`VramError::LimitExceeded`].
fn check_len(what: &'static str, len: usize) -> Result<(), VramError> {
    let [limit, wanted] = [CONTEXT_LEN_MAX, len].map(|len| ByteLen::from_usize(len).get());
    if wanted <= limit { Ok(()) } else { Err(VramError::LimitExceeded { what, limit, wanted }) }
}

/// Checks the description of a piece, as that of a shard.
///
/// # Errors
///
/// [`VramError::LimitExceeded`].
pub(crate) fn check_piece(piece: &Piece) -> Result<(), VramError> {
    check_len(METADATA, described_len(piece))
}

/// Names the model, as events and reports do. Of the context, often a tenant, and of the description
/// it shows the length, as they are hidden in a record.
#[expect(clippy::missing_fields_in_debug, reason = "the fields of `common` are shown one by one")]
impl fmt::Debug for SealedAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedAs")
            .field("model_id", &self.model_id)
            .field("context_len", &self.context.len())
            .field("metadata", &self.metadata)
            .field("shard_index", &self.shard_index)
            .field("revision", &self.revision)
            .finish()
    }
}

/// The caller's description of the content.
#[derive(Clone)]
pub(crate) enum Metadata {
    /// The bytes; empty without a description.
    Known(Arc<[u8]>),
    /// Its code in an image that was imported by a caller who did not give the description. It
    /// serves to seal the shard anew under the same key.
    Coded(Box<MetadataCode>),
}

/// The description that a shard's seal is bound to.
#[derive(Clone, Debug)]
pub(crate) enum Description {
    Given(Metadata),
    /// What the plan says of the piece: made from it whenever it is needed, and kept nowhere.
    Piece(Member),
}

impl Description {
    /// # Errors
    ///
    /// As [`Metadata::check`].
    fn check(&self) -> Result<(), VramError> {
        match self {
            Self::Given(metadata) => metadata.check(),
            Self::Piece(member) => member.piece().map_or(Ok(()), check_piece),
        }
    }

    pub(crate) fn metadata(&self) -> Metadata {
        match self {
            Self::Given(metadata) => metadata.clone(),
            Self::Piece(member) => Metadata::Known(member.described().into()),
        }
    }
}

impl Metadata {
    /// # Errors
    ///
    /// [`VramError::LimitExceeded`] for a description that is too long.
    pub(crate) fn check(&self) -> Result<(), VramError> {
        match self {
            Self::Known(bytes) => check_len(METADATA, bytes.len()),
            Self::Coded(_) => Ok(()),
        }
    }

    /// Adds this description to what a record must be bound to.
    pub(crate) fn expect<'a>(&'a self, expected: Expected<'a>) -> Expected<'a> {
        match self {
            Self::Known(bytes) => expected.metadata(bytes),
            Self::Coded(code) => expected.metadata_code(**code),
        }
    }
}

impl Default for Metadata {
    /// No description.
    fn default() -> Self {
        Self::Known(Arc::from([]))
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(bytes) => write!(f, "Metadata({} bytes)", bytes.len()),
            Self::Coded(code) => code.fmt(f),
        }
    }
}
