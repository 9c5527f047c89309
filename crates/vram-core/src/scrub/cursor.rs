//! The position of a scrubber: the rest of its round, and the shard that it is reading.

use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Weak};

use vram_alloc::{ByteLen, DeviceRange};
use vram_id::ShardId;
use vram_seal::{Checked, Evidence};

use crate::parts::Core;
use crate::scrub::pace::time_for;
use crate::shard::{Entry, ManagerId, Moment};

/// The lowest cost of reading a shard, in bytes, so that thousands of tiny shards take a bounded
/// rate too.
pub(crate) const SHARD_COST_MIN: u64 = 4096;

/// How often the scrubber tries a busy shard in one round.
const TRIES: u8 = 3;

/// The GPUs that a cursor walks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Over {
    #[default]
    AllGpus,
    Gpu(u32),
}

impl Over {
    pub(crate) const fn includes(self, gpu: u32) -> bool {
        match self {
            Self::AllGpus => true,
            Self::Gpu(one) => one == gpu,
        }
    }
}

/// The position of scrubbing. It starts from the beginning if it is used with another manager.
///
/// It does not keep shards alive: a shard that is freed meanwhile is skipped.
#[derive(Debug, Default)]
pub struct ScrubCursor {
    pub(crate) manager: Option<ManagerId>,
    pub(crate) over: Over,
    pub(crate) evidence: Option<Evidence>,
    queue: VecDeque<Run>,
    pub(crate) run: Option<Run>,
    /// The shards of this round, or of the last one.
    known: BTreeSet<ShardId>,
    round: Round,
    /// Whether a round is running.
    open: bool,
    passes: u64,
}

/// Figures of the present round, in bytes of cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    /// When the round was planned, in monotonic time.
    pub(crate) planned: Duration,
    /// The cost of all shards of the round.
    pub(crate) resident: u64,
    /// The largest cost between two checks of one shard.
    span: u64,
    longest: u64,
    /// The cost of reads that did not count: shards that were left half read, and are read again.
    pub(crate) wasted: u64,
    wasted_before: u64,
}

/// The shards that can be scrubbed at one moment, in bytes of cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) resident: u64,
    pub(crate) longest: u64,
}

/// The turn of one shard.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) entry: Weak<Entry>,
    /// `None` until the first segment was read.
    pub(crate) seen: Option<Seen>,
    /// The next segment.
    pub(crate) next: u64,
    /// The cost of the turn so far.
    pub(crate) cost: u64,
    /// What the turn so far rests on.
    pub(crate) checked: Option<Checked>,
    tries: u8,
}

/// The shard when its turn began. If it has changed since, the turn does not count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) began: Moment,
    pub(crate) generation: u64,
    pub(crate) changes: u32,
    pub(crate) gpu: u32,
    pub(crate) range: DeviceRange,
}

impl ScrubCursor {
    /// A cursor over all GPUs, at the beginning of a round that was not planned yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A cursor over one GPU. Callers with a thread for each GPU use one for each: a device that
    /// hangs then holds up its own thread alone.
    #[must_use]
    pub fn on_gpu(gpu: u32) -> Self {
        Self { over: Over::Gpu(gpu), ..Self::default() }
    }

    /// Sets what the checks rest on. Default, where the device has kernels: proof for Authenticated
    /// shards, whose hashes the device computes; fingerprints for Encrypted ones, which are opened
    /// on the host once to have any. Without kernels every check is a proof.
    #[must_use]
    pub const fn by(mut self, evidence: Evidence) -> Self {
        self.evidence = Some(evidence);
        self
    }

    /// Starts from the beginning, with this manager.
    pub(crate) fn begin(&mut self, manager: ManagerId) {
        let (over, evidence) = (self.over, self.evidence);
        *self = Self { manager: Some(manager), over, evidence, ..Self::default() };
    }

    /// The number of complete passes so far.
    #[must_use]
    pub const fn passes(&self) -> u64 {
        self.passes
    }

    #[must_use]
    pub(crate) const fn round(&self) -> &Round {
        &self.round
    }

    pub(crate) const fn round_mut(&mut self) -> &mut Round {
        &mut self.round
    }

    /// Goes to the next shard of the round. Returns false if none is left.
    pub(crate) fn advance(&mut self) -> bool {
        self.run = self.queue.pop_front();
        self.run.is_some()
    }

    /// Ends the present round. Returns true if there was one.
    pub(crate) const fn end_round(&mut self) -> bool {
        let ended = self.open;
        self.open = false;
        if ended {
            self.passes = self.passes.saturating_add(1);
        }
        ended
    }

    /// Puts a busy shard at the end of the round; its turn continues where it stopped. After a few
    /// tries, the shard waits for the next round.
    pub(crate) fn again(&mut self, mut run: Run) {
        run.tries = run.tries.saturating_add(1);
        if run.tries < TRIES {
            self.queue.push_back(run);
        } else {
            self.waste(run.cost);
        }
    }

    /// Counts the cost of reads that did not count.
    pub(crate) const fn waste(&mut self, cost: u64) {
        self.round.wasted = self.round.wasted.saturating_add(cost);
    }

    /// Plans a round: all shards of its GPUs that can be read, in the order of their ages. Returns
    /// false if there are none.
    pub(crate) fn plan(&mut self, core: &Core) -> bool {
        let planned = core.clock.monotonic();
        let mut load = Load::default();
        let (mut added, mut known) = (0_u64, BTreeSet::new());
        let waiting = scrubbable(core, self.over);
        for (_, entry) in &waiting {
            let cost = cost_of(entry.plaintext_len);
            load.add(cost);
            if !self.known.contains(&entry.id) {
                added = added.saturating_add(cost);
            }
            known.insert(entry.id.clone());
        }
        self.known = known;
        self.queue = waiting.iter().map(|(_, entry)| Run::new(Arc::downgrade(entry))).collect();
        self.run = None;
        // Between two checks of a shard lie the rest of the last round and the beginning of this
        // one. Shards that are in both rounds were checked once; shards that are only in this one
        // arrived meanwhile.
        let span = self.round.resident.saturating_add(added).max(load.resident);
        self.round = Round {
            planned,
            resident: load.resident,
            span,
            longest: load.longest,
            wasted: 0,
            wasted_before: self.round.wasted,
        };
        self.open = !self.queue.is_empty();
        self.open
    }
}

impl Round {
    /// The largest cost, from any check of a byte that is resident now, until every byte that is
    /// resident now was checked.
    pub(crate) fn bound(&self, now: Load) -> u64 {
        let pass = now.resident.max(self.span);
        let wasted = self.wasted.saturating_add(self.wasted_before);
        pass.saturating_add(now.longest.max(self.longest)).saturating_add(wasted)
    }
}

impl Load {
    /// Whether there is nothing to scrub.
    pub(crate) const fn is_empty(&self) -> bool {
        self.resident == 0
    }

    pub(crate) fn add(&mut self, cost: u64) {
        self.resident = self.resident.saturating_add(cost);
        self.longest = self.longest.max(cost);
    }
}

impl Run {
    const fn new(entry: Weak<Entry>) -> Self {
        Self { entry, seen: None, next: 0, cost: 0, checked: None, tries: 0 }
    }
}

/// The cost of reading a shard of this length.
pub(crate) fn cost_of(len: ByteLen) -> u64 {
    len.get().max(SHARD_COST_MIN)
}

/// All shards that can be scrubbed now, the oldest first, each with the time since which it counts
/// as unverified. No other GPU is asked anything.
pub(crate) fn scrubbable(core: &Core, over: Over) -> Vec<(Duration, Arc<Entry>)> {
    let ready = core.gpus.iter().map(|gpu| over.includes(gpu.index) && gpu.ready().is_ok());
    let ready: Vec<bool> = ready.collect();
    let mut found = Vec::new();
    // In the order of their ids, which decides between equals, so that a run is repeatable.
    let listed = match over {
        Over::AllGpus => core.registry.sorted(),
        Over::Gpu(gpu) => core.registry.on(gpu),
    };
    for entry in listed {
        let state = entry.state();
        let gpu = usize::try_from(state.gpu_index()).unwrap_or(usize::MAX);
        let here = state.space().is_some() && ready.get(gpu) == Some(&true);
        let wanted = here && state.quarantine.is_none();
        let since = state.ages.unverified_since();
        drop(state);
        if wanted {
            found.push((since, entry));
        }
    }
    found.sort_by_key(|(since, _)| *since);
    found
}

/// The cost of all shards that can be scrubbed now.
pub(crate) fn scrub_load(core: &Core, over: Over) -> Load {
    let mut load = Load::default();
    for (_, entry) in scrubbable(core, over) {
        load.add(cost_of(entry.plaintext_len));
    }
    load
}

/// The longest time until every shard of the cursor's GPUs was checked once, from its present
/// position.
#[must_use]
pub fn scrub_bound(core: &Core, cursor: &ScrubCursor, bytes_per_second: u64) -> Duration {
    let bytes = cursor.round().bound(scrub_load(core, cursor.over));
    time_for(bytes, bytes_per_second)
}
