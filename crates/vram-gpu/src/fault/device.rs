//! The fault device, and the methods with which a test controls it.

use core::any::Any;
use core::time::Duration;
use std::sync::{Arc, Weak};

use thiserror::Error;
use vram_alloc::{ByteLen, DeviceOffset};

use super::core::{Core, checked, flip};
use super::kernels::FaultKernels;
use super::memory::FaultMemory;
use super::plan::Rule;
use super::{Action, Call, FaultPlan, Freed, Op, PlanError, When};
use crate::kernels::{Kernels, NoKernels};
use crate::{
    Device, DeviceInfo, DeviceMemory, DeviceState, GpuError, MemoryInfo, ShareHandle, Staging,
};

/// A device that wraps another, passes calls on, and injects the faults of its rules.
///
/// Tests also control it through the same value: they keep an `Arc` of it, add rules while it runs,
/// read the log, and inspect or alter live device bytes without any call of the user noticing.
#[derive(Debug)]
pub struct FaultDevice {
    pub(super) core: Arc<Core>,
}

/// Why live bytes could not be inspected or altered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InspectError {
    /// No allocation of that number is alive.
    #[error("no live allocation of that number on this device ({number:?})")]
    NoSuchAllocation {
        /// The requested number; `None` if the oldest was requested and there is none.
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
        Arc::new(Self { core: Arc::new(Core::new(inner, plan)) })
    }

    /// The seed of the plan.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.core.seed
    }

    /// Adds a rule; it counts calls from this moment on.
    ///
    /// # Errors
    ///
    /// [`PlanError`] if the rule could never fire.
    pub fn add(&self, op: Op, when: When, action: Action) -> Result<(), PlanError> {
        self.core.script().rules.push(Rule::new(op, when, action)?);
        Ok(())
    }

    /// Applies this action to the next call of this kind; short for [`add`](Self::add).
    ///
    /// # Errors
    ///
    /// [`PlanError`] if the action has no effect on such a call.
    pub fn next(&self, op: Op, action: Action) -> Result<(), PlanError> {
        self.add(op, When::Nth(1), action)
    }

    /// Removes every rule. A device that was lost stays lost until it is reset.
    pub fn clear(&self) {
        self.core.script().rules.clear();
    }

    /// Suspends every rule; no rule counts calls meanwhile.
    pub fn stop_faults(&self) {
        self.core.script().stopped = true;
    }

    /// Lets the rules continue with their earlier counts.
    pub fn resume_faults(&self) {
        self.core.script().stopped = false;
    }

    /// From now on offers no kernels, for this reason, or those of the wrapped device again.
    /// Kernels that somebody already has go on.
    pub fn withhold_kernels(&self, why: Option<NoKernels>) {
        self.core.script().no_kernels = why;
    }

    /// The last calls, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.core.script().log.calls()
    }

    /// How many calls of this kind were made since the log was last cleared.
    #[must_use]
    pub fn call_count(&self, op: Op) -> u64 {
        self.core.script().log.count(op)
    }

    /// How many calls were made while the device was lost; callers should make none.
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

    /// Reads device bytes of an allocation, without a fault or a log entry.
    ///
    /// # Arguments
    ///
    /// * `number`: the allocation, as [`live`](Self::live) counts; `None` is the oldest.
    /// * `offset`, `len`: which of its bytes.
    ///
    /// # Errors
    ///
    /// [`InspectError::NoSuchAllocation`], or the error of the wrapped device.
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

    /// Flips one bit of live device memory, as a failing cell would: no call reports it.
    ///
    /// # Arguments
    ///
    /// * `number`: the allocation, as [`live`](Self::live) counts; `None` is the oldest.
    /// * `offset`: the byte. `bit`: 0 to 7, modulo 8.
    ///
    /// # Errors
    ///
    /// [`InspectError::NoSuchAllocation`], or the error of the wrapped device.
    pub fn flip_bit_at(
        &self,
        number: Option<u64>,
        offset: DeviceOffset,
        bit: u8,
    ) -> Result<(), InspectError> {
        self.with_live(number, |memory| flip(memory, offset, bit))
    }

    /// Overwrites live device memory without a fault or a log entry.
    ///
    /// # Errors
    ///
    /// [`InspectError::NoSuchAllocation`], or the error of the wrapped device.
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

    /// From now on records for each freed allocation whether it was wiped before. Reads every freed
    /// byte, so it is off by default.
    pub fn watch_frees(&self) {
        self.core.live().watch = true;
    }

    /// The allocations that were freed since frees are watched.
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

    fn open_shared(&self, handle: &ShareHandle) -> Result<Box<dyn DeviceMemory>, GpuError> {
        let memory = self.core.noted(self.core.inner.open_shared(handle))?;
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

    fn may_reset(&self) -> Result<(), GpuError> {
        self.core.inner.may_reset()
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

    fn kernels(&self) -> Result<Arc<dyn Kernels>, NoKernels> {
        let (lost, withheld) = {
            let script = self.core.script();
            (script.lost, script.no_kernels)
        };
        if let Some(GpuError::Lost { code, .. }) = lost {
            return Err(NoKernels::Lost { code });
        }
        let inner = withheld.map_or_else(|| self.core.inner.kernels(), Err)?;
        Ok(Arc::new(FaultKernels::new(Arc::clone(&self.core), inner)))
    }

    fn wait_for_kernels(&self, most: Duration) -> Result<Arc<dyn Kernels>, NoKernels> {
        let (lost, withheld) = {
            let script = self.core.script();
            (script.lost, script.no_kernels)
        };
        if let Some(GpuError::Lost { code, .. }) = lost {
            return Err(NoKernels::Lost { code });
        }
        let inner = withheld.map_or_else(|| self.core.inner.wait_for_kernels(most), Err)?;
        Ok(Arc::new(FaultKernels::new(Arc::clone(&self.core), inner)))
    }

    fn kernel_scratch(&self) -> ByteLen {
        self.core.inner.kernel_scratch()
    }

    fn backing(&self) -> &dyn Device {
        self.core.inner.backing()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
