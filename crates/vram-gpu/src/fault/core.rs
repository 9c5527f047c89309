//! The state that a fault device and its allocations share: rules, log and live allocations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange, GpuIndex};

use super::log::Log;
use super::plan::{Fired, Rule};
use super::{Action, Call, FaultPlan, Freed, Op};
use crate::dice::mix;
use crate::kernels::NoKernels;
use crate::{Device, DeviceMemory, GpuError};

/// The state that the device and its allocations share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) inner: Arc<dyn Device>,
    pub(super) deferred: bool,
    pub(super) seed: u64,
    script: Mutex<Script>,
    live: Mutex<Live>,
}

/// The rules and the log, under one lock that is held briefly.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) rules: Vec<Rule>,
    pub(super) stopped: bool,
    pub(super) lost: Option<GpuError>,
    pub(super) no_kernels: Option<NoKernels>,
    pub(super) log: Log,
}

/// The live allocations, for inspection.
#[derive(Debug, Default)]
pub(super) struct Live {
    made: u64,
    pub(super) memories: BTreeMap<u64, Weak<Box<dyn DeviceMemory>>>,
    pub(super) watch: bool,
    pub(super) freed: Vec<Freed>,
}

impl Core {
    pub(super) fn new(inner: Arc<dyn Device>, plan: FaultPlan) -> Self {
        let FaultPlan { seed, deferred, rules } = plan;
        tracing::info!(gpu = %inner.info().index, seed, rules = rules.len(), "faults are injected");
        let script = Mutex::new(Script { rules, ..Script::default() });
        Self { inner, deferred, seed, script, live: Mutex::new(Live::default()) }
    }

    pub(super) fn gpu(&self) -> GpuIndex {
        self.inner.info().index
    }

    pub(super) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a call and applies the rules to it. Returns the damage that the call itself has to
    /// apply. Failing, panicking and running hooks happens here, while no lock is held.
    #[expect(clippy::panic, reason = "the action `Panic` asks for exactly that")]
    pub(super) fn enter(
        &self,
        op: Op,
        allocation: Option<u64>,
        range: Option<(DeviceOffset, ByteLen)>,
    ) -> Result<Option<Fired>, GpuError> {
        let (lost, fired) = self.record(op, allocation, range);
        if let Some(lost) = lost {
            return Err(lost);
        }
        let Some(fired) = fired else { return Ok(None) };
        tracing::debug!(gpu = %self.gpu(), ?op, action = ?fired.action, "fault injected");
        match fired.action {
            Action::Fail(error) => Err(self.suffer(error)),
            Action::Driver(code) => Err(self.suffer(GpuError::driver(self.gpu(), code))),
            Action::OutOfMemory => {
                let wanted = range.map_or(ByteLen::ZERO, |(_, len)| len);
                let free = self.inner.memory().ok().map(|memory| memory.free);
                Err(GpuError::OutOfMemory { gpu: self.gpu(), wanted, free })
            }
            Action::Panic => panic!("injected panic in {op:?} on {}", self.gpu()),
            Action::Run(hook) => {
                hook.run();
                Ok(None)
            }
            _ => Ok(Some(fired)),
        }
    }

    /// Records an error and returns it. A sticky error marks the device as lost.
    pub(super) fn suffer(&self, error: GpuError) -> GpuError {
        if let Some(lost) = error.as_lost() {
            self.script().lost.get_or_insert(lost);
        }
        error
    }

    /// Returns a result unchanged and records its error, if it has one.
    pub(super) fn noted<T>(&self, result: Result<T, GpuError>) -> Result<T, GpuError> {
        result.map_err(|error| self.suffer(error))
    }

    pub(super) fn record(
        &self,
        op: Op,
        allocation: Option<u64>,
        range: Option<(DeviceOffset, ByteLen)>,
    ) -> (Option<GpuError>, Option<Fired>) {
        let script = &mut *self.script();
        // A reset makes a lost device usable again, so it is the only call that is passed on.
        let lost = script.lost.filter(|_| op != Op::Reset);
        let fired = if lost.is_some() || script.stopped {
            None
        } else {
            let seed = self.seed;
            // Every rule counts the call; the first rule that picks it decides.
            script.rules.iter_mut().zip(0_u64..).fold(None, |first, (rule, position)| {
                let own_seed = mix(seed ^ position.rotate_left(48));
                let fired = rule.count(op, own_seed);
                first.or(fired)
            })
        };
        script.log.add(Call {
            number: 0,
            op,
            allocation,
            offset: range.map(|(offset, _)| offset),
            len: range.map(|(_, len)| len),
            injected: fired.as_ref().map(|fired| fired.action.clone()),
            after_loss: lost.is_some(),
        });
        (lost, fired)
    }

    /// Adds an allocation to the list for inspection, under its old number after a refused free.
    pub(super) fn register(&self, number: Option<u64>, memory: &Arc<Box<dyn DeviceMemory>>) -> u64 {
        let mut live = self.live();
        let number = number.unwrap_or_else(|| {
            live.made = live.made.saturating_add(1);
            live.made
        });
        live.memories.insert(number, Arc::downgrade(memory));
        number
    }

    /// Removes an allocation from the list, after reading its bytes if frees are watched. From here
    /// on only its owner can access it.
    pub(super) fn unregister(&self, number: u64) {
        let mut live = self.live();
        let memory = live.memories.remove(&number).and_then(|weak| weak.upgrade());
        if let (true, Some(memory)) = (live.watch, memory) {
            let wiped = is_zero(&**memory).ok();
            live.freed.push(Freed { allocation: number, len: memory.len(), wiped });
        }
    }

    /// Runs `act` on a live allocation, if it exists. The allocation is not freed meanwhile.
    pub(super) fn with_live<T>(
        &self,
        number: Option<u64>,
        act: impl FnOnce(&dyn DeviceMemory) -> T,
    ) -> Option<T> {
        let live = self.live();
        let memory = match number {
            Some(number) => live.memories.get(&number),
            None => live.memories.values().next(),
        }
        .and_then(Weak::upgrade)?;
        let done = act(&**memory);
        // Dropped before the lock is released: after `unregister`, the freeing call must be the
        // only owner.
        drop(memory);
        drop(live);
        Some(done)
    }
}

/// Flips one bit of device memory.
pub(super) fn flip(
    memory: &dyn DeviceMemory,
    offset: DeviceOffset,
    bit: u8,
) -> Result<(), GpuError> {
    let range = checked(memory, offset, ByteLen::new(1))?;
    let mut byte = [0];
    memory.read(range, &mut byte)?;
    memory.write(range, &byte.map(|byte| byte ^ 1_u8.rotate_left(u32::from(bit))))
}

pub(super) fn checked(
    memory: &dyn DeviceMemory,
    offset: DeviceOffset,
    len: ByteLen,
) -> Result<DeviceRange, GpuError> {
    let capacity = memory.len();
    DeviceRange::checked(offset, len, capacity)
        .map_err(|error| GpuError::from_bounds(memory.gpu(), error, capacity))
}

/// Whether every byte of an allocation is zero.
fn is_zero(memory: &dyn DeviceMemory) -> Result<bool, GpuError> {
    const WINDOW: usize = 64 << 10;
    let mut window = vec![0; WINDOW];
    let (mut at, end) = (DeviceOffset::START, memory.len().get());
    while at.get() < end {
        let left = ByteLen::new(end.saturating_sub(at.get()));
        let len = left.min(ByteLen::from_usize(WINDOW));
        let range = checked(memory, at, len)?;
        let part = len.to_usize().and_then(|len| window.get_mut(..len)).unwrap_or_default();
        memory.read(range, part)?;
        if part.iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        at = range.end();
    }
    Ok(true)
}
