//! The wrapper around a device, and its control side.

use core::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use thiserror::Error;
use vram_alloc::{ByteLen, DeviceOffset, DeviceRange, GpuIndex};

use super::log::Log;
use super::memory::FaultMemory;
use super::plan::{Fired, Rule};
use super::{Action, Call, FaultPlan, Freed, Op, PlanError, When};
use crate::dice::mix;
use crate::{Device, DeviceInfo, DeviceMemory, DeviceState, GpuError, MemoryInfo, Staging};

/// A device that wraps another, passes calls on, and injects what its rules say.
///
/// The same value is the control side: tests keep an `Arc` of it, add rules while it runs, read
/// the log, and look at or alter live device bytes behind everybody's back.
#[derive(Debug)]
pub struct FaultDevice {
    pub(super) core: Arc<Core>,
}

/// What the device and its allocations share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) inner: Arc<dyn Device>,
    pub(super) deferred: bool,
    seed: u64,
    script: Mutex<Script>,
    live: Mutex<Live>,
}

/// Everything that decides and records, under one short lock.
#[derive(Debug, Default)]
struct Script {
    rules: Vec<Rule>,
    stopped: bool,
    lost: Option<GpuError>,
    log: Log,
}

/// The allocations that exist, for inspection.
#[derive(Debug, Default)]
struct Live {
    made: u64,
    memories: BTreeMap<u64, Weak<Box<dyn DeviceMemory>>>,
    watch: bool,
    freed: Vec<Freed>,
}

/// Why live bytes could not be looked at or altered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InspectError {
    /// No allocation of that number is alive.
    #[error("no live allocation of that number on this device ({number:?})")]
    NoSuchAllocation {
        /// The number asked for; none where the oldest was asked for and there is none.
        number: Option<u64>,
    },
    /// The wrapped device refused.
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

impl FaultDevice {
    /// Wraps `inner`. The seed is logged, so that a failing run can be repeated.
    #[must_use]
    pub fn new(inner: Arc<dyn Device>, plan: FaultPlan) -> Arc<Self> {
        let FaultPlan { seed, deferred, rules } = plan;
        tracing::info!(gpu = %inner.info().index, seed, rules = rules.len(), "faults are injected");
        let script = Mutex::new(Script { rules, ..Script::default() });
        let live = Mutex::new(Live::default());
        Arc::new(Self { core: Arc::new(Core { inner, deferred, seed, script, live }) })
    }

    /// The seed of the plan.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.core.seed
    }

    /// Adds a rule; it counts calls from now on.
    ///
    /// # Errors
    ///
    /// [`PlanError`] if the rule could never fire.
    pub fn add(&self, op: Op, when: When, action: Action) -> Result<(), PlanError> {
        self.core.script().rules.push(Rule::new(op, when, action)?);
        Ok(())
    }

    /// The next call of this kind meets this action; short for [`add`](Self::add).
    ///
    /// # Errors
    ///
    /// [`PlanError`] if the action means nothing for such a call.
    pub fn next(&self, op: Op, action: Action) -> Result<(), PlanError> {
        self.add(op, When::Nth(1), action)
    }

    /// Removes every rule. A device that was lost stays lost until it is reset.
    pub fn clear(&self) {
        self.core.script().rules.clear();
    }

    /// Suspends every rule; calls are still counted by none of them.
    pub fn stop_faults(&self) {
        self.core.script().stopped = true;
    }

    /// Lets the rules go on where they were.
    pub fn resume_faults(&self) {
        self.core.script().stopped = false;
    }

    /// The last calls, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.core.script().log.calls()
    }

    /// How many calls of this kind came since the log was last cleared.
    #[must_use]
    pub fn call_count(&self, op: Op) -> u64 {
        self.core.script().log.count(op)
    }

    /// How many calls came while the device was lost: callers owe it none.
    #[must_use]
    pub fn calls_after_loss(&self) -> u64 {
        self.core.script().log.after_loss()
    }

    /// Forgets the calls and their counts.
    pub fn clear_log(&self) {
        self.core.script().log.clear();
    }

    /// Numbers and lengths of the live allocations, oldest first.
    #[must_use]
    pub fn live(&self) -> Vec<(u64, ByteLen)> {
        let live = self.core.live();
        let alive = |(&number, weak): (&u64, &Weak<Box<dyn DeviceMemory>>)| {
            weak.upgrade().map(|memory| (number, memory.len()))
        };
        live.memories.iter().filter_map(alive).collect()
    }

    /// Device bytes of an allocation as they are, without a fault or a log entry.
    ///
    /// # Arguments
    ///
    /// * `number`: the allocation, as [`live`](Self::live) counts; `None` is the oldest.
    /// * `offset`, `len`: which of its bytes.
    ///
    /// # Errors
    ///
    /// [`InspectError::NoSuchAllocation`], or what the wrapped device says.
    pub fn inspect(
        &self,
        number: Option<u64>,
        offset: DeviceOffset,
        len: ByteLen,
    ) -> Result<Vec<u8>, InspectError> {
        self.with_live(number, |memory| {
            let refused = GpuError::HostMemory { wanted: len };
            let range = checked(memory, offset, len)?;
            let count = len.to_usize().ok_or(refused)?;
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(count).map_err(|_no_room| refused)?;
            bytes.resize(count, 0);
            memory.read(range, &mut bytes)?;
            Ok(bytes)
        })
    }

    /// Flips one bit of live device memory, as a failing cell would: nobody is told.
    ///
    /// # Arguments
    ///
    /// * `number`: the allocation, as [`live`](Self::live) counts; `None` is the oldest.
    /// * `offset`: the byte. `bit`: 0 to 7, modulo 8.
    ///
    /// # Errors
    ///
    /// [`InspectError::NoSuchAllocation`], or what the wrapped device says.
    pub fn flip_bit_at(
        &self,
        number: Option<u64>,
        offset: DeviceOffset,
        bit: u8,
    ) -> Result<(), InspectError> {
        self.with_live(number, |memory| flip(memory, offset, bit))
    }

    /// Overwrites live device memory behind everybody's back.
    ///
    /// # Errors
    ///
    /// [`InspectError::NoSuchAllocation`], or what the wrapped device says.
    pub fn poke(
        &self,
        number: Option<u64>,
        offset: DeviceOffset,
        bytes: &[u8],
    ) -> Result<(), InspectError> {
        self.with_live(number, |memory| {
            let range = checked(memory, offset, ByteLen::from_usize(bytes.len()))?;
            memory.write(range, bytes)
        })
    }

    /// From now on records, for each allocation given back, whether it was wiped before. Reads
    /// every freed byte, so it is off by default.
    pub fn watch_frees(&self) {
        self.core.live().watch = true;
    }

    /// What was given back since frees are watched.
    #[must_use]
    pub fn freed(&self) -> Vec<Freed> {
        self.core.live().freed.clone()
    }

    fn with_live<T>(
        &self,
        number: Option<u64>,
        act: impl FnOnce(&dyn DeviceMemory) -> Result<T, GpuError>,
    ) -> Result<T, InspectError> {
        self.core
            .with_live(number, act)
            .ok_or(InspectError::NoSuchAllocation { number })?
            .map_err(InspectError::Gpu)
    }
}

impl Core {
    pub(super) fn gpu(&self) -> GpuIndex {
        self.inner.info().index
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a call and decides about it. What is left to do to the call itself comes back;
    /// failing, panicking and running hooks is done here, outside of every lock.
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

    /// Notes an error; a sticky one takes the device. Returns the error.
    pub(super) fn suffer(&self, error: GpuError) -> GpuError {
        if let Some(lost) = error.as_lost() {
            self.script().lost.get_or_insert(lost);
        }
        error
    }

    /// Passes a result on and notes its error, if it has one.
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
        // A reset is what helps a lost device, so it alone gets through.
        let lost = script.lost.filter(|_| op != Op::Reset);
        let fired = if lost.is_some() || script.stopped {
            None
        } else {
            let seed = self.seed;
            // Every rule counts the call; the first that picks it decides.
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
            after_loss: script.lost.is_some(),
        });
        (lost, fired)
    }

    /// Makes an allocation known for inspection; the same number again after a refused free.
    pub(super) fn register(&self, number: Option<u64>, memory: &Arc<Box<dyn DeviceMemory>>) -> u64 {
        let mut live = self.live();
        let number = number.unwrap_or_else(|| {
            live.made = live.made.saturating_add(1);
            live.made
        });
        live.memories.insert(number, Arc::downgrade(memory));
        number
    }

    /// Forgets an allocation, after a look at what it holds if frees are watched. From here on
    /// nobody but its owner reaches it.
    pub(super) fn unregister(&self, number: u64) {
        let mut live = self.live();
        let memory = live.memories.remove(&number).and_then(|weak| weak.upgrade());
        if let (true, Some(memory)) = (live.watch, memory) {
            let wiped = is_zero(&**memory).ok();
            live.freed.push(Freed { allocation: number, len: memory.len(), wiped });
        }
    }

    /// Runs `act` on a live allocation, if there is one. The allocation cannot go away meanwhile.
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
        // Before the lock: whoever frees must be the only owner once `unregister` returned.
        drop(memory);
        drop(live);
        Some(done)
    }
}

impl Device for FaultDevice {
    fn info(&self) -> &DeviceInfo {
        self.core.inner.info()
    }

    fn memory(&self) -> Result<MemoryInfo, GpuError> {
        self.core.enter(Op::Memory, None, None)?;
        self.core.noted(self.core.inner.memory())
    }

    fn allocate(&self, len: ByteLen) -> Result<Box<dyn DeviceMemory>, GpuError> {
        self.core.enter(Op::Allocate, None, Some((DeviceOffset::START, len)))?;
        let memory = self.core.noted(self.core.inner.allocate(len))?;
        Ok(Box::new(FaultMemory::new(&self.core, None, memory)))
    }

    fn staging(&self, len: ByteLen) -> Result<Staging, GpuError> {
        self.core.enter(Op::Staging, None, Some((DeviceOffset::START, len)))?;
        self.core.noted(self.core.inner.staging(len))
    }

    fn state(&self) -> DeviceState {
        let lost = self.core.script().lost;
        lost.map_or_else(|| self.core.inner.state(), |error| DeviceState::Lost { error })
    }

    fn reset(&self) -> Result<(), GpuError> {
        self.core.enter(Op::Reset, None, None)?;
        self.core.inner.reset()?;
        self.core.script().lost = None;
        Ok(())
    }

    fn can_copy_from_peer(&self, other: &dyn Device) -> bool {
        self.core.inner.can_copy_from_peer(other)
    }

    fn backing(&self) -> &dyn Device {
        self.core.inner.backing()
    }

    fn as_any(&self) -> &dyn Any {
        self
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

fn checked(
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
