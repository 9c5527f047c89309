//! When to inject which fault: rules by call number or by seeded rate.

use core::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::GpuError;
use crate::dice::mix;
use crate::kernels::Unfit;

/// A kind of call on a device or on its memory. Calls are counted by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Op {
    /// [`Device::memory`](crate::Device::memory).
    Memory,
    /// [`Device::allocate`](crate::Device::allocate).
    Allocate,
    /// [`Device::staging`](crate::Device::staging).
    Staging,
    /// [`Device::reset`](crate::Device::reset).
    Reset,
    /// [`DeviceMemory::free`](crate::DeviceMemory::free).
    Free,
    /// An allocation dropped without being freed: logged, never failed.
    Drop,
    /// [`DeviceMemory::write`](crate::DeviceMemory::write).
    Write,
    /// [`DeviceMemory::read`](crate::DeviceMemory::read).
    Read,
    /// [`DeviceMemory::fill`](crate::DeviceMemory::fill).
    Fill,
    /// [`DeviceMemory::copy_from`](crate::DeviceMemory::copy_from) within one device.
    Copy,
    /// [`DeviceMemory::copy_from`](crate::DeviceMemory::copy_from) from another device.
    PeerCopy,
    /// [`DeviceMemory::queue_write`](crate::DeviceMemory::queue_write).
    QueueWrite,
    /// [`DeviceMemory::queue_read`](crate::DeviceMemory::queue_read).
    QueueRead,
    /// [`Kernels::hash`](crate::kernels::Kernels::hash).
    Hash,
    /// [`Kernels::fingerprint`](crate::kernels::Kernels::fingerprint).
    Fingerprint,
    /// [`Kernels::tags`](crate::kernels::Kernels::tags).
    Tags,
    /// [`Kernels::open`](crate::kernels::Kernels::open).
    Open,
    /// [`Kernels::seal`](crate::kernels::Kernels::seal).
    Seal,
}

impl Op {
    /// Whether the call moves or sets bytes.
    #[must_use]
    pub const fn moves_bytes(self) -> bool {
        matches!(
            self,
            Self::Write
                | Self::Read
                | Self::Fill
                | Self::Copy
                | Self::PeerCopy
                | Self::QueueWrite
                | Self::QueueRead
        )
    }

    /// Whether the call runs kernels. It is logged with the start of its first span, and the sum of
    /// the lengths of all.
    #[must_use]
    pub const fn runs_kernels(self) -> bool {
        matches!(self, Self::Hash | Self::Fingerprint | Self::Tags | Self::Open | Self::Seal)
    }

    const fn is_queued(self) -> bool {
        matches!(self, Self::QueueWrite | Self::QueueRead)
    }
}

/// A closure of the test that runs in the middle of a call, to provoke races on purpose.
#[derive(Clone)]
pub struct Hook(Arc<dyn Fn() + Send + Sync>);

impl Hook {
    /// Wraps a closure. It runs on the calling thread, before the call goes on.
    pub fn new(hook: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }

    pub(super) fn run(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook(..)")
    }
}

/// What a rule does to a call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Action {
    /// The call is not made and returns this error. A sticky error marks the device as lost.
    Fail(GpuError),
    /// The call is not made and returns this driver code, with its name, and sticky if the code is.
    Driver(u32),
    /// The call returns out of memory, with the true free figure, although the device may have
    /// room.
    OutOfMemory,
    /// The call is made, and then returns this error.
    FailAfterwards(GpuError),
    /// The queued copy is accepted, and its wait returns this error.
    LateFail(GpuError),
    /// The queued copy is accepted, and its wait returns this driver code.
    LateDriver(u32),
    /// One bit of the copied bytes is flipped, at the target; the call reports success.
    FlipBit {
        /// Which byte of the copy, modulo its length.
        byte: u64,
        /// Which bit of the byte, modulo 8.
        bit: u8,
    },
    /// One bit is flipped, at a position derived from the seed.
    FlipAnyBit,
    /// Only the first `keep` bytes are copied; the call reports success.
    ShortCopy {
        /// Bytes that are copied; all of them if there are fewer.
        keep: u64,
    },
    /// Nothing is copied; the call reports success.
    DropCopy,
    /// The kernels do not apply, for this reason.
    Unfit(Unfit),
    /// The call of a kernel is made, and then one bit of one result is flipped. The result of an
    /// opened segment is one bit.
    FlipResult {
        /// Which result, modulo their number.
        span: u64,
        /// Which bit of it, modulo its bits. Of a fingerprint, those under the key come first.
        bit: u64,
    },
    /// The call of a kernel is made, and then everything looks altered: a bit of every result is
    /// flipped, and of opened segments none was good.
    FlipResults,
    /// The call panics before it is made.
    Panic,
    /// The hook runs, and then the call is made.
    Run(Hook),
}

impl Action {
    /// Whether the action has an effect on such a call.
    #[must_use]
    pub const fn applies_to(&self, op: Op) -> bool {
        match self {
            Self::Fail(_) | Self::Driver(_) | Self::Panic | Self::Run(_) => !matches!(op, Op::Drop),
            Self::OutOfMemory => matches!(op, Op::Allocate),
            Self::LateFail(_) | Self::LateDriver(_) => op.is_queued(),
            Self::Unfit(_) | Self::FlipResult { .. } | Self::FlipResults => op.runs_kernels(),
            Self::FailAfterwards(_) => op.moves_bytes() || op.runs_kernels(),
            Self::FlipBit { .. } | Self::FlipAnyBit | Self::ShortCopy { .. } | Self::DropCopy => {
                op.moves_bytes()
            }
        }
    }
}

/// Which calls of a kind a rule picks, counted from the moment it was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum When {
    /// Only the n-th call; 1 is the next.
    Nth(u64),
    /// The n-th call and all later ones; `From(1)` is always.
    From(u64),
    /// Each call with a chance of so many in a million, decided by seed and call number.
    PerMillion(u32),
}

/// A rule that could never fire.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The action has no effect on such a call.
    #[error("{action} means nothing for a call of kind {op:?}")]
    DoesNotApply {
        /// The kind of call.
        op: Op,
        /// The action, as text.
        action: String,
    },
    /// Calls are counted from one.
    #[error("calls are counted from 1, so no call is number 0")]
    CallZero,
}

/// A seed and the rules to start with.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    pub(super) seed: u64,
    pub(super) deferred: bool,
    pub(super) rules: Vec<Rule>,
}

impl FaultPlan {
    /// A plan without rules: nothing fails.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, deferred: false, rules: Vec::new() }
    }

    /// Adds a rule. If several rules pick one call, the one that was added first decides.
    ///
    /// # Errors
    ///
    /// [`PlanError`] if the rule could never fire.
    pub fn rule(mut self, op: Op, when: When, action: Action) -> Result<Self, PlanError> {
        self.rules.push(Rule::new(op, when, action)?);
        Ok(self)
    }

    /// Makes queued copies happen as late as the trait permits: at the wait. A caller that does not
    /// wait, or waits for the wrong copy, then sees old bytes.
    #[must_use]
    pub const fn deferred(mut self) -> Self {
        self.deferred = true;
        self
    }
}

/// One rule and how many calls it has seen.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    op: Op,
    when: When,
    action: Action,
    seen: u64,
}

/// A rule that fired.
#[derive(Clone, Debug)]
pub(super) struct Fired {
    pub(super) action: Action,
    /// Decides what the action leaves open; the same for the same seed and call.
    pub(super) dice: u64,
}

impl Rule {
    pub(super) fn new(op: Op, when: When, action: Action) -> Result<Self, PlanError> {
        if !action.applies_to(op) {
            return Err(PlanError::DoesNotApply { op, action: format!("{action:?}") });
        }
        if matches!(when, When::Nth(0) | When::From(0)) {
            return Err(PlanError::CallZero);
        }
        Ok(Self { op, when, action, seen: 0 })
    }

    /// Counts a call. Returns the fired rule if this rule picks the call.
    pub(super) fn count(&mut self, op: Op, seed: u64) -> Option<Fired> {
        if op != self.op {
            return None;
        }
        self.seen = self.seen.saturating_add(1);
        let dice = mix(seed ^ mix(self.seen));
        let fires = match self.when {
            When::Nth(n) => self.seen == n,
            When::From(n) => self.seen >= n,
            When::PerMillion(chance) => mix(dice) % 1_000_000 < u64::from(chance),
        };
        fires.then(|| Fired { action: self.action.clone(), dice })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firing(when: When, seed: u64) -> Vec<u64> {
        let mut rule = Rule::new(Op::Write, when, Action::DropCopy).unwrap();
        (1..=10_000).filter(|_| rule.count(Op::Write, seed).is_some()).collect()
    }

    #[test]
    fn a_rule_that_could_never_fire_is_refused() {
        let rule = |op, when, action| Rule::new(op, when, action).map(|_| ());
        assert_eq!(rule(Op::Read, When::Nth(0), Action::DropCopy), Err(PlanError::CallZero));
        for (op, action) in [
            (Op::Allocate, Action::DropCopy),
            (Op::Write, Action::OutOfMemory),
            (Op::Write, Action::LateDriver(700)),
            (Op::Drop, Action::Panic),
            (Op::Read, Action::FlipResults),
            (Op::Hash, Action::FlipAnyBit),
            (Op::Memory, Action::Unfit(Unfit::OtherMemory)),
        ] {
            let refused = rule(op, When::Nth(1), action);
            assert!(matches!(refused, Err(PlanError::DoesNotApply { .. })), "{op:?}");
        }
    }

    #[test]
    fn call_numbers_pick_exactly_their_calls() {
        assert_eq!(firing(When::Nth(7), 1), [7]);
        assert_eq!(firing(When::From(9_999), 1), [9_999, 10_000]);
    }

    #[test]
    fn a_rate_repeats_by_seed_and_is_near_its_figure() {
        let some = firing(When::PerMillion(100_000), 1);
        assert_eq!(some, firing(When::PerMillion(100_000), 1));
        assert_ne!(some, firing(When::PerMillion(100_000), 2));
        assert!((800..1_200).contains(&some.len()), "{} of 10 000 at one in ten", some.len());
        assert!(firing(When::PerMillion(0), 1).is_empty());
        assert_eq!(firing(When::PerMillion(1_000_000), 1).len(), 10_000);
    }
}
