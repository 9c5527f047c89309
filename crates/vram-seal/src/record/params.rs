//! The caller's choices for a seal.

use crate::record::layout::SegmentSize;
use crate::record::protection::Protection;

/// The authenticated cipher. Both have keys of 256 bits: nonces repeat from shard to shard under
/// different keys, so shorter keys are not offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[non_exhaustive]
pub enum Suite {
    /// AES-256 in Galois/counter mode.
    #[default]
    #[cfg_attr(feature = "serde", serde(rename = "aes-256-gcm"))]
    Aes256Gcm,
    /// `ChaCha20` with `Poly1305`, for processors without AES instructions.
    #[cfg_attr(feature = "serde", serde(rename = "chacha20-poly1305"))]
    ChaCha20Poly1305,
}

/// The content over which the synthetic IV is computed; segment keys derive from that IV.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[non_exhaustive]
pub enum SivScope {
    /// The whole content: two passes; only the equality of whole shards is visible. Each segment of
    /// the second pass is compared with the first before it is encrypted, and content that changed
    /// is refused.
    Shard,
    /// Each segment by itself: one pass, so any content can be sealed. Equality of segments at the
    /// same index, under one key and context, is visible.
    #[default]
    Segment,
}

/// The choices of one seal. By default Encrypted, AES-256-GCM, scope Segment, segments of 256 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SealParams {
    protection: Protection,
    suite: Suite,
    scope: SivScope,
    segment: SegmentSize,
}

impl SealParams {
    /// The default choices.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            protection: Protection::Encrypted,
            suite: Suite::Aes256Gcm,
            scope: SivScope::Segment,
            segment: SegmentSize::DEFAULT,
        }
    }

    /// Sets the protection. [`Protection::Authenticated`] ignores suite and scope.
    #[must_use]
    pub const fn with_protection(mut self, protection: Protection) -> Self {
        self.protection = protection;
        self
    }

    /// Sets the cipher.
    #[must_use]
    pub const fn with_suite(mut self, suite: Suite) -> Self {
        self.suite = suite;
        self
    }

    /// Sets the scope of the synthetic IV.
    #[must_use]
    pub const fn with_scope(mut self, scope: SivScope) -> Self {
        self.scope = scope;
        self
    }

    /// Sets the segment size.
    #[must_use]
    pub const fn with_segment(mut self, segment: SegmentSize) -> Self {
        self.segment = segment;
        self
    }

    /// The protection.
    #[must_use]
    pub const fn protection(&self) -> Protection {
        self.protection
    }

    /// The cipher; not used for [`Protection::Authenticated`].
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The scope of the synthetic IV; not used for [`Protection::Authenticated`].
    #[must_use]
    pub const fn scope(&self) -> SivScope {
        self.scope
    }

    /// The segment size.
    #[must_use]
    pub const fn segment(&self) -> SegmentSize {
        self.segment
    }

    pub(crate) const fn mode(self) -> Mode {
        match self.protection {
            Protection::Authenticated => Mode::Authenticated,
            Protection::Encrypted => Mode::Encrypted { scope: self.scope, suite: self.suite },
        }
    }
}

impl Default for SealParams {
    fn default() -> Self {
        Self::new()
    }
}

/// The five combinations of the format, as one value: other combinations cannot be expressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    Authenticated,
    Encrypted { scope: SivScope, suite: Suite },
}

impl Mode {
    /// Header bytes 10, 11, 12.
    pub(crate) const fn to_bytes(self) -> [u8; 3] {
        match self {
            Self::Authenticated => [2, 0, 0],
            Self::Encrypted { scope, suite } => [
                1,
                match scope {
                    SivScope::Segment => 1,
                    SivScope::Shard => 2,
                },
                match suite {
                    Suite::Aes256Gcm => 1,
                    Suite::ChaCha20Poly1305 => 2,
                },
            ],
        }
    }

    pub(crate) const fn from_bytes(bytes: [u8; 3]) -> Option<Self> {
        let (scope, suite) = match bytes {
            [2, 0, 0] => return Some(Self::Authenticated),
            [1, 1, 1] => (SivScope::Segment, Suite::Aes256Gcm),
            [1, 1, 2] => (SivScope::Segment, Suite::ChaCha20Poly1305),
            [1, 2, 1] => (SivScope::Shard, Suite::Aes256Gcm),
            [1, 2, 2] => (SivScope::Shard, Suite::ChaCha20Poly1305),
            _ => return None,
        };
        Some(Self::Encrypted { scope, suite })
    }

    /// Bytes of the segment table for one segment.
    pub(crate) const fn entry_len(self) -> u8 {
        match self {
            Self::Encrypted { scope: SivScope::Shard, .. } => 16,
            Self::Encrypted { scope: SivScope::Segment, .. } => 48,
            Self::Authenticated => 32,
        }
    }
}
