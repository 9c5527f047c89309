//! One step of scrubbing: some segments of the shard whose turn it is, under a pass of its gate.

use core::ops::Range;
use core::time::Duration;

use vram_alloc::{ByteLen, ByteRange};
use vram_events::EventKind;
use vram_id::ShardId;
use vram_seal::parallel::Threads;
use vram_seal::{Checked, Evidence};

use crate::error::VramError;
use crate::parts::Core;
use crate::parts::call::Call;
use crate::scrub::cursor::SHARD_COST_MIN;
use crate::scrub::{Run, ScrubCursor, Seen, Totals};
use crate::shard::{Check, Entry, Moment, View};
use crate::sync::Deadline;
use crate::transfer::kernels::Looked;
use crate::transfer::{Selection, Windows};

/// How long a step waits for a thread that is exclusive at the gate of a shard.
const BRIEFLY: Duration = Duration::from_millis(1);

/// The largest number of shards in one step, however small they are.
const SHARDS_MAX: u32 = 64;

/// The result of one step.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ScrubStep {
    /// Device bytes that were checked.
    pub bytes: ByteLen,
    /// The cost of these bytes as the rate counts it: more than `bytes` if shards are tiny.
    pub charged: ByteLen,
    /// The number of shards of which every segment has now been found sound.
    pub verified: u64,
    /// Shards that were found altered, and are in quarantine now.
    pub altered: Vec<ShardId>,
    /// The number of shards that were busy; they are tried again.
    pub skipped: u64,
    /// The number of shards that could not be read; they are tried again in the next pass.
    pub errors: u64,
    /// The error of the last of these shards.
    pub error: Option<VramError>,
    /// Whether a pass over all shards ended in this step.
    pub pass_ended: bool,
    /// Whether there is nothing to scrub.
    pub idle: bool,
}

/// One step of scrubbing, counted in `totals`.
pub fn scrub_step(
    core: &Core,
    totals: &Totals,
    cursor: &mut ScrubCursor,
    budget: ByteLen,
) -> ScrubStep {
    let work = || {
        let step = step(core, cursor, budget);
        totals.add(&step);
        Ok::<_, VramError>(step)
    };
    let step = core.watched_for(Call::Scrub, None, None, work, |step| step.bytes.get());
    // A failure is recorded in the step.
    step.unwrap_or_default()
}

fn step(core: &Core, cursor: &mut ScrubCursor, budget: ByteLen) -> ScrubStep {
    let manager = core.marker.manager();
    if cursor.manager != Some(manager) {
        cursor.begin(manager);
    }
    let mut step = ScrubStep::default();
    if let Err(closed) = core.check_open() {
        (step.idle, step.errors, step.error) = (true, 1, Some(closed));
        return step;
    }
    for gpu in core.gpus.iter().filter(|gpu| cursor.over.includes(gpu.index)) {
        gpu.bring_back();
    }
    let mut left = budget.get();
    for _ in 0..SHARDS_MAX {
        if cursor.run.is_none() && !cursor.advance() {
            if cursor.end_round() {
                step.pass_ended = true;
            } else if cursor.plan(core) {
                continue;
            } else {
                step.idle = true;
            }
            break;
        }
        let charged = scrub_part(core, cursor, left, &mut step);
        step.charged = step.charged.saturating_add(ByteLen::new(charged));
        left = left.saturating_sub(charged);
        if left == 0 {
            break;
        }
    }
    step
}

/// Checks the next segments of the shard whose turn it is. Returns the cost.
fn scrub_part(core: &Core, cursor: &mut ScrubCursor, left: u64, step: &mut ScrubStep) -> u64 {
    // The run is taken out of the cursor: if a device panics, the shard is tried again in the next
    // round.
    let Some(mut run) = cursor.run.take() else { return 0 };
    let Some(entry) = run.entry.upgrade() else { return 0 };
    let Ok(_pass) = entry.gate.shared_until(Deadline::within(BRIEFLY)) else {
        step.skipped = step.skipped.saturating_add(1);
        cursor.again(run);
        return 0;
    };
    let here = still(core, &entry, &run, cursor.round().planned);
    // What was moved to a GPU of another cursor is checked there.
    let here = here.filter(|(view, _seen)| cursor.over.includes(view.gpu.index));
    let Some((view, seen)) = here else {
        // The shard may be as old as before: a check that began long ago may have ended now.
        cursor.waste(run.cost);
        return 0;
    };

    let layout = view.seal.opener.layout();
    let fitting = left.checked_div(layout.segment_size().bytes().get()).unwrap_or(0).max(1);
    let end = run.next.saturating_add(fitting).min(layout.count());
    let bytes = layout.span(&(run.next..end)).map_or(ByteLen::ZERO, ByteRange::len);
    // Counted as wasted until the read is known to count.
    cursor.waste(run.cost.saturating_add(bytes.get()));
    let looked = look_in_passing(core, &view, run.next..end, cursor.evidence);
    let Looked { altered, checked } = match looked {
        Ok(looked) => looked,
        Err(error) => {
            tracing::warn!(shard = %entry.id, %error, "could not be scrubbed");
            step.errors = step.errors.saturating_add(1);
            step.error = Some(error);
            return bytes.get().max(SHARD_COST_MIN);
        }
    };
    let round = cursor.round_mut();
    round.wasted = round.wasted.saturating_sub(run.cost).saturating_sub(bytes.get());
    step.bytes = step.bytes.saturating_add(bytes);
    if !altered.is_empty() {
        entry.quarantine(&altered);
        step.altered.push(entry.id.clone());
        return bytes.get().max(SHARD_COST_MIN);
    }
    let mut charged = bytes.get();
    run.cost = run.cost.saturating_add(charged);
    run.next = end;
    run.seen = Some(seen);
    // The weakest of its parts says what the whole rests on.
    let checked = run.checked.map_or(checked, |before| before.weaker(checked));
    run.checked = Some(checked);
    if end < layout.count() {
        cursor.run = Some(run);
        return charged;
    }
    charged = charged.saturating_add(SHARD_COST_MIN.saturating_sub(run.cost));
    if counts(&entry, &seen, checked) {
        step.verified = step.verified.saturating_add(1);
    } else {
        cursor.waste(run.cost);
    }
    charged
}

/// The view of the shard, if its run can continue or begin. The caller is inside the gate.
fn still(core: &Core, entry: &Entry, run: &Run, planned: Duration) -> Option<(View, Seen)> {
    let view = entry.view().ok()?;
    // Taken before the first byte is read.
    let began = Moment::now(&*core.clock);
    let state = entry.state();
    if state.quarantine.is_some() {
        return None;
    }
    let now = Seen {
        began,
        generation: state.generation,
        changes: state.ages.changes(),
        gpu: view.gpu.index,
        range: view.range,
    };
    let since = state.ages.unverified_since();
    drop(state);
    match &run.seen {
        Some(seen) => seen.is(&now).then_some((view, *seen)),
        // The shard was verified or moved after the round was planned: its turn comes in the next
        // round.
        None if since > planned => None,
        None => Some((view, now)),
    }
}

/// Looks at a run, on this thread only.
fn look_in_passing(
    core: &Core,
    view: &View,
    run: Range<u64>,
    evidence: Option<Evidence>,
) -> Result<Looked, VramError> {
    let opener = &view.seal.opener;
    // Where the device can compare with the seal itself, that proves more.
    let proven = view.is_proven_there();
    let evidence = evidence.unwrap_or(if proven { Evidence::Proof } else { Evidence::Fingerprint });
    view.look_with(Selection::Run(run), evidence, |selection, see| {
        let (device, limit) = (view.gpu.device.info(), core.limits.staging_bytes);
        let windows = Windows::plan(*opener.layout(), device, Threads::ONE, limit)?;
        view.altered_seen(&windows, selection, see)
    })
}

impl Seen {
    /// Whether the shard is unchanged between the two looks.
    fn is(&self, now: &Self) -> bool {
        (self.generation, self.changes, self.gpu, self.range)
            == (now.generation, now.changes, now.gpu, now.range)
    }
}

/// Records a finished run as a verification, unless another check recorded a newer result
/// meanwhile.
fn counts(entry: &Entry, seen: &Seen, by: Checked) -> bool {
    let at = entry.listeners.events.now();
    entry.change(|state, told| {
        let counts = state.quarantine.is_none()
            && state.generation == seen.generation
            && state.ages.changes() == seen.changes;
        if counts {
            state.ages.verified(Check { began: seen.began, by });
            let (shard, gpu, bytes) = (entry.id.clone(), seen.gpu, entry.plaintext_len);
            told.tell(at, EventKind::Verified { shard, gpu, bytes, by });
        }
        counts
    })
}
