//! Whole shards in one call, on all processors: the output does not depend on the number of
//! threads.

use std::sync::{Mutex, PoisonError};

use vram_alloc::ByteLen;

use crate::digest::ContentDigest;
use crate::error::SealError;
use crate::key::master::SealKey;
use crate::open::Opener;
use crate::parallel::{self, Threads};
use crate::pieces::Pieces;
use crate::record::context::SealContext;
use crate::record::layout::SegmentLayout;
use crate::record::params::SealParams;
use crate::record::protection::Protection;
use crate::seal::collector::{Gathered, Sealed, SegmentCollector};
use crate::seal::sealer::{Fresh, Sealer};
use crate::segment::chain::{Place, SegmentHash};
use crate::wipe::{Scratch, WipeUnlessKept, copying};

/// Seals `plaintext` into `out`, which must be of the same length.
///
/// The plaintext is read once, in any scope: segment by segment into `out`, and hashed and sealed
/// there. The encrypted bytes are therefore the hashed bytes, even if the source changes meanwhile.
/// No other code may read or write `out` until the call returns. In mode Authenticated it receives
/// the plaintext.
///
/// # Errors
///
/// [`SealError::WrongLength`], [`SealError::TooLong`] or [`SealError::HostMemory`], with `out`
/// unchanged; after any other error, and after a panic, `out` is wiped.
pub fn seal(
    key: &SealKey,
    context: &SealContext<'_>,
    params: SealParams,
    threads: Threads,
    plaintext: &[u8],
    out: &mut [u8],
) -> Result<Sealed, SealError> {
    let fresh = Sealer::new(key, context, params, ByteLen::from_usize(plaintext.len()))?;
    fresh.layout().check_whole("the target of the seal", out)?;
    seal_through(fresh, threads, Some(plaintext), out)
}

/// Seals a buffer in place: plaintext becomes ciphertext. No other code may read or write it until
/// the call returns. In mode Authenticated it is only read.
///
/// # Errors
///
/// [`SealError::TooLong`] or [`SealError::HostMemory`], with the buffer unchanged; after any other
/// error, and after a panic, it is wiped.
pub fn seal_in_place(
    key: &SealKey,
    context: &SealContext<'_>,
    params: SealParams,
    threads: Threads,
    buffer: &mut [u8],
) -> Result<Sealed, SealError> {
    let fresh = Sealer::new(key, context, params, ByteLen::from_usize(buffer.len()))?;
    seal_through(fresh, threads, None, buffer)
}

/// Seals `out`, which is filled from `source` first if there is one.
fn seal_through(
    fresh: Sealer<Fresh>,
    threads: Threads,
    source: Option<&[u8]>,
    out: &mut [u8],
) -> Result<Sealed, SealError> {
    // Allocates all memory first: a host with too little memory is detected before the first write.
    let two_passes = fresh.needs_digest_first();
    let gathered = Gathered::new(&fresh, two_passes)?;
    let mut hashes = if two_passes { blank_hashes(fresh.layout())? } else { Vec::new() };
    source.into_iter().for_each(copying::learn);
    let mut out = WipeUnlessKept::new(out);
    let mut source = source;
    let sealer = fresh.begin(|fresh| {
        // The copy is hashed, not the source, so the second pass finds the same bytes.
        let (source, layout) = (source.take(), fresh.layout());
        let (place, slots) = (place_of(source), Mutex::new(&mut hashes));
        Pieces::groups(layout, source, out.bytes()).each_segment(
            layout,
            threads,
            Pieces::front,
            || (),
            |(), segment, source, target| {
                copy_if_any(source, target);
                let hash = SegmentHash::of_checked(layout, segment, target, place);
                put_hash(&slots, segment, hash);
                Ok(())
            },
        )?;
        Ok::<_, SealError>(hashes)
    })?;
    let collector = SegmentCollector::in_memory(sealer, gathered);
    let (sealer, place) = (collector.sealer(), place_of(source));
    // From the end: bytes that were hashed last are sealed first, while they are still in the cache.
    Pieces::groups(sealer.layout(), source, out.bytes()).each_segment(
        sealer.layout(),
        threads,
        |pieces| if two_passes { pieces.back() } else { pieces.front() },
        || sealer.slot(),
        |slot, segment, source, target| {
            copy_if_any(source, target);
            collector.put(segment, sealer.seal_with(slot, segment, target, place)?)
        },
    )?;
    let finished = collector.finish()?;
    out.keep();
    Ok(finished)
}

/// Opens a whole shard from `sealed` into `out`; both must have its length.
///
/// `out` must be private until the call returns, so no shared mapping, nor memory that a device or
/// another process reads: it contains unverified plaintext meanwhile.
///
/// # Errors
///
/// [`SealError::WrongLength`] with `out` unchanged; [`SealError::SegmentMismatch`] for the first
/// altered segment, with `out` wiped. `out` is also wiped after a panic.
pub fn unseal(
    opener: &Opener,
    threads: Threads,
    sealed: &[u8],
    out: &mut [u8],
) -> Result<(), SealError> {
    opener.layout().check_whole("the sealed data", sealed)?;
    opener.layout().check_whole("the target of the unseal", out)?;
    unseal_through(opener, threads, Some(sealed), out)
}

/// Opens a whole shard in place. The fastest way, for a copy of the sealed data that may be lost: a
/// failure destroys it. No other code may read the buffer until the call returns.
///
/// # Errors
///
/// [`SealError::WrongLength`] with the buffer unchanged; [`SealError::SegmentMismatch`] for the
/// first altered segment, with the buffer wiped. It is also wiped after a panic.
pub fn unseal_in_place(
    opener: &Opener,
    threads: Threads,
    buffer: &mut [u8],
) -> Result<(), SealError> {
    opener.layout().check_whole("the sealed data", buffer)?;
    unseal_through(opener, threads, None, buffer)
}

fn unseal_through(
    opener: &Opener,
    threads: Threads,
    sealed: Option<&[u8]>,
    out: &mut [u8],
) -> Result<(), SealError> {
    sealed.into_iter().for_each(copying::learn);
    let mut out = WipeUnlessKept::new(out);
    let place = place_of(sealed);
    Pieces::groups(opener.layout(), sealed, out.bytes()).each_segment(
        opener.layout(),
        threads,
        Pieces::front,
        || opener.slot(),
        |slot, segment, sealed, target| {
            copy_if_any(sealed, target);
            opener.open_with(slot, segment, target, place)
        },
    )?;
    out.keep();
    Ok(())
}

/// Bytes that were just copied are in the cache.
const fn place_of(source: Option<&[u8]>) -> Place {
    if source.is_some() { Place::Cache } else { Place::Memory }
}

fn copy_if_any(source: Option<&[u8]>, target: &mut [u8]) {
    if let Some(source) = source {
        copying::copy(source, target);
    }
}

/// Verifies that a whole shard is *sound*: the tag of each segment is good. Returns every altered
/// segment in rising order: none if the shard is sound. A holder of the key can make other bytes for
/// the same tags: [`verify_content`] excludes that.
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

/// Verifies that a whole shard is sound, and that its *content* is the one that the record was made
/// for, even against a party that holds the key. Returns the plain digest of that content.
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

/// Opens every segment into scratch and passes its plaintext to `seen`, or `None` if it was
/// altered.
fn each_opened(
    opener: &Opener,
    threads: Threads,
    sealed: &[u8],
    seen: impl Fn(u64, Option<&[u8]>) -> Result<(), SealError> + Sync,
) -> Result<(), SealError> {
    let layout = opener.layout();
    let in_place = opener.protection() == Protection::Authenticated;
    if !in_place {
        copying::learn(sealed);
    }
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
                let space = scratch.fill(sealed);
                opener.open_with(slot, segment, space, Place::Cache).map(|()| &*space)
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

/// The bytes of one segment within the whole shard, whose length was checked before.
fn segment_of<'a>(layout: &SegmentLayout, segment: u64, whole: &'a [u8]) -> &'a [u8] {
    layout.range(segment).and_then(|range| whole.get(range.to_usize_range()?)).unwrap_or_default()
}
