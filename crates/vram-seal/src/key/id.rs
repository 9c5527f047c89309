//! The public name of a key, and the errors of keys and key ids.

use core::fmt;
use core::str::FromStr;

use base16ct::HexDisplay;

use crate::hex;

/// Why a key could not be read, created, added or found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The operating system returned no random bytes.
    #[error("the operating system gave no random bytes for a key")]
    Random,
    /// The text is not 64 hexadecimal digits.
    #[error("a key is 64 hexadecimal digits; this text is not ({found} bytes)")]
    NotHex {
        /// The length of the text, in bytes.
        found: usize,
    },
    /// The content of a key file has neither of the two accepted forms.
    #[error(
        "a key file holds 64 hexadecimal digits and at most one newline, or exactly 32 raw bytes; \
         this one has {} of something else", Read(*found)
    )]
    NotAKeyFile {
        /// The length of what was read of the file, in bytes: a reader stops one byte beyond the
        /// longest key.
        found: usize,
    },
    /// 32 bytes that are all hexadecimal digits: most likely half of a key in hexadecimal form.
    #[error("32 bytes that are all hexadecimal digits look like half a key of 64 digits")]
    HalfAKey,
    /// All 32 bytes are zero: a buffer that was never filled, or a file that was wiped.
    #[error("32 zero bytes are no key")]
    AllZero,
    /// The text is not 32 hexadecimal digits.
    #[error("a key id is 32 hexadecimal digits; this text is not")]
    NotAKeyId,
    /// The ring already has a key with this id.
    #[error("the key ring already has a key with id {id}")]
    DuplicateId {
        /// The id that exists already.
        id: KeyId,
    },
    /// The ring has no key with this id.
    #[error("the key ring has no key with id {id}")]
    UnknownId {
        /// The requested id.
        id: KeyId,
    },
    /// The active key of a ring cannot be removed.
    #[error("key {id} is the active one and cannot be removed")]
    ActiveKey {
        /// The id of the active key.
        id: KeyId,
    },
}

/// The length of what was read of a key file.
struct Read(usize);

impl fmt::Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The longest key file: 64 digits and a newline.
        const LONGEST: usize = 65;
        if self.0 > LONGEST {
            write!(f, "more than {LONGEST} bytes")
        } else {
            write!(f, "{} bytes", self.0)
        }
    }
}

/// The public name of a key: 16 bytes derived from the key, which reveal nothing else about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 16]);

impl KeyId {
    /// Wraps the bytes of a record's key id field.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes of a record's key id field.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", HexDisplay(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl FromStr for KeyId {
    type Err = KeyError;

    /// Reads 32 hexadecimal digits of either case.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut bytes = [0; 16];
        if hex::read(text.as_bytes(), &mut bytes) {
            Ok(Self(bytes))
        } else {
            Err(KeyError::NotAKeyId)
        }
    }
}
