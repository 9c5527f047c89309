//! What streaming, opening and images cost, against plainly reading the same file.
//!
//! 64 MiB, all threads, device pages touched before. The file is in the page cache: what is
//! measured is this crate and not a disk.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use core::hint::black_box;
use std::fs::File;
use std::io::{Read, sink};
use std::path::Path;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use vram_residency::{
    ByteLen, Expected, FileSource, ImageOptions, KeyRing, Overwrite, Protection, SealContext,
    SealKey, SealOptions, SealParams, SealRequest, VramManager, seal_image, unseal_image,
    verify_image,
};

const LEN: usize = 64 << 20;

fn manager() -> VramManager {
    let manager = VramManager::new_mock(3 * LEN).unwrap();
    // Touch every page of the device once.
    let all = manager.seal_model("warm", 0, &vec![1; 3 * LEN]).unwrap();
    manager.free_shard(&all).unwrap();
    manager
}

fn plain_read(group: &mut BenchmarkGroup<'_, WallTime>, path: &Path) {
    let mut buffer = vec![0_u8; 1 << 20];
    group.bench_function("reading the file", |b| {
        b.iter(|| {
            let mut file = File::open(path).unwrap();
            while file.read(&mut buffer).unwrap() > 0 {
                black_box(&buffer);
            }
        });
    });
}

fn streams(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    std::fs::write(&path, vec![7_u8; LEN]).unwrap();
    let mut group = c.benchmark_group("streams 64 MiB");
    group.throughput(Throughput::Bytes(ByteLen::from_usize(LEN).get())).sample_size(10);
    plain_read(&mut group, &path);

    let manager = manager();
    for protection in [Protection::Encrypted, Protection::Authenticated] {
        group.bench_function(format!("seal_from and free, {protection:?}"), |b| {
            b.iter(|| {
                let request = SealRequest::new("model", 0).protection(protection);
                let source = FileSource::open(&path).unwrap();
                let shard = manager.seal_from(request, source, SealOptions::new()).unwrap();
                manager.free_shard(&shard).unwrap();
            });
        });
    }
    let request = SealRequest::new("model", 0);
    let source = FileSource::open(&path).unwrap();
    let shard = manager.seal_from(request, source, SealOptions::new()).unwrap();
    group.bench_function("unseal_to", |b| {
        b.iter(|| manager.unseal_to(&shard, sink()).unwrap());
    });
    let mut shard = shard;
    group.bench_function("open_resident and close_resident", |b| {
        b.iter(|| {
            let open = manager.open_resident(&shard).unwrap();
            shard = manager.close_resident(&open).unwrap();
        });
    });
    group.finish();
}

fn images(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("weights"), vec![7_u8; LEN]).unwrap();
    let keys = KeyRing::new(SealKey::from_bytes(&[7; 32]));
    let context = SealContext::new("model").unwrap();
    let expected = Expected::from(&context);
    let options = || ImageOptions::new().overwrite(Overwrite::Replace);
    let mut group = c.benchmark_group("images 64 MiB");
    group.throughput(Throughput::Bytes(ByteLen::from_usize(LEN).get())).sample_size(10);
    plain_read(&mut group, &path("weights"));
    let source = FileSource::open(path("weights")).unwrap();
    group.bench_function("seal_image, synced", |b| {
        b.iter(|| {
            let image = path("image");
            seal_image(keys.active(), &context, SealParams::new(), &source, &image, options())
                .unwrap()
        });
    });
    group.bench_function("verify_image", |b| {
        b.iter(|| verify_image(&keys, &expected, &path("image"), options()).unwrap());
    });
    group.bench_function("unseal_image, synced", |b| {
        b.iter(|| unseal_image(&keys, &expected, &path("image"), &path("out"), options()).unwrap());
    });
    group.finish();
}

criterion_group!(benches, streams, images);
criterion_main!(benches);
