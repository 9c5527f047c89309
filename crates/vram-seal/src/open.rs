//! Opening: first the record, then its table, then segments.

use core::fmt;

use zeroize::{Zeroize as _, Zeroizing};

use crate::digest::ContentDigest;
use crate::error::SealError;
use crate::key::master::SealKey;
use crate::key::ring::KeyRing;
use crate::key::schedule::{Schedule, trailer};
use crate::limits::OpenLimits;
use crate::record::expected::Expected;
use crate::record::fields::RecordFields;
use crate::record::header::SealRecord;
use crate::record::layout::SegmentLayout;
use crate::record::params::{Mode, SivScope};
use crate::record::protection::Protection;
use crate::segment::aead::{Slot, nonce};
use crate::segment::chain::{self, Place, SegmentHash};
use crate::segment::lent::SegmentKey;
use crate::segment::table::{Entry, SegmentTags};
use crate::wipe::{copying, scrub_stack_of_hash};

/// Opens a record: checks that it was made with `key`, matches `expected`, and is within `limits`.
/// Allocates nothing whose length depends on the record.
///
/// # Errors
///
/// In the order of the checks: [`SealError::NotASeal`], [`SealError::UnsupportedVersion`],
/// [`SealError::UnsupportedHash`]; [`SealError::WrongKey`]; [`SealError::RecordMismatch`];
/// [`SealError::MalformedRecord`]; [`SealError::ContextMismatch`] and
/// [`SealError::ProtectionMismatch`]; [`SealError::TooLong`].
pub fn open_record(
    key: &SealKey,
    record: &SealRecord,
    expected: &Expected<'_>,
    limits: OpenLimits,
) -> Result<OpenedRecord, SealError> {
    record.check_format()?;
    let found = record.key_id();
    if found != key.id() {
        return Err(SealError::WrongKey { expected: key.id(), found });
    }
    open_with(key, record, expected, limits)
}

/// As [`open_record`], with the key that the record names, from the ring.
///
/// # Errors
///
/// Those of [`open_record`], with [`SealError::UnknownKey`] in place of [`SealError::WrongKey`].
pub fn open_record_in(
    keys: &KeyRing,
    record: &SealRecord,
    expected: &Expected<'_>,
    limits: OpenLimits,
) -> Result<OpenedRecord, SealError> {
    record.check_format()?;
    let id = record.key_id();
    let key = keys.get(&id).ok_or(SealError::UnknownKey { id })?;
    open_with(key, record, expected, limits)
}

fn open_with(
    key: &SealKey,
    record: &SealRecord,
    expected: &Expected<'_>,
    limits: OpenLimits,
) -> Result<OpenedRecord, SealError> {
    record.check_mac(&key.derived().header_mac)?;
    let fields = record.parse_fields()?;
    let as_expected = expected.check(key, &fields);
    scrub_stack_of_hash();
    as_expected?;
    let len = fields.plaintext_len();
    if len > limits.max_len {
        return Err(SealError::TooLong { len, max: limits.max_len });
    }
    let schedule = Schedule::new(key.derived(), record.bound());
    Ok(OpenedRecord { fields, schedule, mac: record.mac() })
}

/// A genuine and expected record whose table was not checked yet.
pub struct OpenedRecord {
    fields: RecordFields,
    schedule: Schedule,
    mac: [u8; 32],
}

impl OpenedRecord {
    /// The record's fields.
    #[must_use]
    pub const fn fields(&self) -> &RecordFields {
        &self.fields
    }

    /// The length of the record's table, in bytes.
    #[must_use]
    pub fn table_len(&self) -> u64 {
        self.fields.table_len().get()
    }

    /// Checks the table against the record.
    ///
    /// # Errors
    ///
    /// [`SealError::WrongLength`], or [`SealError::TableMismatch`].
    pub fn with_table(self, tags: SegmentTags) -> Result<Opener, SealError> {
        let (expected, found) = (self.table_len(), tags.len_bytes().get());
        if expected != found {
            return Err(SealError::WrongLength { what: "the segment table", expected, found });
        }
        let mac = self.schedule.table_mac(tags.as_bytes());
        scrub_stack_of_hash();
        if mac != blake3::Hash::from_bytes(*self.fields.table_mac()) {
            return Err(SealError::TableMismatch);
        }
        Ok(Opener { fields: self.fields, schedule: self.schedule, mac: self.mac, tags })
    }
}

impl fmt::Debug for OpenedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedRecord").field("fields", &self.fields).finish_non_exhaustive()
    }
}

/// Opens and verifies the segments of one shard, in any order and from any number of threads.
///
/// Owning one proves that record and table are genuine and expected.
pub struct Opener {
    fields: RecordFields,
    schedule: Schedule,
    /// The code over the record.
    mac: [u8; 32],
    pub(crate) tags: SegmentTags,
}

impl Opener {
    /// Opens record and table in one step, for content of any length.
    ///
    /// # Errors
    ///
    /// Those of [`open_record`] and of [`OpenedRecord::with_table`].
    pub fn open(
        key: &SealKey,
        record: &SealRecord,
        tags: SegmentTags,
        expected: &Expected<'_>,
    ) -> Result<Self, SealError> {
        open_record(key, record, expected, OpenLimits::default())?.with_table(tags)
    }

    /// Of a record that was just made of these: there is nothing to check.
    pub(crate) const fn of_sealed(
        fields: RecordFields,
        schedule: Schedule,
        mac: [u8; 32],
        tags: SegmentTags,
    ) -> Self {
        Self { fields, schedule, mac, tags }
    }

    /// The record. It is put together of its fields: each bit of a record has one allowed meaning.
    #[must_use]
    pub fn record(&self) -> SealRecord {
        self.fields.with_mac(&self.mac)
    }

    /// The code over the record.
    #[must_use]
    pub const fn record_mac(&self) -> [u8; 32] {
        self.mac
    }

    /// The shard's division into segments.
    #[must_use]
    pub const fn layout(&self) -> &SegmentLayout {
        self.fields.layout()
    }

    /// The record's fields.
    #[must_use]
    pub const fn fields(&self) -> &RecordFields {
        &self.fields
    }

    /// Whether ciphertext or plaintext lies in memory.
    #[must_use]
    pub const fn protection(&self) -> Protection {
        self.fields.protection()
    }

    /// The segment table.
    #[must_use]
    pub const fn tags(&self) -> &SegmentTags {
        &self.tags
    }

    /// Opens one segment in place: ciphertext becomes plaintext. In mode Authenticated the buffer
    /// is verified and not changed.
    ///
    /// # Errors
    ///
    /// [`SealError::NoSuchSegment`] or [`SealError::WrongLength`], with the buffer untouched;
    /// [`SealError::SegmentMismatch`], with the buffer wiped.
    pub fn open_segment(&self, segment: u64, buffer: &mut [u8]) -> Result<(), SealError> {
        self.open_with(&mut self.slot(), segment, buffer, Place::Cache)
    }

    /// Opens one segment from `sealed` into `target`; both must have its length. No other code may
    /// read the target until the call returns: it contains unverified plaintext meanwhile.
    ///
    /// # Errors
    ///
    /// [`SealError::NoSuchSegment`] or [`SealError::WrongLength`], with the target untouched;
    /// [`SealError::SegmentMismatch`], with the target wiped.
    pub fn open_segment_to(
        &self,
        segment: u64,
        sealed: &[u8],
        target: &mut [u8],
    ) -> Result<(), SealError> {
        self.open_to_with(&mut self.slot(), segment, sealed, target)
    }

    /// Verifies one segment. Uses the buffer as working space, and wipes it afterwards in every
    /// case.
    ///
    /// # Errors
    ///
    /// [`SealError::NoSuchSegment`] or [`SealError::WrongLength`], with the buffer untouched;
    /// [`SealError::SegmentMismatch`].
    pub fn verify_segment(&self, segment: u64, buffer: &mut [u8]) -> Result<(), SealError> {
        self.layout().check(segment, buffer)?;
        let verdict = self.open_segment(segment, buffer);
        buffer.zeroize();
        verdict
    }

    /// Hashes one segment of plaintext.
    ///
    /// # Errors
    ///
    /// [`SealError::NoSuchSegment`], or [`SealError::WrongLength`].
    pub fn hash_segment(&self, segment: u64, plaintext: &[u8]) -> Result<SegmentHash, SealError> {
        SegmentHash::of(self.layout(), segment, plaintext)
    }

    /// Checks that the record authenticates plaintext with this hash as this segment. Works in
    /// scope Segment and in mode Authenticated.
    ///
    /// # Errors
    ///
    /// [`SealError::SegmentMismatch`] if it does not; [`SealError::NoSuchSegment`];
    /// [`SealError::NotInThisScope`] in scope Shard, whose record authenticates only the whole:
    /// [`check_digest`](Self::check_digest).
    pub fn check_hash(&self, segment: u64, hash: &SegmentHash) -> Result<(), SealError> {
        let entry = self.entry(segment)?;
        let trailer = trailer(self.layout(), segment);
        let (found, code) = match entry {
            Entry::Authenticated { code } => (self.schedule.attestation(hash, &trailer), code),
            Entry::Segment { siv, .. } => (self.schedule.segment_siv(hash, &trailer), siv),
            Entry::Shard { .. } => {
                return Err(SealError::NotInThisScope { call: "checking the hash of one segment" });
            }
        };
        scrub_stack_of_hash();
        let sound = found == blake3::Hash::from_bytes(code);
        if sound { Ok(()) } else { Err(SealError::SegmentMismatch { segment }) }
    }

    /// Checks that the record authenticates plaintext whose segments have these hashes, in order.
    /// Returns the plain digest of that content.
    ///
    /// This check binds content to the record even against a party that holds the key.
    ///
    /// # Errors
    ///
    /// [`SealError::WrongHashCount`] if the number of hashes is not the number of segments;
    /// [`SealError::DigestMismatch`] in scope Shard, [`SealError::SegmentMismatch`] for the first
    /// wrong segment otherwise.
    pub fn check_digest(&self, hashes: &[SegmentHash]) -> Result<ContentDigest, SealError> {
        let mut digest = chain::merge_digest(hashes, self.layout())?;
        if self.fields.scope() == Some(SivScope::Shard) {
            let siv = self.schedule.shard_siv(digest.as_bytes());
            if siv != blake3::Hash::from_bytes(*self.fields.siv()) {
                digest.zeroize();
                return Err(SealError::DigestMismatch);
            }
        } else {
            for (segment, hash) in (0..).zip(hashes) {
                self.check_hash(segment, hash)?;
            }
        }
        Ok(digest)
    }

    /// The key of one segment, to open it elsewhere, and its tag; `None` in mode Authenticated.
    ///
    /// # Errors
    ///
    /// [`SealError::NoSuchSegment`].
    pub fn segment_key(&self, segment: u64) -> Result<Option<(SegmentKey, [u8; 16])>, SealError> {
        let (siv, tag) = match self.entry(segment)? {
            Entry::Authenticated { .. } => return Ok(None),
            Entry::Segment { siv, tag } => (siv, tag),
            Entry::Shard { tag } => (*self.fields.siv(), tag),
        };
        let key = self.schedule.segment_key(&siv, &trailer(self.layout(), segment));
        scrub_stack_of_hash();
        let last = self.layout().is_last(segment);
        Ok(Some((SegmentKey::new(&key, segment, last), tag)))
    }

    /// A slot for ciphers, for a worker that opens many segments.
    pub(crate) fn slot(&self) -> Slot {
        Slot::new(self.fields.suite().unwrap_or_default())
    }

    pub(crate) fn open_to_with(
        &self,
        slot: &mut Slot,
        segment: u64,
        sealed: &[u8],
        target: &mut [u8],
    ) -> Result<(), SealError> {
        self.layout().check(segment, sealed)?;
        self.layout().check(segment, target)?;
        // Copies before verifying, in both modes: the verified bytes are those that the caller
        // gets.
        copying::copy(sealed, target);
        self.open_with(slot, segment, target, Place::Cache)
    }

    pub(crate) fn open_with(
        &self,
        slot: &mut Slot,
        segment: u64,
        buffer: &mut [u8],
        place: Place,
    ) -> Result<(), SealError> {
        self.layout().check(segment, buffer)?;
        let sound = match self.entry(segment)? {
            Entry::Authenticated { .. } => {
                let hash = SegmentHash::of_checked(self.layout(), segment, buffer, place);
                self.check_hash(segment, &hash).is_ok()
            }
            Entry::Shard { tag } => self.decrypt(slot, segment, self.fields.siv(), &tag, buffer),
            Entry::Segment { siv, tag } => self.decrypt(slot, segment, &siv, &tag, buffer),
        };
        if sound {
            Ok(())
        } else {
            buffer.zeroize();
            Err(SealError::SegmentMismatch { segment })
        }
    }

    /// As [`open_with`](Self::open_with), for a shard whose bytes must not be written: mode
    /// Authenticated, in which plaintext is verified in place.
    pub(crate) fn verify_in_place(&self, segment: u64, bytes: &[u8]) -> Result<(), SealError> {
        let hash = SegmentHash::of(self.layout(), segment, bytes)?;
        self.check_hash(segment, &hash)
    }

    fn decrypt(
        &self,
        slot: &mut Slot,
        segment: u64,
        siv: &[u8; 32],
        tag: &[u8; 16],
        buffer: &mut [u8],
    ) -> bool {
        let key: Zeroizing<[u8; 32]> =
            self.schedule.segment_key(siv, &trailer(self.layout(), segment));
        slot.open(&key, nonce(segment, self.layout().is_last(segment)), tag, buffer)
    }

    fn entry(&self, segment: u64) -> Result<Entry, SealError> {
        let count = self.layout().count();
        if segment >= count {
            return Err(SealError::NoSuchSegment { segment, count });
        }
        self.tags.get(self.mode(), segment).ok_or(SealError::NoSuchSegment { segment, count })
    }

    const fn mode(&self) -> Mode {
        self.fields.mode()
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("fields", &self.fields).finish_non_exhaustive()
    }
}
