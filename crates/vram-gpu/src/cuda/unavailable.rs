//! Why there is no CUDA device, with a next step for the user.

use thiserror::Error;

use crate::{DeviceSpec, GpuError, codes};

/// Why this process has no CUDA device, or not the requested one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CudaUnavailable {
    /// No driver library could be loaded.
    #[error("{reason}; install the NVIDIA driver, or use a host device")]
    NoDriver {
        /// The libraries that were tried, and the loader's message.
        reason: String,
    },
    /// There is a driver, but no GPU that it supports or that this process may see.
    #[error(
        "the CUDA driver found no device ({driver}); is a GPU fitted, and does \
         CUDA_VISIBLE_DEVICES allow it?"
    )]
    NoDevice {
        /// The library and version of the driver.
        driver: String,
    },
    /// The driver did not start.
    #[error("the CUDA driver would not start: error {code} ({name}){}; {driver}", hint(*.code))]
    Refused {
        /// The driver's code.
        code: u32,
        /// Its name.
        name: &'static str,
        /// The library and version of the driver.
        driver: String,
    },
    /// The driver is older than what this crate needs.
    #[error(
        "the CUDA driver is too old: it speaks CUDA {}.{}, and {}.{} is needed; update the NVIDIA driver",
        .found / 1000, .found % 1000 / 10, .needed / 1000, .needed % 1000 / 10
    )]
    TooOld {
        /// Its version as `1000 * major + 10 * minor`.
        found: u32,
        /// The oldest supported version.
        needed: u32,
    },
    /// There is no device with that number.
    #[error("there is no CUDA device {ordinal}: this process sees {count}")]
    NoSuchDevice {
        /// The requested number.
        ordinal: u32,
        /// The number of devices.
        count: u32,
    },
    /// No device has the UUID or the place on the bus that was asked for.
    #[error("no CUDA device is {wanted}: this process sees {seen}")]
    NoMatch {
        /// What was asked for.
        wanted: DeviceSpec,
        /// The devices, with UUIDs and PCI bus ids.
        seen: String,
    },
    /// Several devices have a UUID that begins so.
    #[error(
        "{wanted} begins the UUID of several CUDA devices: {matching}; write more of its digits"
    )]
    Ambiguous {
        /// What was asked for.
        wanted: DeviceSpec,
        /// The devices whose UUID begins so.
        matching: String,
    },
    /// The device exists but cannot be used.
    #[error("CUDA device {ordinal} cannot be used: {error}")]
    Unusable {
        /// Its number.
        ordinal: u32,
        /// The device's error.
        #[source]
        error: GpuError,
    },
}

impl CudaUnavailable {
    /// Converts the code of a failed start.
    pub(super) fn from_init(code: u32) -> Self {
        const NO_DEVICE: u32 = 100;
        let state = cuda_shim::driver();
        let driver = state.to_string();
        match code {
            _ if !state.is_present() => Self::NoDriver { reason: driver },
            NO_DEVICE => Self::NoDevice { driver },
            _ => Self::Refused { code, name: codes::name(code), driver },
        }
    }
}

/// The next step for codes that users often meet.
const fn hint(code: u32) -> &'static str {
    match code {
        34 => ": this is the stub library of a toolkit, not a driver",
        46 => ": another process holds the device exclusively",
        802 => ": the system is not ready; is the fabric manager running?",
        803 => ": library and kernel module are of different versions; reboot, or reinstall",
        804 => ": the compatibility library does not support this GPU",
        999 => ": often a kernel module that is not loaded, or no access to /dev/nvidia*",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_shown_as_people_write_them() {
        let text = CudaUnavailable::TooOld { found: 8000, needed: 11_040 }.to_string();
        assert!(text.contains("CUDA 8.0") && text.contains("11.4"), "{text}");
    }

    #[test]
    fn a_refusal_to_start_says_what_helps() {
        let refused = |code| {
            let (name, driver) = (codes::name(code), "driver X".to_owned());
            CudaUnavailable::Refused { code, name, driver }.to_string()
        };
        assert!(refused(803).contains("different versions"), "{}", refused(803));
        assert!(refused(999).contains("999 (CUDA_ERROR_UNKNOWN)"), "{}", refused(999));
        assert!(refused(7).contains("driver X"), "{}", refused(7));
    }
}
