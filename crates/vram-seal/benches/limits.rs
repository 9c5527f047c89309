//! How close sealing, opening and verifying come to the limit of their primitives.
//!
//! The limit of a seal is that of its two passes: one over the sum of the times of BLAKE3 and of the
//! cipher. *Hot*: each primitive works on the same 256 KiB again and again, in the cache. *Cold*:
//! over the whole shard, each in a pass of its own. All variants take turns; medians.
//!
//! ```sh
//! cargo bench -p vram-seal --bench limits                   # 256 KiB, 4 MiB, 256 MiB, and 2 GiB where there is room
//! cargo bench -p vram-seal --bench limits -- 2048           # one size, in MiB
//! cargo bench -p vram-seal --bench limits -- --quick        # a few rounds, to see that it works
//! VRAM_SEAL_READ_AHEAD=off cargo bench -p vram-seal --bench limits
//! ```

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![expect(clippy::print_stdout, reason = "printing a table is the purpose")]
#![expect(clippy::indexing_slicing, reason = "a bench fails by panicking")]
#![expect(clippy::arithmetic_side_effects, reason = "figures far below 2^63")]

use core::hint::black_box;
use std::thread;
use std::time::Instant;

use ring::aead;
use vram_seal::{
    Expected, Opener, Protection, SealContext, SealKey, SealParams, SivScope, Suite, Threads,
    read_ahead_len, seal, seal_in_place, unseal, unseal_in_place, verify,
};

const SEGMENT: usize = 256 << 10;
/// Bytes of all rounds of one variant.
const BYTES: usize = 1 << 30;
/// The longest shard, of which only a machine with much memory is asked.
const LARGEST: usize = 2 << 30;

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let sizes: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if quick {
        vec![SEGMENT, 16 << 20]
    } else if sizes.is_empty() {
        let mut sizes = vec![SEGMENT, 4 << 20, 256 << 20];
        sizes.extend(Some(LARGEST).filter(|len| has_room_for(*len)));
        sizes
    } else {
        sizes.into_iter().map(|mib| mib << 20).collect()
    };
    let start = Instant::now();
    let ahead = read_ahead_len();
    println!("reads ahead {ahead:?} bytes at a time, chosen in {:?}", start.elapsed());
    let all = thread::available_parallelism().unwrap().get();
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        for len in &sizes {
            for threads in [1, all] {
                println!("{suite:?}, {} KiB, {threads} threads", len >> 10);
                let fewest = if *len < LARGEST { 5 } else { 3 };
                let rounds = if quick { 3 } else { (BYTES / len).clamp(fewest, 400) };
                table(suite, *len, threads, rounds);
            }
        }
    }
}

/// Returns true if three times the memory of a size is available, and prints that it is left out
/// otherwise: beside a machine's other work, it would be measured against its swapping.
fn has_room_for(len: usize) -> bool {
    let needed = (3 * len) >> 20;
    let about = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = about.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = available.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    let mib = kib.unwrap_or(0) >> 10;
    if mib < 3 * needed {
        let asked = 3 * needed;
        println!(
            "left out: {} KiB, which takes {needed} MiB: {asked} MiB must be available, and {mib} MiB are",
            len >> 10
        );
    }
    mib >= 3 * needed
}

struct Rows {
    names: Vec<&'static str>,
    seconds: Vec<Vec<f64>>,
}

fn table(suite: Suite, len: usize, threads: usize, rounds: usize) {
    let plain: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let (mut data, mut out) = (plain.clone(), plain.clone());
    let context = SealContext::new("bench").unwrap();
    let key = SealKey::from_bytes(&[7; 32]);
    let params = SealParams::new().with_suite(suite).with_scope(SivScope::Segment);
    let plainly = params.with_protection(Protection::Authenticated);
    let count = Threads::exactly(threads);
    let opener = |params: SealParams, data: &mut [u8]| {
        let sealed = seal(&key, &context, params, Threads::AUTO, &plain, data).unwrap();
        let expected = Expected::from(&context).params(params);
        Opener::open(&key, &sealed.record, sealed.tags, &expected).unwrap()
    };
    let attested = opener(plainly, &mut data);
    let sealed = opener(params, &mut data);
    let cipher = cipher(suite);
    let mut spaces = vec![vec![3; SEGMENT.min(len)]; threads];
    let mut rows = Rows { names: Vec::new(), seconds: Vec::new() };
    for _ in 0..rounds {
        let mut at = 0;
        let mut row = |name, call: &mut dyn FnMut()| {
            let start = Instant::now();
            call();
            rows.add(at, name, start.elapsed().as_secs_f64());
            at += 1;
        };
        row("memcpy", &mut || each(threads, &plain, &mut out, |from, to| to.copy_from_slice(from)));
        row("BLAKE3 hot", &mut || {
            hot(&mut spaces, len, |bytes| _ = black_box(blake3::hash(bytes)));
        });
        row("cipher hot", &mut || hot(&mut spaces, len, |bytes| encrypt(&cipher, bytes)));
        row("BLAKE3 cold", &mut || {
            each(threads, &plain, &mut out, |from, _| _ = black_box(blake3::hash(from)));
        });
        row("cipher cold", &mut || each(threads, &plain, &mut out, |_, to| encrypt(&cipher, to)));
        row("seal in place", &mut || {
            black_box(seal_in_place(&key, &context, params, count, &mut out).unwrap());
        });
        row("seal", &mut || {
            black_box(seal(&key, &context, params, count, &plain, &mut out).unwrap());
        });
        out.copy_from_slice(&data);
        row("unseal in place", &mut || unseal_in_place(&sealed, count, &mut out).unwrap());
        row("unseal", &mut || unseal(&sealed, count, &data, &mut out).unwrap());
        row("verify encrypted", &mut || drop(black_box(verify(&sealed, count, &data).unwrap())));
        row("verify authenticated", &mut || {
            drop(black_box(verify(&attested, count, &plain).unwrap()));
        });
    }
    rows.print(len);
}

impl Rows {
    fn add(&mut self, at: usize, name: &'static str, seconds: f64) {
        if self.names.len() <= at {
            self.names.push(name);
            self.seconds.push(Vec::new());
        }
        self.seconds[at].push(seconds);
    }

    fn print(mut self, len: usize) {
        let mut median = |name: &str| {
            let at = self.names.iter().position(|other| *other == name).unwrap();
            let rounds = &mut self.seconds[at];
            rounds.sort_unstable_by(f64::total_cmp);
            rounds[rounds.len() / 2]
        };
        let hot = [median("BLAKE3 hot"), median("cipher hot")];
        let cold = [median("BLAKE3 cold"), median("cipher cold")];
        let both = |pair: [f64; 2]| pair[0] + pair[1];
        for name in ["memcpy", "BLAKE3 hot", "BLAKE3 cold", "cipher hot", "cipher cold"] {
            println!("  {name:<22} {:>6.2} GB/s", rate(len, median(name)));
        }
        for (name, hot, cold) in [
            ("seal in place", both(hot), both(cold)),
            ("seal", both(hot), both(cold)),
            ("unseal in place", hot[1], cold[1]),
            ("unseal", hot[1], cold[1]),
            ("verify encrypted", hot[1], cold[1]),
            ("verify authenticated", hot[0], cold[0]),
        ] {
            let seconds = median(name);
            println!(
                "  {name:<22} {:>6.2} GB/s  {:.2} of the hot limit, {:.2} of the cold one",
                rate(len, seconds),
                hot / seconds,
                cold / seconds
            );
        }
    }
}

fn rate(len: usize, seconds: f64) -> f64 {
    f64::from(u32::try_from(len >> 10).unwrap()) * 1024.0 / seconds / 1e9
}

fn cipher(suite: Suite) -> aead::LessSafeKey {
    let algorithm = match suite {
        Suite::Aes256Gcm => &aead::AES_256_GCM,
        _ => &aead::CHACHA20_POLY1305,
    };
    aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, &[7; 32]).unwrap())
}

fn encrypt(cipher: &aead::LessSafeKey, bytes: &mut [u8]) {
    let nonce = aead::Nonce::assume_unique_for_key([0; 12]);
    let tag = cipher.seal_in_place_separate_tag(nonce, aead::Aad::empty(), bytes).unwrap();
    let _ = black_box(tag);
}

/// Calls `work` for every segment, in as many equal parts as there are threads.
fn each(threads: usize, from: &[u8], to: &mut [u8], work: impl Fn(&[u8], &mut [u8]) + Sync) {
    let part = from.len().div_ceil(SEGMENT).div_ceil(threads) * SEGMENT;
    let one = |(from, to): (&[u8], &mut [u8])| {
        from.chunks(SEGMENT).zip(to.chunks_mut(SEGMENT)).for_each(|(from, to)| work(from, to));
    };
    thread::scope(|scope| {
        let mut parts = from.chunks(part).zip(to.chunks_mut(part));
        let own = parts.next();
        for part in parts {
            scope.spawn(move || one(part));
        }
        own.into_iter().for_each(one);
    });
}

/// Calls `work` for as many segments as `len` has, always on the same bytes in each thread.
fn hot(spaces: &mut [Vec<u8>], len: usize, work: impl Fn(&mut [u8]) + Sync) {
    let segments = len.div_ceil(SEGMENT);
    let part = segments.div_ceil(spaces.len());
    let one = |bytes: &mut Vec<u8>, count: usize| (0..count).for_each(|_| work(black_box(bytes)));
    thread::scope(|scope| {
        let mut parts = spaces.iter_mut().zip((0..segments).step_by(part));
        let own = parts.next();
        for (bytes, from) in parts {
            scope.spawn(move || one(bytes, part.min(segments - from)));
        }
        if let Some((bytes, _)) = own {
            one(bytes, part);
        }
    });
}
