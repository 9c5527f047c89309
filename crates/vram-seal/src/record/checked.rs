//! What a check of sealed bytes rests on.

use core::fmt;

use vram_alloc::Site;

/// What shows that bytes are the sealed ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Evidence {
    /// A secret random fingerprint of the bytes is as it was: no change was made by anybody who does
    /// not know its key. Whoever reads the device's memory while it is computed learns that key.
    Fingerprint,
    /// The bytes were compared with the seal itself: the tag or the hash of each segment. No change
    /// was made by anybody without the key of the seal.
    Proof,
}

impl Evidence {
    /// The word for it: `proof` or `fingerprint`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proof => "proof",
            Self::Fingerprint => "fingerprint",
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How bytes were found sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Checked {
    /// What shows it.
    pub evidence: Evidence,
    /// Where it was computed. Results are compared on the host in every case.
    pub site: Site,
}

impl Checked {
    /// By the seal itself, on the host: the strongest, which needs no trust in a card.
    pub const BY_HOST: Self = Self { evidence: Evidence::Proof, site: Site::Host };

    /// What two checks of parts rest on at least: a fingerprint if one is, the card if one is.
    #[must_use]
    pub fn weaker(self, other: Self) -> Self {
        Self { evidence: self.evidence.min(other.evidence), site: self.site.min(other.site) }
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by the {}", self.evidence, self.site)
    }
}
