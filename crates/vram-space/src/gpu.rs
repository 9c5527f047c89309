//! One GPU of a manager: its device, its region, who has which part of it, and its books.

pub(crate) mod accounts;
pub(crate) mod driver;
mod memory;
pub(crate) mod release;
mod reset;
mod unreturned;

use crate::block::MemoryMode;
use crate::gpu::driver::foreign;
use std::sync::Arc;

use vram_alloc::{Arena, ByteLen, Ledger};
use vram_gpu::{Device, DeviceState, GpuError, MemoryInfo};

use crate::block::{Backing, Held, Unreturned};
use crate::error::SpaceError;
use crate::health::{Health, Refused, UnderWay};
use crate::staging::pool::StagingPool;
use crate::sync::Mutex;
use crate::tenants::Tenants;

/// Whether device memory is overwritten before it is given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum WipePolicy {
    /// Every byte that held a shard is overwritten with zeros first.
    #[default]
    Always,
    /// Bytes stay until something else overwrites them. For cards that hold nothing secret, where
    /// the last bit of speed counts.
    Never,
}

/// What one call on a GPU may take of the host: threads, and bytes of staging.
#[derive(Clone, Copy, Debug)]
pub struct Means {
    /// Threads of one call, its own among them.
    pub workers: usize,
    /// Bytes of staging of one call.
    pub staging_bytes: ByteLen,
}

/// One device and the region of its memory that this manager shares out.
#[derive(Debug)]
pub struct Gpu {
    /// Position in the manager's list: what callers name.
    pub index: u32,
    /// The device itself.
    pub device: Arc<dyn Device>,
    /// What its placements stand for: parts of one region, or blocks.
    pub backing: Backing,
    /// The books over its budget.
    pub ledger: Ledger,
    /// Those whom it is shared out to.
    pub tenants: Arc<dyn Tenants>,
    /// Whether it takes calls, and which calls run on it.
    pub health: Arc<Health>,
    /// Where things lie. No driver call is made while it is locked.
    pub arena: Mutex<Arena>,
    unreturned: Mutex<Vec<Unreturned>>,
    /// Whether memory is overwritten before it is given back.
    pub wipe: WipePolicy,
    /// Idle staging buffers.
    pub pool: StagingPool,
    /// What one call may take of the host.
    pub means: Means,
}

/// How a [`Gpu`] shares out its device.
#[derive(Clone, Copy, Debug)]
pub struct GpuOptions {
    /// Position in its owner's list: what callers name.
    pub index: u32,
    /// Bytes that may be taken of the device.
    pub budget: ByteLen,
    /// Bytes of the budget that are not granted.
    pub headroom: ByteLen,
    /// Whether the budget is taken at once, or block by block.
    pub mode: MemoryMode,
    /// Whether memory is wiped before it is given back.
    pub wipe: WipePolicy,
    /// What one call may take of the host.
    pub means: Means,
}

impl Gpu {
    /// Opens a device for sharing. In mode [`Region`](MemoryMode::Region) its budget is allocated
    /// here; `memory` is what the driver just said of it.
    ///
    /// # Errors
    ///
    /// [`SpaceError::Invalid`] for a budget of more than 2^48 - 1 bytes; what the device answers to
    /// the allocation.
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
            pool: StagingPool::new(means.staging_bytes),
            means,
        })
    }

    /// # Errors
    ///
    /// [`SpaceError::DeviceLost`] after a sticky error. The device is not touched.
    pub fn ready(&self) -> Result<(), SpaceError> {
        let life = self.health.life();
        if let Some(error) = self.health.lost() {
            return Err(self.device_lost(error));
        }
        if let DeviceState::Lost { error } = self.device.state() {
            // Somebody else's call, through another manager or their own, met the sticky error.
            self.lose(error, Some(life));
        }
        match self.health.lost() {
            None => Ok(()),
            Some(error) => Err(self.device_lost(error)),
        }
    }

    /// Why the device is lost, if it is. Asks the device itself.
    pub fn lost(&self) -> Option<GpuError> {
        match self.ready() {
            Err(SpaceError::DeviceLost { source, .. }) => Some(*source),
            _ => None,
        }
    }

    /// Whether whoever is under way may bring to an end what it has begun there, and wipe and give
    /// back what it leaves: also while a reset, which may be refused yet, waits for it.
    pub fn winds_up(&self) -> bool {
        let life = self.health.life();
        if !self.health.winds_up() {
            return false;
        }
        if let DeviceState::Lost { error } = self.device.state() {
            self.lose(error, Some(life));
            return false;
        }
        true
    }

    /// As [`ready`](Self::ready), also for whoever [winds up](Self::winds_up).
    ///
    /// # Errors
    ///
    /// [`SpaceError::DeviceLost`].
    pub fn ready_to_the_end(&self) -> Result<(), SpaceError> {
        if self.winds_up() { Ok(()) } else { self.ready() }
    }

    fn device_lost(&self, error: GpuError) -> SpaceError {
        SpaceError::DeviceLost { gpu: self.index, source: Box::new(error) }
    }

    /// Begins to take memory, if the device takes calls and the manager is open.
    ///
    /// # Errors
    ///
    /// [`SpaceError::DeviceLost`], [`SpaceError::Closed`].
    pub fn enter(&self) -> Result<UnderWay, SpaceError> {
        self.ready()?;
        self.health.enter().map_err(|refused| match refused {
            Refused::Lost(error) => self.device_lost(error),
            Refused::Closed => SpaceError::Closed,
        })
    }

    /// Turns a device's answer into the caller's, and remembers one that took the device.
    pub fn failed(&self, error: GpuError) -> SpaceError {
        self.failed_in(self.health.life(), error)
    }

    /// As [`failed`](Self::failed), of memory of this life of the device: what is said of an earlier
    /// one is no loss of the present one.
    pub(crate) fn failed_in(&self, life: u64, error: GpuError) -> SpaceError {
        // Stale: somebody else has reset the device, and everything that lay there is gone.
        if error.is_sticky() || matches!(error, GpuError::StaleAllocation { .. }) {
            self.lose(error, Some(life));
            return self.device_lost(error);
        }
        match error {
            GpuError::HostMemory { wanted } => SpaceError::HostMemory { wanted },
            other => SpaceError::Device { gpu: self.index, source: Box::new(other) },
        }
    }

    /// Notes a loss, and tells of it once. The caller holds no lock but a shard's gate.
    pub fn lose(&self, error: GpuError, life: Option<u64>) {
        if !self.health.lose(error, life) {
            return;
        }
        self.tenants.lost(self.index, error);
    }

    /// The count of blocks, if the GPU is used block by block.
    pub const fn blocks(&self) -> Option<&Held> {
        match &self.backing {
            Backing::Region(_) => None,
            Backing::Blocks(held) => Some(held),
        }
    }
}
