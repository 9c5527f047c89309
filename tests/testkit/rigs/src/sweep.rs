//! One fault at every call. A row names an operation, its set-up, how to run it and the conditions
//! afterwards. The sweep runs it repeatedly, each time with another call of a device failing in
//! another way, until every call has failed once in every way.

use core::fmt;
use core::ops::RangeInclusive;
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use vram_alloc::{ByteLen, GpuIndex};
use vram_gpu::GpuError;
use vram_gpu::fault::{Action, Op, When};
use vram_gpu::kernels::Unfit;
use vram_residency::{ParkCapacity, SealedShard, VramError};

use crate::devices::compute;
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
    /// The injected action.
    pub action: Action,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gpu, op, nth, action } = self;
        write!(f, "{action:?} at {op:?} number {nth} of gpu {gpu}")
    }
}

/// The actions for one kind of call on one GPU's device.
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

    /// The same, only at these calls.
    #[must_use]
    pub fn at(mut self, calls: RangeInclusive<u64>) -> Self {
        self.calls = calls;
        self
    }

    /// All faults of a GPU's device that concern bytes and wipes, except those that make the device
    /// lost.
    #[must_use]
    pub fn every(gpu: usize) -> Vec<Self> {
        let moves = [Op::Write, Op::Read, Op::Fill, Op::QueueWrite, Op::QueueRead];
        let mut faults: Vec<_> =
            moves.into_iter().map(|op| Self::of(gpu, op, actions(gpu, op))).collect();
        let no_memory = Action::Fail(GpuError::HostMemory { wanted: ByteLen::MIB });
        faults.push(Self::of(gpu, Op::Staging, [no_memory, Action::Panic]));
        if compute().is_some() {
            let kernels = [Op::Hash, Op::Fingerprint, Op::Tags, Op::Open, Op::Seal];
            faults.extend(kernels.map(|op| Self::of(gpu, op, lies(gpu))));
        }
        faults
    }
}

/// What kernels do wrong.
fn lies(gpu: usize) -> Vec<Action> {
    let error = GpuError::driver(GpuIndex::new(u32::try_from(gpu).unwrap()), 1);
    vec![
        Action::Fail(error),
        Action::FailAfterwards(error),
        Action::Panic,
        Action::FlipResult { span: 1, bit: 0 },
        Action::FlipResults,
        Action::Unfit(Unfit::OtherMemory),
    ]
}

fn actions(gpu: usize, op: Op) -> Vec<Action> {
    let error = GpuError::driver(GpuIndex::new(u32::try_from(gpu).unwrap()), 1);
    let mut actions = vec![Action::Fail(error), Action::FailAfterwards(error), Action::Panic];
    if matches!(op, Op::QueueWrite | Op::QueueRead) {
        actions.push(Action::LateFail(error));
    }
    // Damage to a fill is not detectable, so it is not injected.
    if op != Op::Fill {
        actions.extend([
            Action::FlipBit { byte: 5, bit: 3 },
            Action::ShortCopy { keep: 100 },
            Action::DropCopy,
        ]);
    }
    actions
}

/// The result of one run of an operation.
#[derive(Debug)]
pub enum Outcome<T> {
    /// It returned a value.
    Done(T),
    /// It returned an error.
    Refused(VramError),
    /// It panicked.
    Panicked,
}

/// Checks the state after a run: its rig, its input, its result, and the fault.
pub type After<'a, S, T> = dyn Fn(&Rig, S, Outcome<T>, &Fault) + 'a;

/// An operation in the table of sweeps.
pub struct Row<'a, S, T> {
    /// Its name.
    pub operation: &'a str,
    /// The faults of its devices.
    pub faults: Vec<Faults>,
    /// The state before: a manager, and the input of the operation.
    pub set_up: &'a dyn Fn() -> (Rig, S),
    /// The operation.
    pub act: &'a dyn Fn(&Rig, &S) -> Result<T, VramError>,
    /// The conditions afterwards, in addition to the picture: see [`Row::sweep`].
    pub after: &'a After<'a, S, T>,
    /// The minimum number of injected faults for a meaningful sweep.
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
    /// P15: if the operation fails, a picture of what is resident, parked and counted must be
    /// unchanged, unless the device refused a free.
    pub fn sweep(&self) {
        let met = self.count();
        assert!(met >= self.at_least, "{}: only {met} faults were met", self.operation);
    }

    /// The same, and returns how many faults were injected.
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

    /// Returns whether the faulty call happened.
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

/// The state that a failed operation leaves unchanged.
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
