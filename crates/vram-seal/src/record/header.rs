//! The seal record: 256 bytes that authenticate a shard, whatever its size.

use core::fmt;
use core::ops::{Deref, DerefMut};

use vram_alloc::ByteLen;

use crate::error::SealError;
use crate::key::master::KeyId;
use crate::key::ticket;
use crate::record::fields::RecordFields;
use crate::record::layout::{SegmentLayout, SegmentSize};
use crate::record::params::{Mode, SivScope};

pub(crate) const MAGIC: [u8; 8] = *b"VRSEAL1\0";
pub(crate) const VERSION: u16 = 1;
pub(crate) const HASH_PROFILE: u8 = 1;

/// The bytes that are bound into every key of the seal: all that is known before sealing.
pub(crate) const BOUND_LEN: usize = 128;
pub(crate) const MACED_LEN: usize = 224;

/// The seal record of one shard, as it is stored and sent.
///
/// The same for the same key, context and content. Holds no secret: the header fields, keyed codes
/// over the content, and hashes that confirm a guess of model id, context and metadata. It can be
/// read and altered like a byte slice; what was altered is refused when opened.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SealRecord([u8; SealRecord::LEN]);

impl SealRecord {
    /// The length of every record, in bytes.
    pub const LEN: usize = 256;

    /// Wraps the bytes of a record. Nothing is checked until it is opened.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes of the record.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The code over the whole record, by which a ticket or a manifest can pin it.
    #[must_use]
    pub fn mac(&self) -> [u8; 32] {
        *self.parts().header_mac
    }

    /// Reads the fields **without any check that they are genuine**: for showing them to people.
    ///
    /// # Errors
    ///
    /// [`SealError::NotASeal`], [`SealError::UnsupportedVersion`], [`SealError::UnsupportedHash`],
    /// [`SealError::MalformedRecord`] or [`SealError::TooLong`] where they cannot be read.
    pub fn parse_unauthenticated(&self) -> Result<RecordFields, SealError> {
        self.check_format()?;
        self.parse_fields()
    }

    /// Magic, version and hash profile: what decides how the rest is read.
    pub(crate) fn check_format(&self) -> Result<(), SealError> {
        let parts = self.parts();
        if *parts.magic != MAGIC {
            return Err(SealError::NotASeal);
        }
        let version = u16::from_le_bytes(*parts.version);
        if version != VERSION {
            return Err(SealError::UnsupportedVersion { found: version });
        }
        let [_, _, _, hash, _, _] = *parts.algorithms;
        if hash != HASH_PROFILE {
            return Err(SealError::UnsupportedHash { found: hash });
        }
        Ok(())
    }

    pub(crate) fn key_id(&self) -> KeyId {
        KeyId::from_bytes(*self.parts().key_id)
    }

    /// Checks the record's code, in constant time.
    pub(crate) fn check_mac(&self, key: &[u8; 32]) -> Result<(), SealError> {
        let parts = self.parts();
        if ticket::verify(key, parts.maced, parts.header_mac) {
            Ok(())
        } else {
            Err(SealError::RecordMismatch)
        }
    }

    /// The fields, strictly: every bit has one allowed meaning or is refused.
    pub(crate) fn parse_fields(&self) -> Result<RecordFields, SealError> {
        let parts = self.parts();
        let malformed = |field| SealError::MalformedRecord { field };
        let [protection, scope, suite, _, log2, flags] = *parts.algorithms;
        let mode = Mode::from_bytes([protection, scope, suite])
            .ok_or(malformed("combination of mode, scope and cipher"))?;
        if flags != 0 {
            return Err(malformed("flag"));
        }
        if *parts.reserved != [0; 32] {
            return Err(malformed("reserved byte"));
        }
        if !matches!(mode, Mode::Encrypted { scope: SivScope::Shard, .. }) && *parts.siv != [0; 32]
        {
            return Err(malformed("synthetic IV where there is none"));
        }
        let size = SegmentSize::from_log2(log2).map_err(|_| malformed("segment size"))?;
        let len = ByteLen::new(u64::from_le_bytes(*parts.len));
        let layout = SegmentLayout::new(len, size).map_err(|_| malformed("plaintext length"))?;
        if layout.count() != u64::from_le_bytes(*parts.count) {
            return Err(malformed("segment count"));
        }
        Ok(RecordFields {
            mode,
            layout,
            shard_index: u64::from_le_bytes(*parts.shard_index),
            revision: u64::from_le_bytes(*parts.revision),
            key_id: KeyId::from_bytes(*parts.key_id),
            binding: *parts.binding,
            metadata: *parts.metadata,
            siv: *parts.siv,
            table_mac: *parts.table_mac,
        })
    }

    pub(crate) fn bound(&self) -> &[u8] {
        self.parts().bound
    }

    fn parts(&self) -> Parts<'_> {
        Parts::of(&self.0)
    }
}

impl Deref for SealRecord {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for SealRecord {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl AsRef<[u8]> for SealRecord {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&[u8]> for SealRecord {
    type Error = SealError;

    fn try_from(bytes: &[u8]) -> Result<Self, SealError> {
        match bytes.try_into() {
            Ok(array) => Ok(Self(array)),
            Err(_) => Err(SealError::WrongLength {
                what: "a seal record",
                expected: 256,
                found: ByteLen::from_usize(bytes.len()).get(),
            }),
        }
    }
}

impl fmt::Debug for SealRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parse_unauthenticated() {
            Ok(fields) => f
                .debug_struct("SealRecord")
                .field("protection", &fields.protection())
                .field("plaintext_len", &fields.plaintext_len().get())
                .field("key_id", &fields.key_id())
                .finish_non_exhaustive(),
            Err(_) => f.write_str("SealRecord(malformed, 256 bytes)"),
        }
    }
}

/// The record's bytes by field, in the order of the format's table.
struct Parts<'a> {
    bound: &'a [u8],
    maced: &'a [u8],
    magic: &'a [u8; 8],
    version: &'a [u8; 2],
    algorithms: &'a [u8; 6],
    len: &'a [u8; 8],
    count: &'a [u8; 8],
    shard_index: &'a [u8; 8],
    revision: &'a [u8; 8],
    key_id: &'a [u8; 16],
    binding: &'a [u8; 32],
    metadata: &'a [u8; 32],
    siv: &'a [u8; 32],
    table_mac: &'a [u8; 32],
    reserved: &'a [u8; 32],
    header_mac: &'a [u8; 32],
}

impl<'a> Parts<'a> {
    fn of(bytes: &'a [u8; SealRecord::LEN]) -> Self {
        let mut rest = &bytes[..];
        Self {
            bound: &bytes[..BOUND_LEN],
            maced: &bytes[..MACED_LEN],
            magic: take(&mut rest),
            version: take(&mut rest),
            algorithms: take(&mut rest),
            len: take(&mut rest),
            count: take(&mut rest),
            shard_index: take(&mut rest),
            revision: take(&mut rest),
            key_id: take(&mut rest),
            binding: take(&mut rest),
            metadata: take(&mut rest),
            siv: take(&mut rest),
            table_mac: take(&mut rest),
            reserved: take(&mut rest),
            header_mac: take(&mut rest),
        }
    }
}

/// Takes the next `N` bytes. The lengths of all fields add up to the record's, so none is missing.
fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> &'a [u8; N] {
    const { assert!(N <= SealRecord::LEN) };
    match rest.split_first_chunk() {
        Some((head, tail)) => {
            *rest = tail;
            head
        }
        None => &[0; N],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SealContext, SealKey, SealParams, Suite};

    #[test]
    fn the_fields_lie_where_the_format_says() {
        let key = SealKey::from_bytes([9; 32]);
        let context = SealContext::new("m").expect("valid").shard_index(0x0102).revision(0x0304);
        let params = SealParams::new().with_suite(Suite::ChaCha20Poly1305);
        let mut fields = RecordFields::new(key.id(), &context, params, ByteLen::new(600_000))
            .expect("short enough");
        fields.set_siv([0xaa; 32]);
        fields.set_table_mac([0xbb; 32]);
        let record = fields.to_record(&[7; 32]);

        assert_eq!(&record[0..8], b"VRSEAL1\0");
        assert_eq!(record[8..16], [1, 0, 1, 2, 2, 1, 18, 0]);
        assert_eq!(record[16..24], 600_000_u64.to_le_bytes());
        assert_eq!(record[24..32], 3_u64.to_le_bytes());
        assert_eq!(record[32..40], 0x0102_u64.to_le_bytes());
        assert_eq!(record[40..48], 0x0304_u64.to_le_bytes());
        assert_eq!(&record[48..64], key.id().as_bytes());
        let mut binding = Vec::new();
        binding.extend_from_slice(&1_u64.to_le_bytes());
        binding.extend_from_slice(b"m");
        binding.extend_from_slice(&0_u64.to_le_bytes());
        assert_eq!(&record[64..96], blake3::hash(&binding).as_bytes());
        assert_eq!(&record[96..128], blake3::hash(b"").as_bytes());
        assert_eq!(record[128..160], [0xaa; 32]);
        assert_eq!(record[160..192], [0xbb; 32]);
        assert_eq!(record[192..224], [0; 32]);
        assert_eq!(record.bound(), &record[..128]);
        assert_eq!(record[224..256], record.mac());

        assert_eq!(record.check_mac(&[7; 32]), Ok(()));
        assert_eq!(record.check_mac(&[8; 32]), Err(SealError::RecordMismatch));
        assert!(record.parse_unauthenticated().expect("its own form") == fields);
    }

    #[test]
    fn only_the_five_combinations_are_read() {
        let mut known = 0;
        for protection in 0..=u8::MAX {
            for scope in 0..=u8::MAX {
                for suite in 0..=u8::MAX {
                    if let Some(mode) = Mode::from_bytes([protection, scope, suite]) {
                        assert_eq!(mode.to_bytes(), [protection, scope, suite]);
                        known += 1;
                    }
                }
            }
        }
        assert_eq!(known, 5);
    }
}
