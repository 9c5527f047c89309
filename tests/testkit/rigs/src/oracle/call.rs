//! One call of a suite: what it touches, when it began and ended, how it was refused.

use core::fmt;
use core::sync::atomic::Ordering;
use std::time::Instant;

use vram_residency::{SealedShard, ShardId, VramError};

use super::{Live, Oracle};

/// What a call is about to do.
#[derive(Clone, Debug, Default)]
#[must_use]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one independent thing that a call may do"
)]
pub struct Doing {
    pub(super) name: &'static str,
    pub(super) shard: Option<ShardId>,
    pub(super) origin: u64,
    pub(super) gpu: Option<u32>,
    pub(super) takes: u64,
    pub(super) evicts: bool,
    pub(super) anything: bool,
    pub(super) waits: bool,
    pub(super) resets: bool,
    pub(super) forced: bool,
    pub(super) leases: bool,
    pub(super) closes: bool,
    /// The longest free piece of its GPU, looked at when it began.
    pub(super) hole: Option<u64>,
}

impl Doing {
    /// A call with this name, which touches nothing.
    pub fn of(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    /// It is given this handle, which was asked for at the tick `origin` or later.
    pub fn shard(mut self, handle: &SealedShard, origin: u64) -> Self {
        self.shard = Some(handle.shard_id.clone());
        self.origin = origin;
        self
    }

    /// It is given this shard, which may be parked.
    pub fn named(mut self, shard: &ShardId) -> Self {
        self.shard = Some(shard.clone());
        self
    }

    /// It takes up to `bytes` of this GPU.
    pub fn takes(mut self, gpu: u32, bytes: u64) -> Self {
        (self.gpu, self.takes) = (Some(gpu), bytes);
        self
    }

    /// It may evict shards to make room.
    pub fn evicts(mut self, evicts: bool) -> Self {
        self.evicts = evicts;
        self
    }

    /// It may use any shard, and any bytes.
    pub fn anything(mut self) -> Self {
        self.anything = true;
        self
    }

    /// It may wait for readers, or for others that wait for readers.
    pub fn waits(mut self) -> Self {
        self.waits = true;
        self
    }

    /// It resets this GPU.
    pub fn resets(mut self, gpu: u32, forced: bool) -> Self {
        (self.gpu, self.resets, self.forced) = (Some(gpu), true, forced);
        self.anything().waits()
    }

    /// It is a lease, which ends with the entry.
    pub fn leases(mut self) -> Self {
        self.leases = true;
        self
    }

    /// It closes the manager.
    pub fn closes(mut self) -> Self {
        self.closes = true;
        self.anything().waits()
    }
}

/// A call in the journal.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) number: usize,
    pub(super) hand: u64,
    pub(super) doing: Doing,
    pub(super) begin: u64,
    /// `u64::MAX` while it runs.
    pub(super) end: u64,
    pub(super) refusals: Vec<VramError>,
    /// Whether it ended without an error of its own.
    pub(super) done: bool,
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hand, begin, end, doing, .. } = self;
        write!(f, "thread {hand}, ticks {begin}..{end}, {}", doing.name)?;
        if let Some(shard) = &doing.shard {
            write!(f, " of {shard} (known since {})", doing.origin)?;
        }
        if let Some(gpu) = doing.gpu {
            write!(f, " on gpu {gpu}, takes {}", doing.takes)?;
        }
        Ok(())
    }
}

/// A running call. Dropping it ends it.
#[derive(Debug)]
pub struct Running<'a> {
    oracle: &'a Oracle,
    number: usize,
}

impl<'a> Running<'a> {
    pub(super) fn begin(oracle: &'a Oracle, hand: u64, doing: Doing) -> Self {
        let mut journal = oracle.journal();
        let (number, begin) = (journal.made.len(), oracle.ticks.next());
        let (name, waits, since) = (doing.name, doing.waits, Instant::now());
        journal.running.push(Live { number, hand, name, waits, since });
        let (end, refusals, done) = (u64::MAX, Vec::new(), false);
        journal.made.push(Made { number, hand, doing, begin, end, refusals, done });
        Self { oracle, number }
    }

    pub(super) fn found_hole(&self, hole: u64) {
        self.oracle.journal().made[self.number].doing.hole = Some(hole);
    }

    /// A refusal that the answer lists.
    pub fn met(&self, error: &VramError) {
        self.oracle.journal().made[self.number].refusals.push(error.clone());
    }

    /// As [`met`](Self::met), of an answer that does not end the call.
    ///
    /// # Errors
    ///
    /// That of the answer.
    pub fn met_or<T>(&self, outcome: Result<T, VramError>) -> Result<T, VramError> {
        outcome.inspect_err(|error| self.met(error))
    }

    /// Takes the answer down.
    ///
    /// # Errors
    ///
    /// That of the answer.
    pub fn end<T>(self, outcome: Result<T, VramError>) -> Result<T, VramError> {
        match &outcome {
            Ok(_) => {
                self.oracle.journal().made[self.number].done = true;
                self.oracle.progress.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => self.met(error),
        }
        outcome
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut journal = self.oracle.journal();
        journal.made[self.number].end = self.oracle.ticks.next();
        journal.running.retain(|live| live.number != self.number);
    }
}
