//! Bytes of a ticket as hexadecimal digits, where it travels as text.

use core::fmt::Write as _;

use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in bytes {
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

/// Exactly what [`hex`] writes: digits of lower case, two a byte.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let lower = |digit: &u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(digit);
        let digits = core::str::from_utf8(pair).ok().filter(|_| pair.iter().all(lower))?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

fn read<'de, const N: usize, D: Deserializer<'de>>(d: D) -> Result<[u8; N], D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
    unhex(&text).ok_or_else(|| D::Error::custom(format!("{} hex digits", N.saturating_mul(2))))
}

pub(super) mod array {
    use super::{Deserializer, Serializer};

    pub(in super::super) fn serialize<const N: usize, S: Serializer>(
        bytes: &[u8; N],
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::hex(bytes))
    }

    pub(in super::super) fn deserialize<'de, const N: usize, D: Deserializer<'de>>(
        d: D,
    ) -> Result<[u8; N], D::Error> {
        super::read(d)
    }
}

pub(super) mod uuid {
    use vram_gpu::DeviceUuid;

    use super::{Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(
        uuid: &DeviceUuid,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::hex(uuid.as_bytes()))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<DeviceUuid, D::Error> {
        super::read(d).map(DeviceUuid::new)
    }
}

pub(super) mod key_id {
    use vram_seal::KeyId;

    use super::{Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(id: &KeyId, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::hex(id.as_bytes()))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<KeyId, D::Error> {
        super::read(d).map(KeyId::from_bytes)
    }
}

pub(super) mod digest {
    use serde::{Deserialize as _, de::Error as _};
    use vram_seal::ContentDigest;

    use super::{Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde passes fields by reference")]
    pub(in super::super) fn serialize<S: Serializer>(
        digest: &Option<ContentDigest>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match digest {
            Some(digest) => s.serialize_some(&super::hex(digest.as_bytes())),
            None => s.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<ContentDigest>, D::Error> {
        let text = Option::<std::borrow::Cow<'de, str>>::deserialize(d)?;
        let digest = text.map(|text| {
            super::unhex(&text)
                .map(ContentDigest::from_bytes)
                .ok_or_else(|| D::Error::custom("a digest is 64 hex digits"))
        });
        digest.transpose()
    }
}
