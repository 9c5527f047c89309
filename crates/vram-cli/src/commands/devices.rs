//! The devices of this machine, and the choice of those that a command uses.

use std::sync::Arc;

use serde::Serialize;
use vram_residency::device::DeviceSpec;
use vram_residency::{
    Budget, ByteLen, Device, DeviceKind, GpuIndex, HostDevice, VramManager, VramManagerBuilder,
};

use crate::args::DevicesArgs;
use crate::failure::{Failure, Kind};
use crate::output::Output;
use crate::table::{self, Table};

/// Open devices, and the reason for choosing them.
#[derive(Debug)]
pub(crate) struct Devices {
    /// The devices, in order of their index.
    pub(crate) devices: Vec<Arc<dyn Device>>,
    /// Why these devices, if the user named none.
    pub(crate) why: Option<String>,
}

impl Devices {
    /// Opens the devices that the user named, or else all that there are.
    ///
    /// # Arguments
    ///
    /// * `specs`: from the command line; empty for every CUDA device, or else host memory.
    /// * `needed`: the size in bytes of a host device, if the user named none and there is no GPU.
    pub(crate) fn open(specs: &[DeviceSpec], needed: ByteLen) -> Result<Self, Failure> {
        if !specs.is_empty() {
            let devices = (0..).zip(specs).map(|(index, spec)| match *spec {
                DeviceSpec::Host(total) => host(index, total),
                DeviceSpec::Cuda(ordinal) => cuda::open(ordinal, index).map_err(|reason| {
                    Failure::new(Kind::Device, format!("--device {spec}: {reason}")).hint(USE_HOST)
                }),
                other => Err(Failure::new(Kind::Device, format!("cannot open {other}"))),
            });
            return Ok(Self { devices: devices.collect::<Result<_, _>>()?, why: None });
        }
        match cuda::detect() {
            Ok(devices) => {
                let count = devices.len();
                let why = format!("no --device was given: using every CUDA device, {count} in all");
                Ok(Self { devices, why: Some(why) })
            }
            Err(reason) => {
                let size = table::size(needed);
                let why =
                    format!("no --device was given: using {size} of host memory, since {reason}");
                Ok(Self { devices: vec![host(0, needed)?], why: Some(why) })
            }
        }
    }
}

impl Devices {
    /// A manager's builder over these devices. Other programs may use a card too, so the budget of
    /// a card is `needed`, and never more than nine tenths of its free memory.
    pub(crate) fn builder(&self, needed: ByteLen) -> Result<VramManagerBuilder, Failure> {
        let mut builder = VramManager::builder();
        for (gpu, device) in (0..).zip(&self.devices) {
            builder = builder.device(Arc::clone(device));
            if device.info().kind != DeviceKind::Host {
                let memory = device.memory().map_err(|error| {
                    Failure::new(Kind::Device, format!("{}: {error}", device.info().name))
                })?;
                let share = memory.free.get().saturating_sub(memory.free.get().div_ceil(10));
                // Round down to whole granules.
                let budget = needed.min(ByteLen::new(share & !255));
                builder = builder.budget(gpu, Budget::Bytes(budget));
            }
        }
        Ok(builder)
    }
}

/// The hint for a user who named a device that does not exist.
const USE_HOST: &str = "see `vram devices`, or use host memory, such as --device host:8GiB";

fn host(index: u32, total: ByteLen) -> Result<Arc<dyn Device>, Failure> {
    let device = HostDevice::new(GpuIndex::new(index), total).map_err(|error| {
        Failure::input(format!("--device host:{}: {error}", total.get()))
            .hint("give a size that this host can address")
    })?;
    Ok(Arc::new(device))
}

/// The result of `vram devices`. Lengths are in bytes.
#[derive(Debug, Serialize)]
struct Listing {
    devices: Vec<Listed>,
    /// CUDA devices that exist and cannot be used, and why.
    unusable: Vec<String>,
    /// Why there is no CUDA device at all, if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_cuda: Option<String>,
}

/// One device that can be used.
#[derive(Debug, Serialize)]
struct Listed {
    /// The value for `--device`.
    device: String,
    name: String,
    uuid: String,
    pci_bus_id: Option<String>,
    total: u64,
    /// `None` if the driver does not report it.
    free: Option<u64>,
    compute_capability: Option<String>,
    /// The CUDA version that the driver supports.
    driver: Option<String>,
    ecc: Option<bool>,
    mig: Option<bool>,
}

/// `vram devices`: lists the devices; a list without any device is an answer as well.
pub(crate) fn list(args: &DevicesArgs, output: &mut Output) -> Result<(), Failure> {
    let mut listing = Listing { devices: Vec::new(), unusable: Vec::new(), no_cuda: None };
    match cuda::survey() {
        Ok(found) => {
            for one in found {
                match one {
                    Ok(device) => listing.devices.push(Listed::of(&*device)),
                    Err(reason) => listing.unusable.push(reason),
                }
            }
        }
        Err(reason) => listing.no_cuda = Some(reason),
    }
    if args.json { output.json(&listing) } else { listing.print(output) }
}

impl Listed {
    fn of(device: &dyn Device) -> Self {
        let info = device.info();
        Self {
            device: DeviceSpec::Cuda(info.index.get()).to_string(),
            name: info.name.clone(),
            uuid: info.uuid.to_string(),
            pci_bus_id: info.pci_bus_id.clone(),
            total: info.total.get(),
            free: device.memory().ok().map(|memory| memory.free.get()),
            compute_capability: info
                .compute_capability
                .map(|(major, minor)| format!("{major}.{minor}")),
            driver: info
                .driver_version
                .map(|version| format!("{}.{}", version / 1000, (version % 1000) / 10)),
            ecc: info.ecc,
            mig: info.mig,
        }
    }
}

impl Listing {
    fn print(&self, output: &mut Output) -> Result<(), Failure> {
        if !self.devices.is_empty() {
            let mut devices = Table::new(
                2,
                &[
                    "device", "name", "memory", "free", "compute", "CUDA", "ECC", "MIG", "bus",
                    "uuid",
                ],
            );
            let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            let on = |flag: Option<bool>| match flag {
                Some(true) => "on".to_owned(),
                Some(false) => "off".to_owned(),
                None => "-".to_owned(),
            };
            let size = |len| table::size(ByteLen::new(len));
            for device in &self.devices {
                devices.row([
                    device.device.clone(),
                    device.name.clone(),
                    size(device.total),
                    device.free.map_or_else(|| "-".to_owned(), size),
                    known(&device.compute_capability),
                    known(&device.driver),
                    on(device.ecc),
                    on(device.mig),
                    known(&device.pci_bus_id),
                    device.uuid.clone(),
                ]);
            }
            output.write(&devices.render())?;
        }
        for reason in &self.unusable {
            output.line(format!("not usable: {reason}"))?;
        }
        if let Some(reason) = &self.no_cuda {
            output.line(format!("no CUDA device: {reason}"))?;
        }
        output.line("host memory stands in for a GPU anywhere: --device host:8GiB")
    }
}

/// A device, or the reason in words why it cannot be used.
type Outcome = Result<Arc<dyn Device>, String>;

/// CUDA devices, or the reason in words why there are none.
#[cfg(feature = "cuda")]
mod cuda {
    use std::sync::Arc;

    use vram_residency::device::{CudaDevice, CudaUnavailable};
    use vram_residency::{Device, GpuIndex};

    use super::Outcome;

    /// Opens the device of this ordinal, as GPU `index`.
    pub(super) fn open(ordinal: u32, index: u32) -> Outcome {
        in_words(CudaDevice::open(ordinal, GpuIndex::new(index)))
    }

    /// Every device that can be used.
    pub(super) fn detect() -> Result<Vec<Arc<dyn Device>>, String> {
        let found = CudaDevice::detect().map_err(|reason| reason.to_string())?;
        Ok(found.into_iter().map(|device| -> Arc<dyn Device> { device }).collect())
    }

    /// Every device, each with its own outcome.
    pub(super) fn survey() -> Result<Vec<Outcome>, String> {
        let found = CudaDevice::survey().map_err(|reason| reason.to_string())?;
        Ok(found.into_iter().map(in_words).collect())
    }

    fn in_words(opened: Result<Arc<CudaDevice>, CudaUnavailable>) -> Outcome {
        match opened {
            Ok(device) => Ok(device),
            Err(reason) => Err(reason.to_string()),
        }
    }
}

/// CUDA devices in a build without CUDA: always none, with this build as the reason.
#[cfg(not(feature = "cuda"))]
mod cuda {
    use std::sync::Arc;

    use vram_residency::Device;

    use super::Outcome;

    /// The reason given in place of every CUDA device.
    const REASON: &str = "this build of vram has no CUDA; build it with `--features cuda`";

    pub(super) fn open(_ordinal: u32, _index: u32) -> Outcome {
        Err(REASON.to_owned())
    }

    pub(super) fn detect() -> Result<Vec<Arc<dyn Device>>, String> {
        Err(REASON.to_owned())
    }

    pub(super) fn survey() -> Result<Vec<Outcome>, String> {
        Err(REASON.to_owned())
    }
}
