//! The master key of a seal, and its forms in text and files.

use core::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::hex;
use crate::key::derive::{Purpose, derive};
use crate::key::derived::DerivedKeys;
use crate::key::id::{KeyError, KeyId};
use crate::key::manifest::ManifestKey;
use crate::key::secret::Secret;
use crate::key::ticket::TicketKey;

/// A master key: 32 bytes from which every key of a seal is derived.
///
/// It is not `Clone` and is wiped when dropped. `Debug` shows only the [`KeyId`]. The bytes are in
/// one heap allocation, so that moving the key leaves no copies behind. One key serves one trust
/// domain: a party that can request seals under it can test guesses about other content sealed
/// under it.
pub struct SealKey {
    bytes: Secret,
    id: KeyId,
    derived: Arc<DerivedKeys>,
}

impl SealKey {
    /// Creates a key from 32 secret bytes, whatever they are. By reference, since a value that is passed leaves copies on
    /// the stack that no one can wipe. The caller has to wipe its own copy.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self::from_secret(Secret::copy_of(bytes))
    }

    fn from_secret(bytes: Secret) -> Self {
        let derived = derive(&bytes, Purpose::KeyId);
        let mut id = [0; 16];
        for (target, source) in id.iter_mut().zip(derived.iter()) {
            *target = *source;
        }
        let derived = DerivedKeys::of(&bytes);
        Self { bytes, id: KeyId::from_bytes(id), derived }
    }

    /// Creates a key from the operating system's random source.
    ///
    /// # Errors
    ///
    /// [`KeyError::Random`] if that source fails.
    pub fn random() -> Result<Self, KeyError> {
        Secret::random().map(Self::from_secret)
    }

    /// Reads exactly 64 hexadecimal digits, of either case.
    ///
    /// # Errors
    ///
    /// [`KeyError::NotHex`] for anything else, [`KeyError::AllZero`] for zeros alone.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let mut bytes = Secret::zeros();
        if hex::read(text.as_bytes(), bytes.as_mut_slice()) {
            Self::checked(bytes)
        } else {
            Err(KeyError::NotHex { found: text.len() })
        }
    }

    /// Reads the content of a key file: 64 hexadecimal digits and at most one newline, or exactly
    /// 32 raw bytes.
    ///
    /// # Errors
    ///
    /// [`KeyError::HalfAKey`] for 32 bytes that are all hexadecimal digits,
    /// [`KeyError::AllZero`] for zeros alone, [`KeyError::NotAKeyFile`] for anything else that is
    /// not a key.
    pub fn from_key_file_bytes(content: &[u8]) -> Result<Self, KeyError> {
        let refused = KeyError::NotAKeyFile { found: content.len() };
        let mut bytes = Secret::zeros();
        match content {
            raw if raw.len() == 32 => {
                if hex::all_digits(raw) {
                    return Err(KeyError::HalfAKey);
                }
                bytes.copy_from_slice(raw);
            }
            text => {
                let digits = text.strip_suffix(b"\n").unwrap_or(text);
                if !hex::read(digits, bytes.as_mut_slice()) {
                    return Err(refused);
                }
            }
        }
        Self::checked(bytes)
    }

    /// Refuses zeros, without a branch on any single byte.
    fn checked(bytes: Secret) -> Result<Self, KeyError> {
        let any = bytes.iter().fold(0, |any, byte| any | byte);
        if any == 0 { Err(KeyError::AllZero) } else { Ok(Self::from_secret(bytes)) }
    }

    /// The key as 64 hexadecimal digits, for writing a key file. The only method that returns the
    /// key.
    #[must_use]
    pub fn expose_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(base16ct::lower::encode_string(self.bytes.as_slice()))
    }

    /// The key's public name.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// The key that signs tickets. It is derived from this key and reveals nothing about it.
    #[must_use]
    pub fn ticket_key(&self) -> TicketKey {
        TicketKey::from_secret(derive(&self.bytes, Purpose::Ticket))
    }

    /// The key that signs manifests of stores. It is derived from this key and reveals nothing about
    /// it.
    #[must_use]
    pub fn manifest_key(&self) -> ManifestKey {
        ManifestKey::from_secret(&derive(&self.bytes, Purpose::Manifest))
    }

    pub(crate) const fn derived(&self) -> &Arc<DerivedKeys> {
        &self.derived
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_hex_form() {
        let key = SealKey::from_bytes(&[0xa7; 32]);
        let again = SealKey::from_hex(&key.expose_hex()).expect("its own form");
        assert_eq!(key.id(), again.id());
        assert_eq!(key.expose_hex().len(), 64);
    }

    #[test]
    fn a_key_file_is_hex_with_at_most_one_newline_or_32_raw_bytes() {
        let hex = "0123456789abcdefABCDEF0123456789".repeat(2);
        let id = SealKey::from_hex(&hex).expect("hex").id();
        for good in [hex.clone(), format!("{hex}\n")] {
            assert_eq!(SealKey::from_key_file_bytes(good.as_bytes()).expect("a key file").id(), id);
        }
        for bad in
            [format!("{hex}\n\n"), format!("{hex}\r\n"), format!(" {hex}"), hex[..63].to_owned()]
        {
            assert!(matches!(
                SealKey::from_key_file_bytes(bad.as_bytes()),
                Err(KeyError::NotAKeyFile { .. })
            ));
        }
        assert!(SealKey::from_key_file_bytes(&[0xff; 32]).is_ok());
        assert!(SealKey::from_key_file_bytes(&[0xff; 33]).is_err());
        assert!(SealKey::from_key_file_bytes(b"").is_err());
        assert_eq!(
            SealKey::from_key_file_bytes(&hex.as_bytes()[..32]).err(),
            Some(KeyError::HalfAKey)
        );
    }

    #[test]
    fn zeros_are_no_key_in_whatever_form_they_are_read() {
        let digits = "0".repeat(64);
        assert_eq!(SealKey::from_hex(&digits).err(), Some(KeyError::AllZero));
        for file in [&[0; 32][..], digits.as_bytes(), format!("{digits}\n").as_bytes()] {
            assert_eq!(SealKey::from_key_file_bytes(file).err(), Some(KeyError::AllZero));
        }
        for bit in 0..256 {
            let mut raw = [0; 32];
            raw[bit / 8] |= 1 << (bit % 8);
            assert!(SealKey::from_key_file_bytes(&raw).is_ok(), "{bit}");
        }
    }

    #[test]
    fn random_keys_differ() {
        let (a, b) = (SealKey::random().expect("random"), SealKey::random().expect("random"));
        assert_ne!(a.id(), b.id());
    }

    #[test]
    fn debug_shows_the_id_and_not_the_key() {
        let key = SealKey::from_bytes(&[0xa7; 32]);
        let shown = format!("{key:?}");
        assert!(shown.contains(&key.id().to_string()));
        assert!(!shown.contains("a7a7"));
        assert!(!shown.contains("167"));
    }

    #[test]
    fn a_key_id_survives_its_text_form() {
        let id = SealKey::from_bytes(&[1; 32]).id();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("xyz".parse::<KeyId>(), Err(KeyError::NotAKeyId));
    }
}
