//! Shard ids: `orch-shard-` and a ULID, unique and strictly rising.

use core::borrow::Borrow;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::ops::Deref;
use core::str::FromStr;
use std::sync::Arc;

use ulid::Ulid;

/// The name of one resident shard: [`ShardId::PREFIX`] and a ULID of 26 characters.
///
/// Derefs to `str`. Ids made by one process rise strictly in byte order for any clock, and differ
/// across processes by 80 random bits a millisecond.
// One word: a manager keeps several of each shard. Each has the same length, which none keeps.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShardId(Arc<[u8; Self::LEN]>);

impl ShardId {
    /// The prefix of every shard id.
    pub const PREFIX: &'static str = "orch-shard-";
    /// Bytes of every shard id.
    pub const LEN: usize = Self::PREFIX.len() + ulid::ULID_LEN;

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // It is ASCII, which a look at 37 bytes proves again.
        str::from_utf8(&*self.0).unwrap_or_default()
    }

    /// The id as the bytes of its text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    pub(crate) fn from_ulid(ulid: Ulid) -> Self {
        let mut text = [0; Self::LEN];
        let (prefix, digits) = text.split_at_mut(Self::PREFIX.len());
        prefix.copy_from_slice(Self::PREFIX.as_bytes());
        if let Some(digits) = digits.first_chunk_mut() {
            ulid.array_to_str(digits);
        }
        Self(Arc::new(text))
    }
}

impl Deref for ShardId {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

/// As that of its text, by which maps find it.
impl Hash for ShardId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl AsRef<str> for ShardId {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for ShardId {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq<str> for ShardId {
    fn eq(&self, other: &str) -> bool {
        *self.as_str() == *other
    }
}

impl PartialEq<&str> for ShardId {
    fn eq(&self, other: &&str) -> bool {
        *self.as_str() == **other
    }
}

impl PartialEq<String> for ShardId {
    fn eq(&self, other: &String) -> bool {
        *self.as_str() == **other
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The text is not a shard id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a shard id: `orch-shard-` and 26 characters of a ULID, in upper case, are needed")]
pub struct ParseShardIdError;

impl FromStr for ShardId {
    type Err = ParseShardIdError;

    /// Reads exactly what `Display` writes.
    fn from_str(text: &str) -> Result<Self, ParseShardIdError> {
        let digits = text.strip_prefix(Self::PREFIX).ok_or(ParseShardIdError)?;
        let ulid = Ulid::from_string(digits).map_err(|_not_a_ulid| ParseShardIdError)?;
        let id = Self::from_ulid(ulid);
        // The ULID parser accepts lower case and look-alikes; a shard id has only one spelling.
        if id == text { Ok(id) } else { Err(ParseShardIdError) }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for ShardId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for ShardId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
