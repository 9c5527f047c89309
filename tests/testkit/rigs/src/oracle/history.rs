//! What was true when: the calls and the events of a round on one axis.

use std::collections::HashMap;

use vram_residency::{Event, EventKind, ShardId};

use super::call::Made;
use super::{Loss, World};

/// The calls and events of a round.
pub(super) struct History<'a> {
    pub(super) world: &'a World,
    calls: &'a [Made],
    losses: &'a [Loss],
    events: HashMap<ShardId, Vec<Happened>>,
}

/// Something that happened to a shard. The tick was read before the transition was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Happened {
    pub(super) tick: u64,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// It became resident.
    Came,
    Parked,
    /// It does not exist any more.
    Gone,
    SealedAnew,
    /// The end of the reset of its GPU, in which it was restored.
    Restored,
    /// The end of the reset of its GPU, in which it was given up.
    GivenUp,
}

impl<'a> History<'a> {
    pub(super) fn new(
        world: &'a World,
        calls: &'a [Made],
        losses: &'a [Loss],
        log: Vec<Event>,
    ) -> Self {
        let mut events: HashMap<ShardId, Vec<Happened>> = HashMap::new();
        for event in log {
            let tick = event.at.unix_millis();
            let mut add =
                |shard, what| events.entry(shard).or_default().push(Happened { tick, what });
            match event.kind {
                EventKind::Sealed { shard, .. } | EventKind::Woken { shard, .. } => {
                    add(shard, What::Came);
                }
                EventKind::Parked { shard, .. } => add(shard, What::Parked),
                EventKind::Freed { shard, .. } | EventKind::Dropped { shard } => {
                    add(shard, What::Gone);
                }
                EventKind::SealedAnew { shard, .. } => add(shard, What::SealedAnew),
                EventKind::DeviceReset { lost, restored, .. } => {
                    for shard in lost {
                        add(shard, What::GivenUp);
                    }
                    for shard in restored {
                        add(shard, What::Restored);
                    }
                }
                _ => {}
            }
        }
        Self { world, calls, losses, events }
    }

    /// The other calls that ran at some moment of this one.
    pub(super) fn beside<'s>(&'s self, call: &'s Made) -> impl Iterator<Item = &'s Made> {
        let meets = |other: &&Made| other.begin < call.end && call.begin < other.end;
        self.calls.iter().filter(|other| other.number != call.number).filter(meets)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Made> {
        self.calls.iter()
    }

    /// The events of a shard, in their order.
    pub(super) fn of(&self, shard: &ShardId) -> &[Happened] {
        self.events.get(shard).map_or(&[], Vec::as_slice)
    }

    /// A moment at which what was stamped at `tick` is done: the end of the last call that ran then.
    pub(super) fn settled(&self, tick: u64) -> u64 {
        let ran = self.calls.iter().filter(|call| call.begin <= tick && tick <= call.end);
        ran.map(|call| call.end).max().unwrap_or(tick)
    }

    /// The resets in which something happened to a shard.
    pub(super) fn resets_of<'s>(&'s self, shard: &'s ShardId) -> impl Iterator<Item = &'s Made> {
        self.calls.iter().filter(|call| call.doing.resets).filter(|reset| {
            let within = |one: &Happened| reset.begin < one.tick && one.tick < reset.end;
            let by_reset = |one: &Happened| !matches!(one.what, What::Gone | What::SealedAnew);
            self.of(shard).iter().any(|one| within(one) && by_reset(one))
        })
    }

    /// Whether the GPU may have been lost at some moment of the call.
    pub(super) fn may_be_lost(&self, gpu: u32, call: &Made) -> bool {
        self.losses.iter().filter(|loss| loss.gpu == gpu && loss.from < call.end).any(|loss| {
            !self.calls.iter().any(|reset| {
                let of_it = reset.doing.resets && reset.done && reset.doing.gpu == Some(gpu);
                of_it && reset.begin > loss.until && reset.end < call.begin
            })
        })
    }
}
