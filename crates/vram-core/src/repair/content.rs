//! The source of a repair: read once, hashed, and what the altered segments need kept.

use std::collections::BTreeMap;

use vram_alloc::ByteLen;
use vram_files::Feed;
use vram_seal::parallel::for_each_segment;
use vram_seal::{Hashes, SealError, SegmentHash};
use vram_space::Lanes;
use zeroize::Zeroizing;

use crate::error::VramError;
use crate::repair::Repair;
use crate::sync::{Mutex, lock};
use crate::transfer::read::zeroed;
use crate::transfer::{Window, Windows};

/// A source that was read to its end.
pub(crate) struct Content<'f> {
    feed: &'f dyn Feed,
    pub(crate) hashes: Vec<SegmentHash>,
    /// Plaintext of the segments that the device has otherwise, if there was room for all of it.
    kept: Option<Kept>,
}

type Kept = BTreeMap<u64, Zeroizing<Vec<u8>>>;

/// What is kept while the source is read, within a limit.
struct Keeping {
    kept: Kept,
    bytes: ByteLen,
    limit: ByteLen,
    overflowed: bool,
}

impl<'f> Content<'f> {
    /// Reads the whole source. What the device has otherwise than the source is kept.
    pub(crate) fn read(
        repair: &Repair<'_, '_>,
        feed: &'f dyn Feed,
        there: &[Option<SegmentHash>],
    ) -> Result<Self, VramError> {
        let (core, gpu) = (repair.core, &repair.view.gpu);
        let layout = *repair.view.seal.opener.layout();
        let windows = Windows::on(gpu, layout)?;
        let hashes = Hashes::new(&layout)?;
        let limit = core.limits.staging_bytes;
        let keeping = Mutex::new(Keeping {
            kept: Kept::new(),
            bytes: ByteLen::ZERO,
            limit,
            overflowed: false,
        });
        let sequential = feed.turn().is_some();
        let lanes = Lanes::new(gpu, windows.window_len(), 1);
        for_each_segment(
            windows.threads(),
            windows.count(),
            || Ok(lanes.worker()),
            |worker, index| {
                repair.watch.go_on()?;
                let mut staging = worker.buffer()?;
                let outcome =
                    next_window(feed, &windows, index, staging.as_mut_slice()).and_then(|window| {
                        let bytes = part(staging.as_mut_slice(), window.bytes.len())?;
                        window.each(&layout, bytes, |segment, bytes| {
                            let hash = SegmentHash::of(&layout, segment, bytes)?;
                            if at(there, segment).and_then(Option::as_ref) != Some(&hash) {
                                lock(&keeping).keep(segment, bytes, sequential)?;
                            }
                            hashes.put(segment, hash);
                            Ok::<_, VramError>(())
                        })?;
                        Ok(window.bytes.len())
                    });
                worker.put(staging);
                repair.watch.advance(outcome?);
                Ok::<_, VramError>(())
            },
        )?;
        lanes.finish()?;
        let keeping = keeping.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let kept = (!keeping.overflowed).then_some(keeping.kept);
        Ok(Self { feed, hashes: hashes.into_vec(), kept })
    }

    /// Whether it is exactly what was sealed.
    ///
    /// # Errors
    ///
    /// [`VramError::DigestMismatch`].
    pub(crate) fn check(&self, repair: &Repair<'_, '_>) -> Result<(), VramError> {
        match repair.view.seal.opener.check_digest(&self.hashes) {
            Ok(digest) if digest == repair.view.seal.digest => Ok(()),
            Ok(_) | Err(SealError::DigestMismatch | SealError::SegmentMismatch { .. }) => {
                Err(repair.another_content(&self.hashes))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The segments that the device has otherwise, in ascending order.
    pub(crate) fn altered(&self, there: &[Option<SegmentHash>]) -> Vec<u64> {
        let pairs = (0_u64..).zip(self.hashes.iter().zip(there));
        let altered = pairs.filter(|(_, (hash, there))| there.as_ref() != Some(*hash));
        altered.map(|(segment, _)| segment).collect()
    }

    /// Fills `target` with the plaintext of a segment. What was read again was not checked.
    pub(crate) fn fill(
        &self,
        repair: &Repair<'_, '_>,
        segment: u64,
        target: &mut [u8],
    ) -> Result<(), VramError> {
        let wanted = ByteLen::from_usize(target.len());
        if let Some(kept) = self.kept.as_ref().and_then(|kept| kept.get(&segment))
            && kept.len() == target.len()
        {
            target.copy_from_slice(kept);
            return Ok(());
        }
        let range = repair.view.seal.opener.layout().range(segment);
        Ok(self.feed.fill(range.ok_or(VramError::HostMemory { wanted })?, target)?)
    }

    /// What a segment must hash to.
    pub(crate) fn hash(&self, segment: u64) -> Option<&SegmentHash> {
        at(&self.hashes, segment)
    }
}

impl Keeping {
    /// Keeps a segment, or nothing at all any more.
    ///
    /// # Errors
    ///
    /// [`VramError::LimitExceeded`] if there is no room, and no second chance either.
    fn keep(&mut self, segment: u64, bytes: &[u8], only_chance: bool) -> Result<(), VramError> {
        if self.overflowed {
            return Ok(());
        }
        let len = ByteLen::from_usize(bytes.len());
        let sum = self.bytes.saturating_add(len);
        if sum <= self.limit {
            let mut copy = Zeroizing::new(zeroed(len)?);
            copy.copy_from_slice(bytes);
            self.kept.insert(segment, copy);
            self.bytes = sum;
            return Ok(());
        }
        if only_chance {
            return Err(VramError::LimitExceeded {
                what: "bytes of altered segments that are kept while a source is read that can be \
                       read only once",
                limit: self.limit.get(),
                wanted: sum.get(),
            });
        }
        self.overflowed = true;
        self.kept.clear();
        Ok(())
    }
}

/// Fills the start of `buffer` with window `index`, or with the next one of a source that can only
/// be read in order.
fn next_window(
    feed: &dyn Feed,
    windows: &Windows,
    index: u64,
    buffer: &mut [u8],
) -> Result<Window, VramError> {
    let fill = |index: u64, buffer: &mut [u8]| {
        let window = windows.get(index).ok_or(VramError::HostMemory { wanted: ByteLen::ZERO })?;
        feed.fill(window.bytes, part(buffer, window.bytes.len())?)?;
        Ok(window)
    };
    let Some(turn) = feed.turn() else { return fill(index, buffer) };
    let mut turn = lock(turn);
    let window = fill(*turn, buffer)?;
    *turn = turn.saturating_add(1);
    Ok(window)
}

/// The first `len` bytes of a buffer.
pub(crate) fn part(buffer: &mut [u8], len: ByteLen) -> Result<&mut [u8], VramError> {
    let count = len.to_usize();
    count.and_then(|count| buffer.get_mut(..count)).ok_or(VramError::HostMemory { wanted: len })
}

fn at<T>(items: &[T], segment: u64) -> Option<&T> {
    usize::try_from(segment).ok().and_then(|segment| items.get(segment))
}
