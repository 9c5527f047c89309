//! All keyed computations of one seal, bound to its record.

use std::sync::Arc;

use zeroize::{Zeroize, Zeroizing};

use crate::key::derived::DerivedKeys;
use crate::key::mac::MacKey;
use crate::record::layout::SegmentLayout;
use crate::segment::chain::SegmentHash;
use crate::wipe::{scrub_stack_of_hash, wipe_short};

/// Up to this many bytes are hashed at once. A hasher takes 2 KiB, which are cleared, moved and wiped:
/// several times the cost of hashing the longest message about a segment, 96 bytes.
const SHORT: usize = 256;

/// A keyed hash over the concatenation of `parts`.
fn keyed(key: &[u8; 32], parts: &[&[u8]]) -> blake3::Hash {
    let mut message = [0; SHORT];
    let Some(len) = joined(parts, &mut message) else { return keyed_by_parts(key, parts) };
    let message = message.get_mut(..len).unwrap_or_default();
    let hash = blake3::keyed_hash(key, message);
    // The hash of a segment may be in it, which confirms guesses.
    wipe_short(message);
    hash
}

/// Writes the parts one after the other, and returns their length; `None` if they are too long.
fn joined(parts: &[&[u8]], target: &mut [u8; SHORT]) -> Option<usize> {
    let len = parts.iter().try_fold(0_usize, |len, part| len.checked_add(part.len()))?;
    let mut rest = target.get_mut(..len)?;
    for part in parts {
        let (here, after) = rest.split_at_mut_checked(part.len())?;
        here.copy_from_slice(part);
        rest = after;
    }
    Some(len)
}

fn keyed_by_parts(key: &[u8; 32], parts: &[&[u8]]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in parts {
        hasher.update(part);
    }
    let hash = hasher.finalize();
    hasher.zeroize();
    hash
}

/// A code in a record, under the key for its purpose. The caller overwrites the stack.
pub(crate) fn code(key: &[u8; 32], parts: &[&[u8]]) -> blake3::Hash {
    keyed(key, parts)
}

/// All keyed computations of one seal: its keys, and the hash of the record's first 128 bytes,
/// which binds the computations to the record.
pub(crate) struct Schedule {
    ctx: [u8; 32],
    keys: Arc<DerivedKeys>,
}

impl Schedule {
    /// `bound` is the part of the header that is known before the first segment is sealed: bytes 0
    /// to 127.
    pub(crate) fn new(keys: &Arc<DerivedKeys>, bound: &[u8]) -> Self {
        Self { ctx: *blake3::hash(bound).as_bytes(), keys: Arc::clone(keys) }
    }

    /// The key of the code over the record's header.
    pub(crate) fn header_mac(&self) -> &MacKey {
        &self.keys.header_mac
    }

    /// The synthetic IV of a whole shard, from its content digest.
    pub(crate) fn shard_siv(&self, digest: &[u8; 32]) -> blake3::Hash {
        let siv = keyed(&self.keys.siv, &[&self.ctx, digest]);
        scrub_stack_of_hash();
        siv
    }

    /// The synthetic IV of one segment, from its plaintext hash. The caller overwrites the stack.
    pub(crate) fn segment_siv(&self, hash: &SegmentHash, trailer: &[u8; 32]) -> blake3::Hash {
        keyed(&self.keys.siv, &[&self.ctx, hash.as_bytes(), trailer])
    }

    /// The table entry for one segment of an authenticated shard.
    pub(crate) fn attestation(&self, hash: &SegmentHash, trailer: &[u8; 32]) -> blake3::Hash {
        let code = keyed(&self.keys.attest, &[&self.ctx, hash.as_bytes(), trailer]);
        scrub_stack_of_hash();
        code
    }

    /// The key that encrypts this one segment. The caller overwrites the stack.
    pub(crate) fn segment_key(&self, siv: &[u8; 32], trailer: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        let mut key = keyed(&self.keys.segment, &[&self.ctx, siv, trailer]);
        let bytes = Zeroizing::new(*key.as_bytes());
        key.zeroize();
        bytes
    }

    /// The code over the whole segment table. The caller overwrites the stack.
    pub(crate) fn table_mac(&self, table: &[u8]) -> blake3::Hash {
        keyed(&self.keys.table, &[&self.ctx, table])
    }
}

/// The values that distinguish one segment from every other of its shard: index, length, whether it
/// is last.
pub(crate) fn trailer(layout: &SegmentLayout, segment: u64) -> [u8; 32] {
    let mut trailer = [0; 32];
    let (head, rest) = trailer.split_at_mut(8);
    head.copy_from_slice(&segment.to_le_bytes());
    let (len, rest) = rest.split_at_mut(8);
    len.copy_from_slice(&layout.len_of(segment).to_le_bytes());
    if let Some(last) = rest.first_mut() {
        *last = u8::from(layout.is_last(segment));
    }
    trailer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyed_hash_is_the_same_at_once_and_by_parts_and_of_the_parts_in_one() {
        let (key, whole) = ([7; 32], [5; 2 * SHORT]);
        for len in [0, 1, 64, 96, SHORT - 1, SHORT, SHORT + 1, 2 * SHORT] {
            for cut in [0, 1, len / 2, len] {
                let (head, tail) = whole[..len].split_at(cut.min(len));
                let expected = blake3::keyed_hash(&key, &whole[..len]);
                for parts in [&[head, tail][..], &[head, &[], tail]] {
                    assert_eq!(keyed(&key, parts), expected, "{len} bytes, cut at {cut}");
                    assert_eq!(keyed_by_parts(&key, parts), expected, "{len} bytes, cut at {cut}");
                }
            }
        }
    }
}
