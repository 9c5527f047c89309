//! Keys derived from the master key: one for each purpose.

use zeroize::Zeroize;

use crate::key::secret::Secret;
use crate::wipe::scrub_stack;

/// The purpose of a derived key. Each purpose has a label of its own, so no two share a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    HeaderMac,
    Siv,
    SegmentKey,
    TableMac,
    Attest,
    Binding,
    Metadata,
    Ticket,
    Manifest,
    KeyId,
}

impl Purpose {
    const fn label(self) -> &'static str {
        match self {
            Self::HeaderMac => "vram-seal v1 2026-11 header-mac",
            Self::Siv => "vram-seal v1 2026-11 siv",
            Self::SegmentKey => "vram-seal v1 2026-11 segment-key",
            Self::TableMac => "vram-seal v1 2026-11 table-mac",
            Self::Attest => "vram-seal v1 2026-11 attest",
            Self::Binding => "vram-seal v1 2026-11 binding",
            Self::Metadata => "vram-seal v1 2026-11 metadata",
            Self::Ticket => "vram-seal v1 2026-11 ticket",
            Self::Manifest => "vram-seal v1 2026-11 manifest",
            Self::KeyId => "vram-seal v1 2026-11 key-id",
        }
    }
}

/// Derives the key for one purpose.
pub(crate) fn derive(master: &[u8; 32], purpose: Purpose) -> Secret {
    let mut hasher = blake3::Hasher::new_derive_key(purpose.label());
    hasher.update(master);
    let derived = finish(&mut hasher);
    scrub_stack();
    derived
}

fn finish(hasher: &mut blake3::Hasher) -> Secret {
    let mut bytes = Secret::zeros();
    let mut output = hasher.finalize();
    bytes.copy_from_slice(output.as_bytes());
    output.zeroize();
    hasher.zeroize();
    bytes
}
