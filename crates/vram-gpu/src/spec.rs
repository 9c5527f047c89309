//! Device names as users type them: `host:8GiB`, `cuda:0`, `GPU-8932f937`, `0000:1b:00.0`.

use core::fmt;
use core::str::FromStr;

use thiserror::Error;
use vram_alloc::{ByteLen, DeviceUuid, ParseByteLenError};

/// The device that a user requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceSpec {
    /// Host memory of this many bytes.
    Host(ByteLen),
    /// The CUDA device with this ordinal.
    Cuda(u32),
    /// The CUDA device whose UUID begins so.
    Uuid(UuidPrefix),
    /// The CUDA device at this place on the PCI bus.
    Pci(PciBusId),
}

/// The beginning of a device's UUID, or all of it: at least one digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UuidPrefix {
    /// Digits after the prefix are zero.
    number: u128,
    /// 1 to 32.
    digits: u32,
}

/// A place on the PCI bus, as `nvidia-smi` and the driver print it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PciBusId {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

/// A text that is not a device name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseDeviceSpecError {
    /// None of the forms.
    #[error(
        "`{text}` is not a device; write `host:8GiB`, `cuda:0`, a UUID such as `GPU-8932f937`, or a \
         PCI bus id such as `0000:1b:00.0`"
    )]
    UnknownKind {
        /// The text.
        text: String,
    },
    /// `host:` without a valid size.
    #[error("{reason}; for instance `host:8GiB` or `host:512Mi`")]
    Size {
        /// The text after the colon.
        text: String,
        /// What is wrong with it.
        #[source]
        reason: ParseByteLenError,
    },
    /// `cuda:` without a valid number.
    #[error("`{text}` is not a device number; write for instance `cuda:0`")]
    Ordinal {
        /// The text after the colon.
        text: String,
    },
    /// `GPU-` without the beginning of a UUID.
    #[error(
        "`{text}` does not begin a UUID; write it as `nvidia-smi -L` prints it, for instance \
         `GPU-8932f937`"
    )]
    Uuid {
        /// The text.
        text: String,
    },
}

/// Hexadecimal digits of a UUID.
const UUID_DIGITS: u32 = 32;

/// Numbers of digits after which a UUID has a dash.
const DASHES_AFTER: [u32; 4] = [8, 12, 16, 20];

impl UuidPrefix {
    /// Whether this UUID begins so.
    #[must_use]
    pub fn matches(&self, uuid: &DeviceUuid) -> bool {
        let number = u128::from_be_bytes(*uuid.as_bytes());
        // At most 31 digits of 4 bits are left out, since there is at least one.
        let left_out = UUID_DIGITS.saturating_sub(self.digits).saturating_mul(4);
        (number ^ self.number) >> left_out == 0
    }

    /// Reads the text after `GPU-`: digits, with dashes where a UUID has them.
    fn parse(text: &str) -> Option<Self> {
        let (mut number, mut digits) = (0_u128, 0_u32);
        let mut dash = false;
        for character in text.chars() {
            match character.to_digit(16) {
                Some(digit) if digits < UUID_DIGITS => {
                    // A dash may be missing only at the end.
                    if DASHES_AFTER.contains(&digits) != dash {
                        return None;
                    }
                    dash = false;
                    number = number << 4 | u128::from(digit);
                    digits = digits.saturating_add(1);
                }
                None if character == '-' && !dash && DASHES_AFTER.contains(&digits) => dash = true,
                _ => return None,
            }
        }
        let left_out = UUID_DIGITS.checked_sub(digits)?.saturating_mul(4);
        Some(Self { number: number.checked_shl(left_out)?, digits })
    }
}

impl fmt::Display for UuidPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GPU-")?;
        let all = format!("{:032x}", self.number);
        for (position, digit) in (0..self.digits).zip(all.chars()) {
            if DASHES_AFTER.contains(&position) {
                f.write_str("-")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

impl PciBusId {
    /// Whether this is the place that a driver prints so.
    #[must_use]
    pub fn matches(&self, printed: &str) -> bool {
        Self::parse(printed) == Some(*self)
    }

    /// Reads `1b:00.0`, `0000:1b:00.0` or `00000000:1B:00.0`, in hexadecimal digits.
    fn parse(text: &str) -> Option<Self> {
        let hex = |text: &str, most: usize| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            (digits && text.len() <= most).then(|| u32::from_str_radix(text, 16).ok()).flatten()
        };
        let byte = |text| hex(text, 2).and_then(|number| u8::try_from(number).ok());
        let (place, function) = text.split_once('.')?;
        let (rest, device) = place.rsplit_once(':')?;
        let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
        let function = byte(function).filter(|function| *function < 8)?;
        let device = byte(device).filter(|device| *device < 32)?;
        Some(Self { domain: hex(domain, 8)?, bus: byte(bus)?, device, function })
    }
}

impl fmt::Display for PciBusId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

impl FromStr for DeviceSpec {
    type Err = ParseDeviceSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(size) = text.strip_prefix("host:") {
            let refused = |reason| ParseDeviceSpecError::Size { text: size.to_owned(), reason };
            size.parse().map(Self::Host).map_err(refused)
        } else if let Some(ordinal) = text.strip_prefix("cuda:") {
            // `u32::from_str` accepts a plus sign; a device number has none.
            match ordinal.parse() {
                Ok(number) if ordinal.bytes().all(|b| b.is_ascii_digit()) => Ok(Self::Cuda(number)),
                _ => Err(ParseDeviceSpecError::Ordinal { text: ordinal.to_owned() }),
            }
        } else if let Some(uuid) = text.strip_prefix("GPU-").or_else(|| text.strip_prefix("MIG-")) {
            // The driver has one kind of UUID; its tools print that of a slice as `MIG-`.
            let refused = || ParseDeviceSpecError::Uuid { text: text.to_owned() };
            UuidPrefix::parse(uuid).map(Self::Uuid).ok_or_else(refused)
        } else if let Some(place) = PciBusId::parse(text) {
            Ok(Self::Pci(place))
        } else {
            Err(ParseDeviceSpecError::UnknownKind { text: text.to_owned() })
        }
    }
}

impl fmt::Display for DeviceSpec {
    /// Writes the form from which [`FromStr`] restores the same value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(total) => write!(f, "host:{}", total.get()),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            Self::Uuid(prefix) => prefix.fmt(f),
            Self::Pci(place) => place.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_understood_and_printed_back() {
        for (text, wanted) in [
            ("host:8GiB", DeviceSpec::Host(ByteLen::new(8 << 30))),
            ("host:0", DeviceSpec::Host(ByteLen::ZERO)),
            ("cuda:0", DeviceSpec::Cuda(0)),
            ("cuda:4294967295", DeviceSpec::Cuda(u32::MAX)),
            ("host:512Mi", DeviceSpec::Host(ByteLen::new(512 << 20))),
        ] {
            let spec: DeviceSpec = text.parse().unwrap();
            assert_eq!(spec, wanted);
            assert_eq!(spec.to_string().parse(), Ok(wanted));
        }
    }

    #[test]
    fn nonsense_is_refused_and_named() {
        for text in ["", "host", "cuda", "gpu:0", "HOST:1", "host:", "host:-1", "host:lots"] {
            let error = text.parse::<DeviceSpec>().unwrap_err().to_string();
            assert!(error.contains("host:8GiB"), "{text:?}: {error}");
        }
        for text in ["cuda:", "cuda:+1", "cuda:-1", "cuda:4294967296", "cuda: 0", "cuda:0x1"] {
            let error = text.parse::<DeviceSpec>().unwrap_err().to_string();
            assert!(error.contains("cuda:0"), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_uuid_is_named_by_any_beginning_of_it_and_no_other_uuid_is() {
        let number = 0x8932_f937_d72c_4106_c12f_20bd_9fae_d9f6_u128;
        let uuid = DeviceUuid::new(number.to_be_bytes());
        let full = uuid.to_string();
        for len in 5..=full.len() {
            let text = &full[..len];
            let DeviceSpec::Uuid(prefix) = text.parse().unwrap() else { panic!("{text}") };
            assert!(prefix.matches(&uuid), "{text}");
            assert_eq!(prefix.to_string(), text.trim_end_matches('-'));
            assert_eq!(prefix.to_string().parse(), Ok(DeviceSpec::Uuid(prefix)));
            assert_eq!(text.replace("GPU", "MIG").parse(), Ok(DeviceSpec::Uuid(prefix)));
            // A UUID that differs in the last digit of the prefix.
            let shift = 4 * (32 - prefix.digits);
            let other = DeviceUuid::new((number ^ (1 << shift)).to_be_bytes());
            assert!(!prefix.matches(&other), "{text}");
        }
        let upper = full.to_uppercase().parse::<DeviceSpec>();
        assert_eq!(upper, full.parse());
        for text in ["GPU-", "GPU--", "GPU-x", "GPU-8932f937d", "GPU-8932-f937", "MIG-", "GPU-8 "] {
            let error = text.parse::<DeviceSpec>().unwrap_err().to_string();
            assert!(error.contains("nvidia-smi -L"), "{text:?}: {error}");
        }
        assert!(format!("{full}0").parse::<DeviceSpec>().is_err());
    }

    #[test]
    fn a_pci_bus_id_is_read_as_every_tool_prints_it() {
        let wanted = "0000:1b:00.0".parse::<DeviceSpec>().unwrap();
        let DeviceSpec::Pci(place) = wanted else { panic!("{wanted}") };
        for text in ["1b:00.0", "0000:1B:00.0", "00000000:1B:00.0", "0:1b:0.0"] {
            assert_eq!(text.parse(), Ok(wanted), "{text}");
            assert!(place.matches(text), "{text}");
        }
        assert_eq!(wanted.to_string(), "0000:1b:00.0");
        for other in ["1b:00.1", "1b:01.0", "1c:00.0", "0001:1b:00.0"] {
            assert!(!place.matches(other), "{other}");
        }
        for text in
            ["1b:00", "1b:00.8", "1b:20.0", "1bc:00.0", ":00.0", "1b:.0", "+1:00.0", "1:2:3:4.0"]
        {
            assert!(text.parse::<DeviceSpec>().is_err(), "{text}");
        }
    }
}
