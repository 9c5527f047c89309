//! Repair: makes a quarantined shard sound again from its plaintext, and from nothing else.
//!
//! ```text
//!   1 every segment on the device is opened and hashed        which are altered
//!   2 every segment of the source is read and hashed, once    plaintext of altered ones is kept
//!   3 the content as a whole against the record               if it differs: nothing is written
//!   4 altered segments: sealed again, opened under the record, written, read back
//!   5 every segment on the device is opened and hashed again
//!   6 the quarantine is lifted
//! ```
//!
//! Sealing is deterministic, so it produces the same sealed bytes again: the record, the table and
//! every handle stay valid. The source is not trusted. It is read once, in order if it cannot be
//! read otherwise: the plaintext of the altered segments waits in host memory until the whole
//! source is known to be right. If that plaintext is more than a call may hold, these segments are
//! read a second time, and compared with what was read the first time.

pub mod content;
pub mod options;
pub mod rewrite;

pub(crate) use self::content::Content;
pub use self::options::{RepairOptions, RepairReport};

use std::path::Path;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::EventKind;
use vram_files::{Feed, PlainImage, Source, Watch};
use vram_gpu::GpuError;
use vram_seal::{Expected, OpenLimits, Protection, SealError, Sealer, SegmentHash, merge_digest};
use vram_space::Space;

use crate::error::VramError;
use crate::parts::Core;
use crate::resident::{Anew, contents};
use crate::room::make_room;
use crate::shard::entry::arrive::arrive;
use crate::shard::{Entry, Moment, SealedShard, ShardCause, View};
use crate::transfer::SourceFeed;

/// A shard that is being repaired.
pub(crate) struct Repair<'a, 'w> {
    core: &'a Core,
    entry: &'a Entry,
    view: View,
    watch: &'a Watch<'w>,
}

pub(crate) fn repair_by_image(
    core: &Core,
    entry: &Entry,
    image: &Path,
    options: RepairOptions<'_>,
) -> Result<RepairReport, VramError> {
    let expected = Expected::from(&entry.sealed_as.context()?);
    let limits = OpenLimits { max_len: core.limits.shard_len_max };
    let image = PlainImage::open(image, &core.keys, &expected, limits)?;
    let ours = entry.view()?.seal.opener.layout().segment_size().bytes();
    let theirs = image.segment_len();
    if ours != theirs {
        return Err(VramError::config(format!(
            "the image has segments of {theirs}, and the shard of {ours}"
        )));
    }
    repair(core, entry, &image, &|| Ok(()), options)
}

/// Repairs a shard. The caller is exclusive at its gate.
pub(crate) fn repair(
    core: &Core,
    entry: &Entry,
    feed: &dyn Feed,
    finish: &dyn Fn() -> Result<(), VramError>,
    options: RepairOptions<'_>,
) -> Result<RepairReport, VramError> {
    let view = entry.view()?;
    let (expected, found) = (entry.plaintext_len.get(), feed.len().get());
    if expected != found {
        let what = "the source of a repair";
        return Err(SealError::WrongLength { what, expected, found }.into());
    }
    let watch = options.watch.begin(feed.len())?;
    let repair = Repair { core, entry, view, watch: &watch };
    let began = Moment::now(&*core.clock);
    let (there, segments) = repair.view.content_on()?;
    if !repair.is_altered(&there, &segments)? {
        watch.finish();
        entry.change(|state, _told| state.ages.verified(began));
        return Ok(repair.report(false, Vec::new(), ByteLen::ZERO, ByteLen::ZERO));
    }
    let content = Content::read(&repair, feed, &there)?;
    finish()?;
    content.check(&repair)?;
    let sealer = repair.sealer(&content.hashes)?;
    let altered = content.altered(&there);
    repair.finish(&content, sealer.as_ref(), altered, began, options.relocate)
}

impl Repair<'_, '_> {
    /// Whether there is anything to repair. An alteration that is found only now puts the shard
    /// into quarantine.
    fn is_altered(&self, there: &[SegmentHash], segments: &[u64]) -> Result<bool, VramError> {
        let known = self.entry.state().quarantine.clone();
        if segments.is_empty() && known.is_none() && self.view.seal.is_of(there)? {
            return Ok(false);
        }
        let news = known.is_none_or(|known| segments.iter().any(|one| !known.contains(one)));
        if news {
            self.entry.quarantine(segments);
        }
        Ok(true)
    }

    /// A sealer that makes the record again; `None` for an Authenticated shard, which is repaired
    /// without a key.
    fn sealer(&self, hashes: &[SegmentHash]) -> Result<Option<Sealer>, VramError> {
        let seal = &self.view.seal;
        if seal.protection() == Protection::Authenticated {
            return Ok(None);
        }
        let anew = Anew { params: seal.params, key: seal.key_id() };
        contents::sealer(self.core, self.entry, anew, Some(hashes)).map(Some)
    }

    /// Writes the altered segments, verifies the whole shard, and lifts the quarantine.
    fn finish(
        &self,
        content: &Content<'_>,
        sealer: Option<&Sealer>,
        altered: Vec<u64>,
        mut began: Moment,
        relocate: bool,
    ) -> Result<RepairReport, VramError> {
        let clock = &*self.core.clock;
        let (mut written, mut set_aside) = (ByteLen::ZERO, ByteLen::ZERO);
        if relocate {
            let mut space = make_room::place_for(self.core, self.entry, &self.view.gpu)?;
            space.written()?;
            let target = View::of(&mut space, Arc::clone(&self.view.seal))?;
            written = self.copy_to(&target, content, sealer, &altered)?;
            began = Moment::now(clock);
            let (segments, differs) = target.altered_content()?;
            if !segments.is_empty() || differs {
                let gpu = target.gpu.index;
                return Err(VramError::WriteNotKept { gpu, segments });
            }
            self.watch.finish();
            set_aside = self.move_to(space, began)?;
        } else {
            if !altered.is_empty() {
                written = self.rewrite(content, sealer, &altered)?;
                began = Moment::now(clock);
                self.expect_whole(&altered)?;
            }
            self.watch.finish();
        }
        let (at, gpu) = (self.core.events.now(), self.view.gpu.index);
        self.entry.change(|state, told| {
            state.quarantine = None;
            state.ages.verified(began);
            let (shard, segments) = (self.entry.id.clone(), altered.clone());
            told.tell(at, EventKind::Repaired { shard, gpu, segments });
        });
        tracing::info!(shard = %self.entry.id, gpu, segments = altered.len(), "repaired");
        Ok(self.report(true, altered, written, set_aside))
    }

    /// Makes a verified copy the shard's present placement, and takes its old placement out of use.
    /// Returns the number of bytes that were taken out of use.
    fn move_to(&self, mut space: Space, began: Moment) -> Result<ByteLen, VramError> {
        space.keep();
        let now = Moment::now(&*self.core.clock);
        let moved = arrive(&self.entry, space, ShardCause::Move, |state, _told| {
            state.ages.arrived(now, Some(began));
        });
        let old = moved.map_err(|(spaces, error)| {
            drop(spaces);
            error
        })?;
        let error = GpuError::Driver {
            gpu: self.view.gpu.device.info().index,
            code: u32::MAX,
            name: "the memory was taken out of use by a repair",
            sticky: false,
        };
        Ok(old.map_or(ByteLen::ZERO, |old| old.abandon(error)))
    }

    /// # Errors
    ///
    /// The shard on the device differs from what was sealed: [`VramError::WriteNotKept`] if the
    /// difference is in a segment that was just written, [`VramError::ShardAltered`] if another
    /// segment was altered meanwhile.
    fn expect_whole(&self, rewritten: &[u64]) -> Result<(), VramError> {
        let (segments, differs) = self.view.altered_content()?;
        if segments.is_empty() && !differs {
            return Ok(());
        }
        self.entry.quarantine(&segments);
        if segments.iter().any(|segment| rewritten.binary_search(segment).is_ok()) {
            return Err(VramError::WriteNotKept { gpu: self.view.gpu.index, segments });
        }
        Err(VramError::ShardAltered { shard: self.entry.id.clone(), segments })
    }

    fn report(
        &self,
        was_altered: bool,
        segments: Vec<u64>,
        written: ByteLen,
        set_aside: ByteLen,
    ) -> RepairReport {
        RepairReport {
            shard_id: self.entry.id.clone(),
            gpu: self.view.gpu.index,
            was_altered,
            segments,
            written,
            set_aside,
            at: self.core.clock.now(),
        }
    }

    /// The error for a source with another content.
    fn another_content(&self, hashes: &[SegmentHash]) -> VramError {
        match merge_digest(hashes, self.view.seal.opener.layout()) {
            Ok(found) => VramError::another_content(
                &self.entry.sealed_as.model_id,
                self.view.seal.digest,
                found,
            ),
            Err(error) => error.into(),
        }
    }
}

/// Repairs a shard from a source of its content.
pub fn repair_from(
    core: &Core,
    shard: &SealedShard,
    source: &dyn Source,
    options: RepairOptions<'_>,
) -> Result<RepairReport, VramError> {
    core.exclusive(shard, |entry| {
        let feed = SourceFeed::new(source, &entry.sealed_as.model_id);
        repair(core, entry, &feed, &|| feed.finish(), options)
    })
}

/// Repairs a shard from a sealed image of it.
pub fn repair_from_image(
    core: &Core,
    shard: &SealedShard,
    image: &Path,
    options: RepairOptions<'_>,
) -> Result<RepairReport, VramError> {
    core.exclusive(shard, |entry| repair_by_image(core, entry, image, options))
}
