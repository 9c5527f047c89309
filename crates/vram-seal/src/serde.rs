//! With the feature `serde`: records and key ids as hexadecimal text, choices by name.

use core::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hex;
use crate::key::id::KeyId;
use crate::record::header::SealRecord;
use crate::record::layout::SegmentSize;

impl Serialize for SealRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(self, serializer)
    }
}

impl<'de> Deserialize<'de> for SealRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer).map(Self::from_bytes)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(self.as_bytes(), serializer)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer).map(Self::from_bytes)
    }
}

/// As its length in bytes.
impl Serialize for SegmentSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.bytes().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SegmentSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_bytes(Deserialize::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

fn write<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&base16ct::lower::encode_string(bytes))
}

fn read<'de, const N: usize, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; N], D::Error> {
    deserializer.deserialize_str(Hex::<N>)
}

struct Hex<const N: usize>;

impl<const N: usize> Visitor<'_> for Hex<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} bytes as hexadecimal digits")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<[u8; N], E> {
        let mut bytes = [0; N];
        if hex::read(text.as_bytes(), &mut bytes) {
            Ok(bytes)
        } else {
            Err(E::invalid_value(serde::de::Unexpected::Str("other text"), &self))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Protection, SealKey, SivScope, Suite};

    #[test]
    fn records_ids_and_choices_survive_their_text_form() {
        let record = SealRecord::from_bytes(core::array::from_fn(|i| i.to_le_bytes()[0]));
        let text = serde_json::to_string(&record).expect("it serialises");
        assert_eq!(text.len(), 2 + 512);
        assert!(serde_json::from_str::<SealRecord>(&text).expect("its own form") == record);
        assert!(serde_json::from_str::<SealRecord>("\"00\"").is_err());
        assert!(serde_json::from_str::<SealRecord>("7").is_err());

        let id = SealKey::from_bytes(&[1; 32]).id();
        let text = serde_json::to_string(&id).expect("it serialises");
        assert_eq!(text, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<KeyId>(&text).expect("its own form"), id);

        let choices =
            (Protection::Encrypted, Suite::Aes256Gcm, SivScope::Segment, SegmentSize::MIN);
        let text = serde_json::to_string(&choices).expect("it serialises");
        assert_eq!(text, r#"["encrypted","aes-256-gcm","segment",4096]"#);
        assert_eq!(
            serde_json::from_str::<(Protection, Suite, SivScope, SegmentSize)>(&text)
                .expect("its own form"),
            choices
        );
        assert!(serde_json::from_str::<SegmentSize>("4095").is_err());
    }
}
