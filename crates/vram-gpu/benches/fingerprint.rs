//! Measures the fingerprint in each form that this processor has, beside a plain copy of the same
//! bytes and beside BLAKE3.
//!
//! `hot` is one span in the processor's cache, as after a window was sealed; `cold` are spans that
//! come from memory.

#![expect(clippy::unwrap_used, reason = "a bench that cannot set up has nothing to measure")]

use core::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vram_gpu::kernels::{FingerprintKey, Form};

const SPAN: usize = 256 << 10;

fn key(seed: u8) -> FingerprintKey {
    let material = (0..FingerprintKey::LEN).map(|at| at.wrapping_mul(167).to_le_bytes()[1] ^ seed);
    FingerprintKey::from_random(
        material.collect::<Vec<u8>>().into_boxed_slice().try_into().unwrap(),
    )
}

fn fingerprints(c: &mut Criterion) {
    let (key, renewed) = (key(1), key(2));
    for (name, len) in [("hot", SPAN), ("cold", 64 << 20)] {
        let bytes: Vec<u8> = (0..len).map(|at| at.wrapping_mul(31).to_le_bytes()[1]).collect();
        let mut target = bytes.clone();
        let mut group = c.benchmark_group("fingerprint");
        group.throughput(Throughput::Bytes(u64::try_from(len).unwrap()));
        group.sample_size(20);
        group.bench_function(BenchmarkId::new("memcpy", name), |b| {
            b.iter(|| black_box(&mut *target).copy_from_slice(black_box(&bytes)));
        });
        group.bench_function(BenchmarkId::new("blake3", name), |b| {
            b.iter(|| blake3::hash(black_box(&bytes)));
        });
        for form in Form::ALL.into_iter().filter(|form| form.is_usable()) {
            group.bench_function(BenchmarkId::new(format!("{form:?}"), name), |b| {
                b.iter(|| {
                    for span in black_box(&bytes).chunks(SPAN) {
                        black_box(key.fingerprint_by(form, span));
                    }
                });
            });
        }
        group.bench_function(BenchmarkId::new("two_keys", name), |b| {
            b.iter(|| {
                for span in black_box(&bytes).chunks(SPAN) {
                    black_box(key.fingerprints(span, Some(&renewed)));
                }
            });
        });
        group.finish();
    }
}

criterion_group!(benches, fingerprints);
criterion_main!(benches);
