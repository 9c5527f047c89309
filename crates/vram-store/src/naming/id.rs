//! The names of things in a store: digests of their bytes.

use core::fmt;
use core::str::FromStr;

use base16ct::HexDisplay;
use vram_seal::{ContentHasher, HashKind};

/// The text is not 64 hexadecimal digits in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("64 hexadecimal digits in lower case are expected")]
pub struct ParseIdError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps the bytes of the digest.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The digest of these bytes.
            #[must_use]
            pub fn of(bytes: &[u8]) -> Self {
                Self(*ContentHasher::digest(HashKind::Blake3, bytes).as_bytes())
            }

            /// The bytes of the digest.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:x}", HexDisplay(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            /// Reads 64 hexadecimal digits in lower case: keys of a store have one spelling.
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                digits(text).map(Self).ok_or(ParseIdError)
            }
        }
    };
}

id! {
    /// The name of a sealed image: the BLAKE3 digest of its file, as `b3sum` prints it.
    ImageId
}

id! {
    /// The name of a manifest: the BLAKE3 digest of its bytes. A caller that pins it accepts no older
    /// and no other one.
    ManifestId
}

/// Exactly twice `N` digits in lower case.
pub(crate) fn digits<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let read = base16ct::lower::decode(text, &mut bytes).ok()?;
    (read.len() == N).then_some(bytes)
}

/// The digits of bytes, in lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    format!("{:x}", HexDisplay(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let id = ImageId::of(b"");
        let text = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(id.to_string(), text);
        assert_eq!(text.parse(), Ok(id));
        for wrong in [&text[1..], &text.to_uppercase(), &format!("{text}0"), ""] {
            assert_eq!(wrong.parse::<ImageId>(), Err(ParseIdError), "{wrong}");
        }
    }
}
