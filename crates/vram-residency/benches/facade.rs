//! What the facade costs on top of the bare sealer, on a host device whose pages were touched
//! before, and how both compare with a plain copy of the same bytes in the same run.
//!
//! The figures that matter are ratios: `seal_model` against `bare seal` (at least 0.8 with the
//! default read-back, 0.6 with a full one), and both against `memcpy`. The time limits of property
//! G14 (100 ms a started MiB to seal, 50 ms to unseal) are checked on the mean of every sample.

#![expect(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "a benchmark may panic")]

use core::hint::black_box;
use core::time::Duration;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vram_residency::{Protection, ReadBack, SealKey, SealRequest, VramManager};
use vram_seal::{SealContext, SealParams, Threads};

const MIB: usize = 1 << 20;

fn bytes(len: usize) -> Throughput {
    Throughput::Bytes(u64::try_from(len).unwrap())
}

fn content(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut data = vec![0; len];
    for chunk in data.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.iter_mut().zip(state.to_le_bytes()).for_each(|(target, byte)| *target = byte);
    }
    data
}

/// A manager whose device pages have all been touched.
fn warm(len: usize, data: &[u8]) -> VramManager {
    let manager = VramManager::new_mock(len).unwrap();
    let shard = manager.seal_model("warm-up", 0, data).unwrap();
    manager.free_shard(&shard).unwrap();
    manager
}

/// Times `iterations` seals; freeing in between is not counted. Property G14 holds on average.
fn seals(manager: &VramManager, request: &SealRequest, data: &[u8], iterations: u64) -> Duration {
    let started_mib = u32::try_from(data.len().div_ceil(MIB).max(1)).unwrap();
    let mut total = Duration::ZERO;
    for _ in 0..iterations {
        let start = Instant::now();
        let shard = manager.seal(request.clone(), black_box(data)).unwrap();
        total += start.elapsed();
        manager.free_shard(&shard).unwrap();
    }
    // On average: a single seal can be held up by whatever else the machine does.
    let mean = total / u32::try_from(iterations).unwrap();
    assert!(mean < Duration::from_millis(100) * started_mib, "G14: sealing took {mean:?}");
    total
}

fn sealing(c: &mut Criterion) {
    let len = 256 * MIB;
    let data = content(len);
    let mut out = data.clone();
    let manager = warm(len, &data);
    let key = SealKey::random().unwrap();
    let context = SealContext::new("model").unwrap();

    let mut group = c.benchmark_group("seal 256 MiB");
    group.throughput(bytes(len)).sample_size(10);
    group.bench_function("memcpy, one thread", |b| {
        b.iter(|| out.copy_from_slice(black_box(&data)));
    });
    group.bench_function("bare seal", |b| {
        b.iter(|| {
            let params = SealParams::default();
            vram_seal::seal(&key, &context, params, Threads::AUTO, black_box(&data), &mut out)
                .unwrap()
        });
    });
    let request = SealRequest::new("model", 0);
    for (name, read_back) in [
        ("seal_model, default read-back", ReadBack::Default),
        ("seal_model, full read-back", ReadBack::Full),
        ("seal_model, no read-back", ReadBack::None),
    ] {
        let request = request.clone().read_back(read_back);
        group.bench_function(name, |b| {
            b.iter_custom(|iterations| seals(&manager, &request, &data, iterations));
        });
    }
    let request = request.protection(Protection::Authenticated);
    group.bench_function("authenticated, default read-back", |b| {
        b.iter_custom(|iterations| seals(&manager, &request, &data, iterations));
    });
    group.finish();
}

fn opening(c: &mut Criterion) {
    let len = 256 * MIB;
    let data = content(len);
    let mut out = data.clone();
    let manager = warm(len, &data);
    let shard = manager.seal_model("model", 0, &data).unwrap();
    let started_mib = u32::try_from(len / MIB).unwrap();

    let mut group = c.benchmark_group("unseal 256 MiB");
    group.throughput(bytes(len)).sample_size(10);
    group.bench_function("memcpy, one thread", |b| {
        b.iter(|| out.copy_from_slice(black_box(&data)));
    });
    group.bench_function("unseal_into", |b| {
        b.iter(|| manager.unseal_into(&shard, &mut out).unwrap());
    });
    group.bench_function("unseal_model, fresh memory", |b| {
        b.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                let start = Instant::now();
                let plaintext = manager.unseal_model(&shard).unwrap();
                total += start.elapsed();
                black_box(plaintext);
            }
            let mean = total / u32::try_from(iterations).unwrap();
            let limit = Duration::from_millis(50) * started_mib;
            assert!(mean < limit, "G14: unsealing took {mean:?}");
            total
        });
    });
    group.bench_function("verify_shard_integrity", |b| {
        b.iter(|| assert!(manager.verify_shard_integrity(&shard).unwrap()));
    });
    group.finish();
}

fn small(c: &mut Criterion) {
    let data = content(MIB);
    let manager = warm(64 * MIB, &data);
    let shard = manager.seal_model("model", 0, &data).unwrap();

    let mut group = c.benchmark_group("small");
    for len in [4096, 256 * 1024, MIB] {
        let part = data.get(..len).unwrap();
        group.throughput(bytes(len));
        let request = SealRequest::new("model", 0);
        group.bench_function(format!("seal_model {len}"), |b| {
            b.iter_custom(|iterations| seals(&manager, &request, part, iterations));
        });
    }
    for len in [1, 4096, 65_536] {
        group.throughput(bytes(len));
        group.bench_function(format!("read_shard_at_offset {len}"), |b| {
            b.iter(|| manager.read_shard_at_offset(&shard, black_box(300_000), len).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, sealing, opening, small);
criterion_main!(benches);
