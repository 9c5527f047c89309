//! An oracle for suites of many threads: every call answers in time, and every refusal was right at
//! some moment between the call and its answer.
//!
//! The suite registers each call with what it touches. The oracle counts ticks, which are also the
//! clock of the manager, so that calls and events lie on one axis. At the end of a round,
//! [`Oracle::judge`] looks at each refusal: the table in `rules` has one rule for each
//! code, and a code without a rule fails the round. The rules are one-sided: they accept a refusal
//! that may have been right, and reject one that cannot have been.
//!
//! A thread of the oracle ends the process, with the table of running calls, when a call does not
//! answer within `VRAM_CALL_LIMIT_SECONDS` (60).

mod call;
mod history;
mod rules;
#[cfg(test)]
mod tests;
mod watch;

pub use self::call::{Doing, Running};

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use vram_residency::{
    Clock, Event, EventLog, ShardId, SystemClock, Timestamp, VramError, VramManager,
    VramManagerBuilder,
};

use self::call::Made;
use self::history::History;

/// How many events the log of a round keeps. A round that makes more of them cannot be judged.
const EVENTS_MAX: usize = 1 << 20;

/// How long the sink may take for them.
const FLUSH: Duration = Duration::from_secs(30);

/// What the oracle has to know about the managers of a suite.
#[derive(Clone, Debug)]
pub struct World {
    /// Bytes of each GPU.
    pub totals: Vec<u64>,
    /// The largest footprint of a shard.
    pub largest: u64,
    /// Whether free bytes count only in one piece: in a region that does not hold shards of one
    /// size alone.
    pub in_one_piece: bool,
    /// Whether every shard may be evicted, and its eviction needs no room elsewhere.
    pub all_may_go: bool,
}

/// The journal of one round.
#[derive(Debug)]
pub struct Oracle {
    world: World,
    ticks: Ticks,
    log: EventLog,
    journal: Mutex<Journal>,
    /// Seals, frees and other calls that made progress.
    progress: AtomicU64,
}

#[derive(Debug, Default)]
struct Journal {
    made: Vec<Made>,
    running: Vec<Live>,
    losses: Vec<Loss>,
    /// Threads of the suite that work.
    hands: u64,
}

/// A running call.
#[derive(Clone, Debug)]
struct Live {
    number: usize,
    hand: u64,
    name: &'static str,
    waits: bool,
    since: Instant,
}

/// A fault that loses a GPU, between these ticks.
#[derive(Clone, Copy, Debug)]
struct Loss {
    gpu: u32,
    from: u64,
    /// `u64::MAX` while it is armed.
    until: u64,
}

/// A fault that may lose a GPU, until dropped.
#[derive(Debug)]
#[must_use = "the fault is armed until this is dropped"]
pub struct Losing<'a> {
    oracle: &'a Oracle,
    number: usize,
}

/// The axis of time. Each look is a later tick.
#[derive(Clone, Debug, Default)]
struct Ticks(Arc<AtomicU64>);

impl Ticks {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// Wall time in ticks, so that events lie between calls; monotonic time as it is.
impl Clock for Ticks {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.next())
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }
}

/// A thread of the suite that works, until dropped.
#[derive(Debug)]
pub struct Hand<'a> {
    oracle: &'a Oracle,
    number: u64,
}

impl Oracle {
    /// A journal without entries. Its manager is built by [`hears`](Self::hears).
    #[must_use]
    pub fn new(world: World) -> Arc<Self> {
        let (ticks, journal) = (Ticks::default(), Mutex::default());
        let (log, progress) = (EventLog::new(EVENTS_MAX), AtomicU64::new(0));
        let oracle = Arc::new(Self { world, ticks, log, journal, progress });
        watch::watch(Arc::downgrade(&oracle));
        oracle
    }

    /// Gives the manager the clock and the sink of this journal.
    pub fn hears(&self, builder: VramManagerBuilder) -> VramManagerBuilder {
        let clock = Arc::new(self.ticks.clone());
        builder.clock(clock).event_sink_with(EVENTS_MAX, self.log.clone())
    }

    /// The present moment: state it as the origin of a handle before you ask for the handle.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.ticks.next()
    }

    /// Registers a thread of the suite.
    #[must_use]
    pub fn hand(&self, number: u64) -> Hand<'_> {
        self.journal().hands += 1;
        Hand { oracle: self, number }
    }

    /// Writes down that a fault is about to be armed that loses this GPU. Drop the answer once the
    /// fault was met or taken back.
    pub fn loses(&self, gpu: u32) -> Losing<'_> {
        let mut journal = self.journal();
        let (number, from) = (journal.losses.len(), self.ticks.next());
        journal.losses.push(Loss { gpu, from, until: u64::MAX });
        Losing { oracle: self, number }
    }

    /// Waits until another thread's seal, free or move is done, or until no thread is left that
    /// could do one without this one: each has ended, or waits like this one, or is in a call that
    /// may wait for readers. A product that makes such a call wait where it must not hangs here, and
    /// the limit of calls names it.
    pub fn wait_for_progress(&self) {
        let before = self.progress.load(Ordering::SeqCst);
        while self.progress.load(Ordering::SeqCst) == before && self.someone_goes_on() {
            thread::sleep(Duration::from_micros(200));
        }
    }

    fn someone_goes_on(&self) -> bool {
        let journal = self.journal();
        let mut waiting: Vec<_> =
            journal.running.iter().filter(|live| live.waits).map(|live| live.hand).collect();
        waiting.sort_unstable();
        waiting.dedup();
        u64::try_from(waiting.len()).unwrap_or(u64::MAX) < journal.hands
    }

    /// Judges every refusal of the round.
    ///
    /// # Errors
    ///
    /// The refusals that were never right, and what is known about them.
    pub fn judge(&self, manager: &VramManager) -> Result<(), String> {
        if !manager.flush_events(FLUSH) || self.log.missing() > 0 {
            return Err("the log of events has a gap".to_owned());
        }
        self.judged_with(self.log.take())
    }

    fn judged_with(&self, events: Vec<Event>) -> Result<(), String> {
        let journal = self.journal();
        let history = History::new(&self.world, &journal.made, &journal.losses, events);
        let mut wrong = Vec::new();
        for call in &journal.made {
            for error in &call.refusals {
                if let Err(why) = rules::judge(&history, call, error) {
                    wrong.push(format!("{call}\n    {}: {error}\n    {why}", error.code()));
                }
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(format!("never right:\n  {}", wrong.join("\n  ")))
        }
    }

    /// What the journal holds about a shard, for the message of a failure.
    #[must_use]
    pub fn about(&self, shard: &ShardId) -> String {
        let events =
            self.log.events().into_iter().map(|event| (event.at.unix_millis(), event.kind));
        let lines = events.map(|(tick, kind)| (tick, format!("{kind:?}")));
        let lines = lines.filter(|(_, line)| line.contains(shard.as_str()));
        let mut lines: Vec<_> = lines.collect();
        let journal = self.journal();
        let calls = journal.made.iter().filter(|call| {
            call.doing.shard.as_ref() == Some(shard) || call.doing.resets || call.doing.closes
        });
        lines.extend(calls.map(|call| (call.begin, format!("{call}: {:?}", call.refusals))));
        lines.sort();
        let lines: Vec<_> = lines.iter().map(|(tick, line)| format!("{tick}: {line}")).collect();
        format!("\n  {}", lines.join("\n  "))
    }

    /// How many refusals of each code there were.
    #[must_use]
    pub fn refusals(&self) -> std::collections::BTreeMap<&'static str, u64> {
        let mut counts = std::collections::BTreeMap::new();
        for error in self.journal().made.iter().flat_map(|call| &call.refusals) {
            *counts.entry(error.code()).or_default() += 1;
        }
        counts
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hand<'_> {
    /// Begins a call. The answer ends it.
    #[must_use]
    pub fn begin(&self, doing: Doing) -> Running<'_> {
        Running::begin(self.oracle, self.number, doing)
    }

    /// Makes a call.
    ///
    /// # Errors
    ///
    /// That of the call.
    pub fn made<T>(
        &self,
        doing: Doing,
        call: impl FnOnce() -> Result<T, VramError>,
    ) -> Result<T, VramError> {
        let running = self.begin(doing);
        let outcome = call();
        running.end(outcome)
    }

    /// Makes a call that takes room, after a look at the longest free piece.
    ///
    /// # Errors
    ///
    /// That of the call.
    pub fn made_on<T>(
        &self,
        manager: &VramManager,
        doing: Doing,
        call: impl FnOnce() -> Result<T, VramError>,
    ) -> Result<T, VramError> {
        let gpu = doing.gpu;
        let running = self.begin(doing);
        // Begun before the look: what others take after it, they take beside this call.
        if let Some(capacity) = gpu.and_then(|gpu| manager.capacity(gpu).ok()) {
            running.found_hole(capacity.largest_hole.get().min(capacity.free.get()));
        }
        let outcome = call();
        running.end(outcome)
    }

    /// The journal.
    #[must_use]
    pub const fn oracle(&self) -> &Oracle {
        self.oracle
    }
}

impl Drop for Hand<'_> {
    fn drop(&mut self) {
        self.oracle.journal().hands -= 1;
    }
}

impl Drop for Losing<'_> {
    fn drop(&mut self) {
        let mut journal = self.oracle.journal();
        journal.losses[self.number].until = self.oracle.ticks.next();
    }
}
