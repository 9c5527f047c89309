//! Property: kernels in host form compute what BLAKE3, the fingerprint of the bytes, and RFC 8439
//! say of the bytes that a copy would give, for every span that fits.
//!
//! Method: the references are the crates `blake3` and `ring`, and the portable form of the
//! fingerprint. Lengths are drawn near the edges of blocks, chunks, steps and pieces as often as
//! uniformly. Parts of the memory were never written.

#![expect(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "a test may panic")]

#[macro_use]
extern crate vram_testkit;

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use vram_alloc::{ByteLen, DeviceOffset, DeviceRange, GpuIndex};
use vram_gpu::kernels::{CipherSpan, FingerprintKey, Form, HashSpan, Kernels};
use vram_gpu::{Device, DeviceMemory, HostDevice};

/// Crosses the boundary of a chunk of host memory, and of the pieces of a kernel.
const LEN: usize = (2 << 20) + (600 << 10);

static KEY: LazyLock<FingerprintKey> = LazyLock::new(|| {
    let material = (0..FingerprintKey::LEN).map(|at| at.wrapping_mul(40_503).to_le_bytes()[1]);
    FingerprintKey::from_random(
        material.collect::<Vec<u8>>().into_boxed_slice().try_into().unwrap(),
    )
});

/// A length of at most `max` that is near an edge half of the time.
fn length(max: usize) -> impl Strategy<Value = usize> {
    let near =
        (4_u32..=19, 0_usize..5).prop_map(|(power, by)| ((1 << power) + by).saturating_sub(2));
    prop_oneof![1..=max, near].prop_map(move |len| len.clamp(1, max))
}

/// Memory of which the first half and some bytes behind it are written.
fn memory() -> (Arc<dyn Kernels>, Box<dyn DeviceMemory>, Vec<u8>) {
    let total = ByteLen::from_mib_saturating(8);
    let device = HostDevice::builder(GpuIndex::new(0), total).kernels().build().unwrap();
    let memory = device.allocate(ByteLen::from_usize(LEN)).unwrap();
    let written: Vec<u8> =
        (0..LEN / 2).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    memory.write(range(0, written.len()), &written).unwrap();
    let mut bytes = vec![0; LEN];
    memory.read(range(0, LEN), &mut bytes).unwrap();
    (device.kernels().unwrap(), memory, bytes)
}

fn range(start: usize, len: usize) -> DeviceRange {
    let (start, len) = (DeviceOffset::from_usize(start), ByteLen::from_usize(len));
    DeviceRange::checked(start, len, ByteLen::from_usize(LEN)).unwrap()
}

/// A case moves MiB.
fn fewer() -> ProptestConfig {
    let all = ProptestConfig::default();
    ProptestConfig { cases: all.cases / 8 + 1, ..all }
}

proptest! {
    #![proptest_config(fewer())]

    #[test]
    fn fingerprints_are_the_same_in_every_form_wherever_the_bytes_lie(
        len in length(256 << 10),
        start in 0_usize..70,
        byte in any::<u8>(),
    ) {
        let bytes: Vec<u8> =
            (0..start + len).map(|at| at.wrapping_mul(97).to_le_bytes()[1] ^ byte).collect();
        let span = bytes.get(start..).unwrap();
        let value = KEY.fingerprint_by(Form::Portable, span);
        prop_assert!(value.is_some());
        for form in Form::ALL.into_iter().filter(|form| form.is_usable()) {
            prop_assert_eq!(KEY.fingerprint_by(form, span), value, "{:?}", form);
        }
        prop_assert_eq!(KEY.fingerprint(span), value);
    }

    #[test]
    fn spans_of_device_memory_have_the_values_of_their_bytes(
        spans in prop::collection::vec((0_usize..LEN / 16, length(256 << 10), length(1 << 20)), 1..4),
    ) {
        let (kernels, memory, bytes) = memory();
        let fit = |start: usize, len: usize| (start * 16, len.min(LEN - start * 16));
        let (mut short, mut long) = (Vec::new(), Vec::new());
        for (start, len, longer) in spans {
            short.push(fit(start, len));
            long.push(fit(start, longer));
        }
        let of = |(start, len): (usize, usize)| bytes.get(start..start + len).unwrap();

        let ranges: Vec<_> = short.iter().map(|(start, len)| range(*start, *len)).collect();
        let values = kernels.fingerprint(&*memory, &ranges, &KEY, None).unwrap();
        for (span, value) in short.iter().zip(values) {
            prop_assert_eq!(Some(value.value), KEY.fingerprint_by(Form::Portable, of(*span)));
        }
        let root = |(start, len): &(usize, usize)| {
            HashSpan { range: range(*start, *len), first_chunk: 0, root: true }
        };
        let values = kernels.hash(&*memory, &long.iter().map(root).collect::<Vec<_>>()).unwrap();
        for (span, value) in long.iter().zip(values) {
            prop_assert_eq!(value, *blake3::hash(of(*span)).as_bytes());
        }
    }

    #[test]
    fn a_segment_is_sealed_as_the_reference_seals_it_and_opens_to_what_it_was(
        len in length(600 << 10),
        index in any::<u32>(),
        last in any::<bool>(),
        key in any::<[u8; 32]>(),
        in_place in any::<bool>(),
        flipped in any::<prop::sample::Index>(),
    ) {
        let (kernels, memory, bytes) = memory();
        let target = if in_place { 16 } else { 1 << 20 };
        let source = range(16, len);
        let span = CipherSpan { source, target: DeviceOffset::from_usize(target), index, last };
        let tags = kernels.seal(&*memory, &*memory, &[span], &[key]).unwrap();

        let mut expected = bytes.clone();
        let mut sealed = bytes.get(16..16 + len).unwrap().to_vec();
        let mut nonce = [0; 12];
        nonce[0] = u8::from(last);
        nonce[8..].copy_from_slice(&index.to_be_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let reference = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).unwrap());
        let tag = reference.seal_in_place_separate_tag(nonce, Aad::empty(), &mut sealed).unwrap();
        expected.get_mut(target..target + len).unwrap().copy_from_slice(&sealed);
        prop_assert_eq!(tags.first().unwrap().as_slice(), tag.as_ref());
        let mut seen = vec![0; LEN];
        memory.read(range(0, LEN), &mut seen).unwrap();
        prop_assert!(seen == expected, "exactly the target is written");

        // One bit of what is sealed: nothing is opened.
        let there = range(target, len);
        let at = target + flipped.index(len);
        let byte = expected.get(at).unwrap() ^ 4;
        memory.write(range(at, 1), &[byte]).unwrap();
        let back = CipherSpan { source: there, target: DeviceOffset::from_usize(16), index, last };
        prop_assert_eq!(kernels.open(&*memory, &*memory, &[back], &[key], &tags), Ok(vec![false]));
        memory.write(range(at, 1), &[byte ^ 4]).unwrap();
        memory.read(range(0, LEN), &mut seen).unwrap();
        prop_assert!(seen == expected, "a segment with a wrong tag was opened");
        prop_assert_eq!(kernels.open(&*memory, &*memory, &[back], &[key], &tags), Ok(vec![true]));
        memory.read(range(0, LEN), &mut seen).unwrap();
        prop_assert!(seen.get(16..16 + len) == bytes.get(16..16 + len));
    }
}
