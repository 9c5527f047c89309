//! Sealing segments whose bytes are hashed and encrypted elsewhere: on the device that holds them.

use core::fmt;

use crate::error::SealError;
use crate::key::schedule::trailer;
use crate::record::params::{Mode, SivScope};
use crate::seal::sealer::{SealedSegment, Sealer};
use crate::segment::chain::SegmentHash;
use crate::segment::lent::SegmentKey;
use crate::segment::table::Entry;
use crate::wipe::scrub_stack_of_hash;

/// A segment that is sealed elsewhere: its hash is known, its tag is not.
///
/// Who hashes and who encrypts must work on the same bytes, which no other party may write
/// meanwhile: two plaintexts under one key and nonce would show their difference.
pub struct BegunSegment {
    done: SealedSegment,
    key: Option<SegmentKey>,
}

impl Sealer {
    /// Begins to seal a segment whose plaintext has this hash.
    ///
    /// # Errors
    ///
    /// [`SealError::NoSuchSegment`]; [`SealError::SourceChanged`] if the hashes are fixed and this
    /// is another.
    pub fn begin_segment(
        &self,
        segment: u64,
        hash: SegmentHash,
    ) -> Result<BegunSegment, SealError> {
        let count = self.layout().count();
        if segment >= count {
            return Err(SealError::NoSuchSegment { segment, count });
        }
        if self.is_fixed() && self.fixed_hash(segment) != Some(&hash) {
            return Err(SealError::SourceChanged { segment });
        }
        let trailer = trailer(self.layout(), segment);
        let last = self.layout().is_last(segment);
        let key = |siv: &[u8; 32]| {
            let key = self.schedule.segment_key(siv, &trailer);
            scrub_stack_of_hash();
            Some(SegmentKey::new(&key, segment, last))
        };
        let (entry, key) = match self.fields.mode() {
            Mode::Authenticated => {
                let code = *self.schedule.attestation(&hash, &trailer).as_bytes();
                (Entry::Authenticated { code }, None)
            }
            Mode::Encrypted { scope: SivScope::Segment, .. } => {
                let siv = *self.schedule.segment_siv(&hash, &trailer).as_bytes();
                (Entry::Segment { siv, tag: [0; 16] }, key(&siv))
            }
            Mode::Encrypted { scope: SivScope::Shard, .. } => {
                (Entry::Shard { tag: [0; 16] }, key(self.fields.siv()))
            }
        };
        let done = SealedSegment { seal: self.id, segment, entry, hash };
        Ok(BegunSegment { done, key })
    }
}

impl BegunSegment {
    /// The number of the segment.
    #[must_use]
    pub const fn segment(&self) -> u64 {
        self.done.segment
    }

    /// The key to encrypt with; none in mode Authenticated, where nothing is encrypted.
    #[must_use]
    pub const fn key(&self) -> Option<&SegmentKey> {
        self.key.as_ref()
    }

    /// Ends the segment with the tag that the cipher computed. In mode Authenticated there is none,
    /// and this one is not used.
    #[must_use]
    pub fn finish(mut self, computed: [u8; 16]) -> SealedSegment {
        match &mut self.done.entry {
            Entry::Authenticated { .. } => {}
            Entry::Segment { tag, .. } | Entry::Shard { tag } => *tag = computed,
        }
        self.done
    }
}

impl fmt::Debug for BegunSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BegunSegment({})", self.done.segment)
    }
}

#[cfg(test)]
mod tests {
    use ring::aead;
    use vram_alloc::ByteLen;

    use super::*;
    use crate::segment::aead::nonce;
    use crate::{
        Expected, Opener, Protection, SealContext, SealKey, SealParams, SegmentCollector,
        SegmentSize, Suite, Threads, seal,
    };

    /// As a device does it: with the key alone, and what the key says of its place.
    fn encrypt(key: &SegmentKey, suite: Suite, buffer: &mut [u8]) -> [u8; 16] {
        let algorithm = match suite {
            Suite::Aes256Gcm => &aead::AES_256_GCM,
            Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        let unbound = aead::UnboundKey::new(algorithm, key.as_bytes()).unwrap();
        let nonce = nonce(key.segment(), key.is_last());
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let sealing = aead::LessSafeKey::new(unbound);
        let tag = sealing.seal_in_place_separate_tag(nonce, aead::Aad::empty(), buffer).unwrap();
        tag.as_ref().try_into().unwrap()
    }

    #[test]
    fn what_is_sealed_elsewhere_is_what_the_sealer_would_make() {
        let plain: Vec<u8> = (0_u32..2500).flat_map(u32::to_le_bytes).collect();
        let (key, context) = (SealKey::from_bytes(&[7; 32]), SealContext::new("m").unwrap());
        let params = SealParams::new().with_segment(SegmentSize::MIN);
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            for params in [
                params.with_suite(suite),
                params.with_suite(suite).with_scope(SivScope::Shard),
                params.with_protection(Protection::Authenticated),
            ] {
                let mut wanted = vec![0; plain.len()];
                let here =
                    seal(&key, &context, params, Threads::AUTO, &plain, &mut wanted).unwrap();
                let len = ByteLen::from_usize(plain.len());
                let fresh = Sealer::new(&key, &context, params, len).unwrap();
                let hash = |n: usize, part: &[u8]| {
                    fresh.hash_segment(n.try_into().unwrap(), part).unwrap()
                };
                let hashes: Vec<_> =
                    plain.chunks(4096).enumerate().map(|(n, part)| hash(n, part)).collect();
                let sealer = fresh.begin(|_| Ok::<_, SealError>(hashes.clone())).unwrap();
                let collector = SegmentCollector::new(sealer).unwrap();
                let mut data = plain.clone();
                for ((segment, part), hash) in (0..).zip(data.chunks_mut(4096)).zip(hashes) {
                    let begun = collector.sealer().begin_segment(segment, hash).unwrap();
                    let tag = begun.key().map_or([0; 16], |key| encrypt(key, suite, part));
                    collector.put(segment, begun.finish(tag)).unwrap();
                }
                let there = collector.finish().unwrap();
                assert_eq!((&there.record, &there.tags), (&here.record, &here.tags));
                assert!(there.digest == here.digest && data == wanted);

                let expected = Expected::new("m").unwrap().params(params);
                let opener = Opener::open(&key, &there.record, there.tags, &expected).unwrap();
                for (segment, part) in (0..).zip(plain.chunks(4096)) {
                    let lent = opener.segment_key(segment).unwrap();
                    let mut again = part.to_vec();
                    let tag = lent.as_ref().map(|(key, _)| encrypt(key, suite, &mut again));
                    assert_eq!(tag, lent.map(|(_, tag)| tag));
                }
                assert!(opener.segment_key(3).is_err());
            }
        }
    }

    #[test]
    fn a_segment_that_is_not_there_or_is_not_the_fixed_one_is_not_begun() {
        let (key, context) = (SealKey::from_bytes(&[7; 32]), SealContext::new("m").unwrap());
        let params = SealParams::new().with_scope(SivScope::Shard);
        let fresh = Sealer::new(&key, &context, params, ByteLen::new(7)).unwrap();
        let right = fresh.hash_segment(0, b"weights").unwrap();
        let wrong = fresh.hash_segment(0, b"Weights").unwrap();
        let sealer = fresh.fix(vec![right.clone()]).unwrap();
        let refused = |segment, hash: &SegmentHash| sealer.begin_segment(segment, hash.clone());
        assert!(matches!(refused(1, &right), Err(SealError::NoSuchSegment { .. })));
        assert!(matches!(refused(0, &wrong), Err(SealError::SourceChanged { segment: 0 })));
        assert!(refused(0, &right).is_ok());
    }
}
