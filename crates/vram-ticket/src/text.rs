//! Bytes of a ticket as lower-case hexadecimal digits, two a byte, for its text form.

use base16ct::lower;
use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

fn read<'de, const N: usize, D: Deserializer<'de>>(d: D) -> Result<[u8; N], D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
    bytes(&text).ok_or_else(|| D::Error::custom(format!("{} hex digits", N.saturating_mul(2))))
}

/// Exactly `2 * N` lower-case digits.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let read = lower::decode(text, &mut bytes).is_ok_and(|read| read.len() == N);
    read.then_some(bytes)
}

pub(crate) mod array {
    use super::{Deserializer, Serializer, lower};

    pub(crate) fn serialize<const N: usize, S: Serializer>(
        bytes: &[u8; N],
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.serialize_str(&lower::encode_string(bytes))
    }

    pub(crate) fn deserialize<'de, const N: usize, D: Deserializer<'de>>(
        d: D,
    ) -> Result<[u8; N], D::Error> {
        super::read(d)
    }
}

pub(crate) mod uuid {
    use vram_alloc::DeviceUuid;

    use super::{Deserializer, Serializer, lower};

    pub(crate) fn serialize<S: Serializer>(uuid: &DeviceUuid, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&lower::encode_string(uuid.as_bytes()))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<DeviceUuid, D::Error> {
        super::read(d).map(DeviceUuid::new)
    }
}

pub(crate) mod uuids {
    use serde::{Deserialize as _, de::Error as _};
    use vram_alloc::DeviceUuid;

    use super::{Deserializer, Serializer, lower};

    pub(crate) fn serialize<S: Serializer>(uuids: &[DeviceUuid], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(uuids.iter().map(|uuid| lower::encode_string(uuid.as_bytes())))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Vec<DeviceUuid>, D::Error> {
        let texts = Vec::<std::borrow::Cow<'de, str>>::deserialize(d)?;
        let uuid = |text: &std::borrow::Cow<'de, str>| super::bytes(text).map(DeviceUuid::new);
        let uuids: Option<_> = texts.iter().map(uuid).collect();
        uuids.ok_or_else(|| D::Error::custom("a UUID is 32 hex digits"))
    }
}

pub(crate) mod key_id {
    use vram_seal::KeyId;

    use super::{Deserializer, Serializer, lower};

    pub(crate) fn serialize<S: Serializer>(id: &KeyId, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&lower::encode_string(id.as_bytes()))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<KeyId, D::Error> {
        super::read(d).map(KeyId::from_bytes)
    }
}

pub(crate) mod digest {
    use serde::{Deserialize as _, de::Error as _};
    use vram_seal::ContentDigest;

    use super::{Deserializer, Serializer, lower};

    #[expect(clippy::ref_option, reason = "serde passes fields by reference")]
    pub(crate) fn serialize<S: Serializer>(
        digest: &Option<ContentDigest>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match digest {
            Some(digest) => s.serialize_some(&lower::encode_string(digest.as_bytes())),
            None => s.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<ContentDigest>, D::Error> {
        let text = Option::<std::borrow::Cow<'de, str>>::deserialize(d)?;
        let digest = text.map(|text| {
            super::bytes(&text)
                .map(ContentDigest::from_bytes)
                .ok_or_else(|| D::Error::custom("a digest is 64 hex digits"))
        });
        digest.transpose()
    }
}
