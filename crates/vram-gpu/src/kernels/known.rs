//! Known answers: what each kernel computes of bytes that anybody can make, so that a device can be
//! tried before its kernels are offered. The tests compare the table with other implementations.

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange};

use super::blake3::Tree;
use super::{CipherSpan, FingerprintKey, HashSpan, KernelError, Kernels};
use crate::dice::mix;
use crate::{DeviceMemory, GpuError};

/// Bytes of device memory that the trial writes and reads.
pub(crate) const MEMORY_LEN: ByteLen = ByteLen::new(384 << 10);

/// Bytes of the input, and where sealed bytes go, behind it.
const INPUT_LEN: usize = 264 << 10;
const SEALED_AT: u64 = 264 << 10;

/// A span to hash: start, length, number of its first chunk, whether it is the whole.
type Hashed = (u64, u64, u64, bool);

/// One byte; two chunks, the second of one byte; a subtree whose number has 33 bits; more than a
/// kernel takes at once.
const HASHED: [(Hashed, &str); 4] = [
    ((0, 1, 0, true), "94aa73e5d53ded06f0dcc593d9fe8a33664d3695be88d9fba0b872938059f213"),
    ((16, 1025, 0, true), "d693f470364979078810ea50029281ade48103765d5efbbb811134e08a0339f9"),
    (
        (4096, 16_384, (1 << 32) + 16, false),
        "38138c958d9e16e11d5827bd2d01d0dc73e420171f36082510da454168c39dd1",
    ),
    ((0, 263_169, 0, true), "bd1fc467dae32bcc6b29d9d88a21ebf66d2a509505279c13b061f11a09f84724"),
];

/// A span, and its fingerprints under two keys.
const FINGERPRINTED: [((u64, u64), [&str; 2]); 3] = [
    ((0, 1), ["4d5f842ff190781db4505de4bea45a18", "a9c55135063c84199577b1e74c6cee1b"]),
    ((16, 5000), ["018a7b878230891b523912db164b2814", "b37e15315853f604c47d414d461c6001"]),
    ((0, 262_144), ["305228fc9a0e9311784ca55c8c8b3d08", "e491907c9e39100ae6fcbebccfc27115"]),
];

/// A segment: start, length, number, whether it is the last one.
type Sealed = (u64, u64, u32, bool);

/// A segment, its tag, and the BLAKE3 hash of its sealed bytes.
const SEALED: [(Sealed, [&str; 2]); 4] = [
    (
        (0, 0, 0, true),
        [
            "b7eb549f096dd676f2ca77889c7e8b04",
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        ],
    ),
    (
        (16, 1, 1, false),
        [
            "d60a14a64a60aa4c1476ee089c994e4a",
            "2cfbc328950e7bf49ce6a8eebf6afb1dd9bad4759bdbeaf9fb0d0253bf2f1a7c",
        ],
    ),
    (
        (32, 100, 2, false),
        [
            "35eb1965c39076af77587bd84b107013",
            "49359353d572b8b11574a0675b13b2d7549f8ec840f72c8093ffc3106b4f7465",
        ],
    ),
    (
        (256, 70_000, 0xFEDC_BA98, true),
        [
            "359f3cbddd55cba212c565ed6c09497d",
            "e81b9a21d3d43a720f1b8aefa0ed9eaf23e9f08f9360edbb88e818ee46a930fa",
        ],
    ),
];

/// Repeatable bytes, other ones for each seed: `SplitMix64` of the positions.
pub(crate) fn input(len: usize, seed: u64) -> Vec<u8> {
    let words = (0_u64..).flat_map(|at| mix(seed ^ mix(at)).to_le_bytes());
    words.take(len).collect()
}

/// Tries hashing and fingerprints. Returns the name of a kernel that gave a wrong result.
///
/// # Arguments
///
/// * `memory`: at least [`MEMORY_LEN`] bytes of the device, which are overwritten.
pub(crate) fn digests(
    kernels: &dyn Kernels,
    memory: &dyn DeviceMemory,
) -> Result<Option<&'static str>, KernelError> {
    memory.write(range(memory, 0, ByteLen::from_usize(INPUT_LEN).get())?, &input(INPUT_LEN, 0))?;
    let mut spans = Vec::new();
    for ((start, len, first_chunk, root), _) in HASHED {
        spans.push(HashSpan { range: range(memory, start, len)?, first_chunk, root });
    }
    let values = kernels.hash(memory, &spans)?;
    if !same(&values, HASHED.map(|(_, value)| value)) {
        return Ok(Some("hash"));
    }

    let mut spans = Vec::new();
    for ((start, len), _) in FINGERPRINTED {
        spans.push(range(memory, start, len)?);
    }
    let (Some(key), Some(renewed)) = (fingerprint_key(1), fingerprint_key(2)) else {
        return Ok(Some("fingerprint"));
    };
    let alone = kernels.fingerprint(memory, &spans, &key, None)?;
    let both = kernels.fingerprint(memory, &spans, &key, Some(&renewed))?;
    let value = |values: &[super::Fingerprints]| -> Vec<[u8; 16]> {
        values.iter().map(|value| *value.value.as_bytes()).collect()
    };
    let second = both.iter().filter_map(|value| value.renewed.map(|value| *value.as_bytes()));
    let [first, other] = [0, 1]
        .map(|at| FINGERPRINTED.map(|(_, values)| values.get(at).copied().unwrap_or_default()));
    let good = same(&value(&alone), first)
        && same(&value(&both), first)
        && same(&second.collect::<Vec<_>>(), other);
    Ok((!good).then_some("fingerprint"))
}

/// Tries sealing, tags and opening; otherwise as [`digests`].
pub(crate) fn ciphers(
    kernels: &dyn Kernels,
    memory: &dyn DeviceMemory,
) -> Result<Option<&'static str>, KernelError> {
    let bytes = input(INPUT_LEN, 0);
    memory.write(range(memory, 0, ByteLen::from_usize(INPUT_LEN).get())?, &bytes)?;
    let (mut plain, mut sealed, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for ((start, len, index, last), _) in SEALED {
        let there = range(memory, SEALED_AT.saturating_add(start), len)?;
        let source = range(memory, start, len)?;
        plain.push(CipherSpan { source, target: there.start(), index, last });
        sealed.push(CipherSpan { source: there, target: there.start(), index, last });
        keys.push(input(32, u64::from(index)).try_into().unwrap_or([0; 32]));
    }
    let tags = SEALED.map(|(_, [tag, _])| tag);
    let values = kernels.seal(memory, memory, &plain, &keys)?;
    let hashes: Vec<_> = hashes(memory, &sealed)?;
    if !same(&values, tags) || !same(&hashes, SEALED.map(|(_, [_, hash])| hash)) {
        return Ok(Some("seal"));
    }
    if kernels.tags(memory, &sealed, &keys)? != values {
        return Ok(Some("tags"));
    }

    // The third one is refused.
    let mut wrong = values;
    if let Some(byte) = wrong.get_mut(2).and_then(|tag| tag.last_mut()) {
        *byte ^= 1;
    }
    let good = kernels.open(memory, memory, &sealed, &keys, &wrong)?;
    let opened = self::hashes(memory, &sealed)?;
    let expected = self::hashes(memory, &plain)?;
    let as_expected = opened.iter().zip(&expected).zip(&hashes).enumerate().all(|(at, all)| {
        let ((opened, plain), sealed) = all;
        opened == if at == 2 { sealed } else { plain }
    });
    let fine = good == [true, true, false, true] && as_expected;
    Ok((!fine).then_some("open"))
}

/// The hashes of the sources of segments, which the host computes.
fn hashes(memory: &dyn DeviceMemory, spans: &[CipherSpan]) -> Result<Vec<[u8; 32]>, GpuError> {
    let hash = |span: &CipherSpan| {
        let mut bytes = vec![0; span.source.len().to_usize().unwrap_or(0)];
        memory.read(span.source, &mut bytes)?;
        let mut tree = Tree::at(0);
        tree.update(&bytes);
        Ok(tree.finish(true))
    };
    spans.iter().map(hash).collect()
}

fn fingerprint_key(seed: u64) -> Option<FingerprintKey> {
    let material = input(FingerprintKey::LEN, seed).into_boxed_slice();
    material.try_into().ok().map(FingerprintKey::from_random)
}

fn range(memory: &dyn DeviceMemory, start: u64, len: u64) -> Result<DeviceRange, GpuError> {
    let capacity = memory.len();
    DeviceRange::checked(DeviceOffset::new(start), ByteLen::new(len), capacity)
        .map_err(|error| GpuError::from_bounds(memory.gpu(), error, capacity))
}

/// Whether values are those that the table gives.
fn same<const N: usize, const M: usize>(values: &[[u8; N]], expected: [&str; M]) -> bool {
    values.len() == M && values.iter().zip(expected).all(|(value, text)| digits(value) == text)
}

/// Bytes in hexadecimal digits.
fn digits(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
    use vram_alloc::GpuIndex;

    use super::*;
    use crate::{Device, FaultDevice, HostDevice};

    fn part(start: u64, len: u64) -> Vec<u8> {
        let [start, len] = [start, len].map(|number| usize::try_from(number).unwrap());
        input(INPUT_LEN, 0)[start..].iter().take(len).copied().collect()
    }

    #[test]
    fn the_table_is_what_other_implementations_compute() {
        use blake3::hazmat::HasherExt;
        for ((start, len, first_chunk, root), expected) in HASHED {
            let mut hasher = blake3::Hasher::new();
            hasher.set_input_offset(first_chunk * 1024).update(&part(start, len));
            let value =
                if root { *hasher.finalize().as_bytes() } else { hasher.finalize_non_root() };
            assert_eq!(digits(&value), expected);
        }
        for ((start, len), expected) in FINGERPRINTED {
            for (seed, expected) in (1..).zip(expected) {
                let material = input(FingerprintKey::LEN, seed);
                let value = crate::kernels::fingerprint::definition(&material, &part(start, len));
                assert_eq!(digits(&value), expected);
            }
        }
        for ((start, len, index, last), [tag, hash]) in SEALED {
            let key = input(32, u64::from(index));
            let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).unwrap());
            let mut nonce = [0; 12];
            nonce[0] = u8::from(last);
            nonce[4..].copy_from_slice(&u64::from(index).to_be_bytes());
            let (nonce, mut bytes) = (Nonce::assume_unique_for_key(nonce), part(start, len));
            let value = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut bytes).unwrap();
            assert_eq!(
                [digits(value.as_ref()), blake3::hash(&bytes).to_hex().to_string()],
                [tag, hash]
            );
        }
    }

    #[test]
    fn the_document_has_the_vectors_of_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/fingerprint.md");
        let text = std::fs::read_to_string(path).unwrap();
        for ((start, len), [value, _]) in FINGERPRINTED {
            let row = format!("| bytes {start} … {} | `{value}` |", start + len - 1);
            assert!(text.contains(&row), "{row}");
        }
    }

    #[test]
    fn sound_kernels_pass_and_every_one_that_errs_is_named() {
        use crate::fault::{Action, FaultPlan, Op};
        let host = HostDevice::builder(GpuIndex::new(0), ByteLen::MIB).kernels().build().unwrap();
        let device = FaultDevice::new(Arc::new(host), FaultPlan::new(1));
        let memory = device.allocate(MEMORY_LEN).unwrap();
        let kernels = device.kernels().unwrap();
        let tried =
            || (digests(&*kernels, &*memory).unwrap(), ciphers(&*kernels, &*memory).unwrap());
        assert_eq!(tried(), (None, None));

        for span in 0..4 {
            let wrong = Action::FlipResult { span, bit: 77 };
            device.next(Op::Hash, wrong.clone()).unwrap();
            device.next(Op::Seal, wrong).unwrap();
            assert_eq!(tried(), (Some("hash"), Some("seal")), "{span}");
        }
        for bit in [0, 127, 128, 255] {
            let wrong = Action::FlipResult { span: 1, bit };
            device.add(Op::Fingerprint, crate::fault::When::Nth(2), wrong.clone()).unwrap();
            device.next(Op::Tags, wrong).unwrap();
            assert_eq!(tried(), (Some("fingerprint"), Some("tags")), "{bit}");
            device.clear();
        }
        for span in 0..4 {
            device.next(Op::Open, Action::FlipResult { span, bit: 0 }).unwrap();
            assert_eq!(tried(), (None, Some("open")), "{span}");
        }
        assert_eq!(tried(), (None, None));
    }
}
