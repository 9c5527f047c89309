//! Limits of whoever opens a record.

use vram_alloc::ByteLen;

use crate::record::layout::PLAINTEXT_LEN_MAX;

/// Limits on what a record may state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenLimits {
    /// The longest content that is accepted.
    pub max_len: ByteLen,
}

impl Default for OpenLimits {
    /// The format's maximum: 2^48 bytes.
    fn default() -> Self {
        Self { max_len: PLAINTEXT_LEN_MAX }
    }
}
