//! A key of HMAC-SHA256 in the form in which it is used.

use core::hint::black_box;

use ring::hmac;

use crate::wipe::{scrub_stack, scrub_stack_of_hash};

/// A key of HMAC-SHA256, prepared once for many codes: as secret as the 32 bytes that it was made of.
///
/// It is in one heap allocation, so that moving it leaves no copy behind. ring does not wipe its keys:
/// when it is dropped, a key of zeros takes its place in that allocation.
pub(crate) struct MacKey(Box<hmac::Key>);

impl MacKey {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let mac = Self(boxed(key));
        scrub_stack();
        mac
    }

    pub(crate) fn sign(&self, statement: &[u8]) -> [u8; 32] {
        let mut signature = [0; 32];
        let code = hmac::sign(&self.0, statement);
        for (target, source) in signature.iter_mut().zip(code.as_ref()) {
            *target = *source;
        }
        scrub_stack_of_hash();
        signature
    }

    /// Constant in time over the signature's content.
    pub(crate) fn verify(&self, statement: &[u8], signature: &[u8; 32]) -> bool {
        let sound = hmac::verify(&self.0, statement, signature).is_ok();
        scrub_stack_of_hash();
        sound
    }
}

/// Apart, so that the frame in which ring builds the key lies below the caller's, which wipes it.
#[inline(never)]
fn boxed(key: &[u8; 32]) -> Box<hmac::Key> {
    Box::new(hmac::Key::new(hmac::HMAC_SHA256, key))
}

impl Drop for MacKey {
    fn drop(&mut self) {
        *self.0 = hmac::Key::new(hmac::HMAC_SHA256, &[0; 32]);
        black_box(&*self.0);
    }
}
