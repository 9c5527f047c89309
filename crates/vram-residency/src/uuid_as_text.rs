//! With the feature `serde`: a device's identity as NVIDIA's tools print it.

use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serializer};
use vram_gpu::DeviceUuid;

pub(crate) fn serialize<S: Serializer>(uuid: &DeviceUuid, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(uuid)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<DeviceUuid, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
    let wrong = || D::Error::custom("a device is GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx");
    let digits = text.strip_prefix("GPU-").ok_or_else(wrong)?.replace('-', "");
    let number = u128::from_str_radix(&digits, 16).map_err(|_not_hex| wrong())?;
    let uuid = DeviceUuid::new(number.to_be_bytes());
    // Whatever else reads as the same number is none.
    if uuid.to_string() == *text { Ok(uuid) } else { Err(wrong()) }
}
