//! CUDA devices, or the reason in words why there are none.

use std::sync::Arc;

use vram_residency::Device;

#[cfg(feature = "cuda")]
pub(super) use self::driver::{alone, detect, open, survey};
#[cfg(not(feature = "cuda"))]
pub(super) use self::none::{alone, detect, open, survey};

/// A device, or the reason in words why it cannot be used.
type Outcome = Result<Arc<dyn Device>, String>;

/// The devices that can be used, and why others cannot.
#[derive(Debug)]
pub(super) struct Detected {
    pub(super) devices: Vec<Arc<dyn Device>>,
    pub(super) left_out: Vec<String>,
}

/// Whether this build knows CUDA.
pub(super) const BUILT: bool = cfg!(feature = "cuda");

#[cfg(feature = "cuda")]
mod driver {
    use std::sync::Arc;

    use vram_residency::device::{CudaDevice, CudaUnavailable, DeviceSpec, Sharing};
    use vram_residency::{Device, DeviceInfo, GpuIndex};

    use super::{Detected, Outcome};
    use crate::failure::card_name;

    /// Opens the device that the user named, as GPU `index`.
    pub(in super::super) fn open(wanted: DeviceSpec, index: u32) -> Outcome {
        let ordinal = CudaDevice::ordinal_of(wanted).map_err(|reason| reason.to_string())?;
        in_words(ordinal, CudaDevice::open(ordinal, GpuIndex::new(index)))
    }

    /// The same device, which nothing else in this process uses.
    pub(in super::super) fn alone(device: Arc<dyn Device>) -> Arc<dyn Device> {
        match device.as_any().downcast_ref::<CudaDevice>() {
            Some(card) => card.shared(Sharing::Alone),
            None => device,
        }
    }

    /// Opens every device that can be used.
    pub(in super::super) fn detect() -> Result<Detected, String> {
        let mut found = Detected { devices: Vec::new(), left_out: Vec::new() };
        for (ordinal, _) in (0..).zip(CudaDevice::list().map_err(|reason| reason.to_string())?) {
            let index = u32::try_from(found.devices.len()).unwrap_or(u32::MAX);
            match in_words(ordinal, CudaDevice::open(ordinal, GpuIndex::new(index))) {
                Ok(device) => found.devices.push(device),
                Err(reason) => found.left_out.push(reason),
            }
        }
        if found.devices.is_empty() { Err(found.left_out.join("; ")) } else { Ok(found) }
    }

    /// Every device, each with its own outcome.
    pub(in super::super) fn survey() -> Result<Vec<Outcome>, String> {
        let found = CudaDevice::survey().map_err(|reason| reason.to_string())?;
        Ok((0..).zip(found).map(|(ordinal, opened)| in_words(ordinal, opened)).collect())
    }

    /// A device that cannot be used is named by its UUID and place on the bus as well.
    fn in_words(ordinal: u32, opened: Result<Arc<CudaDevice>, CudaUnavailable>) -> Outcome {
        let reason = match opened {
            Ok(device) => return Ok(device),
            Err(reason) => reason,
        };
        let all = match reason {
            CudaUnavailable::Unusable { .. } => CudaDevice::list().unwrap_or_default(),
            _ => Vec::new(),
        };
        let of_it = |info: &DeviceInfo| info.index.get() == ordinal;
        let card = all.into_iter().filter_map(Result::ok).find(of_it);
        Err(card.map_or_else(
            || reason.to_string(),
            |info| format!("{reason} (it is {})", card_name(&info)),
        ))
    }
}

/// A build without CUDA: never a device, with this build as the reason.
#[cfg(not(feature = "cuda"))]
mod none {
    use std::sync::Arc;

    use vram_residency::Device;
    use vram_residency::device::DeviceSpec;

    use super::{Detected, Outcome};

    /// The reason given in place of every CUDA device.
    const REASON: &str = "this build of vram has no CUDA; build it with `--features cuda`";

    pub(in super::super) fn open(_wanted: DeviceSpec, _index: u32) -> Outcome {
        Err(REASON.to_owned())
    }

    pub(in super::super) const fn alone(device: Arc<dyn Device>) -> Arc<dyn Device> {
        device
    }

    pub(in super::super) fn detect() -> Result<Detected, String> {
        Err(REASON.to_owned())
    }

    pub(in super::super) fn survey() -> Result<Vec<Outcome>, String> {
        Err(REASON.to_owned())
    }
}
