//! A whole shard in one call, on all processors: the same bytes whatever the number of threads.

use std::sync::{Mutex, PoisonError};

use vram_alloc::ByteLen;

use crate::chain::SegmentHash;
use crate::context::SealContext;
use crate::digest::ContentDigest;
use crate::error::SealError;
use crate::key::SealKey;
use crate::layout::SegmentLayout;
use crate::open::Opener;
use crate::parallel::{self, Threads};
use crate::params::{Protection, SealParams};
use crate::seal::{Sealed, Sealer, SegmentCollector};
use crate::wipe::{Scratch, WipeUnlessKept};

/// Small segments are given out several at a time: at least this many bytes.
const GROUP_LEN: u64 = 256 << 10;

/// Seals `plaintext` into `out`, which must be of the same length.
///
/// `out` must be private until the call returns: plaintext passes through it. In mode Authenticated
/// it receives the plaintext.
///
/// # Errors
///
/// [`SealError::WrongLength`] with `out` untouched; any other error, and a panic, leave it wiped.
pub fn seal(
    key: &SealKey,
    context: &SealContext<'_>,
    params: SealParams,
    threads: Threads,
    plaintext: &[u8],
    out: &mut [u8],
) -> Result<Sealed, SealError> {
    let mut sealer = Sealer::new(key, context, params, ByteLen::from_usize(plaintext.len()))?;
    sealer.layout().check_whole("the target of the seal", out)?;
    let collector = SegmentCollector::new(&sealer)?;
    if sealer.needs_digest_first() {
        let hashes = hash_all(sealer.layout(), threads, plaintext)?;
        sealer.fix(&hashes)?;
    }

    let mut out = WipeUnlessKept::new(out);
    // The last bytes hashed are the first sealed: they are still in cache.
    let pieces = Pieces::groups(sealer.layout(), plaintext, out.bytes());
    let threads = threads.for_jobs(pieces.count());
    let pieces = Mutex::new(pieces);
    parallel::run(
        threads,
        || pieces.lock().unwrap_or_else(PoisonError::into_inner).back(),
        || Ok(sealer.slot()),
        |slot, piece| {
            piece.each_segment(sealer.layout(), |segment, plaintext, target| {
                target.copy_from_slice(plaintext);
                collector.put(segment, sealer.seal_with(slot, segment, target)?)
            })
        },
    )?;
    let finished = collector.finish(sealer)?;
    out.keep();
    Ok(finished)
}

/// Opens a whole shard from `sealed` into `out`, which must both have its length.
///
/// `out` must be private until the call returns: unverified plaintext passes through it.
///
/// # Errors
///
/// [`SealError::WrongLength`] with `out` untouched; [`SealError::SegmentMismatch`] for the first
/// altered segment, with `out` wiped, as it is when a panic passes.
pub fn unseal(
    opener: &Opener,
    threads: Threads,
    sealed: &[u8],
    out: &mut [u8],
) -> Result<(), SealError> {
    opener.layout().check_whole("the sealed data", sealed)?;
    opener.layout().check_whole("the target of the unseal", out)?;
    let mut out = WipeUnlessKept::new(out);
    let pieces = Pieces::groups(opener.layout(), sealed, out.bytes());
    let threads = threads.for_jobs(pieces.count());
    let pieces = Mutex::new(pieces);
    parallel::run(
        threads,
        || pieces.lock().unwrap_or_else(PoisonError::into_inner).front(),
        || Ok(opener.slot()),
        |slot, piece| {
            piece.each_segment(opener.layout(), |segment, sealed, target| {
                opener.open_to_with(slot, segment, sealed, target)
            })
        },
    )?;
    out.keep();
    Ok(())
}

/// Verifies a whole shard, and names every segment that was altered, in rising order: none if it is
/// sound.
///
/// # Errors
///
/// [`SealError::WrongLength`], or [`SealError::HostMemory`] for the working space.
pub fn verify(opener: &Opener, threads: Threads, sealed: &[u8]) -> Result<Vec<u64>, SealError> {
    opener.layout().check_whole("the sealed data", sealed)?;
    let altered = Mutex::new(Vec::new());
    each_opened(opener, threads, sealed, |segment, opened| {
        if opened.is_none() {
            altered.lock().unwrap_or_else(PoisonError::into_inner).push(segment);
        }
        Ok(())
    })?;
    let mut altered = altered.into_inner().unwrap_or_else(PoisonError::into_inner);
    altered.sort_unstable();
    Ok(altered)
}

/// Verifies a whole shard, and that its plaintext is the very content the record was made for, even
/// against someone who holds the key. Gives the plain digest of that content.
///
/// # Errors
///
/// [`SealError::WrongLength`], [`SealError::HostMemory`]; [`SealError::SegmentMismatch`] for the
/// first altered segment; [`SealError::DigestMismatch`].
pub fn verify_content(
    opener: &Opener,
    threads: Threads,
    sealed: &[u8],
) -> Result<ContentDigest, SealError> {
    opener.layout().check_whole("the sealed data", sealed)?;
    let mut hashes = blank_hashes(opener.layout())?;
    let slots = Mutex::new(&mut hashes);
    each_opened(opener, threads, sealed, |segment, opened| {
        let plaintext = opened.ok_or(SealError::SegmentMismatch { segment })?;
        let hash = opener.hash_segment(segment, plaintext)?;
        put_hash(&slots, segment, hash);
        Ok(())
    })?;
    opener.check_digest(&hashes)
}

/// The plain BLAKE3 hash of every segment, in order.
///
/// # Errors
///
/// [`SealError::WrongLength`] unless `plaintext` has the layout's length; [`SealError::HostMemory`].
pub fn hash_all(
    layout: &SegmentLayout,
    threads: Threads,
    plaintext: &[u8],
) -> Result<Vec<SegmentHash>, SealError> {
    layout.check_whole("the plaintext", plaintext)?;
    let mut hashes = blank_hashes(layout)?;
    let slots = Mutex::new(&mut hashes);
    parallel::for_each_segment(
        threads,
        layout.count(),
        || Ok::<_, SealError>(()),
        |(), segment| {
            let plaintext = segment_of(layout, segment, plaintext);
            put_hash(&slots, segment, SegmentHash::of(layout, segment, plaintext)?);
            Ok(())
        },
    )?;
    Ok(hashes)
}

fn put_hash(slots: &Mutex<&mut Vec<SegmentHash>>, segment: u64, hash: SegmentHash) {
    let index = usize::try_from(segment).unwrap_or(usize::MAX);
    let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(slot) = slots.get_mut(index) {
        *slot = hash;
    }
}

/// Opens every segment into scratch and shows its plaintext to `seen`, or `None` if it was altered.
fn each_opened(
    opener: &Opener,
    threads: Threads,
    sealed: &[u8],
    seen: impl Fn(u64, Option<&[u8]>) -> Result<(), SealError> + Sync,
) -> Result<(), SealError> {
    let layout = opener.layout();
    let in_place = opener.protection() == Protection::Authenticated;
    let scratch_len = if in_place { 0 } else { layout.segment_usize().min(sealed.len()) };
    parallel::for_each_segment(
        threads,
        layout.count(),
        || {
            let wanted = ByteLen::from_usize(scratch_len);
            let scratch = Scratch::new(scratch_len).ok_or(SealError::HostMemory { wanted })?;
            Ok((opener.slot(), scratch))
        },
        |(slot, scratch), segment| {
            let sealed = segment_of(layout, segment, sealed);
            let outcome = if in_place {
                opener.verify_in_place(segment, sealed).map(|()| sealed)
            } else {
                let space = scratch.as_mut_slice().get_mut(..sealed.len()).unwrap_or_default();
                opener.open_to_with(slot, segment, sealed, space).map(|()| &*space)
            };
            match outcome {
                Ok(plaintext) => seen(segment, Some(plaintext)),
                Err(SealError::SegmentMismatch { .. }) => seen(segment, None),
                Err(error) => Err(error),
            }
        },
    )
}

fn blank_hashes(layout: &SegmentLayout) -> Result<Vec<SegmentHash>, SealError> {
    let refused =
        || SealError::HostMemory { wanted: ByteLen::new(layout.count().saturating_mul(32)) };
    let count = usize::try_from(layout.count()).map_err(|_| refused())?;
    let mut hashes = Vec::new();
    hashes.try_reserve_exact(count).map_err(|_| refused())?;
    hashes.resize(count, SegmentHash::from_bytes([0; 32]));
    Ok(hashes)
}

/// The bytes of one segment within the whole shard, whose length was checked.
fn segment_of<'a>(layout: &SegmentLayout, segment: u64, whole: &'a [u8]) -> &'a [u8] {
    layout.range(segment).and_then(|range| whole.get(range.to_usize_range()?)).unwrap_or_default()
}

/// A source and a target of the same length, cut at the same places and given out piece by piece.
///
/// Used twice: first for groups of segments, so that small ones are not given out one at a time,
/// then for the segments of a group. Empty bytes are one empty piece, as in the format.
struct Pieces<'a> {
    source: &'a [u8],
    target: &'a mut [u8],
    piece_len: usize,
    segments_per_piece: u64,
    // Index of the next piece's first segment, and how many pieces there are still.
    first: u64,
    left: usize,
}

struct Piece<'a> {
    first: u64,
    source: &'a [u8],
    target: &'a mut [u8],
}

impl<'a> Pieces<'a> {
    fn groups(layout: &SegmentLayout, source: &'a [u8], target: &'a mut [u8]) -> Self {
        let segments = GROUP_LEN.div_ceil(layout.segment_size().bytes().get());
        let group_len = usize::try_from(segments)
            .map_or(usize::MAX, |count| layout.segment_usize().saturating_mul(count));
        Self::new(source, target, group_len, segments, 0)
    }

    fn new(
        source: &'a [u8],
        target: &'a mut [u8],
        piece_len: usize,
        segments_per_piece: u64,
        first: u64,
    ) -> Self {
        let left = source.len().div_ceil(piece_len).max(1);
        Self { source, target, piece_len, segments_per_piece, first, left }
    }

    fn count(&self) -> u64 {
        u64::try_from(self.left).unwrap_or(u64::MAX)
    }

    fn front(&mut self) -> Option<Piece<'a>> {
        self.left = self.left.checked_sub(1)?;
        let first = self.first;
        self.first = first.saturating_add(self.segments_per_piece);
        let at = self.piece_len.min(self.source.len());
        let (source, rest) = self.source.split_at_checked(at)?;
        self.source = rest;
        let (target, rest) = core::mem::take(&mut self.target).split_at_mut_checked(at)?;
        self.target = rest;
        Some(Piece { first, source, target })
    }

    fn back(&mut self) -> Option<Piece<'a>> {
        self.left = self.left.checked_sub(1)?;
        let at = self.piece_len.saturating_mul(self.left);
        let first = self.first.saturating_add(self.count().saturating_mul(self.segments_per_piece));
        let (rest, source) = self.source.split_at_checked(at)?;
        self.source = rest;
        let (rest, target) = core::mem::take(&mut self.target).split_at_mut_checked(at)?;
        self.target = rest;
        Some(Piece { first, source, target })
    }
}

impl<'a> Piece<'a> {
    /// Calls `work` for every segment of the piece; an error comes with the segment's index.
    fn each_segment(
        self,
        layout: &SegmentLayout,
        mut work: impl FnMut(u64, &'a [u8], &'a mut [u8]) -> Result<(), SealError>,
    ) -> Result<(), (u64, SealError)> {
        let mut segments =
            Pieces::new(self.source, self.target, layout.segment_usize(), 1, self.first);
        while let Some(Piece { first, source, target }) = segments.front() {
            work(first, source, target).map_err(|error| (first, error))?;
        }
        Ok(())
    }
}
