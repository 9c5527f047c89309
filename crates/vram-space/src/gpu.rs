//! One GPU of a manager: its device, its region or blocks, its arena and its ledger.

pub(crate) mod accounts;
pub(crate) mod driver;
mod memory;
pub(crate) mod release;
mod reset;
mod unreturned;

use crate::block::MemoryMode;
use crate::gpu::driver::foreign;
use crate::gpu::unreturned::Aside;
use std::sync::Arc;

use vram_alloc::{Arena, ByteLen, Ledger};
use vram_gpu::{Device, DeviceState, GpuError, MemoryInfo};

use crate::block::{Backing, BlockCount};
use crate::error::SpaceError;
use crate::health::{DeviceCall, Health, Refused};
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
    /// The ledger of the budget.
    pub ledger: Ledger,
    /// The owner of what lies on this GPU.
    pub tenants: Arc<dyn Tenants>,
    /// Whether the device takes calls, and which calls are running on it.
    pub health: Arc<Health>,
    /// Where placements lie. No driver call is made while this lock is held.
    pub arena: Mutex<Arena>,
    unreturned: Mutex<Aside>,
    /// Whether memory is overwritten before it is released.
    pub wipe: WipePolicy,
    /// Idle staging buffers.
    pub pool: StagingPool,
    /// The host resources that one call may use.
    pub means: Means,
}

/// How a [`Gpu`] distributes its device's memory.
#[derive(Clone, Debug)]
pub struct GpuOptions {
    /// Position in its owner's list. Callers name the GPU by it.
    pub index: u32,
    /// Bytes that may be taken from the device.
    pub budget: ByteLen,
    /// Bytes of the budget that are never granted.
    pub headroom: ByteLen,
    /// Whether the budget is allocated at once, or block by block.
    pub mode: MemoryMode,
    /// Whether memory is wiped before it is released.
    pub wipe: WipePolicy,
    /// The host resources that one call may use.
    pub means: Means,
}

impl Gpu {
    /// Opens a device. In mode [`Region`](MemoryMode::Region) this allocates the budget. `memory`
    /// holds the driver's current figures.
    ///
    /// # Errors
    ///
    /// [`SpaceError::Invalid`] for a budget of more than 2^48 - 1 bytes; the device's error if it
    /// refuses the allocation.
    pub fn open(
        device: Arc<dyn Device>,
        memory: MemoryInfo,
        tenants: Arc<dyn Tenants>,
        options: GpuOptions,
    ) -> Result<Self, SpaceError> {
        let GpuOptions { index, budget, headroom, mode, wipe, means } = options;
        let wrong = |error: &dyn core::fmt::Display| SpaceError::Invalid {
            what: format!("a budget of {budget} for gpu {index}: {error}"),
        };
        let ledger = Ledger::new(budget).map_err(|error| wrong(&error))?;
        ledger.set_headroom(headroom);
        let arena = Arena::new(mode.arena_len(budget)).map_err(|error| wrong(&error))?;
        let backing = Backing::take(&*device, mode, budget).map_err(|error| {
            let source = Box::new(error);
            match error {
                GpuError::HostMemory { wanted } => SpaceError::HostMemory { wanted },
                _ if error.is_sticky() => SpaceError::DeviceLost { gpu: index, source },
                _ => SpaceError::Device { gpu: index, source },
            }
        })?;
        if mode == MemoryMode::Blocks {
            ledger.set_foreign(foreign(budget, ByteLen::ZERO, memory));
        }
        Ok(Self {
            index,
            device,
            backing,
            ledger,
            tenants,
            health: Arc::default(),
            arena: Mutex::new(arena),
            unreturned: Mutex::default(),
            wipe,
            pool: StagingPool::new(means.staging.clone(), index, means.staging_bytes),
            means,
        })
    }

    /// Checks that the device takes calls. Makes no driver call.
    ///
    /// # Errors
    ///
    /// [`SpaceError::DeviceLost`] after a sticky error.
    pub fn ready(&self) -> Result<(), SpaceError> {
        let life = self.health.life();
        if let Some(error) = self.health.lost() {
            return Err(self.device_lost(error));
        }
        if let DeviceState::Lost { error } = self.device.state() {
            // A call from outside this manager met the sticky error.
            self.lose(error, Some(life));
        }
        match self.health.lost() {
            None => Ok(()),
            Some(error) => Err(self.device_lost(error)),
        }
    }

    /// Why the device is lost, or `None`. Also checks the state of the device itself.
    pub fn lost(&self) -> Option<GpuError> {
        match self.ready() {
            Err(SpaceError::DeviceLost { source, .. }) => Some(*source),
            _ => None,
        }
    }

    /// Returns true while calls already running on this GPU may still finish and clean up. This
    /// includes the time in which a reset waits for them and may still be refused.
    pub fn allows_cleanup(&self) -> bool {
        let life = self.health.life();
        if !self.health.allows_cleanup() {
            return false;
        }
        if let DeviceState::Lost { error } = self.device.state() {
            self.lose(error, Some(life));
            return false;
        }
        true
    }

    /// As [`ready`](Self::ready), but also succeeds for calls that may still [clean
    /// up](Self::allows_cleanup).
    ///
    /// # Errors
    ///
    /// [`SpaceError::DeviceLost`].
    pub fn ready_for_cleanup(&self) -> Result<(), SpaceError> {
        if self.allows_cleanup() { Ok(()) } else { self.ready() }
    }

    fn device_lost(&self, error: GpuError) -> SpaceError {
        SpaceError::DeviceLost { gpu: self.index, source: Box::new(error) }
    }

    /// Registers a call that takes memory, if the device takes calls and the manager is open.
    ///
    /// # Errors
    ///
    /// [`SpaceError::DeviceLost`], [`SpaceError::Closed`].
    pub fn begin_call(&self) -> Result<DeviceCall, SpaceError> {
        self.ready()?;
        self.health.begin_call().map_err(|refused| match refused {
            Refused::Lost(error) => self.device_lost(error),
            Refused::Closed => SpaceError::Closed,
        })
    }

    /// Converts a device error for the caller. An error that makes the device unusable is recorded
    /// as a loss.
    pub fn failed(&self, error: GpuError) -> SpaceError {
        self.failed_in(self.health.life(), error)
    }

    /// As [`failed`](Self::failed), for memory of the given life. An error from an earlier life is
    /// not a loss in the present one.
    pub(crate) fn failed_in(&self, life: u64, error: GpuError) -> SpaceError {
        // Stale means that a call from outside this manager has reset the device, and everything
        // that lay there is gone.
        if error.is_sticky() || matches!(error, GpuError::StaleAllocation { .. }) {
            self.lose(error, Some(life));
            return self.device_lost(error);
        }
        match error {
            GpuError::HostMemory { wanted } => SpaceError::HostMemory { wanted },
            other => SpaceError::Device { gpu: self.index, source: Box::new(other) },
        }
    }

    /// Records a loss and reports it to the tenants once. The caller may hold a shard's gate and no
    /// other lock.
    pub fn lose(&self, error: GpuError, life: Option<u64>) {
        if !self.health.lose(error, life) {
            return;
        }
        self.tenants.lost(self.index, error);
    }

    /// The count of blocks, in mode `Blocks`.
    pub const fn blocks(&self) -> Option<&BlockCount> {
        match &self.backing {
            Backing::Region(_) => None,
            Backing::Blocks(held) => Some(held),
        }
    }
}
