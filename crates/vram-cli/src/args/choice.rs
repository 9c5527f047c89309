//! What is chosen of a few values: mode, scope, cipher, segment size.

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::{PathBufValueParser, TypedValueParser};
use vram_residency::{ByteLen, Protection, SegmentSize, SivScope, Suite};

/// Encrypted or authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Ciphertext: unreadable without the key.
    Encrypted,
    /// Plaintext in place: readable without the key, and any change shows.
    Authenticated,
}

/// Which mode an image must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExpectedMode {
    /// Ciphertext.
    Encrypted,
    /// Plaintext in place.
    Authenticated,
    /// Either.
    Any,
}

/// The unit over which sealing is deterministic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    /// Over the whole content.
    Shard,
    /// Over each segment on its own.
    Segment,
}

/// The cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cipher {
    /// AES-256 in Galois/counter mode: the faster one on processors with AES instructions.
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    /// `ChaCha20` with Poly1305: the faster one on other processors.
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl From<Mode> for Protection {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Encrypted => Self::Encrypted,
            Mode::Authenticated => Self::Authenticated,
        }
    }
}

impl From<Scope> for SivScope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Shard => Self::Shard,
            Scope::Segment => Self::Segment,
        }
    }
}

impl From<Cipher> for Suite {
    fn from(cipher: Cipher) -> Self {
        match cipher {
            Cipher::Aes256Gcm => Self::Aes256Gcm,
            Cipher::ChaCha20Poly1305 => Self::ChaCha20Poly1305,
        }
    }
}

/// A size that a segment may have.
pub(super) fn segment_size(text: &str) -> Result<SegmentSize, String> {
    let len: ByteLen = text.parse().map_err(|error| format!("{error}"))?;
    SegmentSize::from_bytes(len).map_err(|error| error.to_string())
}

/// A path to write to: not an address, which would become a folder of an odd name.
pub(crate) fn local() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        let scheme = path.to_str().and_then(|text| text.split_once("://")).map(|(scheme, _)| scheme);
        let letter = |one: u8| one.is_ascii_alphanumeric() || matches!(one, b'+' | b'-' | b'.');
        match scheme {
            Some(scheme) if !scheme.is_empty() && scheme.bytes().all(letter) => Err(
                "it is an address, and this is written on this machine alone: give a path; `vram push \
                 --store` writes to a store; a path of such a name is given as ./NAME",
            ),
            _ => Ok(path),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_size_is_a_power_of_two_within_the_format() {
        assert_eq!(segment_size("256KiB").unwrap().log2(), 18);
        assert_eq!(segment_size("4096").unwrap().log2(), 12);
        for refused in ["", "0", "1000", "2KiB", "32MiB", "a lot"] {
            assert!(segment_size(refused).is_err(), "{refused}");
        }
    }
}
