//! Sealing segments, one by one.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use vram_alloc::ByteLen;
use zeroize::Zeroize as _;

use crate::digest::ContentDigest;
use crate::error::SealError;
use crate::key::master::SealKey;
use crate::key::schedule::{Schedule, trailer};
use crate::open::Opener;
use crate::record::context::SealContext;
use crate::record::fields::RecordFields;
use crate::record::header::SealRecord;
use crate::record::layout::SegmentLayout;
use crate::record::params::{Mode, SealParams, SivScope};
use crate::record::protection::Protection;
use crate::segment::aead::{Slot, nonce};
use crate::segment::chain::{self, Place, SegmentHash};
use crate::segment::table::{Entry, SegmentTags};
use crate::wipe::scrub_stack_of_hash;

/// Seals the segments of one shard, in any order and from any number of threads.
///
/// ```text
///   Sealer::new ─→ Sealer<Fresh> ── one_pass ────→ Sealer ── SegmentCollector::new ─→ finish
///                        └───────── fix(hashes) ─────↗
/// ```
///
/// A fresh sealer hashes and cannot seal. In scope Shard the hashes of all segments come first:
/// [`fix`](Sealer::fix) takes them, and a segment whose bytes no longer have its hash is refused.
/// Otherwise each segment is hashed and sealed in one pass. [`begin`](Sealer::begin) does what the
/// scope needs.
///
/// No call order seals two plaintexts under one key and nonce: in scope Shard the second one is
/// refused, and in scope Segment it has another synthetic IV.
///
/// A sealer that is not ready seals nothing. This compiles:
///
/// ```
/// # use vram_seal::{SealContext, SealKey, SealParams, Sealer};
/// # use vram_alloc::ByteLen;
/// # let key = SealKey::from_bytes(&[7; 32]);
/// # let context = SealContext::new("model").unwrap();
/// let fresh = Sealer::new(&key, &context, SealParams::new(), ByteLen::new(7)).unwrap();
/// fresh.one_pass().unwrap().seal_segment(0, &mut *b"weights".to_vec()).unwrap();
/// ```
///
/// and this does not:
///
/// ```compile_fail,E0599
/// # use vram_seal::{SealContext, SealKey, SealParams, Sealer};
/// # use vram_alloc::ByteLen;
/// # let key = SealKey::from_bytes(&[7; 32]);
/// # let context = SealContext::new("model").unwrap();
/// let fresh = Sealer::new(&key, &context, SealParams::new(), ByteLen::new(7)).unwrap();
/// fresh.seal_segment(0, &mut *b"weights".to_vec()).unwrap();
/// ```
///
/// Hashes are fixed once:
///
/// ```
/// # use vram_seal::{SealContext, SealKey, SealParams, Sealer};
/// # use vram_alloc::ByteLen;
/// # let key = SealKey::from_bytes(&[7; 32]);
/// # let context = SealContext::new("model").unwrap();
/// let fresh = Sealer::new(&key, &context, SealParams::new(), ByteLen::new(7)).unwrap();
/// let hashes = vec![fresh.hash_segment(0, b"weights").unwrap()];
/// let sealer = fresh.fix(hashes.clone()).unwrap();
/// ```
///
/// There is no fresh sealer left to fix others:
///
/// ```compile_fail,E0382
/// # use vram_seal::{SealContext, SealKey, SealParams, Sealer};
/// # use vram_alloc::ByteLen;
/// # let key = SealKey::from_bytes(&[7; 32]);
/// # let context = SealContext::new("model").unwrap();
/// let fresh = Sealer::new(&key, &context, SealParams::new(), ByteLen::new(7)).unwrap();
/// let hashes = vec![fresh.hash_segment(0, b"weights").unwrap()];
/// let sealer = fresh.fix(hashes.clone()).unwrap();
/// let another = fresh.fix(hashes).unwrap();
/// ```
pub struct Sealer<Stage = Ready> {
    pub(super) fields: RecordFields,
    pub(super) schedule: Schedule,
    pub(super) id: SealId,
    pub(super) stage: Stage,
}

/// The stage of a [`Sealer`] that hashes and does not seal yet.
#[derive(Debug)]
pub struct Fresh(());

/// The stage of a [`Sealer`] that seals segments.
pub struct Ready {
    pub(super) fixed: Option<Fixed>,
}

/// What every segment must be, and the content's digest.
pub(super) struct Fixed {
    hashes: Arc<Vec<SegmentHash>>,
    pub(super) digest: ContentDigest,
}

impl Drop for Fixed {
    fn drop(&mut self) {
        self.digest.zeroize();
    }
}

/// Names one seal in this process. Two seals never have the same, even of one content under one
/// key: the format is deterministic, so key and context do not tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SealId(u64);

impl SealId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // 2^64 seals take longer than any process lives.
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl<Stage> Sealer<Stage> {
    /// The shard's division into segments.
    #[must_use]
    pub const fn layout(&self) -> &SegmentLayout {
        self.fields.layout()
    }

    /// The record's fields, except those that depend on the content.
    #[must_use]
    pub const fn fields(&self) -> &RecordFields {
        &self.fields
    }

    /// Whether ciphertext or plaintext lies in memory after sealing.
    #[must_use]
    pub const fn protection(&self) -> Protection {
        self.fields.protection()
    }

    /// Whether all segments must be hashed before the first is sealed: true in scope Shard.
    #[must_use]
    pub const fn needs_digest_first(&self) -> bool {
        matches!(self.fields.scope(), Some(SivScope::Shard))
    }

    /// Hashes one segment of the plaintext.
    ///
    /// # Errors
    ///
    /// [`SealError::NoSuchSegment`], or [`SealError::WrongLength`].
    pub fn hash_segment(&self, segment: u64, plaintext: &[u8]) -> Result<SegmentHash, SealError> {
        SegmentHash::of(self.layout(), segment, plaintext)
    }

    /// A slot for ciphers, for a worker that seals many segments.
    pub(crate) fn slot(&self) -> Slot {
        Slot::new(self.fields.suite().unwrap_or_default())
    }
}

impl Sealer<Fresh> {
    /// Prepares to seal `plaintext_len` bytes. Allocates nothing of that length.
    ///
    /// # Errors
    ///
    /// [`SealError::TooLong`] beyond 2^48 bytes, [`SealError::TooManySegments`] beyond 2^24
    /// segments, [`SealError::ContextTooLong`] for a context or metadata beyond 64 KiB,
    /// [`SealError::MetadataKey`] if the context has the code of metadata under another key.
    pub fn new(
        key: &SealKey,
        context: &SealContext<'_>,
        params: SealParams,
        plaintext_len: ByteLen,
    ) -> Result<Self, SealError> {
        let fields = RecordFields::new(key, context, params, plaintext_len)?;
        let schedule = Schedule::new(key.derived(), &fields.bound());
        scrub_stack_of_hash();
        Ok(Self { fields, schedule, id: SealId::next(), stage: Fresh(()) })
    }

    /// Makes the sealer ready to hash and seal each segment in one pass.
    ///
    /// # Errors
    ///
    /// [`SealError::NotFixed`] in scope Shard, which needs all hashes first.
    pub fn one_pass(self) -> Result<Sealer, SealError> {
        if self.needs_digest_first() {
            return Err(SealError::NotFixed);
        }
        Ok(self.ready(None))
    }

    /// Fixes the hash of every segment, in order: from now on no other bytes are sealed. In scope
    /// Shard this fixes the synthetic IV as well; in the other scopes it guards content that is
    /// known already.
    ///
    /// The sealer keeps the hashes, 32 bytes a segment; several sealers may share them in an
    /// [`Arc`].
    ///
    /// # Errors
    ///
    /// [`SealError::WrongHashCount`] if the number of hashes is not the number of segments.
    pub fn fix(mut self, hashes: impl Into<Arc<Vec<SegmentHash>>>) -> Result<Sealer, SealError> {
        let hashes = hashes.into();
        let digest = chain::merge_digest(&hashes, self.layout())?;
        if self.needs_digest_first() {
            self.fields.set_siv(*self.schedule.shard_siv(digest.as_bytes()).as_bytes());
        }
        Ok(self.ready(Some(Fixed { hashes, digest })))
    }

    /// Makes the sealer ready, after the pass that its scope needs: in scope Shard
    /// `first_pass` hashes all segments, otherwise it is not called.
    ///
    /// # Errors
    ///
    /// The error of `first_pass`, and that of [`fix`](Self::fix).
    pub fn begin<E: From<SealError>>(
        self,
        first_pass: impl FnOnce(&Self) -> Result<Vec<SegmentHash>, E>,
    ) -> Result<Sealer, E> {
        if !self.needs_digest_first() {
            return Ok(self.one_pass()?);
        }
        let hashes = first_pass(&self)?;
        Ok(self.fix(hashes)?)
    }

    fn ready(self, fixed: Option<Fixed>) -> Sealer {
        let Self { fields, schedule, id, stage: Fresh(()) } = self;
        Sealer { fields, schedule, id, stage: Ready { fixed } }
    }
}

impl Sealer {
    /// Whether every segment is compared with a hash that was given to [`fix`](Sealer::fix).
    #[must_use]
    pub const fn is_fixed(&self) -> bool {
        self.stage.fixed.is_some()
    }

    /// Seals one segment in place: plaintext becomes ciphertext. In mode Authenticated the buffer
    /// is only read.
    ///
    /// The bytes are hashed where they are encrypted. No other code may write the buffer meanwhile:
    /// give it a private copy of the content, never the source itself.
    ///
    /// # Errors
    ///
    /// [`SealError::NoSuchSegment`] or [`SealError::WrongLength`], with the buffer untouched.
    /// [`SealError::SourceChanged`] if the hashes are fixed and the bytes have another; nothing was
    /// encrypted, and the buffer is wiped.
    pub fn seal_segment(
        &self,
        segment: u64,
        buffer: &mut [u8],
    ) -> Result<SealedSegment, SealError> {
        self.seal_with(&mut self.slot(), segment, buffer, Place::Cache)
    }

    pub(crate) fn seal_with(
        &self,
        slot: &mut Slot,
        segment: u64,
        buffer: &mut [u8],
        place: Place,
    ) -> Result<SealedSegment, SealError> {
        self.layout().check(segment, buffer)?;
        let hash = SegmentHash::of_checked(self.layout(), segment, buffer, place);
        if let Some(fixed) = &self.stage.fixed
            && fixed.hash(segment) != Some(&hash)
        {
            buffer.zeroize();
            return Err(SealError::SourceChanged { segment });
        }
        let trailer = trailer(self.layout(), segment);
        let entry = match self.fields.mode() {
            Mode::Authenticated => Entry::Authenticated {
                code: *self.schedule.attestation(&hash, &trailer).as_bytes(),
            },
            Mode::Encrypted { scope: SivScope::Segment, .. } => {
                let siv = *self.schedule.segment_siv(&hash, &trailer).as_bytes();
                let tag = self.encrypt(slot, segment, &siv, &trailer, buffer)?;
                Entry::Segment { siv, tag }
            }
            Mode::Encrypted { scope: SivScope::Shard, .. } => {
                let tag = self.encrypt(slot, segment, self.fields.siv(), &trailer, buffer)?;
                Entry::Shard { tag }
            }
        };
        Ok(SealedSegment { seal: self.id, segment, entry, hash })
    }

    /// The hash that a segment must have, if the hashes are fixed.
    pub(super) fn fixed_hash(&self, segment: u64) -> Option<&SegmentHash> {
        self.stage.fixed.as_ref().and_then(|fixed| fixed.hash(segment))
    }

    fn encrypt(
        &self,
        slot: &mut Slot,
        segment: u64,
        siv: &[u8; 32],
        trailer: &[u8; 32],
        buffer: &mut [u8],
    ) -> Result<[u8; 16], SealError> {
        let key = self.schedule.segment_key(siv, trailer);
        let nonce = nonce(segment, self.layout().is_last(segment));
        slot.seal(&key, nonce, buffer).ok_or_else(|| {
            buffer.zeroize();
            SealError::Cipher { segment }
        })
    }

    /// The record over this table, and what opens the shard.
    pub(super) fn into_record(self, tags: SegmentTags) -> (SealRecord, Opener) {
        let Self { mut fields, schedule, .. } = self;
        fields.set_table_mac(*schedule.table_mac(tags.as_bytes()).as_bytes());
        let record = fields.to_record(schedule.header_mac());
        let mac = record.mac();
        (record, Opener::of_sealed(fields, schedule, mac, tags))
    }
}

impl Fixed {
    fn hash(&self, segment: u64) -> Option<&SegmentHash> {
        usize::try_from(segment).ok().and_then(|segment| self.hashes.get(segment))
    }
}

impl fmt::Debug for Sealer<Fresh> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("fields", &self.fields).finish_non_exhaustive()
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("fields", &self.fields)
            .field("fixed", &self.is_fixed())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("fixed", &self.fixed.is_some()).finish_non_exhaustive()
    }
}

/// The data of one sealed segment that the record and the table need.
pub struct SealedSegment {
    pub(super) seal: SealId,
    pub(super) segment: u64,
    pub(super) entry: Entry,
    pub(super) hash: SegmentHash,
}

impl SealedSegment {
    /// The index of the segment.
    #[must_use]
    pub const fn segment(&self) -> u64 {
        self.segment
    }

    /// The hash of the plaintext that was sealed.
    #[must_use]
    pub const fn hash(&self) -> &SegmentHash {
        &self.hash
    }
}

impl fmt::Debug for SealedSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedSegment({})", self.segment)
    }
}
