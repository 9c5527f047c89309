//! Measures how fast a shard is sealed, opened and verified, next to a plain copy in the same run.
//!
//! Two sizes (one segment, which stays in a core's cache, and 256 MiB, which does not) and one or
//! two threads. Compare the ratio to `memcpy` of the same group, not the rate: machines differ.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![expect(clippy::arithmetic_side_effects, reason = "a sum of a few seconds")]

use core::hint::black_box;
use core::time::Duration;
use std::thread;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vram_seal::{
    Expected, Opener, Protection, SealContext, SealKey, SealParams, Sealed, SivScope, Suite,
    Threads, seal, seal_in_place, unseal, unseal_in_place, verify,
};

const HOT: usize = 256 << 10;
const LARGE: usize = 256 << 20;

fn key() -> SealKey {
    SealKey::from_bytes(&[7; 32])
}

fn sealed(params: SealParams, plaintext: &[u8], data: &mut [u8]) -> (Sealed, Opener) {
    let context = SealContext::new("bench").unwrap();
    let sealed = seal(&key(), &context, params, Threads::AUTO, plaintext, data).unwrap();
    let expected = Expected::from(&context).params(params);
    let opener = Opener::open(&key(), &sealed.record, sealed.tags.clone(), &expected).unwrap();
    (sealed, opener)
}

/// The reference: copies in as many equal parts as there are threads.
fn copy(threads: usize, source: &[u8], target: &mut [u8]) {
    let part = source.len().div_ceil(threads);
    thread::scope(|scope| {
        let mut parts = source.chunks(part).zip(target.chunks_mut(part));
        let own = parts.next();
        for (source, target) in parts {
            scope.spawn(move || target.copy_from_slice(source));
        }
        if let Some((source, target)) = own {
            target.copy_from_slice(source);
        }
    });
}

fn shard(c: &mut Criterion, name: &str, len: usize, threads: &[usize]) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Bytes(u64::try_from(len).unwrap()));
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    group.warm_up_time(Duration::from_millis(500));
    let plaintext: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let mut data = vec![1; len];
    let mut out = vec![2; len];
    let context = SealContext::new("bench").unwrap();
    for &count in threads {
        let threads = Threads::exactly(count);
        group.bench_function(BenchmarkId::new("memcpy", count), |b| {
            b.iter(|| copy(count, black_box(&plaintext), black_box(&mut out)));
        });
        let base = SealParams::new().with_scope(SivScope::Shard);
        for (name, params) in [
            ("aes-shard", base),
            ("aes-segment", base.with_scope(SivScope::Segment)),
            ("chacha-shard", base.with_suite(Suite::ChaCha20Poly1305)),
        ] {
            group.bench_function(BenchmarkId::new(format!("seal/{name}"), count), |b| {
                b.iter(|| {
                    seal(&key(), &context, params, threads, &plaintext, black_box(&mut data))
                });
            });
            // In place, over the output of the last round: the content does not change the cipher's
            // speed.
            group.bench_function(BenchmarkId::new(format!("seal-in-place/{name}"), count), |b| {
                b.iter(|| seal_in_place(&key(), &context, params, threads, black_box(&mut out)));
            });
            if name == "aes-segment" {
                continue;
            }
            let (_, opener) = sealed(params, &plaintext, &mut data);
            group.bench_function(BenchmarkId::new(format!("unseal/{name}"), count), |b| {
                b.iter(|| unseal(&opener, threads, &data, black_box(&mut out)).unwrap());
            });
            group.bench_function(BenchmarkId::new(format!("unseal-in-place/{name}"), count), |b| {
                // Each round opens fresh ciphertext; the time to copy it is not measured.
                b.iter_custom(|rounds| {
                    let mut spent = Duration::ZERO;
                    for _ in 0..rounds {
                        out.copy_from_slice(&data);
                        let start = Instant::now();
                        unseal_in_place(&opener, threads, black_box(&mut out)).unwrap();
                        spent += start.elapsed();
                    }
                    spent
                });
            });
            group.bench_function(BenchmarkId::new(format!("verify/{name}"), count), |b| {
                b.iter(|| verify(&opener, threads, black_box(&data)).unwrap());
            });
        }
        let params = base.with_protection(Protection::Authenticated);
        let (_, opener) = sealed(params, &plaintext, &mut data);
        group.bench_function(BenchmarkId::new("verify/authenticated", count), |b| {
            b.iter(|| verify(&opener, threads, black_box(&data)).unwrap());
        });
    }
    group.finish();
}

fn one_segment(c: &mut Criterion) {
    shard(c, "256_kib", HOT, &[1]);
}

fn large(c: &mut Criterion) {
    shard(c, "256_mib", LARGE, &[1, 2]);
}

criterion_group!(benches, one_segment, large);
criterion_main!(benches);
