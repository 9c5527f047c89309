//! Shared parts of this crate's suites: a sealed shard with its record, table and data.

use vram_seal::{
    Expected, Opener, Protection, SealContext, SealError, SealKey, SealParams, SealRecord, Sealed,
    SegmentSize, SegmentTags, SivScope, Suite, Threads, seal,
};

/// The smallest segment, so that short content has many segments.
pub(crate) const S: usize = 4096;

/// The five kinds of seal, with the smallest segments.
pub(crate) fn kinds() -> [SealParams; 5] {
    let base = SealParams::new().with_scope(SivScope::Shard).with_segment(SegmentSize::MIN);
    let chacha = base.with_suite(Suite::ChaCha20Poly1305);
    [
        base.with_protection(Protection::Authenticated),
        base,
        base.with_scope(SivScope::Segment),
        chacha,
        chacha.with_scope(SivScope::Segment),
    ]
}

/// A key whose 32 bytes are all the same.
pub(crate) fn key(byte: u8) -> SealKey {
    SealKey::from_bytes(&[byte; 32])
}

/// One sealed shard.
#[derive(Clone)]
pub(crate) struct Shard {
    pub(crate) data: Vec<u8>,
    pub(crate) record: SealRecord,
    pub(crate) tags: SegmentTags,
}

impl Shard {
    pub(crate) fn seal(
        key: &SealKey,
        context: &SealContext<'_>,
        params: SealParams,
        plaintext: &[u8],
    ) -> Self {
        let mut data = vec![0; plaintext.len()];
        let Sealed { record, tags, .. } =
            seal(key, context, params, Threads::ONE, plaintext, &mut data).unwrap();
        Self { data, record, tags }
    }

    /// Seals as the model "model", under key 7.
    pub(crate) fn of(params: SealParams, plaintext: &[u8]) -> Self {
        Self::seal(&key(7), &SealContext::new("model").unwrap(), params, plaintext)
    }

    pub(crate) fn opener(&self) -> Opener {
        self.try_open().unwrap()
    }

    pub(crate) fn try_open(&self) -> Result<Opener, SealError> {
        let expected = Expected::new("model").unwrap().any_protection();
        Opener::open(&key(7), &self.record, self.tags.clone(), &expected)
    }

    /// A table with other bytes, of the right length.
    pub(crate) fn tags_of(&self, bytes: &[u8]) -> SegmentTags {
        SegmentTags::from_bytes(&self.record.parse_unauthenticated().unwrap(), bytes.to_vec())
            .unwrap()
    }
}
