//! A CUDA device: detection, identity and checks.

use core::any::Any;
use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use cust::CudaApiVersion;
use cust::device::{Device as CustDevice, DeviceAttribute};
use vram_alloc::{ByteLen, GpuIndex};

use super::context::{Core, Port};
use super::driver::{self, through_cust};
use super::kernels::{self, Desk};
use super::memory::CudaMemory;
use super::queued::LockedStaging;
use super::unavailable::CudaUnavailable;
use crate::kernels::{Kernels, NoKernels};
use crate::{
    Device, DeviceInfo, DeviceKind, DeviceMemory, DeviceSpec, DeviceState, DeviceUuid, GpuError,
    MemoryInfo, ShareHandle, Staging,
};

/// The oldest driver that identifies devices by UUID: CUDA 9.2.
const DRIVER_MIN: u32 = 9020;

/// An NVIDIA GPU, through the CUDA driver of this machine.
///
/// It is identified by UUID and PCI bus id; its index is only for display. A device is refused if
/// its memory is not video memory (integrated, managed, in host memory), and every allocation is
/// checked again. Several values for one device share its context.
pub struct CudaDevice {
    port: Port,
    ordinal: u32,
    info: DeviceInfo,
    sharing: Sharing,
    // None where they are turned off.
    kernels: Option<Arc<Desk>>,
}

/// Whether other code of this process may use a CUDA device: a device has one primary context in a
/// process, and a reset destroys it for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Nothing else in this process uses the device: it may be reset.
    Alone,
    /// `PyTorch`, `candle` or others may use it: a reset is refused with [`GpuError::NotAlone`].
    #[default]
    WithOthers,
}

impl CudaDevice {
    /// Opens every usable device, indexed from zero in the driver's order. A device that cannot be
    /// used is left out and logged; [`survey`](Self::survey) reports all devices.
    ///
    /// # Errors
    ///
    /// [`CudaUnavailable`] with an explanation, if there is no driver, no device, or no usable
    /// device.
    pub fn detect() -> Result<Vec<Arc<Self>>, CudaUnavailable> {
        let mut devices = Vec::new();
        let mut refused = None;
        for ordinal in 0..count()? {
            let index = u32::try_from(devices.len()).unwrap_or(u32::MAX);
            match Self::open(ordinal, GpuIndex::new(index)) {
                Ok(device) => devices.push(device),
                Err(error) => {
                    tracing::warn!(ordinal, %error, "a CUDA device is left out");
                    refused.get_or_insert(error);
                }
            }
        }
        match refused {
            Some(error) if devices.is_empty() => Err(error),
            _ => Ok(devices),
        }
    }

    /// Opens every device and returns each result, in the order of their ordinals and indexed by
    /// them: for listings.
    ///
    /// # Errors
    ///
    /// [`CudaUnavailable`] if there is no driver or no device at all.
    pub fn survey() -> Result<Vec<Result<Arc<Self>, CudaUnavailable>>, CudaUnavailable> {
        Ok((0..count()?).map(|ordinal| Self::open(ordinal, GpuIndex::new(ordinal))).collect())
    }

    /// Describes every device without opening it, in the order of their ordinals and indexed by
    /// them. Takes no memory of any device.
    ///
    /// # Errors
    ///
    /// [`CudaUnavailable`] if there is no driver or no device at all.
    pub fn list() -> Result<Vec<Result<DeviceInfo, CudaUnavailable>>, CudaUnavailable> {
        let one = |ordinal| {
            let index = GpuIndex::new(ordinal);
            let failed = |code| GpuError::driver(index, code);
            let device = through_cust(|| CustDevice::get_device(ordinal)).map_err(failed);
            device
                .and_then(|device| describe(device, index).map_err(failed))
                .map_err(|error| CudaUnavailable::Unusable { ordinal, error })
        };
        Ok((0..count()?).map(one).collect())
    }

    /// The ordinal of the device that a user named by number, UUID or place on the PCI bus.
    ///
    /// # Errors
    ///
    /// [`CudaUnavailable::NoMatch`] if there is none, or `wanted` is a host device,
    /// [`CudaUnavailable::Ambiguous`] if several UUIDs begin so, or why there is no CUDA device.
    pub fn ordinal_of(wanted: DeviceSpec) -> Result<u32, CudaUnavailable> {
        if let DeviceSpec::Cuda(ordinal) = wanted {
            return Ok(ordinal);
        }
        let seen: Vec<DeviceInfo> = Self::list()?.into_iter().filter_map(Result::ok).collect();
        let matching: Vec<&DeviceInfo> = seen
            .iter()
            .filter(|info| match wanted {
                DeviceSpec::Uuid(prefix) => prefix.matches(&info.uuid),
                DeviceSpec::Pci(place) => {
                    info.pci_bus_id.as_ref().is_some_and(|bus| place.matches(bus))
                }
                DeviceSpec::Host(_) | DeviceSpec::Cuda(_) => false,
            })
            .collect();
        match matching[..] {
            [only] => Ok(only.index.get()),
            [] => Err(CudaUnavailable::NoMatch { wanted, seen: names(&seen) }),
            _ => Err(CudaUnavailable::Ambiguous { wanted, matching: names(matching) }),
        }
    }

    /// Opens one device.
    ///
    /// # Arguments
    ///
    /// * `ordinal`: the driver's number for it, from zero, among those this process may see.
    /// * `index`: the program's number for the device, which errors contain.
    ///
    /// # Errors
    ///
    /// [`CudaUnavailable`] with an explanation.
    pub fn open(ordinal: u32, index: GpuIndex) -> Result<Arc<Self>, CudaUnavailable> {
        let count = count()?;
        if ordinal >= count {
            return Err(CudaUnavailable::NoSuchDevice { ordinal, count });
        }
        let unusable = |error| CudaUnavailable::Unusable { ordinal, error };
        let failed = |code| unusable(GpuError::driver(index, code));
        let device = through_cust(|| CustDevice::get_device(ordinal)).map_err(failed)?;
        let info = describe(device, index).map_err(failed)?;
        if info.integrated {
            let reason = "the device is integrated and has no memory of its own";
            return Err(unusable(GpuError::NotVram { gpu: index, reason }));
        }
        let port = Port { core: Core::of(device, ordinal).map_err(failed)?, gpu: index };
        // Tests one allocation before any caller relies on the device. A full device cannot be
        // tested now; each later allocation is checked as well.
        match CudaMemory::new(&port, ByteLen::new(1)) {
            Ok(_given_back) => {}
            Err(error) if error.is_out_of_memory() => {}
            Err(error) => return Err(unusable(error)),
        }
        tracing::debug!(gpu = %index, ordinal, uuid = %info.uuid, name = %info.name, "opened");
        let kernels = Some(Desk::of(&port, ordinal, &info));
        Ok(Arc::new(Self { port, ordinal, info, sharing: Sharing::default(), kernels }))
    }

    /// Another value for the same device and context, with this said of who else uses it. A device
    /// that was just opened is shared [`WithOthers`](Sharing::WithOthers).
    #[must_use]
    pub fn shared(&self, sharing: Sharing) -> Arc<Self> {
        Arc::new(Self { sharing, ..self.copy() })
    }

    /// Another value for the same device and context, which offers no kernels and loads none: all
    /// checks of bytes are done by the host.
    #[must_use]
    pub fn without_kernels(&self) -> Arc<Self> {
        Arc::new(Self { kernels: None, ..self.copy() })
    }

    fn copy(&self) -> Self {
        let (port, info, kernels) = (self.port.clone(), self.info.clone(), self.kernels.clone());
        Self { port, ordinal: self.ordinal, info, sharing: self.sharing, kernels }
    }

    /// The driver's number for the device, from zero.
    #[must_use]
    pub const fn ordinal(&self) -> u32 {
        self.ordinal
    }
}

/// Devices in an error: number, UUID, place on the bus.
fn names<'a>(devices: impl IntoIterator<Item = &'a DeviceInfo>) -> String {
    let name = |info: &DeviceInfo| {
        let bus = info.pci_bus_id.as_deref().unwrap_or("no PCI bus id");
        format!("cuda:{} ({}, {bus})", info.index.get(), info.uuid)
    };
    devices.into_iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Starts the driver and counts its devices.
fn count() -> Result<u32, CudaUnavailable> {
    through_cust(|| cust::init(cust::CudaFlags::empty())).map_err(CudaUnavailable::from_init)?;
    let found = version().unwrap_or(0);
    if found < DRIVER_MIN {
        return Err(CudaUnavailable::TooOld { found, needed: DRIVER_MIN });
    }
    match through_cust(CustDevice::num_devices) {
        Ok(0) => Err(CudaUnavailable::NoDevice { driver: cuda_shim::driver().to_string() }),
        Ok(count) => Ok(count),
        Err(code) => Err(CudaUnavailable::from_init(code)),
    }
}

/// The driver's version, in the driver's own format.
fn version() -> Option<u32> {
    let version = through_cust(CudaApiVersion::get).ok()?;
    let major = u32::try_from(version.major()).ok()?;
    let minor = u32::try_from(version.minor()).ok()?;
    major.checked_mul(1000)?.checked_add(minor.checked_mul(10)?)
}

/// Reads identity and attributes. Needs no context.
fn describe(device: CustDevice, index: GpuIndex) -> Result<DeviceInfo, u32> {
    let attribute = |attribute| through_cust(|| device.get_attribute(attribute));
    let number = |value: i32| u32::try_from(value).unwrap_or(0);
    let name = through_cust(|| device.name())?;
    let total = through_cust(|| device.total_memory())?;
    let uuid = DeviceUuid::new(driver::uuid(device.as_raw())?);
    let total = ByteLen::from_usize(total);
    let mut info = DeviceInfo::new(index, uuid, name, DeviceKind::Cuda, total);
    let major = attribute(DeviceAttribute::ComputeCapabilityMajor)?;
    let minor = attribute(DeviceAttribute::ComputeCapabilityMinor)?;
    info.compute_capability = Some((number(major), number(minor)));
    info.pci_bus_id = driver::pci_bus_id(device.as_raw()).ok();
    info.integrated = attribute(DeviceAttribute::Integrated)? != 0;
    info.managed_memory = attribute(DeviceAttribute::ManagedMemory).unwrap_or(0) != 0;
    info.ecc = attribute(DeviceAttribute::EccEnabled).ok().map(|enabled| enabled != 0);
    // The driver has no attribute for MIG; the profile is part of the name.
    info.mig = Some(info.name.contains(" MIG "));
    info.driver_version = version();
    info.copy_window = ByteLen::from_mib_saturating(4);
    Ok(info)
}

impl Device for CudaDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn memory(&self) -> Result<MemoryInfo, GpuError> {
        let bound = self.port.bind(None)?;
        let (free, _) =
            through_cust(cust::memory::mem_get_info).map_err(|code| bound.fail_for_good(code))?;
        self.port.core.answered();
        Ok(MemoryInfo::new(self.info.total, ByteLen::from_usize(free)))
    }

    #[tracing::instrument(level = "debug", skip_all, fields(gpu = %self.info.index, bytes = len.get()))]
    fn allocate(&self, len: ByteLen) -> Result<Box<dyn DeviceMemory>, GpuError> {
        self.port.ready()?;
        let gpu = self.info.index;
        if len.is_zero() {
            return Err(GpuError::ZeroLength { gpu });
        }
        // No driver call is needed, and some drivers answer impossible lengths with misleading
        // codes.
        if len > self.info.total {
            let free = self.memory().ok().map(|memory| memory.free);
            return Err(GpuError::OutOfMemory { gpu, wanted: len, free });
        }
        Ok(Box::new(CudaMemory::new(&self.port, len)?))
    }

    fn open_shared(&self, handle: &ShareHandle) -> Result<Box<dyn DeviceMemory>, GpuError> {
        self.port.ready()?;
        Ok(Box::new(CudaMemory::open(&self.port, handle)?))
    }

    fn staging(&self, len: ByteLen) -> Result<Staging, GpuError> {
        self.port.ready()?;
        if len.is_zero() {
            return Ok(Staging::empty());
        }
        let bound = self.port.bind(None)?;
        let locked = bound.lock_pages(len)?;
        self.port.core.answered();
        let epoch = self.port.core.epoch();
        drop(bound);
        let port = self.port.clone();
        Ok(Staging::special(Box::new(LockedStaging { locked, port, epoch })))
    }

    fn state(&self) -> DeviceState {
        match self.port.ready() {
            Ok(()) => DeviceState::Ready,
            Err(error) => DeviceState::Lost { error },
        }
    }

    fn may_reset(&self) -> Result<(), GpuError> {
        match self.sharing {
            Sharing::Alone => Ok(()),
            Sharing::WithOthers => Err(GpuError::NotAlone { gpu: self.info.index }),
        }
    }

    fn reset(&self) -> Result<(), GpuError> {
        self.may_reset()?;
        self.port.core.reset(self.info.index)?;
        if let Some(desk) = &self.kernels {
            desk.renew();
        }
        Ok(())
    }

    fn can_copy_from_peer(&self, other: &dyn Device) -> bool {
        let Some(other) = other.backing().as_any().downcast_ref::<Self>() else { return false };
        if Arc::ptr_eq(&self.port.core, &other.port.core) {
            return true;
        }
        let (device, peer) = (self.port.core.device(), other.port.core.device());
        self.port.ready().is_ok()
            && other.port.ready().is_ok()
            && driver::reaches(device.as_raw(), peer.as_raw()).unwrap_or(false)
    }

    fn kernels(&self) -> Result<Arc<dyn Kernels>, NoKernels> {
        self.kernels.as_ref().ok_or(NoKernels::NotOffered)?.kernels()
    }

    fn wait_for_kernels(&self, most: Duration) -> Result<Arc<dyn Kernels>, NoKernels> {
        self.kernels.as_ref().ok_or(NoKernels::NotOffered)?.wait(most)
    }

    fn kernel_scratch(&self) -> ByteLen {
        self.kernels.as_ref().map_or(ByteLen::ZERO, |_on| kernels::scratch_len(&self.info))
    }

    fn backing(&self) -> &dyn Device {
        self
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl fmt::Debug for CudaDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaDevice")
            .field("ordinal", &self.ordinal)
            .field("info", &self.info)
            .field("sharing", &self.sharing)
            .field("kernels", &self.kernels.is_some())
            .field("core", &self.port.core)
            .finish()
    }
}
