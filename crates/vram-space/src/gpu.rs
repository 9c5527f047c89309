//! One GPU of a manager: its device, its region or blocks, its arena and its ledger.

pub(crate) mod accounts;
pub(crate) mod compute;
pub(crate) mod driver;
mod kernels;
mod memory;
pub(crate) mod release;
pub(crate) mod reset;
mod unreturned;

use crate::block::MemoryMode;
use crate::gpu::compute::{Compute, KernelPost};
use crate::gpu::driver::foreign;
use crate::gpu::unreturned::Aside;
use core::fmt::Display;
use std::sync::Arc;

use vram_alloc::{Alignment, Arena, ByteLen, Ledger};
use vram_gpu::{Device, DeviceState, GpuError, MemoryInfo};

use crate::block::{Backing, BlockCount};
use crate::error::SpaceError;
use crate::life::pass::LifePass;
use crate::life::{Life, Refused};
use crate::staging::bound::StagingBound;
use crate::staging::pool::StagingPool;
use crate::sync::Mutex;
use crate::tenants::Tenants;

/// Whether device memory is overwritten before it is released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum WipePolicy {
    /// Every byte that held a shard is overwritten with zeros first.
    #[default]
    Always,
    /// Bytes stay until another write replaces them. For GPUs that hold no secrets, where the time
    /// for wiping matters.
    Never,
}

/// The host resources that one call on a GPU may use: threads and bytes of staging.
#[derive(Clone, Debug)]
pub struct Means {
    /// Threads of one call, including the calling thread.
    pub workers: usize,
    /// Staging bytes of one call.
    pub staging_bytes: ByteLen,
    /// The staging memory of all calls on all GPUs of the manager.
    pub staging: StagingBound,
}

/// One device and the part of its memory that this manager distributes.
#[derive(Debug)]
pub struct Gpu {
    /// Position in the manager's list. Callers name the GPU by it.
    pub index: u32,
    /// The device itself.
    pub device: Arc<dyn Device>,
    /// The memory behind the placements: parts of one region, or blocks.
    pub backing: Backing,
    /// The ledger of the budget, less `scratch`.
    pub ledger: Ledger,
    /// Bytes of the budget that the kernels of the device take for themselves, if they may be used.
    pub scratch: ByteLen,
    /// The owner of what lies on this GPU.
    pub tenants: Arc<dyn Tenants>,
    /// Whether the device takes calls, and which calls are running on it.
    pub life: Arc<Life>,
    /// Where placements lie. No driver call is made while this lock is held.
    pub arena: Mutex<Arena>,
    unreturned: Mutex<Aside>,
    /// Whether memory is overwritten before it is released.
    pub wipe: WipePolicy,
    /// Idle staging buffers.
    pub pool: StagingPool,
    /// The host resources that one call may use.
    pub means: Means,
    /// What the device may compute.
    pub compute: Compute,
    kernels: KernelPost,
}

/// How a [`Gpu`] distributes its device's memory.
#[derive(Clone, Debug)]
pub struct GpuOptions {
    /// Position in its owner's list. Callers name the GPU by it.
    pub index: u32,
    /// Bytes that may be taken from the device. The kernels' scratch memory is a part of them.
    pub budget: ByteLen,
    /// Bytes of the budget that are never granted.
    pub headroom: ByteLen,
    /// Whether the budget is allocated at once, or block by block.
    pub mode: MemoryMode,
    /// Whether memory is wiped before it is released.
    pub wipe: WipePolicy,
    /// The host resources that one call may use.
    pub means: Means,
    /// What the device may compute.
    pub compute: Compute,
}

/// Why a budget is too small for a device with kernels.
#[derive(Debug, thiserror::Error)]
#[error(
    "the kernels of the device take {scratch} of it; give more, or let the host compute \
     (`Compute::Host`)"
)]
struct TooLittle {
    scratch: ByteLen,
}

/// Bytes that the kernels of a device take for themselves, if they may be used.
#[must_use]
pub fn scratch_of(compute: Compute, device: &dyn Device) -> ByteLen {
    match compute {
        Compute::Host => ByteLen::ZERO,
        _ => device.kernel_scratch(),
    }
}

/// What a budget leaves for shards.
pub(crate) fn total_of(
    index: u32,
    budget: ByteLen,
    scratch: ByteLen,
) -> Result<ByteLen, SpaceError> {
    let less = budget.checked_sub(scratch);
    less.ok_or_else(|| wrong_budget(index, budget, &TooLittle { scratch }))
}

/// The refusal of a budget.
pub(crate) fn wrong_budget(index: u32, budget: ByteLen, why: &dyn Display) -> SpaceError {
    SpaceError::Invalid { what: format!("a budget of {budget} for gpu {index}: {why}") }
}

impl Gpu {
    /// Opens a device. In mode [`Region`](MemoryMode::Region) this allocates the budget. `memory`
    /// holds the driver's current figures.
    ///
    /// # Errors
    ///
    /// [`SpaceError::Invalid`] for a budget of more than 2^48 - 1 bytes, and for one that does not
    /// hold the scratch memory of the device's kernels, if they may be used; the device's error if
    /// it refuses the allocation.
    pub fn open(
        device: Arc<dyn Device>,
        memory: MemoryInfo,
        tenants: Arc<dyn Tenants>,
        options: GpuOptions,
    ) -> Result<Self, SpaceError> {
        let GpuOptions { index, budget, headroom, mode, wipe, means, compute } = options;
        let scratch = scratch_of(compute, &*device);
        let total = total_of(index, budget, scratch)?;
        let wrong = |error: &dyn Display| wrong_budget(index, budget, error);
        let ledger = Ledger::new(total).map_err(|error| wrong(&error))?;
        ledger.set_headroom(headroom);
        let arena = mode.arena(total).map_err(|error| wrong(&error))?;
        let backing = Backing::take(&*device, mode, total).map_err(|error| {
            let source = Box::new(error);
            match error {
                GpuError::HostMemory { wanted } => SpaceError::HostMemory { wanted },
                _ if error.is_sticky() => SpaceError::DeviceLost { gpu: index, source },
                _ => SpaceError::Device { gpu: index, source },
            }
        })?;
        if mode.is_by_block() {
            ledger.set_foreign(foreign(total, ByteLen::ZERO, memory));
        }
        Ok(Self {
            index,
            device,
            backing,
            ledger,
            scratch,
            tenants,
            life: Arc::default(),
            arena: Mutex::new(arena),
            unreturned: Mutex::default(),
            wipe,
            pool: StagingPool::new(means.staging.clone(), index, means.staging_bytes),
            means,
            compute,
            kernels: KernelPost::default(),
        })
    }

    /// Checks that a call that runs already may go to the device: also while a reset that can still
    /// be refused waits for it. Makes no driver call.
    ///
    /// # Errors
    ///
    /// [`SpaceError::DeviceLost`] after a sticky error; [`SpaceError::InUse`] while a reset is at
    /// the device; [`SpaceError::Closed`].
    pub fn ready(&self) -> Result<(), SpaceError> {
        self.notice();
        self.life.work().map_err(|refused| self.refused(refused))
    }

    /// Records a sticky error that a call from outside of this manager met.
    fn notice(&self) {
        // Most often there is none, which is seen without a lock.
        if !matches!(self.device.state(), DeviceState::Lost { .. }) {
            return;
        }
        let epoch = self.life.epoch();
        if let DeviceState::Lost { error } = self.device.state() {
            self.lose(error, Some(epoch));
        }
    }

    /// Why the device is lost, or `None`. Also checks the state of the device itself.
    pub fn lost(&self) -> Option<GpuError> {
        self.notice();
        self.life.lost()
    }

    fn device_lost(&self, error: GpuError) -> SpaceError {
        SpaceError::DeviceLost { gpu: self.index, source: Box::new(error) }
    }

    fn refused(&self, refused: Refused) -> SpaceError {
        match refused {
            Refused::InUse => SpaceError::InUse { gpu: self.index },
            Refused::Lost(error) => self.device_lost(error),
            Refused::Closed => SpaceError::Closed,
        }
    }

    /// Registers a call that touches the device, if it takes new calls and the owner is not closing
    /// it.
    ///
    /// # Errors
    ///
    /// [`SpaceError::DeviceLost`], [`SpaceError::InUse`], [`SpaceError::Closed`].
    pub fn enter(&self) -> Result<LifePass, SpaceError> {
        self.notice();
        self.life.enter().map_err(|refused| self.refused(refused))
    }

    /// Runs `commit`, by which memory of this GPU becomes somebody's, unless the device was lost
    /// since `pass` was given. Losses, resets and commits come one after the other.
    ///
    /// # Errors
    ///
    /// As [`ready`](Self::ready); `commit` did not run.
    pub fn arrive<T>(&self, pass: &LifePass, commit: impl FnOnce() -> T) -> Result<T, SpaceError> {
        self.life.arrive(pass.epoch(), commit).map_err(|refused| self.refused(refused))
    }

    /// Stops new calls, for a planned reset of a working device.
    ///
    /// # Errors
    ///
    /// As [`enter`](Self::enter).
    pub fn drain(&self) -> Result<(), SpaceError> {
        self.life.drain().map_err(|refused| self.refused(refused))
    }

    /// Ends a reset: `told` runs in the moment in which the device takes calls again, or, if it was
    /// lost meanwhile, before the owner is told of that.
    pub fn recover(&self, told: impl FnOnce()) {
        let stamp = self.tenants.stamp();
        let lost = |error| self.tenants.lost(stamp, self.index, error);
        if let Some((error, shards)) = self.life.recover(told, lost) {
            tracing::error!(gpu = self.index, shards, %error, "device lost");
        }
    }

    /// Converts a device error for the caller. An error that makes the device unusable is recorded
    /// as a loss.
    pub fn failed(&self, error: GpuError) -> SpaceError {
        self.failed_in(self.life.epoch(), error)
    }

    /// As [`failed`](Self::failed), for memory of the given life. An error from an earlier life is
    /// not a loss in the present one.
    pub(crate) fn failed_in(&self, epoch: u64, error: GpuError) -> SpaceError {
        // Stale means that a call from outside this manager has reset the device, and everything
        // that lay there is gone.
        if error.is_sticky() || matches!(error, GpuError::StaleAllocation { .. }) {
            self.lose(error, Some(epoch));
            return self.device_lost(error);
        }
        match error {
            GpuError::HostMemory { wanted } => SpaceError::HostMemory { wanted },
            other => SpaceError::Device { gpu: self.index, source: Box::new(other) },
        }
    }

    /// Records a loss and reports it to the tenants once. The caller may hold a shard's gate and no
    /// other lock.
    pub fn lose(&self, error: GpuError, epoch: Option<u64>) {
        let stamp = self.tenants.stamp();
        let told = |error| self.tenants.lost(stamp, self.index, error);
        if let Some(shards) = self.life.lose(error, epoch, told) {
            tracing::error!(gpu = self.index, shards, %error, "device lost");
        }
    }

    /// The unit of what a shard takes.
    #[must_use]
    pub const fn granule(&self) -> Alignment {
        self.backing.mode().granule()
    }

    /// The count of blocks, in mode `Blocks`.
    pub const fn blocks(&self) -> Option<&BlockCount> {
        match &self.backing {
            Backing::Region(_) => None,
            Backing::Blocks(held, _) => Some(held),
        }
    }
}
