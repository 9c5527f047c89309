//! CUDA devices: which there are, and where there are none, why, in words.

use std::sync::Arc;

use serde::Serialize;
use vram_residency::device::{Device, DeviceKind};
use vram_residency::{ByteLen, DeviceInfo};

use crate::args::DevicesArgs;
use crate::failure::{Failure, Kind};
use crate::output::Output;
use crate::table::{self, Table};

/// What `vram devices` found, as JSON shows it. Lengths are in bytes.
#[derive(Debug, Serialize)]
struct Listing {
    /// Whether this build of the program can use CUDA devices.
    cuda_compiled_in: bool,
    /// Why there is no CUDA device.
    #[serde(skip_serializing_if = "Option::is_none")]
    why_none: Option<String>,
    devices: Vec<Listed>,
}

/// One device: its figures, or why it cannot be used.
#[derive(Debug, Serialize)]
struct Listed {
    /// What `--device` takes.
    device: String,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Outcome {
    Usable(Box<Figures>),
    Unusable { why_not: String },
}

#[derive(Debug, Serialize)]
struct Figures {
    name: String,
    uuid: String,
    pci_bus_id: Option<String>,
    compute_capability: Option<String>,
    /// The newest CUDA that the driver speaks.
    driver_cuda_version: Option<String>,
    ecc: Option<bool>,
    mig: Option<bool>,
    total: u64,
    free: u64,
}

impl Outcome {
    fn of(device: &dyn Device) -> Self {
        match device.memory() {
            Ok(memory) => Self::Usable(Box::new(Figures::of(device.info(), memory.free))),
            Err(error) => Self::Unusable { why_not: error.to_string() },
        }
    }
}

impl Figures {
    fn of(info: &DeviceInfo, free: ByteLen) -> Self {
        let dotted = |(major, minor): (u32, u32)| format!("{major}.{minor}");
        Self {
            name: info.name.clone(),
            uuid: info.uuid.to_string(),
            pci_bus_id: info.pci_bus_id.clone(),
            compute_capability: info.compute_capability.map(dotted),
            driver_cuda_version: info
                .driver_version
                .map(|version| dotted((version / 1000, version % 1000 / 10))),
            ecc: info.ecc,
            mig: info.mig,
            total: info.total.get(),
            free: free.get(),
        }
    }
}

/// Lists the devices that `--device` can name. That there are none is an answer, not a failure.
pub(crate) fn run(args: &DevicesArgs, output: &mut Output) -> Result<(), Failure> {
    let (devices, why_none) = match cuda::survey() {
        Ok(outcomes) => {
            let listed = (0_u32..)
                .zip(outcomes)
                .map(|(n, outcome)| Listed { device: format!("cuda:{n}"), outcome });
            (listed.collect(), None)
        }
        Err(why) => (Vec::new(), Some(why)),
    };
    let listing = Listing { cuda_compiled_in: cfg!(feature = "cuda"), why_none, devices };
    if args.json { output.json(&listing) } else { listing.print(output) }
}

impl Listing {
    fn print(&self, output: &mut Output) -> Result<(), Failure> {
        if let Some(why) = &self.why_none {
            output.line(format!("no CUDA device: {why}"))?;
        } else {
            let mut table = Table::new(&[
                "device", "name", "total", "free", "ecc", "sm", "cuda", "pci", "uuid",
            ]);
            for listed in &self.devices {
                let Outcome::Usable(figures) = &listed.outcome else { continue };
                let or_unknown =
                    |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
                table.row([
                    listed.device.clone(),
                    figures.name.clone(),
                    table::size(ByteLen::new(figures.total)),
                    table::size(ByteLen::new(figures.free)),
                    figures.ecc.map_or("?", |on| if on { "on" } else { "off" }).to_owned(),
                    or_unknown(&figures.compute_capability),
                    or_unknown(&figures.driver_cuda_version),
                    or_unknown(&figures.pci_bus_id),
                    figures.uuid.clone(),
                ]);
            }
            output.write(&table.render())?;
            for listed in &self.devices {
                if let Outcome::Unusable { why_not } = &listed.outcome {
                    output.line(format!("  {}  left out: {why_not}", listed.device))?;
                }
            }
        }
        output.line("host memory serves everywhere: --device host:8GiB")
    }
}

/// Opens one CUDA device.
///
/// # Arguments
///
/// * `ordinal`: the driver's number for it.
/// * `index`: its place in this run's list.
pub(crate) fn open(ordinal: u32, index: u32) -> Result<Arc<dyn Device>, Failure> {
    cuda::open(ordinal, index).map_err(|why| {
        Failure::new(Kind::Device, format!("cannot open cuda:{ordinal}: {why}")).hint(
            "`vram devices` lists what there is; or use host memory, such as --device host:8GiB",
        )
    })
}

/// Every CUDA device that can be used, or why there is none.
pub(crate) fn detect() -> Result<Vec<Arc<dyn Device>>, String> {
    cuda::detect()
}

/// How much of a device a load takes at most: what the model needs, and of a card that others may
/// use too never more than nine tenths of what is free. None leaves it to the library.
pub(crate) fn budget(device: &dyn Device, needed: ByteLen) -> Result<Option<ByteLen>, Failure> {
    if device.info().kind == DeviceKind::Host {
        return Ok(None);
    }
    let memory = device
        .memory()
        .map_err(|error| Failure::new(Kind::Device, error.to_string()).at(&device.info().name))?;
    let share = memory.free.get().saturating_sub(memory.free.get().div_ceil(10));
    // Whole granules of the device's region.
    Ok(Some(needed.min(ByteLen::new(share & !255))))
}

#[cfg(feature = "cuda")]
mod cuda {
    use std::sync::Arc;

    use vram_residency::GpuIndex;
    use vram_residency::device::{CudaDevice, Device};

    use super::Outcome;

    pub(super) fn survey() -> Result<Vec<Outcome>, String> {
        let found = CudaDevice::survey().map_err(|error| error.to_string())?;
        let outcomes = found.into_iter().map(|outcome| match outcome {
            Ok(device) => Outcome::of(&*device),
            Err(error) => Outcome::Unusable { why_not: error.to_string() },
        });
        Ok(outcomes.collect())
    }

    pub(super) fn open(ordinal: u32, index: u32) -> Result<Arc<dyn Device>, String> {
        let device = CudaDevice::open(ordinal, GpuIndex::new(index));
        Ok(device.map_err(|error| error.to_string())?)
    }

    pub(super) fn detect() -> Result<Vec<Arc<dyn Device>>, String> {
        let found = CudaDevice::detect().map_err(|error| error.to_string())?;
        Ok(found.into_iter().map(|device| -> Arc<dyn Device> { device }).collect())
    }
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    use std::sync::Arc;

    use vram_residency::device::Device;

    use super::Outcome;

    fn none<T>() -> Result<T, String> {
        Err("this build of vram has no CUDA (build it with `--features cuda`)".to_owned())
    }

    pub(super) fn survey() -> Result<Vec<Outcome>, String> {
        none()
    }

    pub(super) fn open(_ordinal: u32, _index: u32) -> Result<Arc<dyn Device>, String> {
        none()
    }

    pub(super) fn detect() -> Result<Vec<Arc<dyn Device>>, String> {
        none()
    }
}
