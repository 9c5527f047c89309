//! Checks that device bytes are still those that were sealed.

use core::fmt;

use vram_alloc::ByteLen;
use vram_events::EventKind;
use vram_id::{ShardId, Timestamp};
use vram_seal::{Checked, Evidence, SegmentSpan};

use crate::error::VramError;
use crate::parts::Core;
use crate::shard::entry::in_shard;
use crate::shard::{Check, Entry, Moment, SealedShard, View};
use crate::transfer::Selection;
use crate::transfer::kernels::Looked;

/// How thoroughly to verify. Each level includes the checks of the handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verify {
    /// The handle and its record only: no device byte is read.
    Record,
    /// The first segment, the last, and some between, selected by `seed`.
    Sample {
        /// The number of segments besides the first and the last.
        segments: u64,
        /// The same seed selects the same segments.
        seed: u64,
    },
    /// Every segment that holds a byte of a range.
    Range {
        /// First byte of the range, from the start of the shard.
        offset: u64,
        /// Bytes in the range.
        length: u64,
    },
    /// Every byte, by a secret fingerprint that was taken when the shard was last looked at as a
    /// whole: the strength *sound*, against everybody who has not read the device's memory
    /// meanwhile. The fastest look, at the speed of device memory. Each such look renews the
    /// fingerprint. Without one, or where the device has no kernels, as
    /// [`Segments`](Self::Segments).
    Fingerprint,
    /// Every segment, each against its own tag: the strength *sound*. Detects any alteration made
    /// without the key.
    Segments,
    /// Every segment, and the digest of the whole plaintext: the strength *content*. Detects even
    /// other content that a holder of the key made for this record.
    Full,
}

impl Verify {
    /// Whether every byte is looked at.
    pub(crate) const fn is_of_all(self) -> bool {
        matches!(self, Self::Fingerprint | Self::Segments | Self::Full)
    }
}

/// The result of a verification. It is valid for the moment of the check only.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[must_use = "an altered shard is reported here, not as an error"]
pub struct Verdict {
    /// The shard.
    pub shard_id: ShardId,
    /// Whether every tag that was checked is good, and no check, now or earlier, found the shard
    /// altered; also false if all tags are good and the [content differs](Self::content_differs).
    /// No party without the key can make other bytes sound; a holder of the key can. A check of the
    /// record alone, or of no byte, is sound and says nothing of the bytes: see
    /// [`checked_bytes`](Self::checked_bytes).
    pub sound: bool,
    /// Whether the content as a whole is the sealed one: all tags and the digest behind the seal,
    /// even against a holder of the key. Only [`Verify::Full`] can tell; false at other levels.
    pub content: bool,
    /// The altered segments: those found now, and those for which the shard is in quarantine. The
    /// one place that names all of them: errors and events name the first.
    pub altered: Vec<SegmentSpan>,
    /// The number of device bytes that were checked.
    pub checked_bytes: ByteLen,
    /// What the check rests on, and where it was computed; `None` if no byte was checked.
    pub checked: Option<Checked>,
    /// Whether the digest of the whole plaintext was checked and does not match although each
    /// segment does.
    pub content_differs: bool,
    /// When the check ended.
    pub at: Timestamp,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = Words(self.checked);
        if self.content {
            let (shard, bytes) = (&self.shard_id, self.checked_bytes);
            return write!(f, "{shard}: sound and content, {bytes} checked{by}");
        }
        if self.sound && self.checked_bytes.is_zero() {
            return write!(f, "{}: the record is genuine, no byte was checked", self.shard_id);
        }
        if self.sound {
            return write!(f, "{}: sound, {} checked{by}", self.shard_id, self.checked_bytes);
        }
        write!(f, "{}: altered", self.shard_id)?;
        for (position, span) in self.altered.iter().enumerate() {
            write!(f, "{} {span}", if position == 0 { ":" } else { "," })?;
        }
        if self.content_differs {
            f.write_str("; the content as a whole is another")?;
        }
        Ok(())
    }
}

/// How a check was made, unless it was by the seal itself on the host, as if there were no kernels.
struct Words(Option<Checked>);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(checked) if checked != Checked::BY_HOST => write!(f, " ({checked})"),
            _ => Ok(()),
        }
    }
}

/// Verifies a shard and returns the result. Altered bytes put the shard into quarantine.
pub fn verify(core: &Core, handle: &SealedShard, level: Verify) -> Result<Verdict, VramError> {
    core.shared(handle, |entry| verify_entry(core, entry, &entry.view()?, level))
}

pub(crate) fn verify_entry(
    core: &Core,
    entry: &Entry,
    view: &View,
    level: Verify,
) -> Result<Verdict, VramError> {
    let began = Moment::now(&*core.clock);
    let layout = *view.seal.opener.layout();
    let count = layout.count();
    let selection = match level {
        Verify::Record => Selection::Each(Vec::new()),
        Verify::Sample { segments, seed } => Selection::sample(count, segments, seed),
        Verify::Range { offset, length } => {
            let range = in_shard(entry, offset, length)?;
            Selection::Run(layout.covering(range)?)
        }
        Verify::Fingerprint | Verify::Segments | Verify::Full => Selection::Run(0..count),
    };
    let checked_bytes = selection.bytes(&layout);
    let (looked, content_differs) = if level == Verify::Full {
        view.look_at_content()?
    } else {
        let fingerprint = level == Verify::Fingerprint;
        let wanted = if fingerprint { Evidence::Fingerprint } else { Evidence::Proof };
        (view.look(selection, wanted)?, false)
    };
    let found = Found { began, looked, checked_bytes, content_differs };
    Ok(found.verdict(core, entry, view, level))
}

/// What a look at a shard found.
pub(crate) struct Found {
    /// Before the first byte was read.
    pub(crate) began: Moment,
    pub(crate) looked: Looked,
    pub(crate) checked_bytes: ByteLen,
    pub(crate) content_differs: bool,
}

impl Found {
    /// Puts an altered shard into quarantine, keeps when a sound one was looked at, and tells it.
    pub(crate) fn verdict(self, core: &Core, entry: &Entry, view: &View, level: Verify) -> Verdict {
        let Self { began, looked, checked_bytes, content_differs } = self;
        let Looked { altered, checked } = looked;
        let layout = *view.seal.opener.layout();
        if !altered.is_empty() || content_differs {
            entry.quarantine(&altered);
        }

        let at = core.clock.now();
        let (sound, known) = entry.change(|state, told| {
            let sound = state.quarantine.is_none();
            if sound && level.is_of_all() {
                state.ages.verified(Check { began, by: checked });
            }
            if sound && level != Verify::Record {
                let (shard, gpu) = (entry.id.clone(), view.gpu.index);
                told.tell(
                    at,
                    EventKind::Verified { shard, gpu, bytes: checked_bytes, by: checked },
                );
            }
            (sound, state.quarantine.clone())
        });
        let span = |segment| Some(SegmentSpan::new(segment, layout.range(segment)?));
        let altered = known.iter().flat_map(|known| known.all()).filter_map(span).collect();
        let shard_id = entry.id.clone();
        let content = sound && level == Verify::Full;
        Verdict {
            shard_id,
            sound,
            content,
            altered,
            checked_bytes,
            checked: (!checked_bytes.is_zero()).then_some(checked),
            content_differs,
            at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_holds_both_ends_and_repeats() {
        let picked = |count, between, seed| match Selection::sample(count, between, seed) {
            Selection::Run(run) => run.collect::<Vec<_>>(),
            Selection::Each(each) => each,
        };
        assert_eq!(picked(1, 4, 0), [0]);
        assert_eq!(picked(6, 4, 0), [0, 1, 2, 3, 4, 5]);
        for seed in 0..50 {
            let sample = picked(1000, 4, seed);
            assert_eq!(sample, picked(1000, 4, seed));
            assert!(sample.contains(&0) && sample.contains(&999));
            assert!(sample.is_sorted() && (2..=6).contains(&sample.len()));
        }
    }
}
