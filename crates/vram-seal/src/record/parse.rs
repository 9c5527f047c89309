//! Strict reading of a record's fields, with or without authentication.

use core::fmt;

use vram_alloc::ByteLen;

use crate::error::SealError;
use crate::key::id::KeyId;
use crate::record::fields::RecordFields;
use crate::record::header::SealRecord;
use crate::record::layout::{SegmentLayout, SegmentSize};
use crate::record::params::{Mode, SivScope};

impl SealRecord {
    /// Reads the fields **without a check that they are genuine**: only for display.
    ///
    /// # Errors
    ///
    /// [`SealError::NotASeal`], [`SealError::UnsupportedVersion`], [`SealError::UnsupportedHash`],
    /// [`SealError::MalformedRecord`] if the fields cannot be read.
    pub fn parse_unauthenticated(&self) -> Result<RecordFields, SealError> {
        self.check_format()?;
        self.parse_fields()
    }

    /// Reads the fields strictly: a bit without an allowed meaning is an error.
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
        let layout = SegmentLayout::new(len, size).map_err(|error| match error {
            SealError::TooManySegments { .. } => malformed("segment count"),
            _ => malformed("plaintext length"),
        })?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::mac::MacKey;
    use crate::{SealContext, SealKey, SealParams, SivScope, Suite};

    #[test]
    fn the_fields_lie_where_the_format_says() {
        let key = SealKey::from_bytes(&[9; 32]);
        let context = SealContext::new("m").expect("valid").shard_index(0x0102).revision(0x0304);
        let params =
            SealParams::new().with_suite(Suite::ChaCha20Poly1305).with_scope(SivScope::Shard);
        let mut fields =
            RecordFields::new(&key, &context, params, ByteLen::new(600_000)).expect("short enough");
        fields.set_siv([0xaa; 32]);
        fields.set_table_mac([0xbb; 32]);
        let record = fields.to_record(&MacKey::new(&[7; 32]));

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
        let coded = |purpose: &str, bytes: &[u8]| {
            let label = format!("vram-seal v1 2026-11 {purpose}");
            *blake3::keyed_hash(&blake3::derive_key(&label, &[9; 32]), bytes).as_bytes()
        };
        assert_eq!(record[64..96], coded("binding", &binding));
        assert_eq!(record[96..128], coded("metadata", b""));
        assert_eq!(record[128..160], [0xaa; 32]);
        assert_eq!(record[160..192], [0xbb; 32]);
        assert_eq!(record[192..224], [0; 32]);
        assert_eq!(record.bound(), &record[..128]);
        assert_eq!(record[224..256], record.mac());

        assert_eq!(record.check_mac(&MacKey::new(&[7; 32])), Ok(()));
        assert_eq!(record.check_mac(&MacKey::new(&[8; 32])), Err(SealError::RecordMismatch));
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
