//! Seeds of secret random material, such as the keys of fingerprints.

use core::fmt;

use zeroize::Zeroize;

use crate::key::id::KeyError;
use crate::key::secret::Secret;

/// 32 secret random bytes that stand for longer random material. It depends on no key of a seal.
/// Wiped when dropped.
pub struct Seed(Secret);

impl Seed {
    /// A seed from the operating system's random source.
    ///
    /// # Errors
    ///
    /// [`KeyError::Random`] if that source fails.
    pub fn random() -> Result<Self, KeyError> {
        Secret::random().map(Self)
    }

    /// Fills `material` with bytes that follow from the seed alone: the output of BLAKE3's
    /// `derive_key` mode. The same seed gives the same bytes.
    pub fn expand(&self, material: &mut [u8]) {
        let mut hasher = blake3::Hasher::new_derive_key("vram-residency 2026-11 fingerprint key");
        hasher.update(self.0.as_slice());
        let mut output = hasher.finalize_xof();
        output.fill(material);
        output.zeroize();
        hasher.zeroize();
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_material_again_and_another_seed_gives_another() {
        let (one, other) = (Seed::random().unwrap(), Seed::random().unwrap());
        let material = |seed: &Seed| {
            let mut bytes = [0; 100];
            seed.expand(&mut bytes);
            bytes
        };
        assert_eq!(material(&one), material(&one));
        assert_ne!(material(&one), material(&other));
        assert_eq!(format!("{one:?}"), "Seed(..)");
    }
}
