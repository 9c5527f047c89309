//! Descriptions of a device: identity, attributes, memory figures, state.

use core::fmt;

use vram_alloc::{ByteLen, DeviceUuid, GpuIndex};

use crate::GpuError;

/// The kind of memory behind a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceKind {
    /// Host memory, counted like a card's.
    Host,
    /// An NVIDIA GPU through the CUDA driver.
    Cuda,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Cuda => "cuda",
        })
    }
}

/// Identity and attributes of one device, read once when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Position in this process's list, for display; identify a device by `uuid`.
    pub index: GpuIndex,
    /// Identity.
    pub uuid: DeviceUuid,
    /// Marketing name, such as `NVIDIA H200`.
    pub name: String,
    /// The kind of memory behind it.
    pub kind: DeviceKind,
    /// All memory of the device, in bytes.
    pub total: ByteLen,
    /// Compute capability, major and minor; none for host memory.
    pub compute_capability: Option<(u32, u32)>,
    /// PCI bus id, such as `0000:1b:00.0`.
    pub pci_bus_id: Option<String>,
    /// Whether the device shares the host's memory instead of having its own.
    pub integrated: bool,
    /// Whether the device supports managed memory, which can migrate to the host.
    pub managed_memory: bool,
    /// Whether error correction is on, if known.
    pub ecc: Option<bool>,
    /// Whether this is a slice of a partitioned GPU, if known.
    pub mig: Option<bool>,
    /// Driver version as `1000 * major + 10 * minor`, as CUDA counts.
    pub driver_version: Option<u32>,
    /// The length of a queued copy, in bytes, from which copies on this device are fast.
    pub copy_window: ByteLen,
}

impl DeviceInfo {
    /// A description with the given values; the other fields are unknown until set.
    #[must_use]
    pub fn new(
        index: GpuIndex,
        uuid: DeviceUuid,
        name: String,
        kind: DeviceKind,
        total: ByteLen,
    ) -> Self {
        Self {
            index,
            uuid,
            name,
            kind,
            total,
            compute_capability: None,
            pci_bus_id: None,
            integrated: false,
            managed_memory: false,
            ecc: None,
            mig: None,
            driver_version: None,
            copy_window: ByteLen::MIB,
        }
    }
}

/// The driver's own figures at one moment. Other processes change them at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryInfo {
    /// All bytes of the device.
    pub total: ByteLen,
    /// Bytes that no process holds.
    pub free: ByteLen,
}

impl MemoryInfo {
    /// Pairs the two figures. If a driver reports more bytes free than in total, `free` is limited
    /// to `total`.
    #[must_use]
    pub fn new(total: ByteLen, free: ByteLen) -> Self {
        Self { total, free: free.min(total) }
    }

    /// Bytes held by any process, this one included.
    #[must_use]
    pub const fn used(&self) -> ByteLen {
        self.total.saturating_sub(self.free)
    }
}

/// Whether a device takes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceState {
    /// The device takes calls.
    Ready,
    /// A sticky error made the device unusable; it takes no calls until it is reset.
    Lost {
        /// That sticky error.
        error: GpuError,
    },
}

impl DeviceState {
    /// Whether the device takes calls.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self, Self::Ready)
    }
}
