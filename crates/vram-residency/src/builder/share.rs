//! How much of each device a manager takes, and a dry run on what it would take.

use std::sync::Arc;

use vram_alloc::{ByteLen, GpuIndex, ModelPlan};
use vram_core::error::VramError;
use vram_core::parts::GpuChoice;
use vram_gpu::{Device, DeviceKind, HostDevice, MemoryInfo};
use vram_space::{DryRun, EmptyGpu, MemoryMode, Placements, scratch_of};

use crate::builder::build::{config, part_of};
use crate::builder::{Budget, PerGpu, VramManagerBuilder, Wanted};

/// What a manager takes of one device.
pub(super) struct Share {
    pub(super) budget: ByteLen,
    pub(super) headroom: ByteLen,
    pub(super) mode: MemoryMode,
    /// The driver's figures now.
    pub(super) memory: MemoryInfo,
}

impl VramManagerBuilder {
    /// Computes where each piece of a plan would lie in the manager that these settings build, and
    /// what its GPUs would have left. Asks the devices for their figures, and takes nothing of
    /// them: [`build`](Self::build) and [`admit`] give exactly these places if other processes
    /// take no memory in between.
    ///
    /// ```
    /// use vram_residency::{ByteLen, GpuChoice, ModelPlan, Piece, VramManager};
    ///
    /// let plan = ModelPlan::new([Piece::new("embeddings", 0, 0, ByteLen::new(5 << 30))])?;
    /// // No host has to have the memory that is planned with.
    /// let builder = VramManager::builder().host_device(ByteLen::new(80 << 30));
    /// let placements = builder.placements(&plan, GpuChoice::MostRoomFirst)?;
    /// assert!(placements.fit.is_yes());
    /// assert_eq!(placements.after[0].room, ByteLen::new(75 << 30));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), for devices and budgets; [`VramError::UnknownGpu`].
    ///
    /// [`admit`]: crate::VramManager::admit
    pub fn placements(&self, plan: &ModelPlan, gpus: GpuChoice) -> Result<Placements, VramError> {
        let count = self.check_devices()?;
        if let GpuChoice::One(gpu) = gpus
            && gpu >= count
        {
            return Err(VramError::UnknownGpu { gpu, count });
        }
        let mut empty = Vec::new();
        for (index, device) in (0_u32..).zip(self.opened()?) {
            if matches!(gpus, GpuChoice::One(gpu) if gpu != index) {
                continue;
            }
            let Share { budget, headroom, mode, memory } = self.share(index, &*device)?;
            let scratch = scratch_of(self.compute, &*device);
            empty.push(EmptyGpu { index, budget, scratch, headroom, mode, memory });
        }
        Ok(DryRun::of_empty(&empty)?.placements(plan))
    }

    /// The number of devices, if there is one and every setting is of one of them.
    pub(super) fn check_devices(&self) -> Result<u32, VramError> {
        let count = u32::try_from(self.devices.len())
            .map_err(|_too_many| config("more devices than 2^32 - 1"))?;
        if count == 0 {
            return Err(config("no device was given: add at least one"));
        }
        match self.per_gpu.iter().find(|(gpu, _)| *gpu >= count) {
            Some((gpu, _)) => Err(VramError::UnknownGpu { gpu: *gpu, count }),
            None => Ok(count),
        }
    }

    /// The devices, each of them once.
    pub(super) fn opened(&self) -> Result<Vec<Arc<dyn Device>>, VramError> {
        let mut opened: Vec<Arc<dyn Device>> = Vec::new();
        for (index, wanted) in (0_u32..).zip(&self.devices) {
            let device: Arc<dyn Device> = match wanted {
                Wanted::Device(device) => Arc::clone(device),
                Wanted::Host(total) => {
                    let host = HostDevice::new(GpuIndex::new(index), *total);
                    Arc::new(host.map_err(|error| config(error.to_string()))?)
                }
            };
            // Host devices may share an identity: only tests make several devices of one index.
            let same = |other: &Arc<dyn Device>| {
                let (ours, theirs) = (other.info(), device.info());
                Arc::ptr_eq(other, &device)
                    || (theirs.kind != DeviceKind::Host && ours.uuid == theirs.uuid)
            };
            if let Some(first) = opened.iter().position(same) {
                return Err(config(format!("gpu {index} is gpu {first} once more")));
            }
            opened.push(device);
        }
        Ok(opened)
    }

    /// What the manager takes of a device.
    pub(super) fn share(&self, index: u32, device: &dyn Device) -> Result<Share, VramError> {
        let fail = |error: vram_gpu::GpuError| {
            let source = Box::new(error);
            match error {
                vram_gpu::GpuError::HostMemory { wanted } => VramError::HostMemory { wanted },
                _ if error.is_sticky() => VramError::DeviceLost { gpu: index, source },
                _ => VramError::Device { gpu: index, source },
            }
        };
        let mut budget = None;
        let mut headroom = ByteLen::ZERO;
        let mut mode = MemoryMode::default();
        // The last setting of each kind counts.
        for (_, setting) in self.per_gpu.iter().filter(|(gpu, _)| *gpu == index) {
            match setting {
                PerGpu::Budget(wanted) => budget = Some(*wanted),
                PerGpu::Headroom(wanted) => headroom = *wanted,
                PerGpu::Memory(wanted) => mode = *wanted,
            }
        }
        let memory = device.memory().map_err(fail)?;
        let total = match budget {
            Some(Budget::Bytes(bytes)) if bytes > memory.total => {
                return Err(config(format!(
                    "a budget of {bytes} is more than gpu {index} has: {}",
                    memory.total
                )));
            }
            Some(Budget::Bytes(bytes)) => bytes,
            Some(Budget::FractionOfFree(fraction)) => part_of(memory.free, fraction)?,
            None if device.info().kind == DeviceKind::Host => memory.free,
            None => part_of(memory.free, 0.9)?,
        };
        Ok(Share { budget: total, headroom, mode, memory })
    }
}
