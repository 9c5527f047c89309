//! What must not be in memory: secrets in every form in which the program or its ciphers hold them,
//! computed here by other code.

use core::fmt::Write as _;

use vram_residency::SealKey;
use vram_seal::{Protection, SealContext, SealParams, SegmentSize, SivScope, Suite, Threads, seal};

use super::{LEN, MODEL, plaintext};

/// A name, and bytes that are secret.
pub(crate) type Pattern = (String, Vec<u8>);

/// Segments whose keys are looked for: the first, the last, and some between.
const SEGMENTS: [u64; 5] = [0, 1, 100, 200, 255];

/// Lower-case hexadecimal digits.
pub(crate) fn digits(bytes: &[u8]) -> String {
    let mut digits = String::new();
    for byte in bytes {
        write!(digits, "{byte:02x}").unwrap();
    }
    digits
}

/// Every pattern, each of at least 16 bytes. Long ones are there in halves too, since a copy may
/// have been overwritten in part.
pub(crate) fn all(master: &[u8; 32]) -> Vec<Pattern> {
    let mut found: Vec<Pattern> = Vec::new();
    let mut add = |name: &str, bytes: &[u8]| {
        for (half, part) in ["", " (end)"].into_iter().zip(bytes.chunks(bytes.len().div_ceil(2))) {
            found.push((format!("{name}{half}"), part.to_vec()));
        }
    };
    add("master key", master);
    add("master key in digits", digits(master).as_bytes());
    let derive =
        |purpose: &str| blake3::derive_key(&format!("vram-seal v1 2026-11 {purpose}"), master);
    for purpose in ["header-mac", "siv", "segment-key", "table-mac", "attest", "ticket"] {
        let key = derive(purpose);
        add(purpose, &key);
        if ["header-mac", "ticket"].contains(&purpose) {
            for (name, state) in hmac_states(&key) {
                add(&format!("{purpose}, {name}"), &state);
            }
        }
    }
    let encrypt = derive("segment-key");
    for scope in [SivScope::Shard, SivScope::Segment] {
        let (ctx, sivs) = sealed(master, scope);
        for segment in SEGMENTS {
            let siv = &sivs[usize::try_from(segment).unwrap() % sivs.len()];
            let mut trailer = [0; 32];
            trailer[..8].copy_from_slice(&segment.to_le_bytes());
            trailer[8..16].copy_from_slice(&4096_u64.to_le_bytes());
            trailer[16] = u8::from(segment == 255);
            let key = blake3::keyed_hash(&encrypt, &[&ctx[..], siv, &trailer].concat());
            add(&format!("key of segment {segment}, {scope:?}"), key.as_bytes());
            for (round, key) in aes_round_keys(key.as_bytes()).into_iter().enumerate().skip(2) {
                let name = format!("round key {round} of segment {segment}, {scope:?}");
                found_whole(&mut add, &name, &key);
            }
        }
    }
    found
}

/// A round key has 16 bytes, which are looked for as a whole: repeated, so that each half is one.
fn found_whole(add: &mut impl FnMut(&str, &[u8]), name: &str, key: &[u8; 16]) {
    add(name, &[*key, *key].concat());
}

/// `ctx` and the synthetic IVs of the content that the child seals, of one scope.
fn sealed(master: &[u8; 32], scope: SivScope) -> ([u8; 32], Vec<Vec<u8>>) {
    let params = SealParams::new()
        .with_protection(Protection::Encrypted)
        .with_suite(Suite::Aes256Gcm)
        .with_segment(SegmentSize::MIN)
        .with_scope(scope);
    let (content, mut data) = (plaintext(), vec![0; LEN]);
    let sealed_as = SealContext::new(MODEL).unwrap();
    let key = SealKey::from_bytes(master);
    let sealed = seal(&key, &sealed_as, params, Threads::ONE, &content, &mut data).unwrap();
    let sivs = match scope {
        SivScope::Segment => {
            sealed.tags.as_bytes().chunks(48).map(|entry| entry[..32].to_vec()).collect()
        }
        _ => vec![sealed.record[128..160].to_vec()],
    };
    (*blake3::hash(&sealed.record[..128]).as_bytes(), sivs)
}

fn substitutions() -> [u8; 256] {
    let mut table = [0; 256];
    let (mut p, mut q) = (1_u8, 1_u8);
    loop {
        p = p ^ (p << 1) ^ (if p & 0x80 == 0 { 0 } else { 0x1b });
        q ^= q << 1;
        q ^= q << 2;
        q ^= q << 4;
        q ^= if q & 0x80 == 0 { 0 } else { 0x09 };
        let turned = q ^ q.rotate_left(1) ^ q.rotate_left(2) ^ q.rotate_left(3) ^ q.rotate_left(4);
        table[usize::from(p)] = turned ^ 0x63;
        if p == 1 {
            table[0] = 0x63;
            return table;
        }
    }
}

/// The key schedule of AES-256 (FIPS 197).
pub(crate) fn aes_round_keys(key: &[u8; 32]) -> Vec<[u8; 16]> {
    let table = substitutions();
    let substitute = |word: [u8; 4]| word.map(|byte| table[usize::from(byte)]);
    let mut words: Vec<[u8; 4]> = key.chunks(4).map(|word| word.try_into().unwrap()).collect();
    let mut constant = 1_u8;
    for index in 8..60 {
        let mut word = words[index - 1];
        if index % 8 == 0 {
            word.rotate_left(1);
            word = substitute(word);
            word[0] ^= constant;
            constant <<= 1;
        } else if index % 8 == 4 {
            word = substitute(word);
        }
        let before = words[index - 8];
        words.push(core::array::from_fn(|at| before[at] ^ word[at]));
    }
    words.chunks(4).map(|key| key.concat().try_into().unwrap()).collect()
}

/// The first `count` primes.
fn primes(count: usize) -> Vec<u32> {
    (2..).filter(|n| (2..*n).all(|divisor| n % divisor != 0)).take(count).collect()
}

/// The first 32 bits after the binary point.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the fraction times 2^32 is cut to 32 bits, as the standard says"
)]
fn fraction(number: f64) -> u32 {
    (number.fract() * 4_294_967_296.0) as u32
}

/// The state of SHA-256 after one block (FIPS 180-4).
pub(crate) fn sha256_state(block: &[u8; 64]) -> [u32; 8] {
    let primes = primes(64);
    let k: Vec<u32> = primes.iter().map(|prime| fraction(f64::from(*prime).cbrt())).collect();
    let mut state: [u32; 8] = core::array::from_fn(|at| fraction(f64::from(primes[at]).sqrt()));
    let mut words: Vec<u32> =
        block.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
    for at in 16..64 {
        let (x, y) = (words[at - 15], words[at - 2]);
        let s0 = x.rotate_right(7) ^ x.rotate_right(18) ^ (x >> 3);
        let s1 = y.rotate_right(17) ^ y.rotate_right(19) ^ (y >> 10);
        let sum = words[at - 16].wrapping_add(s0).wrapping_add(words[at - 7]);
        words.push(sum.wrapping_add(s1));
    }
    let mut v = state;
    for at in 0..64 {
        let s1 = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
        let choice = (v[4] & v[5]) ^ (!v[4] & v[6]);
        let sum = v[7].wrapping_add(s1).wrapping_add(choice).wrapping_add(k[at]);
        let first = sum.wrapping_add(words[at]);
        let s0 = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
        let majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
        let second = s0.wrapping_add(majority);
        v.rotate_right(1);
        v[4] = v[4].wrapping_add(first);
        v[0] = first.wrapping_add(second);
    }
    for (word, more) in state.iter_mut().zip(v) {
        *word = word.wrapping_add(more);
    }
    state
}

/// The states from which HMAC-SHA256 under a key goes on, as words of either order.
fn hmac_states(key: &[u8; 32]) -> Vec<Pattern> {
    let mut states = Vec::new();
    for (name, pad) in [("inner", 0x36), ("outer", 0x5c)] {
        let mut block = [pad; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        let state = sha256_state(&block);
        let little = state.iter().flat_map(|word| word.to_le_bytes()).collect();
        let big = state.iter().flat_map(|word| word.to_be_bytes()).collect();
        states.push((format!("{name} state, little endian"), little));
        states.push((format!("{name} state, big endian"), big));
    }
    states
}
