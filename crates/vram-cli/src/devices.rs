//! Which devices a command works on. CUDA devices find their place here.

use std::sync::Arc;

use vram_residency::device::{Device, DeviceSpec, HostDevice};
use vram_residency::{ByteLen, GpuIndex};

use crate::failure::{Failure, Kind};
use crate::table;

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
            let why = format!(
                "no --device was given and {}: using {} of host memory",
                NO_CUDA,
                table::size(needed)
            );
            let device = host(0, needed)?;
            return Ok(Self { devices: vec![device], why: Some(why) });
        }
        let devices = (0..)
            .zip(specs)
            .map(|(index, spec)| match spec {
                DeviceSpec::Host(total) => host(index, *total),
                other => Err(Failure::new(Kind::Device, format!("cannot open {other}: {NO_CUDA}"))
                    .hint("use host memory, such as --device host:8GiB")),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { devices, why: None })
    }
}

/// Why there is no CUDA device, in words.
const NO_CUDA: &str = "this build of vram has no CUDA";

fn host(index: u32, total: ByteLen) -> Result<Arc<dyn Device>, Failure> {
    let device = HostDevice::new(GpuIndex::new(index), total)
        .map_err(|error| Failure::new(Kind::Device, error.to_string()).at("host memory"))?;
    Ok(Arc::new(device))
}
