//! Device names as users type them: `host:8GiB`, `cuda:0`.

use core::fmt;
use core::str::FromStr;

use thiserror::Error;
use vram_alloc::ByteLen;

/// The device that a user requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceSpec {
    /// Host memory of this many bytes.
    Host(ByteLen),
    /// The CUDA device with this ordinal.
    Cuda(u32),
}

/// A text that is not a device name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseDeviceSpecError {
    /// Neither `host:` nor `cuda:`.
    #[error("`{text}` is not a device; write `host:8GiB` or `cuda:0`")]
    UnknownKind {
        /// The text.
        text: String,
    },
    /// `host:` without a valid size.
    #[error("`{text}` is not a size; write for instance `host:8GiB` or `host:512MiB`")]
    Size {
        /// The text after the colon.
        text: String,
    },
    /// `cuda:` without a valid number.
    #[error("`{text}` is not a device number; write for instance `cuda:0`")]
    Ordinal {
        /// The text after the colon.
        text: String,
    },
}

impl FromStr for DeviceSpec {
    type Err = ParseDeviceSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(size) = text.strip_prefix("host:") {
            let refused = |_| ParseDeviceSpecError::Size { text: size.to_owned() };
            size.parse().map(Self::Host).map_err(refused)
        } else if let Some(ordinal) = text.strip_prefix("cuda:") {
            // `u32::from_str` accepts a plus sign; a device number has none.
            match ordinal.parse() {
                Ok(number) if ordinal.bytes().all(|b| b.is_ascii_digit()) => Ok(Self::Cuda(number)),
                _ => Err(ParseDeviceSpecError::Ordinal { text: ordinal.to_owned() }),
            }
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
}
