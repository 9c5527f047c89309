//! Repair: makes a quarantined shard sound again from its plaintext, and from nothing else.
//!
//! ```text
//!   shared      1 every segment on the device is opened and hashed     which are altered
//!               2 every segment of the source is read and hashed       altered ones are kept
//!               3 the content as a whole against the record            if it differs: an error
//!               4 to relocate: the whole shard is written elsewhere, and opened and hashed there
//!   exclusive   5 is the shard as it was?                              if not: again from 1
//!               6 altered segments: sealed again, opened under the record, written, read back
//!               7 every segment on the device is opened and hashed again
//!               8 the quarantine is lifted
//! ```
//!
//! Sealing is deterministic, so it produces the same sealed bytes again: the record, the table and
//! every handle stay valid. The source is not trusted, and it is foreign code: it may read other
//! shards, whose repair may read this one. It is therefore never called by an exclusive user.
//!
//! The plaintext of altered segments waits in host memory. If that is more than a call may hold,
//! steps 5 and 6 are done in rounds: between two of them, the next segments are read as in step 2
//! and compared with what was read the first time.

pub mod content;
pub mod options;
pub mod rewrite;
pub mod survey;

pub(crate) use self::content::{Content, Kept};
pub use self::options::{RepairOptions, RepairReport};

use core::sync::atomic::{AtomicBool, Ordering};
use std::path::Path;
use std::sync::Arc;

use vram_alloc::{ByteLen, GpuIndex};
use vram_events::EventKind;
use vram_files::{Feed, PlainImage, Source, Watch};
use vram_gpu::GpuError;
use vram_id::Timestamp;
use vram_seal::{Expected, OpenLimits, SealError, open_record_in};
use vram_space::Space;

use crate::error::VramError;
use crate::parts::Core;
use crate::repair::survey::{Altered, Survey};
use crate::shard::entry::arrive::arrive;
use crate::shard::entry::quarantine::Quarantine;
use crate::shard::{Check, Entry, Moment, SealedShard, ShardCause, State, Told, View};
use crate::sync::read;
use crate::transfer::SourceFeed;

/// How often a repair begins again because the shard changed while it read the source.
const TRIES_MAX: u32 = 4;

/// A repair that is under way.
pub(crate) struct Repair<'a, 'w> {
    core: &'a Core,
    shard: &'a SealedShard,
    feed: &'a dyn Feed,
    /// Called after each time that the whole source was read.
    finish: &'a (dyn Fn() -> Result<(), VramError> + Sync),
    watch: &'a Watch<'w>,
    /// Whether the callback of the caller has heard the last figure.
    finished: AtomicBool,
    relocate: bool,
}

/// Repairs a shard from a source of its content.
pub fn repair_from(
    core: &Core,
    shard: &SealedShard,
    source: &dyn Source,
    options: RepairOptions<'_>,
) -> Result<RepairReport, VramError> {
    let entry = core.resolve(shard)?;
    let feed = SourceFeed::new(source, &entry.sealed_as.model_id);
    // What is written is compared with the digest of the seal, so a source that was written meanwhile
    // does no harm.
    repair(core, shard, &entry, &feed, &|| feed.finish(true), options)
}

/// Repairs a shard from a sealed image of it.
pub fn repair_from_image(
    core: &Core,
    shard: &SealedShard,
    image: &Path,
    options: RepairOptions<'_>,
) -> Result<RepairReport, VramError> {
    let entry = core.resolve(shard)?;
    // Any protection: the content is compared with the digest of the shard's own seal, and a
    // repair takes plaintext from any other source as well.
    let mut described = Vec::new();
    let context = entry.sealed_as.context(&mut described)?;
    let expected = Expected::from(&context).any_protection();
    let limits = OpenLimits { max_len: core.limits.shard_len_max };
    let image = PlainImage::open(image, |record| {
        open_record_in(&read(&core.keys), record, &expected, limits)
    });
    // The keys of a manager that was closed meanwhile are gone.
    core.check_open()?;
    let image = image?;
    let ours = entry.state().seal.opener.layout().segment_size().bytes();
    let theirs = image.segment_len();
    if ours != theirs {
        return Err(VramError::config(format!(
            "the image has segments of {theirs}, and the shard of {ours}"
        )));
    }
    repair(core, shard, &entry, &image, &|| Ok(()), options)
}

fn repair(
    core: &Core,
    shard: &SealedShard,
    entry: &Entry,
    feed: &dyn Feed,
    finish: &(dyn Fn() -> Result<(), VramError> + Sync),
    options: RepairOptions<'_>,
) -> Result<RepairReport, VramError> {
    let (expected, found) = (entry.plaintext_len.get(), feed.len().get());
    if expected != found {
        let what = "the source of a repair";
        return Err(SealError::WrongLength { what, expected, found }.into());
    }
    let (relocate, finished) = (options.relocate, AtomicBool::new(false));
    let watch = options.watch.begin(feed.len())?;
    let repair = Repair { core, shard, feed, finish, watch: &watch, finished, relocate };
    for _ in 0..TRIES_MAX {
        match core.shared(shard, |entry| repair.survey(entry))? {
            Survey::Sound(report) => return Ok(report),
            Survey::Altered(altered) => {
                if let Some(report) = repair.mend(*altered)? {
                    return Ok(report);
                }
            }
        }
        if feed.turn().is_some() {
            // The source cannot be read again.
            break;
        }
    }
    Err(VramError::InUse { shard: entry.id.clone(), leases: 0, oldest: None })
}

impl Repair<'_, '_> {
    /// Writes what is altered, verifies the whole shard, and lifts the quarantine. `None` if the
    /// shard changed since it was surveyed: then this try writes nothing more.
    fn mend(&self, mut found: Altered) -> Result<Option<RepairReport>, VramError> {
        let (core, shard) = (self.core, self.shard);
        if let Some(copy) = found.copy.take() {
            self.tell_end();
            let (written, began) = (copy.written, copy.began);
            let now = Moment::now(&*core.clock);
            let moved = core.exclusive(shard, |entry| {
                if !found.is_as_seen(entry)? {
                    return Ok(None);
                }
                self.move_to(entry, &found, copy.space, began, now).map(Some)
            })?;
            return Ok(moved.map(|set_aside| self.report(&found, written, set_aside)));
        }
        let mut written = ByteLen::ZERO;
        let mut kept = core::mem::take(&mut found.content.kept);
        loop {
            let rest = found.after(&kept);
            let began =
                if found.segments.is_empty() { found.began } else { Moment::now(&*core.clock) };
            if rest.is_empty() {
                self.tell_end();
            }
            let done = core.exclusive(shard, |entry| {
                if !found.is_as_seen(entry)? {
                    return Ok(None);
                }
                let len = self.rewrite(&found, &kept)?;
                if rest.is_empty() {
                    if !found.segments.is_empty() {
                        expect_whole(entry, &found)?;
                    }
                    self.lift(entry, &found, began);
                }
                Ok(Some(len))
            })?;
            let Some(len) = done else { return Ok(None) };
            written = written.saturating_add(len);
            if rest.is_empty() {
                return Ok(Some(self.report(&found, written, ByteLen::ZERO)));
            }
            found.done(kept);
            kept = core.shared(shard, |entry| self.read_again(entry, &found, &rest))?;
        }
    }

    /// Reports the last figure to the callback of the caller, before anything is decided that the
    /// callback could hinder by a panic.
    fn tell_end(&self) {
        if !self.finished.swap(true, Ordering::Relaxed) {
            self.watch.finish();
        }
    }

    /// Ends the quarantine. The caller is exclusive at the gate, so that no other call finds the
    /// shard altered, or lost, before the event says that it was repaired.
    fn lift(&self, entry: &Entry, found: &Altered, began: Moment) {
        let at = self.core.events.now();
        entry.change(|state, told| self.lifted(found, began, at, state, told));
        self.log(found);
    }

    /// Makes a verified copy the shard's present placement and ends the quarantine, in one moment,
    /// and takes the old placement out of use. Returns the number of bytes that were taken out of
    /// use.
    fn move_to(
        &self,
        entry: &Entry,
        found: &Altered,
        mut space: Space,
        began: Moment,
        now: Moment,
    ) -> Result<ByteLen, VramError> {
        space.keep();
        let at = self.core.events.now();
        let moved = arrive(entry, space, ShardCause::Move, |state, told| {
            state.ages.arrived(now, Some(Check::by_host(began)));
            self.lifted(found, began, at, state, told);
        });
        let old = moved?;
        self.log(found);
        let Some(old) = old else { return Ok(ByteLen::ZERO) };
        let error = GpuError::Driver {
            gpu: GpuIndex::new(old.gpu().index),
            code: u32::MAX,
            name: "the memory was taken out of use by a repair",
            sticky: false,
        };
        Ok(old.abandon(error))
    }

    /// The change of a shard that is found sound again, in the caller's critical section.
    fn lifted(
        &self,
        found: &Altered,
        began: Moment,
        at: Timestamp,
        state: &mut State,
        told: Told<'_>,
    ) {
        state.quarantine = None;
        state.ages.verified(Check::by_host(began));
        let (shard, segments) = (self.shard.shard_id.clone(), found.segments.as_slice().into());
        told.tell(at, EventKind::Repaired { shard, gpu: found.view.gpu.index, segments });
    }

    fn log(&self, found: &Altered) {
        let (shard, gpu) = (&self.shard.shard_id, found.view.gpu.index);
        tracing::info!(%shard, gpu, segments = found.segments.len(), "repaired");
    }

    fn report(&self, found: &Altered, written: ByteLen, set_aside: ByteLen) -> RepairReport {
        RepairReport {
            shard_id: self.shard.shard_id.clone(),
            gpu: found.view.gpu.index,
            was_altered: true,
            segments: found.segments.as_slice().into(),
            written,
            set_aside,
            at: self.core.clock.now(),
        }
    }
}

/// # Errors
///
/// The shard on the device differs from what was sealed: [`VramError::WriteNotKept`] if the
/// difference is in a segment that was just written, [`VramError::ShardAltered`] if another segment
/// was altered meanwhile.
fn expect_whole(entry: &Entry, found: &Altered) -> Result<(), VramError> {
    let (segments, differs) = found.view.altered_content()?;
    if segments.is_empty() && !differs {
        return Ok(());
    }
    entry.quarantine(&segments);
    if segments.iter().any(|segment| found.segments.binary_search(segment).is_ok()) {
        return Err(VramError::WriteNotKept {
            gpu: found.view.gpu.index,
            segments: segments.into(),
        });
    }
    Err(VramError::ShardAltered { shard: entry.id.clone(), segments: segments.into() })
}

impl Altered {
    /// Whether the shard lies where it lay when it was surveyed, in the same quarantine. The caller
    /// is exclusive at its gate, where its handle was checked: the seal is the same.
    fn is_as_seen(&self, entry: &Entry) -> Result<bool, VramError> {
        entry.here()?;
        let state = entry.state();
        let Some(space) = state.space() else { return Ok(false) };
        let now = View::with(space, Arc::clone(&state.seal), Arc::clone(&self.view.pass));
        Ok(now.is_place_of(&self.view)
            && Quarantine::is_same(state.quarantine.as_ref(), self.quarantine.as_ref()))
    }
}
