//! A device's identity, by which tickets, reports and devices name a GPU.

use core::fmt;

use crate::units::GpuIndex;

/// A device's identity for life: stable across reboots, orderings and tools, unlike its index.
///
/// With the feature `serde`, it is written and read as NVIDIA's tools print it, and in no other
/// spelling.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceUuid([u8; 16]);

impl DeviceUuid {
    /// Wraps the 16 bytes that the driver reports.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The default identity of a host device: fixed for each index, so that the same configuration
    /// gives the same trace.
    #[must_use]
    pub const fn for_host(index: GpuIndex) -> Self {
        let [a, b, c, d] = index.get().to_be_bytes();
        // "host memory" in ASCII, then the index.
        Self([b'h', b'o', b's', b't', b' ', b'm', 0x40, b'e', 0x80, b'm', b'o', b'r', a, b, c, d])
    }
}

impl fmt::Display for DeviceUuid {
    /// As NVIDIA's tools print it: `GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GPU-")?;
        for (position, byte) in self.0.iter().enumerate() {
            if matches!(position, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for DeviceUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(feature = "serde")]
mod text {
    use alloc::borrow::Cow;
    use alloc::string::ToString as _;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    use super::DeviceUuid;

    impl Serialize for DeviceUuid {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(self)
        }
    }

    impl<'de> Deserialize<'de> for DeviceUuid {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = Cow::<'de, str>::deserialize(deserializer)?;
            let wrong = || D::Error::custom("a device is GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx");
            let digits = text.strip_prefix("GPU-").ok_or_else(wrong)?.replace('-', "");
            let number = u128::from_str_radix(&digits, 16).map_err(|_not_hex| wrong())?;
            let uuid = Self::new(number.to_be_bytes());
            // Any other text that parses to the same number is refused.
            if uuid.to_string() == *text { Ok(uuid) } else { Err(wrong()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    #[test]
    fn a_uuid_prints_as_the_vendor_tools_print_it() {
        let bytes = [
            0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
            0xee, 0xff,
        ];
        let text = DeviceUuid::new(bytes).to_string();
        assert_eq!(text, "GPU-00112233-4455-6677-8899-aabbccddeeff");
    }

    #[test]
    fn host_identities_differ_by_index_and_repeat() {
        let of = |index| DeviceUuid::for_host(GpuIndex::new(index));
        assert_ne!(of(0), of(1));
        assert_ne!(of(1), of(1 << 24));
        assert_eq!(of(u32::MAX), of(u32::MAX));
    }
}
