//! Where a shard is: the states of one shard, every transition between them as data, and the view
//! of a shard that lies on a GPU.

use core::fmt;
use std::sync::{Arc, Weak};

use vram_alloc::{ByteLen, DeviceRange};
use vram_events::EvictedFor;
use vram_id::ShardId;
use vram_space::{Block, Gpu, LifePass, Space};

use crate::error::VramError;
use crate::shard::{Check, Seal};

/// The state of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ShardState {
    /// It lies on a GPU that takes calls.
    Resident,
    /// It lies on a GPU that is lost. Not a state of its own: a resident shard is lost by the loss
    /// of its GPU, in one moment with all others there.
    Lost,
    /// It is in host memory, and the program holds it.
    Parked,
    /// Its GPU was reset, and it is being restored from a copy.
    Restoring,
    /// Its GPU was reset: its next generation took its place in the list of shards.
    Replaced,
    /// It does not exist any more.
    Gone,
}

/// What happens to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ShardCause {
    /// A call asks for its bytes.
    Use,
    /// It was copied to another placement, or sealed anew into one.
    Move,
    /// It was copied to host memory.
    Park,
    /// Its host copy was written to a GPU.
    Wake,
    /// It is freed.
    Free,
    /// The program drops it while it is parked.
    Drop,
    /// Its GPU was emptied by a reset.
    Empty,
    /// No copy of it could be restored.
    GiveUp,
}

/// What a cause does to a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardStep {
    /// The next state, which may be the same.
    To(ShardState),
    /// Refused with `device-lost`.
    DeviceLost,
    /// Refused with `parked`.
    Parked,
    /// Refused with `restoring`: it can be tried again.
    Restoring,
    /// Refused with `stale-handle`: a fresh handle works.
    StaleHandle,
    /// Refused with `shard-freed`.
    ShardFreed,
}

impl ShardState {
    /// All states.
    pub const ALL: [Self; 6] =
        [Self::Resident, Self::Lost, Self::Parked, Self::Restoring, Self::Replaced, Self::Gone];

    /// A stable name, for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resident => "resident",
            Self::Lost => "lost",
            Self::Parked => "parked",
            Self::Restoring => "restoring",
            Self::Replaced => "replaced",
            Self::Gone => "gone",
        }
    }

    /// Whether the shard belongs to a GPU: it lies there, or is being restored there.
    pub(crate) const fn is_on_gpu(self) -> bool {
        matches!(self, Self::Resident | Self::Lost | Self::Restoring)
    }

    /// What `cause` does in this state: the whole transition table.
    #[must_use]
    pub const fn step(self, cause: ShardCause) -> ShardStep {
        use ShardCause::{Drop, Empty, Free, GiveUp, Move, Park, Use, Wake};
        use ShardState::{Gone, Lost, Parked, Replaced, Resident, Restoring};
        use ShardStep::To;

        match (self, cause) {
            // A verified copy elsewhere counts although the GPU that it came from was lost since.
            (Resident, Use) | (Resident | Lost, Move) | (Parked | Restoring, Wake) => To(Resident),
            // A lost shard is parked from its backup, and freed without a call to its device.
            (Resident | Lost | Restoring, Park) => To(Parked),
            (Resident | Lost, Free) | (Parked, Drop) | (Restoring, GiveUp) => To(Gone),
            (Resident | Lost, Empty) => To(Replaced),
            (Lost, Use) => ShardStep::DeviceLost,
            (Parked, _) => ShardStep::Parked,
            (Restoring, _) => ShardStep::Restoring,
            (Replaced, _) | (Resident | Lost, Wake | Drop | GiveUp) => ShardStep::StaleHandle,
            (Gone, _) => ShardStep::ShardFreed,
        }
    }
}

impl ShardCause {
    /// All causes.
    pub const ALL: [Self; 8] = [
        Self::Use,
        Self::Move,
        Self::Park,
        Self::Wake,
        Self::Free,
        Self::Drop,
        Self::Empty,
        Self::GiveUp,
    ];

    /// What happens, in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Use => "a call uses it",
            Self::Move => "a copy elsewhere counts",
            Self::Park => "its host copy counts",
            Self::Wake => "a copy on a GPU counts",
            Self::Free => "it is freed",
            Self::Drop => "the parked shard is dropped",
            Self::Empty => "its GPU was emptied",
            Self::GiveUp => "no copy can be restored",
        }
    }
}

impl fmt::Display for ShardState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for ShardStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To(state) => state.fmt(f),
            Self::DeviceLost => f.write_str("`device-lost`"),
            Self::Parked => f.write_str("`parked`"),
            Self::Restoring => f.write_str("`restoring`"),
            Self::StaleHandle => f.write_str("`stale-handle`"),
            Self::ShardFreed => f.write_str("`shard-freed`"),
        }
    }
}

/// Where one shard is now, with what it holds there.
#[derive(Debug)]
pub(crate) enum Place {
    Resident(Space),
    /// The program holds the shard's bytes: `host_len` of host memory, in the [`ParkedShard`] with
    /// this number.
    ///
    /// [`ParkedShard`]: crate::shard::ParkedShard
    Parked {
        host_len: ByteLen,
        number: u64,
        /// The request that it was evicted for.
        evicted_for: Option<Arc<EvictedFor>>,
    },
    /// The GPU whose reset restores it.
    Restoring {
        gpu: u32,
    },
    Replaced,
    Gone,
}

impl Place {
    /// The request that a parked shard was evicted for.
    pub(crate) const fn evicted_for(&self) -> Option<&Arc<EvictedFor>> {
        match self {
            Self::Parked { evicted_for, .. } => evicted_for.as_ref(),
            _ => None,
        }
    }

    /// The state, except that it does not say whether the GPU is lost.
    pub(crate) const fn state(&self) -> ShardState {
        match self {
            Self::Resident(_) => ShardState::Resident,
            Self::Parked { .. } => ShardState::Parked,
            Self::Restoring { .. } => ShardState::Restoring,
            Self::Replaced => ShardState::Replaced,
            Self::Gone => ShardState::Gone,
        }
    }

    /// Checks that `cause` can happen here.
    ///
    /// # Errors
    ///
    /// The refusal that the table names.
    pub(crate) fn allows(&self, cause: ShardCause, shard: &ShardId) -> Result<(), VramError> {
        let shard = || shard.clone();
        match self.state().step(cause) {
            ShardStep::To(_) => Ok(()),
            ShardStep::Parked => {
                Err(VramError::Parked { shard: shard(), evicted_for: self.evicted_for().cloned() })
            }
            ShardStep::Restoring => Err(VramError::Restoring { shard: shard() }),
            ShardStep::StaleHandle => Err(VramError::StaleHandle { shard: shard() }),
            // A loss is asked of the GPU.
            ShardStep::DeviceLost | ShardStep::ShardFreed => {
                Err(VramError::ShardFreed { shard: shard() })
            }
        }
    }
}

/// Where a shard lies and how it is sealed, valid while a pass of its gate is held. It is the right
/// to touch the device: a reset waits until no view is left.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) gpu: Arc<Gpu>,
    pub(crate) range: DeviceRange,
    /// The block that the shard lies in. Not owned: a block returns to the driver even if views of
    /// it remain.
    pub(crate) block: Weak<Block>,
    pub(crate) seal: Arc<Seal>,
    pub(crate) pass: Arc<LifePass>,
}

/// Space that holds the bytes of a shard which is not resident there yet.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) space: Space,
    /// When the check began that found all bytes sound; `None` if no check has read all of them.
    pub(crate) verified: Option<Check>,
}

impl View {
    /// The view of what is sealed in `space`, which is being filled.
    ///
    /// # Errors
    ///
    /// [`VramError::DeviceLost`], [`VramError::GpuInUse`], [`VramError::Closed`].
    pub(crate) fn of(space: &mut Space, seal: Arc<Seal>) -> Result<Self, VramError> {
        let pass = space.pass()?;
        Ok(Self::with(space, seal, pass))
    }

    pub(crate) fn with(space: &Space, seal: Arc<Seal>, pass: Arc<LifePass>) -> Self {
        let gpu = Arc::clone(space.gpu());
        Self { gpu, range: space.range(), block: space.behind(), seal, pass }
    }

    /// The block that the shard lies in, if the device takes calls.
    ///
    /// # Errors
    ///
    /// [`VramError::DeviceLost`].
    pub(crate) fn memory(&self) -> Result<Arc<Block>, VramError> {
        Ok(self.gpu.memory_in(&self.block)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every state with every cause, against the rules in words.
    #[test]
    fn each_state_answers_each_cause_as_the_rules_say() {
        for state in ShardState::ALL {
            for cause in ShardCause::ALL {
                let (step, what) = (state.step(cause), cause.name());
                match step {
                    // Nothing comes back from its end, and a replaced generation stays replaced.
                    ShardStep::To(next) => {
                        assert!(
                            !matches!(state, ShardState::Gone | ShardState::Replaced),
                            "{what}"
                        );
                        // Only a copy that was verified makes a shard resident again.
                        if next == ShardState::Resident && state != next {
                            let copied = matches!(cause, ShardCause::Wake | ShardCause::Move);
                            assert!(copied, "{state}");
                        }
                        assert_ne!(next, ShardState::Lost, "only its GPU makes a shard lost");
                        assert_ne!(next, ShardState::Restoring, "a next generation begins so");
                    }
                    // Freed is said only of what is gone: never of what may come back.
                    ShardStep::ShardFreed => assert_eq!(state, ShardState::Gone, "{what}"),
                    ShardStep::Restoring => assert_eq!(state, ShardState::Restoring, "{what}"),
                    ShardStep::Parked => assert_eq!(state, ShardState::Parked, "{what}"),
                    ShardStep::DeviceLost => assert_eq!(state, ShardState::Lost, "{what}"),
                    ShardStep::StaleHandle => {
                        let never = matches!(state, ShardState::Resident | ShardState::Lost);
                        assert!(never || state == ShardState::Replaced, "{state}, {what}");
                    }
                }
            }
            let lives = !matches!(state, ShardState::Gone | ShardState::Replaced);
            let ends = ShardCause::ALL.iter().any(|cause| {
                let next = state.step(*cause);
                matches!(next, ShardStep::To(ShardState::Gone | ShardState::Replaced))
            });
            assert_eq!(lives, ends, "{state}: every life has an end");
        }
    }
}
