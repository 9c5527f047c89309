//! Plain digests of content, as catalogues publish them and `b3sum` prints them.

use core::fmt;
use core::str::FromStr;

use base16ct::HexDisplay;
use zeroize::Zeroize;

use crate::hex;

/// The text is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 64 hexadecimal digits; this text is not")]
pub struct ParseDigestError;

/// 32 bytes that identify content.
///
/// It is not keyed, so it confirms guesses of the content: keep it out of logs. `Debug` shows
/// nothing of it, `Display` all of it; comparison takes constant time. It is `Copy`, so it is not
/// wiped when dropped: a holder of scratch wipes it with [`Zeroize`].
#[derive(Clone, Copy)]
pub struct ContentDigest([u8; 32]);

impl ContentDigest {
    /// Wraps the bytes of a digest.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for ContentDigest {
    fn eq(&self, other: &Self) -> bool {
        blake3::Hash::from_bytes(self.0) == blake3::Hash::from_bytes(other.0)
    }
}

impl Eq for ContentDigest {}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", HexDisplay(&self.0))
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentDigest(..)")
    }
}

impl Zeroize for ContentDigest {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl FromStr for ContentDigest {
    type Err = ParseDigestError;

    /// Reads 64 hexadecimal digits of either case.
    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let mut bytes = [0; 32];
        if hex::read(text.as_bytes(), &mut bytes) { Ok(Self(bytes)) } else { Err(ParseDigestError) }
    }
}

/// Which plain hash to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HashKind {
    /// BLAKE3: equal to the digest that sealing gives for the same bytes.
    Blake3,
    /// SHA-256: what most model catalogues publish.
    Sha256,
}

/// The digest that content must have, and of which kind it is.
///
/// As text: `blake3:` or `sha256:` and 64 hexadecimal digits. Digits alone are BLAKE3, as `b3sum`
/// prints them. `Debug` shows the kind alone.
///
/// ```
/// use vram_seal::{ExpectedDigest, HashKind};
///
/// let digits = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
/// let expected: ExpectedDigest = format!("sha256:{digits}").parse()?;
/// assert_eq!(expected.kind(), HashKind::Sha256);
/// assert_eq!(expected.to_string(), format!("sha256:{digits}"));
/// assert_eq!(digits.parse::<ExpectedDigest>()?.kind(), HashKind::Blake3);
/// # Ok::<(), vram_seal::ParseDigestError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedDigest {
    kind: HashKind,
    digest: ContentDigest,
}

impl ExpectedDigest {
    /// A digest of this kind.
    #[must_use]
    pub const fn new(kind: HashKind, digest: ContentDigest) -> Self {
        Self { kind, digest }
    }

    /// A BLAKE3 digest.
    #[must_use]
    pub const fn blake3(digest: ContentDigest) -> Self {
        Self::new(HashKind::Blake3, digest)
    }

    /// A SHA-256 digest.
    #[must_use]
    pub const fn sha256(digest: ContentDigest) -> Self {
        Self::new(HashKind::Sha256, digest)
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> HashKind {
        self.kind
    }

    /// The digest itself.
    #[must_use]
    pub const fn digest(&self) -> ContentDigest {
        self.digest
    }
}

impl fmt::Display for ExpectedDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.digest)
    }
}

impl FromStr for ExpectedDigest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let (kind, digits) = match text.split_once(':') {
            None => (HashKind::Blake3, text),
            Some(("blake3", digits)) => (HashKind::Blake3, digits),
            Some(("sha256", digits)) => (HashKind::Sha256, digits),
            Some(_) => return Err(ParseDigestError),
        };
        Ok(Self::new(kind, digits.parse()?))
    }
}

impl fmt::Display for HashKind {
    /// The prefix of a digest of this kind as text: `blake3`, `sha256`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blake3 => "blake3",
            Self::Sha256 => "sha256",
        })
    }
}

/// Hashes content that arrives in pieces.
pub struct ContentHasher(Inner);

enum Inner {
    Blake3(Box<blake3::Hasher>),
    Sha256(Box<ring::digest::Context>),
}

impl ContentHasher {
    /// A hasher without input so far.
    #[must_use]
    pub fn new(kind: HashKind) -> Self {
        Self(match kind {
            HashKind::Blake3 => Inner::Blake3(Box::new(blake3::Hasher::new())),
            HashKind::Sha256 => {
                Inner::Sha256(Box::new(ring::digest::Context::new(&ring::digest::SHA256)))
            }
        })
    }

    /// Adds the next piece.
    pub fn update(&mut self, bytes: &[u8]) -> &mut Self {
        match &mut self.0 {
            Inner::Blake3(hasher) => {
                hasher.update(bytes);
            }
            Inner::Sha256(context) => context.update(bytes),
        }
        self
    }

    /// The digest of all input so far.
    #[must_use]
    pub fn finalize(self) -> ContentDigest {
        match self.0 {
            Inner::Blake3(mut hasher) => {
                let mut hash = hasher.finalize();
                let digest = ContentDigest(*hash.as_bytes());
                hash.zeroize();
                hasher.zeroize();
                digest
            }
            Inner::Sha256(context) => {
                let mut bytes = [0; 32];
                for (target, source) in bytes.iter_mut().zip(context.finish().as_ref()) {
                    *target = *source;
                }
                let digest = ContentDigest(bytes);
                bytes.zeroize();
                digest
            }
        }
    }

    /// The digest of one slice.
    #[must_use]
    pub fn digest(kind: HashKind, bytes: &[u8]) -> ContentDigest {
        let mut hasher = Self::new(kind);
        hasher.update(bytes);
        hasher.finalize()
    }
}

impl fmt::Debug for ContentHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Inner::Blake3(_) => "ContentHasher(Blake3, ..)",
            Inner::Sha256(_) => "ContentHasher(Sha256, ..)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_hashes_match_published_values_of_the_empty_and_of_a_short_text() {
        for (kind, content, digest) in [
            (
                HashKind::Blake3,
                "",
                "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
            ),
            (
                HashKind::Blake3,
                "abc",
                "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
            ),
            (
                HashKind::Sha256,
                "",
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            (
                HashKind::Sha256,
                "abc",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
        ] {
            let got = ContentHasher::digest(kind, content.as_bytes());
            assert_eq!(got.to_string(), digest);
            assert_eq!(digest.parse(), Ok(got));
            let mut pieces = ContentHasher::new(kind);
            for byte in content.bytes() {
                pieces.update(&[byte]);
            }
            assert_eq!(pieces.finalize(), got);
        }
    }

    #[test]
    fn an_expected_digest_has_a_kind_and_one_spelling_for_each() {
        let digits = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
        for kind in [HashKind::Blake3, HashKind::Sha256] {
            let digest = ContentHasher::digest(kind, b"abc");
            let text = ExpectedDigest::new(kind, digest).to_string();
            assert_eq!(text, format!("{kind}:{digest}"));
            assert_eq!(text.parse(), Ok(ExpectedDigest::new(kind, digest)));
            // The same digits of the other kind are another digest.
            let other = text.split_once(':').unwrap().1;
            let blake3 = other.parse::<ExpectedDigest>().unwrap();
            assert_eq!(blake3 == ExpectedDigest::new(kind, digest), kind == HashKind::Blake3);
        }
        for refused in
            ["", "sha256:", ":", "md5:", "SHA256:", "sha256", " blake3:", "blake3: ", "sha512:"]
        {
            assert!(refused.parse::<ExpectedDigest>().is_err(), "{refused}");
            let digits = if refused.is_empty() { &digits[1..] } else { digits };
            assert!(
                format!("{refused}{digits}").parse::<ExpectedDigest>().is_err()
                    != (refused == "sha256:"),
                "{refused}"
            );
        }
        let shown = format!("{:?}", digits.parse::<ExpectedDigest>().unwrap());
        assert!(shown.contains("Blake3") && !shown.contains("6437"), "{shown}");
    }

    #[test]
    fn debug_shows_nothing_that_confirms_a_guess_of_the_content() {
        let mut digest = ContentHasher::digest(HashKind::Blake3, b"");
        assert_eq!(format!("{digest:?}"), "ContentDigest(..)");
        digest.zeroize();
        assert_eq!(digest.as_bytes(), &[0; 32]);
    }
}
