//! 32 secret bytes: the only form in which this crate keeps a key for longer than a call.

use core::ops::{Deref, DerefMut};

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroize;

use crate::key::id::KeyError;

/// Wiped when dropped, and in one heap allocation, so that moving it leaves no copy behind.
pub(crate) struct Secret(Box<[u8; 32]>);

impl Secret {
    pub(crate) fn zeros() -> Self {
        Self(Box::new([0; 32]))
    }

    /// From the operating system's random source.
    ///
    /// # Errors
    ///
    /// [`KeyError::Random`] if that source fails.
    pub(crate) fn random() -> Result<Self, KeyError> {
        let mut secret = Self::zeros();
        SystemRandom::new().fill(secret.as_mut_slice()).map_err(|_| KeyError::Random)?;
        Ok(secret)
    }

    /// Copies bytes into the allocation, with no copy on the stack.
    pub(crate) fn copy_of(bytes: &[u8; 32]) -> Self {
        let mut secret = Self::zeros();
        secret.copy_from_slice(bytes);
        secret
    }
}

impl Deref for Secret {
    type Target = [u8; 32];

    fn deref(&self) -> &[u8; 32] {
        &self.0
    }
}

impl DerefMut for Secret {
    fn deref_mut(&mut self) -> &mut [u8; 32] {
        &mut self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
