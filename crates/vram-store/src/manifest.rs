//! Which sealed images are a revision of a model: the one thing in a store that names others.
//!
//! The bytes of a manifest are specified in `docs/store-format.md`. There is one spelling of each
//! manifest: what is read is written again and compared.

mod find;
mod mend;
mod passed;
mod sources;
mod time;
mod trust;
mod wire;

use vram_seal::{KeyId, ManifestKey, Protection};

pub use find::Wanted;
pub(crate) use mend::made_again;
pub use time::created_at;
pub use trust::{Trusted, Unproven};

use crate::naming::id::{ImageId, ManifestId, hex};

/// Longest manifest, in bytes.
pub const MANIFEST_LEN_MAX: u64 = 16 << 20;
/// Most shards in a manifest.
pub const SHARDS_MAX: usize = 1 << 16;

/// One shard of a model: a sealed image, and the code of its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardEntry {
    /// The shard's number within the model: its position in the manifest.
    pub index: u64,
    /// Bytes of its content.
    pub plaintext_len: u64,
    /// The sealed image.
    pub image: ImageId,
    /// Bytes of the sealed image.
    pub image_len: u64,
    /// The code of the image's record ([`SealRecord::mac`](vram_seal::SealRecord::mac)).
    pub record_mac: [u8; 32],
}

/// What the images were made from. For people: nothing is derived from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceInfo {
    /// The format of the source, such as `safetensors`.
    pub format: String,
    /// The BLAKE3 digest of the listing of the source.
    pub digest: [u8; 32],
}

/// Which sealed images are a revision of a model.
///
/// A value of this type may have been written by anybody: see [`Trusted`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The fleet that the model belongs to, if any.
    pub fleet: Option<String>,
    /// The id of the model.
    pub model: String,
    /// The publisher's number for this content.
    pub revision: u64,
    /// The keyed code of model id and context, as in the records of the images.
    pub context: [u8; 32],
    /// The key that the images were sealed under.
    pub key_id: KeyId,
    /// When the revision was pushed: RFC 3339, in seconds, UTC.
    pub created: String,
    /// The protection of all images.
    pub protection: Protection,
    /// Which shards each rank of the model loads.
    pub ranks: Vec<Vec<u64>>,
    /// The shards, in order.
    pub shards: Vec<ShardEntry>,
    /// What the images were made from.
    pub source: SourceInfo,
    /// The code of the manifest, under the key.
    pub mac: [u8; 32],
}

/// Why bytes are no manifest, or not the one that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The object is longer than a manifest may be.
    #[error("it has {found} bytes, and a manifest has at most {MANIFEST_LEN_MAX}")]
    TooLong {
        /// Its length.
        found: u64,
    },
    /// The object is there, and its bytes cannot be read.
    #[error("it cannot be read: {why}")]
    Unreadable {
        /// Why, without credentials.
        why: String,
    },
    /// The bytes are not JSON of the expected form.
    #[error("it is not a manifest: {0}")]
    Form(String),
    /// A field has a value that is not allowed.
    #[error("its field {field} is wrong: it must be {why}")]
    Field {
        /// The field.
        field: &'static str,
        /// What would be allowed.
        why: &'static str,
    },
    /// The values are written in another way than the one that is allowed.
    #[error("it is not written in the one spelling that is allowed")]
    Spelling,
    /// The digest of the bytes is not the one of the key, or of the pin.
    #[error("its digest is {found}, and {expected} was expected")]
    Digest {
        /// The digest in the key of the object, or the pin.
        expected: ManifestId,
        /// The digest of the bytes.
        found: ManifestId,
    },
    /// The key that it was signed with is not among the caller's keys.
    #[error("it needs the key {id}, which is not here")]
    UnknownKey {
        /// The key that it names.
        id: KeyId,
    },
    /// Its code is not the one that its key makes.
    #[error("its code does not match its bytes")]
    Code,
    /// It is a manifest of another model or revision.
    #[error("it is of {model} revision {revision}")]
    Another {
        /// The model that it names.
        model: String,
        /// The revision that it names.
        revision: u64,
    },
    /// It was made in another context, such as of another tenant.
    #[error("it was made in another context")]
    Context,
    /// A record of an image says otherwise.
    #[error("it does not agree with the record of shard {index}: {field}")]
    Record {
        /// The shard.
        index: u64,
        /// The field that differs.
        field: &'static str,
    },
}

impl Manifest {
    /// Reads the bytes of a manifest. Nothing is proven by it.
    ///
    /// # Errors
    ///
    /// [`ManifestError`], for the first rule of the format that the bytes break.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if found > MANIFEST_LEN_MAX {
            return Err(ManifestError::TooLong { found });
        }
        let manifest = wire::read(bytes)?;
        manifest.check()?;
        if manifest.to_bytes() != bytes {
            return Err(ManifestError::Spelling);
        }
        Ok(manifest)
    }

    /// The bytes of the manifest.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.signed_bytes();
        bytes.extend_from_slice(wire::ending(&self.mac).as_bytes());
        bytes
    }

    /// The bytes that the code is made over: all that precede it.
    fn signed_bytes(&self) -> Vec<u8> {
        wire::write(self)
    }

    /// Signs the manifest.
    #[must_use]
    pub fn signed(mut self, key: &ManifestKey) -> Self {
        self.mac = key.sign(&self.signed_bytes());
        self
    }

    /// Checks the code.
    ///
    /// # Errors
    ///
    /// [`ManifestError::Code`].
    pub fn check_code(&self, key: &ManifestKey) -> Result<(), ManifestError> {
        key.verify(&self.signed_bytes(), &self.mac).map_err(|_wrong| ManifestError::Code)
    }

    /// The name of the manifest: the digest of its bytes.
    #[must_use]
    pub fn id(&self) -> ManifestId {
        ManifestId::of(&self.to_bytes())
    }

    /// Bytes of all images.
    #[must_use]
    pub fn image_len(&self) -> u64 {
        self.shards.iter().fold(0, |sum, shard| sum.saturating_add(shard.image_len))
    }

    /// Returns true if both state the same, apart from when they were made.
    pub(crate) fn same_content(&self, other: &Self) -> bool {
        let timeless = |one: &Self| Self { created: String::new(), mac: [0; 32], ..one.clone() };
        timeless(self) == timeless(other)
    }

    /// Checks the rules for values. A manifest that breaks one is neither read nor pushed.
    pub(crate) fn check(&self) -> Result<(), ManifestError> {
        let field = |field, why| Err(ManifestError::Field { field, why });
        if !(1..=vram_seal::MODEL_ID_LEN_MAX).contains(&self.model.len()) {
            return field("model", "1 to 1024 bytes");
        }
        if self.fleet.as_ref().is_some_and(|fleet| !(1..=256).contains(&fleet.len())) {
            return field("fleet", "null, or 1 to 256 bytes");
        }
        if !time::is_time(&self.created) {
            return field("created", "a time such as 2026-11-26T11:40:00Z");
        }
        if !(1..=64).contains(&self.source.format.len()) {
            return field("source.format", "1 to 64 bytes");
        }
        if !(1..=SHARDS_MAX).contains(&self.shards.len()) {
            return field("shards", "1 to 65536 shards");
        }
        if (0_u64..).zip(&self.shards).any(|(at, shard)| shard.index != at) {
            return field("shards", "numbered from 0, in order");
        }
        let longer = |shard: &ShardEntry| shard.image_len > shard.plaintext_len;
        if !self.shards.iter().all(longer) {
            return field("image_len", "more than plaintext_len");
        }
        if self.ranks.is_empty() || self.ranks.len() > SHARDS_MAX {
            return field("ranks", "at least one rank");
        }
        let count = u64::try_from(self.shards.len()).unwrap_or(u64::MAX);
        let rises = |rank: &[u64]| rank.is_sorted_by(|a, b| a < b);
        let good = |rank: &Vec<u64>| rank.iter().all(|index| *index < count) && rises(rank);
        if !self.ranks.iter().all(good) {
            return field("ranks", "numbers of shards, each once, in order");
        }
        Ok(())
    }
}

/// The word of a protection in a manifest.
const fn word(protection: Protection) -> &'static str {
    match protection {
        Protection::Encrypted => "encrypted",
        _ => "authenticated",
    }
}

/// For messages: the beginning of a digest.
pub(crate) fn short(bytes: &[u8; 32]) -> String {
    hex(bytes.first_chunk::<4>().map_or(&[][..], |four| four))
}

#[cfg(test)]
pub(crate) mod tests;
