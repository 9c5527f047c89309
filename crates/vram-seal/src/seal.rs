//! Sealing one shard, segment by segment.

use core::fmt;
use std::sync::{Mutex, PoisonError};

use vram_alloc::ByteLen;
use zeroize::Zeroize as _;

use crate::digest::ContentDigest;
use crate::error::SealError;
use crate::key::derive::{Purpose, derive};
use crate::key::master::SealKey;
use crate::key::schedule::{Schedule, trailer};
use crate::key::secret::Secret;
use crate::record::context::SealContext;
use crate::record::fields::RecordFields;
use crate::record::header::SealRecord;
use crate::record::layout::SegmentLayout;
use crate::record::params::{Mode, SealParams, SivScope};
use crate::record::protection::Protection;
use crate::segment::aead::{Slot, nonce};
use crate::segment::chain::{self, Place, SegmentHash};
use crate::segment::table::{Entry, SegmentTags};

/// Seals the segments of one shard, in any order and from any number of threads.
///
/// In scope Shard every segment is hashed first ([`hash_segment`](Self::hash_segment)), the hashes
/// are passed to [`fix`](Self::fix), and only then can segments be encrypted. Otherwise a segment
/// is hashed and sealed in one pass.
pub struct Sealer {
    fields: RecordFields,
    schedule: Schedule,
    header_mac: Secret,
    // Scope Shard: the digest behind the SIV in `fields`, once it is known.
    fixed: Option<ContentDigest>,
    seal_id: [u8; 32],
}

impl Sealer {
    /// Prepares to seal `plaintext_len` bytes. Allocates nothing of that length.
    ///
    /// # Errors
    ///
    /// [`SealError::TooLong`] beyond 2^48 bytes, [`SealError::TooManySegments`] beyond 2^24
    /// segments, [`SealError::MetadataKey`] if the context has the code of metadata under another
    /// key.
    pub fn new(
        key: &SealKey,
        context: &SealContext<'_>,
        params: SealParams,
        plaintext_len: ByteLen,
    ) -> Result<Self, SealError> {
        let fields = RecordFields::new(key, context, params, plaintext_len)?;
        let schedule = Schedule::new(key.master(), &fields.bound());
        let header_mac = derive(key.master(), Purpose::HeaderMac);
        let seal_id = schedule.id();
        Ok(Self { fields, schedule, header_mac, fixed: None, seal_id })
    }

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

    /// Scope Shard: sets the hashes of all segments, in order, and fixes the synthetic IV.
    ///
    /// # Errors
    ///
    /// [`SealError::NotInThisScope`] in another scope, [`SealError::AlreadyFixed`] on the second
    /// call, [`SealError::WrongHashCount`] if the number of hashes is not the number of segments.
    /// The sealer is then unchanged.
    pub fn fix(&mut self, hashes: &[SegmentHash]) -> Result<(), SealError> {
        if !self.needs_digest_first() {
            return Err(SealError::NotInThisScope { call: "fixing a digest" });
        }
        if self.fixed.is_some() {
            return Err(SealError::AlreadyFixed);
        }
        let digest = chain::merge_digest(hashes, self.layout())?;
        self.fields.set_siv(*self.schedule.shard_siv(digest.as_bytes()).as_bytes());
        self.fixed = Some(digest);
        Ok(())
    }

    /// Seals one segment in place: plaintext becomes ciphertext. In mode Authenticated the buffer
    /// is only read.
    ///
    /// In scope Shard the buffer must contain exactly the bytes that were hashed for
    /// [`fix`](Self::fix). Only a source that cannot change meanwhile guarantees that, such as a
    /// `&[u8]` that is borrowed all the time. For any other source use
    /// [`seal_segment_checked`](Self::seal_segment_checked): two different plaintexts sealed as one
    /// segment would reveal both.
    ///
    /// # Errors
    ///
    /// [`SealError::NoSuchSegment`], [`SealError::WrongLength`] or [`SealError::NotFixed`], with
    /// the buffer untouched.
    pub fn seal_segment(
        &self,
        segment: u64,
        buffer: &mut [u8],
    ) -> Result<SealedSegment, SealError> {
        self.seal_with(&mut self.slot(), segment, buffer, Place::Cache)
    }

    /// As [`seal_segment`](Self::seal_segment), for a source that may have changed since its first
    /// pass: the buffer is hashed again, and encrypted only if its hash is still `hashed`.
    ///
    /// # Errors
    ///
    /// Those of [`seal_segment`](Self::seal_segment), and [`SealError::SourceChanged`], with the
    /// buffer wiped.
    pub fn seal_segment_checked(
        &self,
        segment: u64,
        buffer: &mut [u8],
        hashed: &SegmentHash,
    ) -> Result<SealedSegment, SealError> {
        if self.needs_digest_first() && self.fixed.is_none() {
            return Err(SealError::NotFixed);
        }
        self.layout().check(segment, buffer)?;
        let hash = SegmentHash::of_checked(self.layout(), segment, buffer, Place::Cache);
        if hash != *hashed {
            buffer.zeroize();
            return Err(SealError::SourceChanged { segment });
        }
        self.seal_segment(segment, buffer)
    }

    /// A slot for ciphers, for a worker that seals many segments.
    pub(crate) fn slot(&self) -> Slot {
        Slot::new(self.fields.suite().unwrap_or_default())
    }

    pub(crate) fn seal_with(
        &self,
        slot: &mut Slot,
        segment: u64,
        buffer: &mut [u8],
        place: Place,
    ) -> Result<SealedSegment, SealError> {
        self.layout().check(segment, buffer)?;
        let trailer = trailer(self.layout(), segment);
        let (entry, hash) = match self.fields.mode() {
            Mode::Authenticated => {
                let hash = SegmentHash::of_checked(self.layout(), segment, buffer, place);
                let code = *self.schedule.attestation(&hash, &trailer).as_bytes();
                (Entry::Authenticated { code }, Some(hash))
            }
            Mode::Encrypted { scope: SivScope::Segment, .. } => {
                let hash = SegmentHash::of_checked(self.layout(), segment, buffer, place);
                let siv = *self.schedule.segment_siv(&hash, &trailer).as_bytes();
                let tag = self.encrypt(slot, segment, &siv, &trailer, buffer)?;
                (Entry::Segment { siv, tag }, Some(hash))
            }
            Mode::Encrypted { scope: SivScope::Shard, .. } => {
                if self.fixed.is_none() {
                    return Err(SealError::NotFixed);
                }
                let tag = self.encrypt(slot, segment, self.fields.siv(), &trailer, buffer)?;
                (Entry::Shard { tag }, None)
            }
        };
        Ok(SealedSegment { seal_id: self.seal_id, segment, entry, hash })
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
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("fields", &self.fields)
            .field("fixed", &self.fixed.is_some())
            .finish_non_exhaustive()
    }
}

/// The data of one sealed segment that the record and the table need.
pub struct SealedSegment {
    seal_id: [u8; 32],
    segment: u64,
    entry: Entry,
    hash: Option<SegmentHash>,
}

impl SealedSegment {
    /// The index of the segment.
    #[must_use]
    pub const fn segment(&self) -> u64 {
        self.segment
    }

    /// The plaintext's hash, if it was computed while sealing: in scope Segment and in mode
    /// Authenticated.
    #[must_use]
    pub const fn hash(&self) -> Option<&SegmentHash> {
        self.hash.as_ref()
    }
}

impl fmt::Debug for SealedSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedSegment({})", self.segment)
    }
}

/// Collects the sealed segments of one shard from all threads.
pub struct SegmentCollector {
    seal_id: [u8; 32],
    mode: Mode,
    layout: SegmentLayout,
    gathered: Mutex<Gathered>,
}

struct Gathered {
    tags: SegmentTags,
    // Empty in scope Shard, where the digest is known before sealing.
    hashes: Vec<SegmentHash>,
    present: Vec<u64>,
    missing: u64,
}

impl SegmentCollector {
    /// An empty collector: takes 16 to 80 bytes of host memory a segment.
    ///
    /// # Errors
    ///
    /// [`SealError::HostMemory`] if the host does not have that much memory.
    pub fn new(sealer: &Sealer) -> Result<Self, SealError> {
        let layout = *sealer.layout();
        let tags = SegmentTags::blank(&sealer.fields)?;
        let hash_count = if sealer.needs_digest_first() { 0 } else { layout.count() };
        let hashes = filled(hash_count, &SegmentHash::from_bytes([0; 32]))?;
        let present = filled(layout.count().div_ceil(64), &0_u64)?;
        Ok(Self {
            seal_id: sealer.seal_id,
            mode: sealer.fields.mode(),
            layout,
            gathered: Mutex::new(Gathered { tags, hashes, present, missing: layout.count() }),
        })
    }

    /// Adds one segment.
    ///
    /// # Errors
    ///
    /// [`SealError::ForeignSegment`] if it is another segment than `segment` or from another seal,
    /// [`SealError::DuplicateSegment`] if it was added before. The collector is then unchanged.
    pub fn put(&self, segment: u64, sealed: SealedSegment) -> Result<(), SealError> {
        let own = sealed.segment == segment
            && sealed.seal_id == self.seal_id
            && sealed.entry.fits(self.mode);
        if !own || segment >= self.layout.count() {
            return Err(SealError::ForeignSegment { segment });
        }
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let gathered = &mut *gathered;
        let index = usize::try_from(segment).unwrap_or(usize::MAX);
        let bit = 1_u64 << (segment & 63);
        match gathered.present.get_mut(index >> 6) {
            Some(word) if *word & bit == 0 => *word |= bit,
            _ => return Err(SealError::DuplicateSegment { segment }),
        }
        gathered.missing = gathered.missing.saturating_sub(1);
        gathered.tags.set(self.mode, segment, &sealed.entry);
        if let (Some(slot), Some(hash)) = (gathered.hashes.get_mut(index), sealed.hash) {
            *slot = hash;
        }
        Ok(())
    }

    /// Creates the record after every segment was added.
    ///
    /// # Errors
    ///
    /// [`SealError::Incomplete`] if segments are missing, [`SealError::ForeignSegment`] if the
    /// segments came from another sealer, [`SealError::NotFixed`] for a scope Shard sealer without
    /// its digest.
    pub fn finish(self, sealer: Sealer) -> Result<Sealed, SealError> {
        if sealer.seal_id != self.seal_id {
            return Err(SealError::ForeignSegment { segment: 0 });
        }
        let gathered = self.gathered.into_inner().unwrap_or_else(PoisonError::into_inner);
        if gathered.missing > 0 {
            return Err(SealError::Incomplete { missing: gathered.missing });
        }
        let digest = if sealer.needs_digest_first() {
            sealer.fixed.ok_or(SealError::NotFixed)?
        } else {
            chain::merge_digest(&gathered.hashes, &self.layout)?
        };
        let Sealer { mut fields, schedule, header_mac, .. } = sealer;
        fields.set_table_mac(*schedule.table_mac(gathered.tags.as_bytes()).as_bytes());
        let record = fields.to_record(&header_mac);
        Ok(Sealed { record, tags: gathered.tags, digest })
    }
}

impl fmt::Debug for SegmentCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentCollector")
            .field("segments", &self.layout.count())
            .finish_non_exhaustive()
    }
}

/// The output of a seal besides the data.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sealed {
    /// The record.
    pub record: SealRecord,
    /// The segment table.
    pub tags: SegmentTags,
    /// The plain BLAKE3 digest of the content. It confirms guesses of the content: give it only to
    /// holders of the key.
    pub digest: ContentDigest,
}

fn filled<T: Clone>(count: u64, value: &T) -> Result<Vec<T>, SealError> {
    let size = ByteLen::from_usize(size_of::<T>()).get();
    let refused = || SealError::HostMemory { wanted: ByteLen::new(count.saturating_mul(size)) };
    let count = usize::try_from(count).map_err(|_| refused())?;
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|_| refused())?;
    values.resize(count, value.clone());
    Ok(values)
}
