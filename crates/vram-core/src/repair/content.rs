//! The source of a repair: read and hashed once; the plaintext that altered segments need is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use vram_alloc::{ByteLen, ByteRange};
use vram_seal::parallel::for_each_segment;
use vram_seal::{Hashes, SegmentHash};
use zeroize::Zeroizing;

use crate::error::VramError;
use crate::repair::Repair;
use crate::shard::{Entry, View};
use crate::sync::{Mutex, into_inner, lock};
use crate::transfer::Windows;
use crate::transfer::feed::with_source;
use crate::transfer::read::zeroed;

/// A source that was read to its end.
pub(crate) struct Content {
    /// Shared with the sealer that seals nothing else.
    pub(crate) hashes: Arc<Vec<SegmentHash>>,
    /// Plaintext of the segments that differ on the device, as far as there was room for it.
    pub(crate) kept: Kept,
}

/// Plaintext of segments.
pub(crate) type Kept = BTreeMap<u64, Zeroizing<Vec<u8>>>;

/// The plaintext that is kept while the source is read, within a limit.
struct Keeping {
    kept: Kept,
    bytes: ByteLen,
    limit: ByteLen,
    overflowed: bool,
}

impl Content {
    /// Reads the whole source. Keeps the plaintext of segments that differ on the device.
    pub(crate) fn read(
        repair: &Repair<'_, '_>,
        view: &View,
        there: &[SegmentHash],
    ) -> Result<Self, VramError> {
        let (core, feed, gpu) = (repair.core, repair.feed, &view.gpu);
        let layout = *view.seal.opener.layout();
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
        let keeping = into_inner(keeping);
        Ok(Self { hashes: Arc::new(hashes.into_vec()), kept: keeping.kept })
    }

    /// Reads the first of these segments once more, as many as a call may hold, and compares each
    /// with what was read the first time.
    pub(crate) fn read_again(
        &self,
        repair: &Repair<'_, '_>,
        entry: &Entry,
        view: &View,
        segments: &[u64],
    ) -> Result<Kept, VramError> {
        let layout = *view.seal.opener.layout();
        let windows = Windows::on(&view.gpu, layout)?;
        let longest = layout.segment_size().bytes().min(layout.plaintext_len());
        let room = repair.core.limits.staging_bytes.get().checked_div(longest.get());
        let room = room.map_or(1, |room| room.max(1));
        let count = ByteLen::from_usize(segments.len()).get().min(room);
        let kept = Mutex::new(Kept::new());
        for_each_segment(
            windows.threads(),
            count,
            || Ok(()),
            |(), index| {
                repair.watch.go_on()?;
                let Some(segment) = at(segments, index).copied() else { return Ok(()) };
                let len = layout.range(segment).map_or(ByteLen::ZERO, ByteRange::len);
                let mut bytes = Zeroizing::new(zeroed(len)?);
                self.fill(repair, view, segment, &mut bytes)?;
                if self.hash(segment) != Some(&SegmentHash::of(&layout, segment, &bytes)?) {
                    let model_id = Arc::clone(&entry.sealed_as.model_id);
                    return Err(VramError::SourceChanged { model_id, segment });
                }
                lock(&kept).insert(segment, bytes);
                Ok::<_, VramError>(())
            },
        )?;
        Ok(into_inner(kept))
    }

    /// The segments that differ on the device, in ascending order.
    pub(crate) fn altered(&self, there: &[SegmentHash]) -> Vec<u64> {
        let pairs = (0_u64..).zip(self.hashes.iter().zip(there));
        let altered = pairs.filter(|(_, (hash, there))| there != hash);
        altered.map(|(segment, _)| segment).collect()
    }

    /// Fills `target` with the plaintext of a segment, from what was kept or from the source.
    /// Plaintext that had to be read again is not checked here.
    pub(crate) fn fill(
        &self,
        repair: &Repair<'_, '_>,
        view: &View,
        segment: u64,
        target: &mut [u8],
    ) -> Result<(), VramError> {
        if fill_from(&self.kept, segment, target) {
            return Ok(());
        }
        let wanted = ByteLen::from_usize(target.len());
        let range = view.seal.opener.layout().range(segment);
        Ok(repair.feed.fill(range.ok_or(VramError::HostMemory { wanted })?, target)?)
    }

    /// The hash that a segment must have.
    pub(crate) fn hash(&self, segment: u64) -> Option<&SegmentHash> {
        at(&self.hashes, segment)
    }
}

impl Keeping {
    /// Keeps a segment. If there is no room for it, keeps no other segment from then on.
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
        Ok(())
    }
}

/// Fills `target` with the plaintext of a segment. Returns false if it was not kept.
pub(crate) fn fill_from(kept: &Kept, segment: u64, target: &mut [u8]) -> bool {
    let kept = kept.get(&segment).filter(|kept| kept.len() == target.len());
    kept.inspect(|kept| target.copy_from_slice(kept)).is_some()
}

fn at<T>(items: &[T], segment: u64) -> Option<&T> {
    usize::try_from(segment).ok().and_then(|segment| items.get(segment))
}
