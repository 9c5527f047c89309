//! Shard ids: `orch-shard-` and a ULID, unique and strictly rising.

use core::borrow::Borrow;
use core::fmt;
use core::ops::Deref;
use core::str::FromStr;
use std::sync::Arc;

use ulid::Ulid;

/// The name of one resident shard: [`ShardId::PREFIX`] and a ULID of 26 characters.
///
/// Derefs to `str`. Ids made by one process rise strictly in byte order for any clock, and differ
/// across processes by 80 random bits a millisecond.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(Arc<str>);

impl ShardId {
    /// The prefix of every shard id.
    pub const PREFIX: &'static str = "orch-shard-";

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn from_ulid(ulid: Ulid) -> Self {
        let mut text = [0; Self::PREFIX.len() + ulid::ULID_LEN];
        let (prefix, digits) = text.split_at_mut(Self::PREFIX.len());
        prefix.copy_from_slice(Self::PREFIX.as_bytes());
        if let Some(digits) = digits.first_chunk_mut() {
            ulid.array_to_str(digits);
        }
        // Prefix and digits are ASCII.
        Self(core::str::from_utf8(&text).unwrap_or_default().into())
    }
}

impl Deref for ShardId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for ShardId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ShardId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for ShardId {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for ShardId {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl PartialEq<String> for ShardId {
    fn eq(&self, other: &String) -> bool {
        *self.0 == **other
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
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
        serializer.serialize_str(&self.0)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for ShardId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
