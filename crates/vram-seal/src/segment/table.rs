//! The segment table, which authenticates each segment; stored next to the record.

use core::fmt;

use vram_alloc::ByteLen;

use crate::error::SealError;
use crate::record::fields::RecordFields;
use crate::record::params::{Mode, SivScope};
use crate::segment::aead::TAG_LEN;

/// The table of one shard: 16, 48 or 32 bytes a segment, in the order of the segments.
///
/// It contains no secret. The record authenticates it as a whole.
#[derive(Clone, PartialEq, Eq)]
pub struct SegmentTags {
    bytes: Vec<u8>,
}

impl SegmentTags {
    /// Wraps the bytes of a table. Opening checks them against the record.
    ///
    /// # Errors
    ///
    /// [`SealError::WrongLength`] if the record states another length.
    pub fn from_bytes(fields: &RecordFields, bytes: Vec<u8>) -> Result<Self, SealError> {
        let (expected, found) = (fields.table_len().get(), ByteLen::from_usize(bytes.len()).get());
        if expected == found {
            Ok(Self { bytes })
        } else {
            Err(SealError::WrongLength { what: "the segment table", expected, found })
        }
    }

    /// The table's bytes, as in a sealed image.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The table's length.
    #[must_use]
    pub fn len_bytes(&self) -> ByteLen {
        ByteLen::from_usize(self.bytes.len())
    }

    /// A table of zeros for a seal in progress.
    pub(crate) fn blank(fields: &RecordFields) -> Result<Self, SealError> {
        let refused = || SealError::HostMemory { wanted: fields.table_len() };
        let len = fields.table_len().to_usize().ok_or_else(refused)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| refused())?;
        bytes.resize(len, 0);
        Ok(Self { bytes })
    }

    pub(crate) fn set(&mut self, mode: Mode, segment: u64, entry: &Entry) {
        if let Some(range) = entry_range(mode, segment)
            && let Some(target) = self.bytes.get_mut(range)
        {
            let mut target = target;
            for part in entry.parts() {
                let Some((here, rest)) = target.split_at_mut_checked(part.len()) else { return };
                here.copy_from_slice(part);
                target = rest;
            }
        }
    }

    pub(crate) fn get(&self, mode: Mode, segment: u64) -> Option<Entry> {
        let bytes = self.bytes.get(entry_range(mode, segment)?)?;
        Some(match mode {
            Mode::Authenticated => Entry::Authenticated { code: bytes.try_into().ok()? },
            Mode::Encrypted { scope: SivScope::Shard, .. } => {
                Entry::Shard { tag: bytes.try_into().ok()? }
            }
            Mode::Encrypted { scope: SivScope::Segment, .. } => {
                let (siv, tag) = bytes.split_first_chunk()?;
                Entry::Segment { siv: *siv, tag: tag.try_into().ok()? }
            }
        })
    }
}

impl fmt::Debug for SegmentTags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentTags({} bytes)", self.bytes.len())
    }
}

fn entry_range(mode: Mode, segment: u64) -> Option<core::ops::Range<usize>> {
    let len = usize::from(mode.entry_len());
    let start = usize::try_from(segment).ok()?.checked_mul(len)?;
    Some(start..start.checked_add(len)?)
}

/// The table entry of one segment.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Shard { tag: [u8; TAG_LEN] },
    Segment { siv: [u8; 32], tag: [u8; TAG_LEN] },
    Authenticated { code: [u8; 32] },
}

impl Entry {
    fn parts(&self) -> [&[u8]; 2] {
        match self {
            Self::Shard { tag } => [tag, &[]],
            Self::Segment { siv, tag } => [siv, tag],
            Self::Authenticated { code } => [code, &[]],
        }
    }
}
