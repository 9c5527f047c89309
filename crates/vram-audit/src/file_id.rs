//! The name of one file of an audit.

use core::fmt;
use core::str::FromStr;

use vram_seal::SealKey;

use crate::hex::{hex, unhex};

/// The random name of one file of an audit: 16 bytes in its first line. The line that closes a file
/// names the file that goes on.
///
/// Prints as 32 lower-case hexadecimal digits, and parses from them alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AuditFileId([u8; 16]);

/// The text is not the id of a file of an audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the id of a file of an audit is 32 lower-case hexadecimal digits")]
pub struct ParseAuditFileIdError;

impl AuditFileId {
    pub(crate) const ZERO: Self = Self([0; 16]);

    /// A new id, from the operating system's random source: the id of a key that is thrown away.
    pub(crate) fn random() -> std::io::Result<Self> {
        let key = SealKey::random().map_err(std::io::Error::other)?;
        Ok(Self(*key.id().as_bytes()))
    }

    #[cfg(test)]
    pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for AuditFileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for AuditFileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditFileId({self})")
    }
}

impl FromStr for AuditFileId {
    type Err = ParseAuditFileIdError;

    fn from_str(text: &str) -> Result<Self, ParseAuditFileIdError> {
        unhex(text.as_bytes()).map(Self).ok_or(ParseAuditFileIdError)
    }
}

impl From<AuditFileId> for String {
    fn from(id: AuditFileId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for AuditFileId {
    type Error = ParseAuditFileIdError;

    fn try_from(text: String) -> Result<Self, ParseAuditFileIdError> {
        text.parse()
    }
}
