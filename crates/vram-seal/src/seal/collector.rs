//! Gathering the sealed segments of one shard into its record and table.

use core::fmt;
use std::sync::{Mutex, PoisonError};

use vram_alloc::ByteLen;

use crate::digest::ContentDigest;
use crate::error::SealError;
use crate::open::Opener;
use crate::record::header::SealRecord;
use crate::record::params::Mode;
use crate::seal::sealer::{SealedSegment, Sealer};
use crate::segment::chain::{self, SegmentHash};
use crate::segment::table::SegmentTags;

/// Collects the sealed segments of one shard from all threads.
///
/// It owns the sealer, so it takes no other seal's segments:
///
/// ```
/// # use vram_seal::{SealContext, SealKey, SealParams, Sealer, SegmentCollector};
/// # use vram_alloc::ByteLen;
/// # let key = SealKey::from_bytes(&[7; 32]);
/// # let context = SealContext::new("model").unwrap();
/// let sealer = || Sealer::new(&key, &context, SealParams::new(), ByteLen::ZERO)?.one_pass();
/// let collector = SegmentCollector::new(sealer().unwrap()).unwrap();
/// let sealed = collector.sealer().seal_segment(0, &mut []).unwrap();
/// collector.put(0, sealed).unwrap();
/// collector.finish().unwrap();
/// ```
///
/// It cannot be finished with another sealer:
///
/// ```compile_fail,E0061
/// # use vram_seal::{SealContext, SealKey, SealParams, Sealer, SegmentCollector};
/// # use vram_alloc::ByteLen;
/// # let key = SealKey::from_bytes(&[7; 32]);
/// # let context = SealContext::new("model").unwrap();
/// let sealer = || Sealer::new(&key, &context, SealParams::new(), ByteLen::ZERO)?.one_pass();
/// let collector = SegmentCollector::new(sealer().unwrap()).unwrap();
/// collector.finish(sealer().unwrap()).unwrap();
/// ```
///
/// Nor can a fresh sealer be collected from:
///
/// ```compile_fail,E0308
/// # use vram_seal::{SealContext, SealKey, SealParams, Sealer, SegmentCollector};
/// # use vram_alloc::ByteLen;
/// # let key = SealKey::from_bytes(&[7; 32]);
/// # let context = SealContext::new("model").unwrap();
/// let fresh = Sealer::new(&key, &context, SealParams::new(), ByteLen::ZERO).unwrap();
/// SegmentCollector::new(fresh).unwrap();
/// ```
pub struct SegmentCollector {
    sealer: Sealer,
    gathered: Mutex<Gathered>,
}

/// What was collected so far.
pub(crate) struct Gathered {
    tags: SegmentTags,
    // Empty where the digest is known before sealing.
    hashes: Vec<SegmentHash>,
    present: Vec<u64>,
    missing: u64,
}

impl Gathered {
    /// Takes the memory. `known`: whether the digest is known before the first segment is
    /// sealed.
    pub(crate) fn new<Stage>(sealer: &Sealer<Stage>, known: bool) -> Result<Self, SealError> {
        let count = sealer.layout().count();
        let tags = SegmentTags::blank(sealer.fields())?;
        let hashes = filled(if known { 0 } else { count }, &SegmentHash::from_bytes([0; 32]))?;
        let present = filled(count.div_ceil(64), &0_u64)?;
        Ok(Self { tags, hashes, present, missing: count })
    }

    fn put(&mut self, mode: Mode, sealed: SealedSegment) -> Result<(), SealError> {
        let segment = sealed.segment;
        let index = usize::try_from(segment).unwrap_or(usize::MAX);
        let bit = 1_u64 << (segment & 63);
        match self.present.get_mut(index >> 6) {
            Some(word) if *word & bit == 0 => *word |= bit,
            _ => return Err(SealError::DuplicateSegment { segment }),
        }
        self.missing = self.missing.saturating_sub(1);
        self.tags.set(mode, segment, &sealed.entry);
        if let Some(slot) = self.hashes.get_mut(index) {
            *slot = sealed.hash;
        }
        Ok(())
    }
}

impl SegmentCollector {
    /// An empty collector: takes 16 to 80 bytes of host memory a segment.
    ///
    /// # Errors
    ///
    /// [`SealError::HostMemory`] if the host does not have that much memory.
    pub fn new(sealer: Sealer) -> Result<Self, SealError> {
        let gathered = Gathered::new(&sealer, sealer.is_fixed())?;
        Ok(Self::in_memory(sealer, gathered))
    }

    /// A collector in memory that was taken for this sealer.
    pub(crate) const fn in_memory(sealer: Sealer, gathered: Gathered) -> Self {
        Self { sealer, gathered: Mutex::new(gathered) }
    }

    /// The sealer that seals the segments.
    #[must_use]
    pub const fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// Adds one segment.
    ///
    /// # Errors
    ///
    /// [`SealError::ForeignSegment`] if it is another segment than `segment`, or was sealed by
    /// another sealer than [`sealer`](Self::sealer), even one of the same key, context and length.
    /// [`SealError::DuplicateSegment`] if it was added before. The collector is then unchanged.
    pub fn put(&self, segment: u64, sealed: SealedSegment) -> Result<(), SealError> {
        let own = sealed.segment == segment && sealed.seal == self.sealer.id;
        if !own {
            return Err(SealError::ForeignSegment { segment });
        }
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        gathered.put(self.sealer.fields().mode(), sealed)
    }

    /// Creates the record after every segment was added.
    ///
    /// # Errors
    ///
    /// [`SealError::Incomplete`] if segments are missing.
    pub fn finish(self) -> Result<Sealed, SealError> {
        let Opened { record, opener, digest } = self.finish_open()?;
        Ok(Sealed { record, tags: opener.tags, digest })
    }

    /// As [`finish`](Self::finish), with what opens the shard: the record and the table come from this
    /// sealer and no reader, so they are not checked again.
    ///
    /// # Errors
    ///
    /// [`SealError::Incomplete`] if segments are missing.
    pub fn finish_open(self) -> Result<Opened, SealError> {
        let Self { sealer, gathered } = self;
        let Gathered { tags, hashes, missing, .. } =
            gathered.into_inner().unwrap_or_else(PoisonError::into_inner);
        if missing > 0 {
            return Err(SealError::Incomplete { missing });
        }
        let digest = match &sealer.stage.fixed {
            Some(fixed) => fixed.digest,
            None => chain::merge_digest(&hashes, sealer.layout())?,
        };
        let (record, opener) = sealer.into_record(tags);
        Ok(Opened { record, opener, digest })
    }
}

impl fmt::Debug for SegmentCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentCollector").field("sealer", &self.sealer).finish_non_exhaustive()
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

/// The output of a seal that stays in use: as [`Sealed`], with the table in the opener.
#[derive(Debug)]
#[non_exhaustive]
pub struct Opened {
    /// The record.
    pub record: SealRecord,
    /// Opens and verifies the segments.
    pub opener: Opener,
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
