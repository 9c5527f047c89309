//! The figures and names of a failure, for programs: what its message says in words.

use serde::Serialize;
use vram_model::ModelError;
use vram_residency::device::GpuError;
use vram_residency::{ByteLen, DeviceInfo, VramError};

/// What is known about a failure. Lengths are in bytes; what is not known is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Details {
    /// The file that the failure is about, as the user named it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    /// The tensor, and which part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tensor: Option<String>,
    /// The index of the device among those that the command uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gpu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gpu_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gpu_uuid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pci_bus_id: Option<String>,
    /// The code of the CUDA driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) driver_code: Option<u32>,
    /// Bytes that the request takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) needed: Option<u64>,
    /// Bytes that could be granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) room: Option<u64>,
    /// The longest piece that could be placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) largest_hole: Option<u64>,
    /// Bytes that other processes hold, according to the driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) foreign: Option<u64>,
}

impl Details {
    /// What an error of the library says.
    pub(crate) fn of(error: &VramError) -> Self {
        let mut details = Self::default();
        match error {
            VramError::InsufficientVram(shortfall) => {
                details.gpu = Some(shortfall.gpu);
                details.needed = Some(shortfall.needed.get());
                details.room = Some(shortfall.room.get());
                details.largest_hole = Some(shortfall.largest_hole.get());
                details.foreign = Some(shortfall.foreign.get());
            }
            VramError::Device { gpu, source }
            | VramError::DeviceLost { gpu, source }
            | VramError::NotReturned { gpu, source, .. } => {
                details.gpu = Some(*gpu);
                details.device(source);
            }
            VramError::WriteNotKept { gpu, .. } | VramError::GpuInUse { gpu, .. } => {
                details.gpu = Some(*gpu);
            }
            VramError::HostMemory { wanted } => details.needed = Some(wanted.get()),
            VramError::StagingLimit { needed, limit, taken } => {
                details.needed = Some(needed.get());
                details.room = Some(limit.get().saturating_sub(taken.get()));
            }
            VramError::Image { path, .. } | VramError::Io { path: Some(path), .. } => {
                details.file = Some(path.display().to_string());
            }
            _ => {}
        }
        details
    }

    /// What an error of a model file says.
    pub(crate) fn of_model(error: &ModelError) -> Self {
        let mut details = Self::default();
        match error {
            ModelError::Open { file, .. }
            | ModelError::NotAFile { file }
            | ModelError::Read { file, .. }
            | ModelError::HostMemory { file, .. }
            | ModelError::OtherFormat { file, .. }
            | ModelError::Header { file, .. }
            | ModelError::Gguf { file, .. }
            | ModelError::Split { file, .. }
            | ModelError::Index { file, .. }
            | ModelError::Folder { folder: file, .. }
            | ModelError::MissingFiles { folder: file, .. } => details.file = Some(file.clone()),
            ModelError::TensorInTwoFiles { tensor, second, .. } => {
                details.tensor = Some(tensor.clone());
                details.file = Some(second.clone());
            }
            _ => {}
        }
        details
    }

    /// What an error of a device says besides its index, which is the device's own.
    fn device(&mut self, error: &GpuError) {
        match error {
            GpuError::OutOfMemory { wanted, free, .. } => {
                self.needed = Some(wanted.get());
                self.room = free.map(ByteLen::get);
            }
            GpuError::Driver { code, .. } | GpuError::Lost { code, .. } => {
                self.driver_code = Some(*code);
            }
            _ => {}
        }
    }

    /// Adds what identifies the card.
    pub(crate) fn card(&mut self, info: &DeviceInfo) {
        self.gpu_name = Some(info.name.clone());
        self.gpu_uuid = Some(info.uuid.to_string());
        self.pci_bus_id.clone_from(&info.pci_bus_id);
    }
}
