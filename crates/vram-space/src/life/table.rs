//! The states of a GPU's life, and every transition between them, as data.

use core::fmt;

/// The state of one life of a GPU's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum LifeState {
    /// The device takes calls.
    Serving,
    /// A reset of the working device waits for the calls that run on it. They go on; no new call
    /// begins. The reset may still be refused.
    Draining,
    /// The reset of a working device has begun. No other call is sent to the device.
    Resetting,
    /// The device was emptied and takes calls; its shards are restored from copies.
    Restoring,
    /// A sticky error made the device unusable. It is sent nothing but a reset.
    Lost,
    /// Its owner has closed it and holds nothing there.
    Closed,
}

/// What happens to a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LifeCause {
    /// A call asks to begin.
    Enter,
    /// A call that runs already goes to the device.
    Work,
    /// A call met a sticky error, or the device refused a reset.
    Lose,
    /// A reset of a working device begins to wait.
    Drain,
    /// That reset was refused.
    Stay,
    /// No call runs any more: the reset goes to the device.
    Begin,
    /// The device was emptied: the next life begins.
    Renew,
    /// Every shard that could be restored is back.
    Recover,
    /// The owner holds nothing there any more.
    Close,
}

/// What a cause does to a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifeStep {
    /// The next state, which may be the same.
    To(LifeState),
    /// Refused, as a call that can be tried again: the device is in use.
    InUse,
    /// Refused: the device is lost.
    Lost,
    /// Refused: the owner has closed it.
    Closed,
    /// Refused: the cause cannot occur in this state.
    Never,
}

impl LifeState {
    /// All states.
    pub const ALL: [Self; 6] =
        [Self::Serving, Self::Draining, Self::Resetting, Self::Restoring, Self::Lost, Self::Closed];

    /// A stable name, for metrics and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Resetting => "resetting",
            Self::Restoring => "restoring",
            Self::Lost => "lost",
            Self::Closed => "closed",
        }
    }

    /// What `cause` does in this state: the whole transition table.
    #[must_use]
    pub const fn step(self, cause: LifeCause) -> LifeStep {
        use LifeCause::{Begin, Close, Drain, Enter, Lose, Recover, Renew, Stay, Work};
        use LifeState::{Closed, Draining, Lost, Resetting, Restoring, Serving};
        use LifeStep::{InUse, Never, To};

        match (self, cause) {
            (Serving, Enter | Work | Stay) | (Draining, Stay) | (Restoring, Recover) => To(Serving),
            (Serving | Draining, Drain) | (Draining, Work) => To(Draining),
            (Draining, Begin) => To(Resetting),
            (Restoring, Enter | Work) | (Resetting | Lost, Renew) => To(Restoring),
            // A device that is lost again while it is restored, or while a reset waits, stays lost.
            (Serving | Draining | Resetting | Restoring, Lose)
            | (Lost, Lose | Stay | Begin | Recover) => To(Lost),
            (Serving | Lost | Closed, Close) | (Closed, Lose) => To(Closed),
            (Draining, Enter | Close)
            | (Resetting, Enter | Work | Drain | Close)
            | (Restoring, Drain | Close) => InUse,
            (Lost, Enter | Work | Drain) => LifeStep::Lost,
            (Closed, Enter | Work | Drain) => LifeStep::Closed,
            (Serving, Begin | Renew | Recover)
            | (Draining, Renew | Recover)
            | (Resetting, Stay | Begin | Recover)
            | (Restoring, Stay | Begin | Renew)
            | (Closed, Stay | Begin | Renew | Recover) => Never,
        }
    }
}

impl LifeCause {
    /// All causes.
    pub const ALL: [Self; 9] = [
        Self::Enter,
        Self::Work,
        Self::Lose,
        Self::Drain,
        Self::Stay,
        Self::Begin,
        Self::Renew,
        Self::Recover,
        Self::Close,
    ];

    /// What happens, in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enter => "a call begins",
            Self::Work => "a running call goes on",
            Self::Lose => "a sticky error",
            Self::Drain => "a reset begins to wait",
            Self::Stay => "the reset is refused",
            Self::Begin => "no call runs: the reset begins",
            Self::Renew => "the device is empty",
            Self::Recover => "its shards are restored",
            Self::Close => "the owner gives it up",
        }
    }
}

impl fmt::Display for LifeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for LifeStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To(state) => state.fmt(f),
            Self::InUse => f.write_str("`gpu-in-use`"),
            Self::Lost => f.write_str("`device-lost`"),
            Self::Closed => f.write_str("`closed`"),
            Self::Never => f.write_str("–"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every state with every cause, against the rules in words.
    #[test]
    fn each_state_answers_each_cause_as_the_rules_say() {
        for state in LifeState::ALL {
            let step = |cause| state.step(cause);
            let serves = matches!(state, LifeState::Serving | LifeState::Restoring);
            assert_eq!(step(LifeCause::Enter) == LifeStep::To(state), serves, "{state}");
            let works = serves || state == LifeState::Draining;
            assert_eq!(step(LifeCause::Work) == LifeStep::To(state), works, "{state}");
            for cause in [LifeCause::Enter, LifeCause::Work] {
                // A device that works is never called lost.
                let lost = state == LifeState::Lost;
                assert_eq!(step(cause) == LifeStep::Lost, lost, "{state}, {}", cause.name());
            }
            let loses = if state == LifeState::Closed { state } else { LifeState::Lost };
            assert_eq!(step(LifeCause::Lose), LifeStep::To(loses), "nothing outlives a loss");
            for cause in LifeCause::ALL {
                let LifeStep::To(next) = step(cause) else { continue };
                // Out of a loss leads the next life alone, and the end.
                if state == LifeState::Lost && next != LifeState::Lost {
                    assert!(matches!(cause, LifeCause::Renew | LifeCause::Close), "{next}");
                }
                assert!(state != LifeState::Closed || next == state, "closed is the end");
                if next == LifeState::Serving && state != next {
                    assert!(matches!(cause, LifeCause::Stay | LifeCause::Recover), "{state}");
                }
            }
        }
    }

    /// From every state that is not the end, some row of causes leads to each other state.
    #[test]
    fn every_state_can_be_reached_and_left() {
        for from in LifeState::ALL {
            let mut seen = vec![from];
            let mut next = 0;
            while let Some(state) = seen.get(next).copied() {
                next += 1;
                for cause in LifeCause::ALL {
                    if let LifeStep::To(to) = state.step(cause)
                        && !seen.contains(&to)
                    {
                        seen.push(to);
                    }
                }
            }
            let all = if from == LifeState::Closed { 1 } else { LifeState::ALL.len() };
            assert_eq!(seen.len(), all, "from {from}: {seen:?}");
        }
    }
}
