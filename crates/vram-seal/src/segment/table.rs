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
#[derive(Clone)]
pub struct SegmentTags {
    bytes: Bytes,
}

/// The longest entry, in bytes.
const ENTRY_LEN_MAX: usize = 48;

/// The bytes of a table. Most shards of a model have one segment, whose entry needs no memory of its
/// own.
#[derive(Clone)]
enum Bytes {
    /// The first `len` bytes.
    One {
        entry: [u8; ENTRY_LEN_MAX],
        len: u8,
    },
    Many(Box<[u8]>),
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let mut entry = [0; ENTRY_LEN_MAX];
        match (entry.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(target), Ok(len)) => {
                target.copy_from_slice(&bytes);
                Self::One { entry, len }
            }
            _ => Self::Many(bytes.into()),
        }
    }
}

impl Bytes {
    fn as_mut_slice(&mut self) -> &mut [u8] {
        match self {
            Self::One { entry, len } => entry.get_mut(..usize::from(*len)).unwrap_or_default(),
            Self::Many(bytes) => bytes,
        }
    }
}

impl PartialEq for SegmentTags {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for SegmentTags {}

impl SegmentTags {
    /// Wraps the bytes of a table. Opening checks them against the record.
    ///
    /// # Errors
    ///
    /// [`SealError::WrongLength`] if the record states another length.
    pub fn from_bytes(fields: &RecordFields, bytes: Vec<u8>) -> Result<Self, SealError> {
        let (expected, found) = (fields.table_len().get(), ByteLen::from_usize(bytes.len()).get());
        if expected == found {
            Ok(Self { bytes: bytes.into() })
        } else {
            Err(SealError::WrongLength { what: "the segment table", expected, found })
        }
    }

    /// The table's bytes, as in a sealed image.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::One { entry, len } => entry.get(..usize::from(*len)).unwrap_or_default(),
            Bytes::Many(bytes) => bytes,
        }
    }

    /// The table's length.
    #[must_use]
    pub fn len_bytes(&self) -> ByteLen {
        ByteLen::from_usize(self.as_bytes().len())
    }

    /// A table of zeros for a seal in progress.
    pub(crate) fn blank(fields: &RecordFields) -> Result<Self, SealError> {
        let refused = || SealError::HostMemory { wanted: fields.table_len() };
        let len = fields.table_len().to_usize().ok_or_else(refused)?;
        if len <= ENTRY_LEN_MAX
            && let Ok(len) = u8::try_from(len)
        {
            return Ok(Self { bytes: Bytes::One { entry: [0; ENTRY_LEN_MAX], len } });
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| refused())?;
        bytes.resize(len, 0);
        Ok(Self { bytes: Bytes::Many(bytes.into()) })
    }

    pub(crate) fn set(&mut self, mode: Mode, segment: u64, entry: &Entry) {
        if let Some(range) = entry_range(mode, segment)
            && let Some(target) = self.bytes.as_mut_slice().get_mut(range)
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
        let bytes = self.as_bytes().get(entry_range(mode, segment)?)?;
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
        write!(f, "SegmentTags({} bytes)", self.as_bytes().len())
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
