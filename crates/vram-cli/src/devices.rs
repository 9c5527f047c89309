//! Which devices a command works on.

use std::sync::Arc;

use vram_residency::device::{Device, DeviceSpec, HostDevice};
use vram_residency::{Budget, ByteLen, GpuIndex, VramManager, VramManagerBuilder};

use crate::failure::{Failure, Kind};
use crate::{gpus, table};

/// Devices, opened, and a word on where they came from.
#[derive(Debug)]
pub(crate) struct Devices {
    /// The devices, in order of their index.
    pub(crate) devices: Vec<Arc<dyn Device>>,
    /// Why these, if nobody asked for them by name.
    pub(crate) why: Option<String>,
}

impl Devices {
    /// Opens the devices that were asked for, or what there is.
    ///
    /// # Arguments
    ///
    /// * `specs`: from the command line; empty for whatever there is.
    /// * `needed`: bytes that a host device made up for the occasion must hold.
    pub(crate) fn open(specs: &[DeviceSpec], needed: ByteLen) -> Result<Self, Failure> {
        if specs.is_empty() {
            return match gpus::detect() {
                Ok(devices) => {
                    let count = devices.len();
                    let why =
                        format!("no --device was given: using every CUDA device, {count} found");
                    Ok(Self { devices, why: Some(why) })
                }
                Err(none) => {
                    let size = table::size(needed);
                    let why =
                        format!("no --device was given and {none}: using {size} of host memory");
                    Ok(Self { devices: vec![host(0, needed)?], why: Some(why) })
                }
            };
        }
        let devices = (0..)
            .zip(specs)
            .map(|(index, spec)| match spec {
                DeviceSpec::Host(total) => host(index, *total),
                DeviceSpec::Cuda(ordinal) => gpus::open(*ordinal, index),
                other => Err(Failure::input(format!("{other}: no such kind of device"))),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { devices, why: None })
    }

    /// A manager's builder over these devices, which takes no more of a card than `needed`.
    pub(crate) fn builder(&self, needed: ByteLen) -> Result<VramManagerBuilder, Failure> {
        let mut builder = VramManager::builder();
        for (gpu, device) in (0..).zip(&self.devices) {
            builder = builder.device(Arc::clone(device));
            if let Some(budget) = gpus::budget(&**device, needed)? {
                builder = builder.budget(gpu, Budget::Bytes(budget));
            }
        }
        Ok(builder)
    }
}

fn host(index: u32, total: ByteLen) -> Result<Arc<dyn Device>, Failure> {
    let device = HostDevice::new(GpuIndex::new(index), total)
        .map_err(|error| Failure::new(Kind::Device, error.to_string()).at("host memory"))?;
    Ok(Arc::new(device))
}
