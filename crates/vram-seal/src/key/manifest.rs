//! HMAC-SHA256 over manifests: which sealed images are a revision of a model.

use core::fmt;

use crate::key::mac::MacKey;
use crate::key::secret::Secret;
use crate::key::ticket::SignatureMismatch;

/// Signs and checks manifests of a store with HMAC-SHA256.
///
/// Only a holder of the sealing key has it: [`SealKey::manifest_key`](crate::SealKey::manifest_key).
/// Wiped when dropped.
pub struct ManifestKey(MacKey);

impl ManifestKey {
    pub(crate) fn from_secret(secret: &Secret) -> Self {
        Self(MacKey::new(secret))
    }

    /// HMAC-SHA256 over the bytes of a manifest that precede its code.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> [u8; 32] {
        self.0.sign(bytes)
    }

    /// Checks a code, in time that does not depend on the position of a difference.
    ///
    /// # Errors
    ///
    /// [`SignatureMismatch`] if it is not the one that [`sign`](Self::sign) makes.
    pub fn verify(&self, bytes: &[u8], code: &[u8; 32]) -> Result<(), SignatureMismatch> {
        if self.0.verify(bytes, code) { Ok(()) } else { Err(SignatureMismatch) }
    }
}

impl fmt::Debug for ManifestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ManifestKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::SignatureMismatch;
    use crate::SealKey;

    #[test]
    fn a_manifest_code_holds_for_its_bytes_and_key_alone() {
        let key = SealKey::from_bytes(&[3; 32]);
        let code = key.manifest_key().sign(b"manifest");
        assert_eq!(key.manifest_key().verify(b"manifest", &code), Ok(()));
        assert_eq!(key.manifest_key().verify(b"Manifest", &code), Err(SignatureMismatch));
        let other = SealKey::from_bytes(&[4; 32]).manifest_key();
        assert_eq!(other.verify(b"manifest", &code), Err(SignatureMismatch));
        // Keys of two purposes never sign alike.
        assert_ne!(key.ticket_key().sign(b"manifest"), code);
    }
}
