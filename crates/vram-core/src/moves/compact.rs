//! Compaction: moves shards that are not leased together, so that the holes between them join.
//!
//! ```text
//!   before   |S1|..hole 1..|S2|S3|....hole 2....|leased|
//!   slide    |S1|S2|S3|.........hole............|leased|     a run between two holes
//!   hop      |S2|......S1 leaves for a hole that fits it.    one shard into another hole
//! ```
//!
//! The next step is always the one that joins the most free bytes for the bytes that it moves. The
//! plan is made once and follows the moves ([`Compaction`]); what other calls place and free
//! meanwhile is noticed where a step meets it, and by the next plan: compaction ends when a new plan
//! finds nothing. Every step is verified at the new placement before the old bytes are wiped.
//! Between two steps nothing is half done: compaction can stop after any step.
//!
//! No step waits for another call: a shard that is in use is passed over, and tried once more at the
//! end.
//!
//! If a shard slides over a part of itself, its only sound copy would be half overwritten. It is
//! therefore first copied to host memory, encrypted and verified as if it were parked. If the
//! device then accepts it neither at the new placement nor at the old one, it stays parked.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vram_alloc::compaction::{Compaction, Found, Span, Step};
use vram_alloc::{Alignment, ByteLen, DeviceOffset, DeviceRange, MAX_TOTAL};
use vram_events::EventKind;
use vram_id::ShardId;
use vram_seal::Checked;
use vram_space::{Gpu, WipePolicy};

use crate::error::VramError;
use crate::moves::{CompactBudget, CompactEnd, CompactReport, migrate};
use crate::parts::gpus::caught;
use crate::parts::{Core, GpuChoice};
use crate::room::{evict, park};
use crate::shard::{Check, Entry, HostCopy, Moment, Occupied, ParkedShard, View};
use crate::sync::lock;

/// Moves shards of a GPU together, within a budget.
pub fn compact(core: &Core, gpu: u32, budget: CompactBudget) -> Result<CompactReport, VramError> {
    core.check_open()?;
    let gpu = Arc::clone(core.gpu(gpu)?);
    gpu.ready()?;
    let deadline = budget.max_time.map(|time| core.clock.monotonic().saturating_add(time));
    let before = gpu.capacity();
    let mut run = Run { core, gpu: &gpu, budget, deadline, done: Done::default() };
    // Blocks have no neighbours: every hole belongs to the driver, and is as large as the room.
    let end = if gpu.blocks().is_some() { CompactEnd::Finished } else { run.go() };
    let Done { moves, moved_bytes, mut skipped, stranded, busy, .. } = run.done;
    skipped.extend(busy);
    let after = gpu.capacity();
    tracing::info!(
        gpu = gpu.index,
        moves,
        bytes = moved_bytes.get(),
        largest_hole = after.largest_hole.get(),
        "compacted"
    );
    Ok(CompactReport {
        gpu: gpu.index,
        end,
        moves,
        moved_bytes,
        largest_hole_before: before.largest_hole,
        largest_hole: after.largest_hole,
        hole_count_before: before.hole_count,
        hole_count: after.hole_count,
        skipped,
        stranded,
    })
}

/// One compaction.
struct Run<'a> {
    core: &'a Core,
    gpu: &'a Arc<Gpu>,
    budget: CompactBudget,
    /// The deadline by the monotonic clock.
    deadline: Option<Duration>,
    done: Done,
}

#[derive(Default)]
struct Done {
    moves: u64,
    moved_bytes: ByteLen,
    skipped: Vec<(ShardId, VramError)>,
    stranded: Vec<ParkedShard>,
    /// Shards that failed to move. They are not tried again in this compaction.
    fixed: BTreeSet<ShardId>,
    /// Shards that were in use when a step came to them.
    busy: BTreeMap<ShardId, VramError>,
}

/// How the following of one plan ended.
enum Stop {
    /// Compaction ends.
    Here(CompactEnd),
    /// The plan has no more steps: compaction ends if a new plan has none either.
    Planned(CompactEnd),
    /// The same, and other calls changed what the plan was made for.
    Outdated,
}

/// The most plans of one compaction. On a GPU that no other call uses, a few are enough.
const PLANS_MAX: u32 = 64;

impl Run<'_> {
    fn go(&mut self) -> CompactEnd {
        let mut tries_busy_again = true;
        for _ in 0..PLANS_MAX {
            let moves = self.done.moves;
            match self.follow_a_plan() {
                Stop::Here(end) => return end,
                Stop::Planned(end) if self.done.moves == moves => {
                    if self.done.busy.is_empty() || !tries_busy_again {
                        return end;
                    }
                    tries_busy_again = false;
                    self.done.busy.clear();
                }
                Stop::Planned(_) | Stop::Outdated => {}
            }
        }
        CompactEnd::Unsettled
    }

    /// Makes a plan and follows it as far as it goes.
    fn follow_a_plan(&mut self) -> Stop {
        let movables = self.movables();
        let spans: Vec<Span> = movables.iter().map(|(span, _)| *span).collect();
        let mut plan = Compaction::new(&self.holes(), &spans);
        let mut outdated = false;
        loop {
            let largest_hole = self.gpu.capacity().largest_hole;
            if self.budget.enough.is_some_and(|enough| largest_hole >= enough) {
                return Stop::Here(CompactEnd::Enough);
            }
            if self.gpu.lost().is_some() {
                return Stop::Here(CompactEnd::Finished);
            }
            let left = self.budget.max_bytes.unwrap_or(MAX_TOTAL);
            let steps = match plan.next(left.saturating_sub(self.done.moved_bytes)) {
                Found::Steps(steps) => steps,
                _ if outdated => return Stop::Outdated,
                Found::TooDear => return Stop::Planned(CompactEnd::OutOfBytes),
                Found::Nothing => return Stop::Planned(CompactEnd::Finished),
            };
            for step in steps {
                let time_is_up = |deadline| self.core.clock.monotonic() >= deadline;
                if self.deadline.is_some_and(time_is_up) {
                    return Stop::Here(CompactEnd::OutOfTime);
                }
                let Some((span, entry)) = movables.get(step.shard) else { break };
                match self.step(entry, step) {
                    Ok(Moved::There) => {
                        let bytes = span.bytes();
                        self.done.moves = self.done.moves.saturating_add(1);
                        self.done.moved_bytes = self.done.moved_bytes.saturating_add(bytes);
                        plan.moved(&step);
                        continue;
                    }
                    // Another call moved or freed the shard, or took its new placement.
                    Ok(Moved::Outdated) => {
                        outdated = true;
                        plan.block(&step);
                    }
                    Ok(Moved::Busy(who)) => {
                        self.done.busy.insert(entry.id.clone(), evict::occupied(entry, who));
                    }
                    Err(error) => {
                        tracing::warn!(shard = %entry.id, %error, "not moved");
                        self.done.fixed.insert(entry.id.clone());
                        self.done.skipped.push((entry.id.clone(), error));
                    }
                }
                plan.fix(&step);
                break;
            }
        }
    }

    fn holes(&self) -> Vec<Span> {
        let arena = lock(&self.gpu.arena);
        arena.holes().filter_map(|hole| Span::new(hole.start(), hole.len())).collect()
    }

    /// The shards that may be moved, in order of their addresses.
    fn movables(&self) -> Vec<(Span, Arc<Entry>)> {
        let mut movables = Vec::new();
        for entry in self.core.registry.on(self.gpu.index) {
            let state = entry.state();
            let (Some(space), None) = (state.space(), &state.quarantine) else { continue };
            let (start, footprint) = (space.range().start(), space.footprint());
            drop(state);
            let Some(span) = Span::new(start, footprint) else { continue };
            // A footprint that is cut off at the end of the region would be longer at another
            // placement.
            let is_whole = footprint.round_up(Alignment::GRANULE) == Some(footprint);
            let stays = self.done.fixed.contains(&entry.id)
                || self.done.busy.contains_key(&entry.id)
                || entry.gate.leases() > 0;
            if !footprint.is_zero() && is_whole && !stays {
                movables.push((span, entry));
            }
        }
        movables.sort_unstable_by_key(|(span, _)| span.start());
        movables
    }

    /// Moves one shard, unless another call uses it.
    fn step(&mut self, entry: &Arc<Entry>, step: Step) -> Result<Moved, VramError> {
        let _pass = match entry.gate.try_exclusive() {
            Ok(pass) => pass,
            Err(who) => return Ok(Moved::Busy(who)),
        };
        entry.not_quarantined()?;
        let Ok(old) = entry.view() else { return Ok(Moved::Outdated) };
        if !Arc::ptr_eq(&old.gpu, self.gpu) || old.range.start() != step.from.start() {
            return Ok(Moved::Outdated);
        }
        if !step.is_clear() {
            return self.slide(entry, &old, step);
        }
        let Some(space) = self.gpu.place_at(step.to, entry.plaintext_len)? else {
            return Ok(Moved::Outdated);
        };
        let arrived = migrate::copy_to(self.core, entry, &old, space)?;
        migrate::settle_in(self.core, entry, arrived)?;
        Ok(Moved::There)
    }

    /// Slides a shard down over a part of itself, through host memory.
    fn slide(&mut self, entry: &Arc<Entry>, old: &View, step: Step) -> Result<Moved, VramError> {
        let (gpu, core) = (self.gpu, self.core);
        let (to, region) = (step.to, gpu.figures().1.capacity);
        let range = DeviceRange::checked(to, old.range.len(), region);
        let range = range.map_err(|error| VramError::config(error.to_string()))?;
        let copy = park::host_copy(core, entry)?;
        // This call holds the gap until the shard is at one placement or the other.
        let gap_len = ByteLen::new(step.from.start().get().saturating_sub(to.get()));
        let Some(mut gap) = gpu.place_at(to, gap_len)? else { return Ok(Moved::Outdated) };
        gap.written()?;
        let new = View { range, ..old.clone() };
        // The part that the shard leaves behind is as long as the gap, at the end of its old
        // placement.
        let end = step.from.start().get().saturating_add(step.from.bytes().get());
        let behind = DeviceOffset::new(end.saturating_sub(gap_len.get()));
        let behind = DeviceRange::checked(behind, gap_len, region);
        let behind = behind.map_err(|error| VramError::config(error.to_string()))?;
        let began = Moment::now(&*core.clock);
        let outcome = arrive(core, &copy, &new).and_then(|by| wipe(&new, behind).map(|()| by));
        if let Ok(by) = outcome {
            entry.change(|state, told| {
                if let Some(space) = state.space_mut() {
                    space.slide_down(gap);
                }
                state.ages.arrived(began, Some(Check { began, by }));
                let (shard, bytes) = (entry.id.clone(), entry.plaintext_len);
                let (from, to) = (gpu.index, gpu.index);
                told.tell(began.wall, EventKind::Moved { shard, from, to, bytes });
            });
            return Ok(Moved::There);
        }
        // The host copy is now the only sound copy: write it back to the old placement; if that
        // fails too, the shard stays parked.
        if let Err(error) = arrive(core, &copy, old) {
            tracing::error!(shard = %entry.id, %error, "the device takes it at no place, parked");
            self.done.stranded.extend(park::leave(core, copy));
        }
        drop(gap);
        outcome.map(|_checked| Moved::There)
    }
}

/// The result of a step.
enum Moved {
    There,
    /// The shard no longer lies where the plan has it, or its new placement is taken.
    Outdated,
    /// Other calls use the shard.
    Busy(Occupied),
}

/// Writes a host copy and verifies it; a panic of the device becomes an error of the device.
fn arrive(core: &Core, copy: &HostCopy, view: &View) -> Result<Checked, VramError> {
    caught(core, GpuChoice::One(view.gpu.index), || copy.copy_in(view))
}

/// Overwrites the part of a shard's old placement that its new one does not cover.
fn wipe(view: &View, range: DeviceRange) -> Result<(), VramError> {
    let gpu = &view.gpu;
    if gpu.wipe == WipePolicy::Never {
        return Ok(());
    }
    let memory = view.memory()?;
    // The shard lies at its new placement already: a panic must not escape before the entry says
    // so.
    gpu.caught(|| memory.fill(range, 0)).map_err(|error| gpu.failed(error).into())
}
