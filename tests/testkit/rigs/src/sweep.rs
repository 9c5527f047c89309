//! One fault at every call: a row names an operation, how to set it up, how to run it and what must
//! hold afterwards; the sweep runs it again and again, each time with another call of a device
//! failing in another way, until there is no further call to fail.

use core::fmt;
use core::ops::RangeInclusive;
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use vram_alloc::{ByteLen, GpuIndex};
use vram_gpu::GpuError;
use vram_gpu::fault::{Action, Op, When};
use vram_residency::{ParkCapacity, SealedShard, VramError};

use crate::rig::Rig;

/// The fault of one run.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The GPU whose device has it.
    pub gpu: usize,
    /// The kind of call.
    pub op: Op,
    /// Which call of this kind, from 1.
    pub nth: u64,
    /// What happens to the call.
    pub action: Action,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gpu, op, nth, action } = self;
        write!(f, "{action:?} at {op:?} number {nth} of gpu {gpu}")
    }
}

/// What may happen to one kind of call of one GPU's device.
#[derive(Clone, Debug)]
pub struct Faults {
    gpu: usize,
    op: Op,
    actions: Vec<Action>,
    calls: RangeInclusive<u64>,
}

impl Faults {
    /// These actions, at every call of the kind.
    #[must_use]
    pub fn of(gpu: usize, op: Op, actions: impl IntoIterator<Item = Action>) -> Self {
        Self { gpu, op, actions: actions.into_iter().collect(), calls: 1..=u64::MAX }
    }

    /// The same at these calls only.
    #[must_use]
    pub fn at(mut self, calls: RangeInclusive<u64>) -> Self {
        self.calls = calls;
        self
    }

    /// Everything that a GPU's device can do wrong with bytes and wipes, but for what loses the
    /// device.
    #[must_use]
    pub fn every(gpu: usize) -> Vec<Self> {
        let moves = [Op::Write, Op::Read, Op::Fill, Op::QueueWrite, Op::QueueRead];
        let mut faults: Vec<_> =
            moves.into_iter().map(|op| Self::of(gpu, op, actions(gpu, op))).collect();
        let no_memory = Action::Fail(GpuError::HostMemory { wanted: ByteLen::MIB });
        faults.push(Self::of(gpu, Op::Staging, [no_memory, Action::Panic]));
        faults
    }
}

fn actions(gpu: usize, op: Op) -> Vec<Action> {
    let error = GpuError::driver(GpuIndex::new(u32::try_from(gpu).unwrap()), 1);
    let mut actions = vec![Action::Fail(error), Action::FailAfterwards(error), Action::Panic];
    if matches!(op, Op::QueueWrite | Op::QueueRead) {
        actions.push(Action::LateFail(error));
    }
    // Bytes that a fill did not write cannot be noticed by anybody.
    if op != Op::Fill {
        actions.extend([
            Action::FlipBit { byte: 5, bit: 3 },
            Action::ShortCopy { keep: 100 },
            Action::DropCopy,
        ]);
    }
    actions
}

/// What one run of an operation came to.
#[derive(Debug)]
pub enum Outcome<T> {
    /// It answered.
    Done(T),
    /// It was refused.
    Refused(VramError),
    /// It panicked.
    Panicked,
}

/// Looks at what a run has left: its rig, what it worked on, what it came to, and the fault.
pub type After<'a, S, T> = dyn Fn(&Rig, S, Outcome<T>, &Fault) + 'a;

/// An operation in the table of sweeps.
pub struct Row<'a, S, T> {
    /// What it is called.
    pub operation: &'a str,
    /// What its devices do wrong.
    pub faults: Vec<Faults>,
    /// The state before: a manager, and what the operation works on.
    pub set_up: &'a dyn Fn() -> (Rig, S),
    /// The operation.
    pub act: &'a dyn Fn(&Rig, &S) -> Result<T, VramError>,
    /// What must hold afterwards, beside the picture: see [`Row::sweep`].
    pub after: &'a After<'a, S, T>,
    /// Fewer faults than this were not worth the name.
    pub at_least: usize,
}

impl<S, T> fmt::Debug for Row<'_, S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("operation", &self.operation).finish_non_exhaustive()
    }
}

impl<S, T> Row<'_, S, T> {
    /// Runs the operation with one fault at a time, at every call of every kind.
    ///
    /// P15: where it does not get through, a picture of what is resident, parked and counted is as
    /// before, unless the device did not take back what it was told to free.
    pub fn sweep(&self) {
        let met = self.count();
        assert!(met >= self.at_least, "{}: only {met} faults were met", self.operation);
    }

    /// The same, and says how many faults were met.
    #[must_use]
    pub fn count(&self) -> usize {
        let mut met = 0;
        for faults in &self.faults {
            for action in &faults.actions {
                for nth in faults.calls.clone() {
                    let (gpu, op, action) = (faults.gpu, faults.op, action.clone());
                    if !self.run(&Fault { gpu, op, nth, action }) {
                        break;
                    }
                    met += 1;
                }
            }
        }
        met
    }

    /// Whether there was such a call.
    fn run(&self, fault: &Fault) -> bool {
        let (rig, state) = (self.set_up)();
        let device = &rig.devices[fault.gpu];
        let before = Picture::of(&rig);
        device.clear_log();
        device.add(fault.op, When::Nth(fault.nth), fault.action.clone()).unwrap();
        let outcome = match catch_unwind(AssertUnwindSafe(|| (self.act)(&rig, &state))) {
            Ok(Ok(done)) => Outcome::Done(done),
            Ok(Err(error)) => Outcome::Refused(error),
            Err(_panic) => Outcome::Panicked,
        };
        rig.clear();
        let met = |call: &vram_gpu::fault::Call| call.op == fault.op && call.injected.is_some();
        if !device.calls().iter().any(met) {
            return false;
        }
        let after = Picture::of(&rig);
        if !matches!(outcome, Outcome::Done(_)) && after.unreturned == 0 {
            assert_eq!(after, before, "{}: {fault}", self.operation);
        }
        (self.after)(&rig, state, outcome, fault);
        true
    }
}

/// What an operation that does not get through leaves as it was.
#[derive(Debug, PartialEq)]
struct Picture {
    shards: Vec<SealedShard>,
    parked: ParkCapacity,
    /// Bytes used, promised and free on each GPU.
    books: Vec<[u64; 3]>,
    unreturned: u64,
}

impl Picture {
    fn of(rig: &Rig) -> Self {
        let books: Vec<_> =
            (0..).take(rig.devices.len()).map(|gpu| rig.manager.capacity(gpu).unwrap()).collect();
        Self {
            shards: rig.manager.shards(),
            parked: rig.manager.park_capacity(),
            unreturned: books.iter().map(|one| one.unreturned.get()).sum(),
            books: books
                .iter()
                .map(|one| [one.used.get(), one.reserved.get(), one.free.get()])
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(act: &dyn Fn(&Rig, &()) -> Result<(), VramError>, at_least: usize) -> Row<'_, (), ()> {
        let faults = vec![Faults::of(0, Op::Read, [Action::Panic])];
        let set_up = &|| (Rig::new(&[1 << 16]), ());
        Row { operation: "read", faults, set_up, act, after: &|_, (), _, _| {}, at_least }
    }

    fn read(rig: &Rig, tidy: bool) -> Result<(), VramError> {
        let shard = rig.manager.seal_model("model", 0, &[1; 5000])?;
        let read = catch_unwind(AssertUnwindSafe(|| rig.manager.unseal_model(&shard).map(drop)));
        if tidy {
            rig.manager.free_shard(&shard)?;
        }
        read.unwrap_or(Err(VramError::Closed))
    }

    #[test]
    fn every_call_is_met_once() {
        let (calls, rig) = (row(&|rig, ()| read(rig, true), 1).count(), Rig::new(&[1 << 16]));
        rig.devices[0].clear_log();
        read(&rig, true).unwrap();
        assert_eq!(u64::try_from(calls).unwrap(), rig.devices[0].call_count(Op::Read));
    }

    #[test]
    #[should_panic(expected = "read: Panic at Read number")]
    fn what_a_failed_operation_leaves_behind_is_found() {
        row(&|rig, ()| read(rig, false), 1).sweep();
    }

    #[test]
    #[should_panic(expected = "faults were met")]
    fn a_sweep_that_meets_too_few_faults_fails() {
        row(&|rig, ()| read(rig, true), 1000).sweep();
    }
}
