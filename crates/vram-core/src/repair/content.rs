//! The source of a repair: read once and hashed; the plaintext that altered segments need is kept.

use std::collections::BTreeMap;

use vram_alloc::ByteLen;
use vram_files::Feed;
use vram_seal::{Hashes, SegmentHash};
use zeroize::Zeroizing;

use crate::error::VramError;
use crate::repair::Repair;
use crate::sync::{Mutex, lock};
use crate::transfer::Windows;
use crate::transfer::feed::with_source;
use crate::transfer::read::zeroed;

/// A source that was read to its end.
pub(crate) struct Content<'f> {
    feed: &'f dyn Feed,
    pub(crate) hashes: Vec<SegmentHash>,
    /// Plaintext of the segments that differ on the device, if there was room for all of it.
    kept: Option<Kept>,
}

type Kept = BTreeMap<u64, Zeroizing<Vec<u8>>>;

/// The plaintext that is kept while the source is read, within a limit.
struct Keeping {
    kept: Kept,
    bytes: ByteLen,
    limit: ByteLen,
    overflowed: bool,
}

impl<'f> Content<'f> {
    /// Reads the whole source. Keeps the plaintext of segments that differ on the device.
    pub(crate) fn read(
        repair: &Repair<'_, '_>,
        feed: &'f dyn Feed,
        there: &[SegmentHash],
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
        windows.run(gpu, 1, windows.count(), |worker, index| {
            repair.watch.go_on()?;
            let done = with_source(worker, feed, &windows, index, |window, bytes| {
                window.each(&layout, bytes, |segment, bytes| {
                    let hash = SegmentHash::of(&layout, segment, bytes)?;
                    if at(there, segment) != Some(&hash) {
                        lock(&keeping).keep(segment, bytes, sequential)?;
                    }
                    hashes.put(segment, hash);
                    Ok::<_, VramError>(())
                })?;
                Ok(window.bytes.len())
            })?;
            repair.watch.advance(done);
            Ok(())
        })?;
        let keeping = keeping.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let kept = (!keeping.overflowed).then_some(keeping.kept);
        Ok(Self { feed, hashes: hashes.into_vec(), kept })
    }

    /// Checks that the source is exactly the content that was sealed.
    ///
    /// # Errors
    ///
    /// [`VramError::DigestMismatch`].
    pub(crate) fn check(&self, repair: &Repair<'_, '_>) -> Result<(), VramError> {
        if repair.view.seal.is_of(&self.hashes)? {
            return Ok(());
        }
        Err(repair.another_content(&self.hashes))
    }

    /// The segments that differ on the device, in ascending order.
    pub(crate) fn altered(&self, there: &[SegmentHash]) -> Vec<u64> {
        let pairs = (0_u64..).zip(self.hashes.iter().zip(there));
        let altered = pairs.filter(|(_, (hash, there))| there != hash);
        altered.map(|(segment, _)| segment).collect()
    }

    /// Fills `target` with the plaintext of a segment. Plaintext that had to be read again is not
    /// checked here.
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

    /// The hash that a segment must have.
    pub(crate) fn hash(&self, segment: u64) -> Option<&SegmentHash> {
        at(&self.hashes, segment)
    }
}

impl Keeping {
    /// Keeps a segment. If there is no room for it, keeps no segment at all from then on.
    ///
    /// # Errors
    ///
    /// [`VramError::LimitExceeded`] if there is no room, and the source cannot be read again.
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

fn at<T>(items: &[T], segment: u64) -> Option<&T> {
    usize::try_from(segment).ok().and_then(|segment| items.get(segment))
}
