//! The first half of a repair, beside other readers: which segments are altered, and whether the
//! source is the content that was sealed.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use vram_alloc::ByteLen;
use vram_seal::{AlteredSegments, Protection, Sealer, SegmentHash, merge_digest};
use vram_space::Space;

use crate::error::VramError;
use crate::parts::core::in_use;
use crate::repair::{Content, Kept, Repair, RepairReport};
use crate::resident::{Anew, contents};
use crate::room::make_room;
use crate::shard::entry::quarantine::Quarantine;
use crate::shard::{Busy, Check, Entry, Moment, View};

/// What a survey found.
pub(crate) enum Survey {
    /// There is nothing to repair.
    Sound(RepairReport),
    Altered(Box<Altered>),
}

/// An altered shard, as it was seen, and its content from the source.
pub(crate) struct Altered {
    pub(crate) view: View,
    pub(crate) quarantine: Option<Arc<Quarantine>>,
    /// When the survey began.
    pub(crate) began: Moment,
    /// The segments that differ on the device, in ascending order.
    pub(crate) segments: Vec<u64>,
    pub(crate) content: Content,
    /// Makes the record again; `None` for an Authenticated shard, which is repaired without a key.
    pub(crate) sealer: Option<Sealer>,
    /// The sound copy elsewhere, if the shard is to be relocated.
    pub(crate) copy: Option<Copy>,
    /// Segments that were written in earlier rounds.
    written: BTreeSet<u64>,
}

/// A sound copy of the whole shard at another placement.
pub(crate) struct Copy {
    pub(crate) space: Space,
    pub(crate) written: ByteLen,
    /// When the check began that found it sound.
    pub(crate) began: Moment,
}

impl Repair<'_, '_> {
    /// Compares the shard and the source with the record. The caller is inside the gate, beside
    /// other readers.
    pub(crate) fn survey(&self, entry: &Entry) -> Result<Survey, VramError> {
        let view = entry.view()?;
        view.gpu.ready()?;
        let leases = entry.gate.leases();
        if leases > 0 {
            return Err(in_use(entry, Busy { leases }));
        }
        let began = Moment::now(&*self.core.clock);
        let (there, altered) = view.content_on()?;
        if !is_altered(entry, &view, &there, &altered)? {
            self.tell_end();
            entry.change(|state, _told| state.ages.verified(Check::by_host(began)));
            return Ok(Survey::Sound(RepairReport {
                shard_id: entry.id.clone(),
                gpu: view.gpu.index,
                was_altered: false,
                segments: AlteredSegments::default(),
                written: ByteLen::ZERO,
                set_aside: ByteLen::ZERO,
                at: self.core.clock.now(),
            }));
        }
        let quarantine = entry.state().quarantine.clone();
        let content = Content::read(self, &view, &there)?;
        (self.finish)()?;
        if !view.seal.is_of(&content.hashes)? {
            return Err(another_content(entry, &view, &content.hashes));
        }
        let sealer = self.sealer(entry, &view, &content.hashes)?;
        let segments = content.altered(&there);
        let written = BTreeSet::new();
        let mut found =
            Altered { view, quarantine, began, segments, content, sealer, copy: None, written };
        if self.relocate {
            found.copy = Some(self.copy_elsewhere(entry, &found)?);
        }
        Ok(Survey::Altered(Box::new(found)))
    }

    /// Writes the whole shard to another placement, and verifies it there.
    fn copy_elsewhere(&self, entry: &Entry, found: &Altered) -> Result<Copy, VramError> {
        let mut space = make_room::place_for(self.core, entry, &found.view.gpu)?;
        space.written()?;
        let target = View::of(&mut space, Arc::clone(&found.view.seal))?;
        let written = self.copy_to(&target, found)?;
        let began = Moment::now(&*self.core.clock);
        let (segments, differs) = target.altered_content()?;
        if !segments.is_empty() || differs {
            return Err(VramError::WriteNotKept {
                gpu: target.gpu.index,
                segments: segments.into(),
            });
        }
        Ok(Copy { space, written, began })
    }

    /// Reads altered segments that found no room when the whole source was read. The caller is
    /// inside the gate, beside other readers.
    pub(crate) fn read_again(
        &self,
        entry: &Entry,
        found: &Altered,
        segments: &[u64],
    ) -> Result<Kept, VramError> {
        found.view.gpu.ready()?;
        found.content.read_again(self, entry, &found.view, segments)
    }

    fn sealer(
        &self,
        entry: &Entry,
        view: &View,
        hashes: &Arc<Vec<SegmentHash>>,
    ) -> Result<Option<Sealer>, VramError> {
        let seal = &view.seal;
        if seal.protection() == Protection::Authenticated {
            return Ok(None);
        }
        let anew = Anew { params: seal.params, key: seal.key_id() };
        contents::sealer(self.core, entry, anew, hashes).map(Some)
    }
}

impl Altered {
    /// The altered segments that are not written once these are.
    pub(crate) fn after(&self, kept: &Kept) -> Vec<u64> {
        let left = |segment: &&u64| !self.written.contains(segment) && !kept.contains_key(segment);
        self.segments.iter().filter(left).copied().collect()
    }

    /// Records that these segments were written.
    pub(crate) fn done(&mut self, kept: Kept) {
        self.written.extend(kept.into_keys());
    }
}

impl View {
    /// Whether both name the same bytes of the same memory.
    pub(crate) fn is_place_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.gpu, &other.gpu)
            && self.range == other.range
            && Weak::ptr_eq(&self.block, &other.block)
    }
}

/// Whether there is anything to repair. An alteration that is found only now puts the shard into
/// quarantine.
fn is_altered(
    entry: &Entry,
    view: &View,
    there: &[SegmentHash],
    segments: &[u64],
) -> Result<bool, VramError> {
    let known = entry.state().quarantine.clone();
    if segments.is_empty() && known.is_none() && view.seal.is_of(there)? {
        return Ok(false);
    }
    let news = known.is_none_or(|known| !known.knows(segments));
    if news {
        entry.quarantine(segments);
    }
    Ok(true)
}

/// The error for a source with another content.
fn another_content(entry: &Entry, view: &View, hashes: &[SegmentHash]) -> VramError {
    match merge_digest(hashes, view.seal.opener.layout()) {
        Ok(found) => VramError::another_content(&entry.sealed_as.model_id, view.seal.digest, found),
        Err(error) => error.into(),
    }
}
