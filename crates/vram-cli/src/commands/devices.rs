//! The devices of this machine: `vram devices`.

mod chosen;
mod cuda;

use serde::Serialize;
use vram_residency::device::DeviceSpec;
use vram_residency::nvml::Answer;
use vram_residency::{ByteLen, Device};

pub(crate) use self::chosen::{CardFigures, Devices};
use crate::args::DevicesArgs;
use crate::cards;
use crate::failure::{Failure, Kind};
use crate::output::Output;
use crate::table::{self, Table};

/// The result of `vram devices`. Lengths are in bytes.
#[derive(Debug, Serialize)]
struct Listing {
    devices: Vec<Listed>,
    /// CUDA devices that exist and cannot be used, and why.
    unusable: Vec<String>,
    /// Why there is no CUDA device at all, if there is none.
    no_cuda: Option<String>,
    /// How many CUDA devices `--require` asks for.
    required: Option<u32>,
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
    /// What NVIDIA's management library says of it, or why it says nothing.
    card: Answer,
}

/// `vram devices`: lists the devices. A list without any device is an answer as well, unless the
/// user requires some.
pub(crate) fn list(args: &DevicesArgs, output: &mut Output) -> Result<(), Failure> {
    let mut listing = Listing {
        devices: Vec::new(),
        unusable: Vec::new(),
        no_cuda: None,
        required: args.require,
    };
    match cuda::survey() {
        Ok(found) => {
            let mut uuids = Vec::new();
            for one in found {
                match one {
                    Ok(device) => {
                        uuids.push(device.info().uuid);
                        listing.devices.push(Listed::of(&*device));
                    }
                    Err(reason) => listing.unusable.push(reason),
                }
            }
            for (device, answer) in listing.devices.iter_mut().zip(cards::answers(&uuids)) {
                device.card = answer;
            }
        }
        Err(reason) => listing.no_cuda = Some(reason),
    }
    listing.print(output)?;
    match listing.too_few() {
        None => output.json(&listing),
        Some(failure) => {
            output.json_failed(&listing, &failure)?;
            Err(failure)
        }
    }
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
            card: Answer::NotWatched,
        }
    }
}

impl Listing {
    /// The failure if fewer CUDA devices can be used than the user requires.
    fn too_few(&self) -> Option<Failure> {
        let found = u32::try_from(self.devices.len()).unwrap_or(u32::MAX);
        let required = self.required.filter(|required| found < *required)?;
        let usable = match found {
            0 => "no CUDA device can be used".to_owned(),
            1 => "1 CUDA device can be used".to_owned(),
            _ => format!("{found} CUDA devices can be used"),
        };
        let reasons = self.no_cuda.iter().chain(&self.unusable).map(|reason| format!(": {reason}"));
        let reasons: String = reasons.collect();
        let what = format!("{usable}, and --require asks for {required}{reasons}");
        Some(
            Failure::new(Kind::Device, what)
                .code("too-few-devices")
                .hint("compare with `nvidia-smi -L`, and check CUDA_VISIBLE_DEVICES"),
        )
    }

    /// What NVIDIA's management library says of each card; where it is not there, once.
    fn print_cards(&self, output: &mut Output) -> Result<(), Failure> {
        let mut absent = None;
        for device in &self.devices {
            if let Answer::NoLibrary { why } = &device.card {
                absent = Some(why);
                continue;
            }
            for line in device.card.lines() {
                output.line(format!("{}  {line}", device.device))?;
            }
        }
        match absent {
            Some(why) => output.line(format!("no ECC errors, rows or holders are known: {why}")),
            None => Ok(()),
        }
    }

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
            self.print_cards(output)?;
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
