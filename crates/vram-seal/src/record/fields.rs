//! The fields of a seal record, each of a type that excludes invalid values.

use core::fmt;

use vram_alloc::ByteLen;

use crate::error::SealError;
use crate::key::id::KeyId;
use crate::key::mac::MacKey;
use crate::key::master::SealKey;
use crate::record::context::SealContext;
use crate::record::header::{BOUND_LEN, HASH_PROFILE, MACED_LEN, MAGIC, SealRecord, VERSION};
use crate::record::layout::{SegmentLayout, SegmentSize};
use crate::record::metadata::MetadataCode;
use crate::record::params::{Mode, SealParams, SivScope, Suite};
use crate::record::protection::Protection;

/// The fields of a seal record.
#[derive(Clone, PartialEq, Eq)]
pub struct RecordFields {
    pub(crate) mode: Mode,
    pub(crate) layout: SegmentLayout,
    pub(crate) shard_index: u64,
    pub(crate) revision: u64,
    pub(crate) key_id: KeyId,
    pub(crate) binding: [u8; 32],
    pub(crate) metadata: [u8; 32],
    pub(crate) siv: [u8; 32],
    pub(crate) table_mac: [u8; 32],
}

impl RecordFields {
    /// The fields of a seal in progress. SIV and table code are set at its end.
    pub(crate) fn new(
        key: &SealKey,
        context: &SealContext<'_>,
        params: SealParams,
        len: ByteLen,
    ) -> Result<Self, SealError> {
        context.check()?;
        Ok(Self {
            mode: params.mode(),
            layout: SegmentLayout::new(len, params.segment())?,
            shard_index: context.index(),
            revision: context.revision_number(),
            key_id: key.id(),
            binding: *context.binding().code(key.derived()).as_bytes(),
            metadata: *context.described().code(key.id(), key.derived())?.as_bytes(),
            siv: [0; 32],
            table_mac: [0; 32],
        })
    }

    /// Whether ciphertext or plaintext lies in memory.
    #[must_use]
    pub const fn protection(&self) -> Protection {
        match self.mode {
            Mode::Authenticated => Protection::Authenticated,
            Mode::Encrypted { .. } => Protection::Encrypted,
        }
    }

    /// The scope of the synthetic IV; `None` for an authenticated shard.
    #[must_use]
    pub const fn scope(&self) -> Option<SivScope> {
        match self.mode {
            Mode::Authenticated => None,
            Mode::Encrypted { scope, .. } => Some(scope),
        }
    }

    /// The cipher; `None` for an authenticated shard.
    #[must_use]
    pub const fn suite(&self) -> Option<Suite> {
        match self.mode {
            Mode::Authenticated => None,
            Mode::Encrypted { suite, .. } => Some(suite),
        }
    }

    /// The segment size.
    #[must_use]
    pub const fn segment(&self) -> SegmentSize {
        self.layout.segment_size()
    }

    /// The shard's division into segments.
    #[must_use]
    pub const fn layout(&self) -> &SegmentLayout {
        &self.layout
    }

    /// Length of the content, and of the sealed data.
    #[must_use]
    pub const fn plaintext_len(&self) -> ByteLen {
        self.layout.plaintext_len()
    }

    /// Number of segments: at least one.
    #[must_use]
    pub const fn segment_count(&self) -> u64 {
        self.layout.count()
    }

    /// Length of the segment table.
    #[must_use]
    pub fn table_len(&self) -> ByteLen {
        // At most 2^24 segments of 48 bytes.
        ByteLen::new(self.layout.count().saturating_mul(self.mode.entry_len().into()))
    }

    /// The shard's number within its model.
    #[must_use]
    pub const fn shard_index(&self) -> u64 {
        self.shard_index
    }

    /// The caller's revision of the content.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The id of the key that the shard was sealed under.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The keyed code of model id and context. Equal values give equal codes under one key; without
    /// the key it confirms no guess.
    #[must_use]
    pub const fn binding_code(&self) -> &[u8; 32] {
        &self.binding
    }

    /// The keyed code of the caller's metadata.
    #[must_use]
    pub const fn metadata_code(&self) -> MetadataCode {
        MetadataCode::new(self.key_id, self.metadata)
    }

    pub(crate) const fn mode(&self) -> Mode {
        self.mode
    }

    pub(crate) const fn siv(&self) -> &[u8; 32] {
        &self.siv
    }

    pub(crate) const fn table_mac(&self) -> &[u8; 32] {
        &self.table_mac
    }

    pub(crate) const fn set_siv(&mut self, siv: [u8; 32]) {
        self.siv = siv;
    }

    pub(crate) const fn set_table_mac(&mut self, mac: [u8; 32]) {
        self.table_mac = mac;
    }

    /// Bytes 0 to 127.
    pub(crate) fn bound(&self) -> [u8; BOUND_LEN] {
        let mut bytes = [0; BOUND_LEN];
        let [protection, scope, suite] = self.mode.to_bytes();
        let algorithms =
            [protection, scope, suite, HASH_PROFILE, self.layout.segment_size().log2(), 0];
        write_all(
            &mut bytes,
            &[
                &MAGIC,
                &VERSION.to_le_bytes(),
                &algorithms,
                &self.plaintext_len().get().to_le_bytes(),
                &self.segment_count().to_le_bytes(),
                &self.shard_index.to_le_bytes(),
                &self.revision.to_le_bytes(),
                self.key_id.as_bytes(),
                &self.binding,
                &self.metadata,
            ],
        );
        bytes
    }

    /// The finished record, with its code under `key`.
    pub(crate) fn to_record(&self, key: &MacKey) -> SealRecord {
        let blank = self.with_mac(&[0; 32]);
        self.with_mac(&key.sign(blank.as_bytes().get(..MACED_LEN).unwrap_or_default()))
    }

    /// The finished record, whose code is `mac`.
    pub(crate) fn with_mac(&self, mac: &[u8; 32]) -> SealRecord {
        let mut bytes = [0; SealRecord::LEN];
        let parts: [&[u8]; 5] = [&self.bound(), &self.siv, &self.table_mac, &[0; 32], mac];
        write_all(&mut bytes, &parts);
        SealRecord::from_bytes(bytes)
    }
}

impl fmt::Debug for RecordFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordFields")
            .field("protection", &self.protection())
            .field("scope", &self.scope())
            .field("suite", &self.suite())
            .field("segment", &self.segment().bytes().get())
            .field("plaintext_len", &self.plaintext_len().get())
            .field("segment_count", &self.segment_count())
            .field("shard_index", &self.shard_index)
            .field("revision", &self.revision)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// Writes the parts in sequence from the start of `target`.
fn write_all(mut target: &mut [u8], parts: &[&[u8]]) {
    for part in parts {
        let Some((here, rest)) = target.split_at_mut_checked(part.len()) else { return };
        here.copy_from_slice(part);
        target = rest;
    }
}
