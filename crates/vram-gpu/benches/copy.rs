//! Measures how close copies to and from a host device come to a plain copy of the same bytes.
//!
//! Each group has `memcpy` (or `memset`) as its reference; compare the ratio, not the absolute
//! figure.

#![expect(clippy::unwrap_used, reason = "a bench that cannot set up has nothing to measure")]

use core::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vram_alloc::{ByteLen, DeviceRange, GpuIndex};
use vram_gpu::{Device, HostDevice};

const SIZES: [(&str, usize); 3] = [("64KiB", 64 << 10), ("1MiB", 1 << 20), ("64MiB", 64 << 20)];

fn copies(c: &mut Criterion) {
    let total = ByteLen::from_mib_saturating(64);
    let device = HostDevice::new(GpuIndex::new(0), total).unwrap();
    let memory = device.allocate(total).unwrap();
    memory.fill(DeviceRange::whole(total), 1).unwrap();
    let source = vec![7; 64 << 20];
    // Written before the measurement starts: a page fault costs more than the copy.
    memory.write(DeviceRange::whole(total), &source).unwrap();
    let mut target = vec![1_u8; 64 << 20];

    for (name, len) in SIZES {
        let range = DeviceRange::whole(ByteLen::from_usize(len));
        let throughput = Throughput::Bytes(u64::try_from(len).unwrap());
        let (from, to) = (source.get(..len).unwrap(), target.get_mut(..len).unwrap());

        let mut group = c.benchmark_group("write");
        group.throughput(throughput.clone());
        group.bench_function(BenchmarkId::new("memcpy", name), |b| {
            b.iter(|| black_box(&mut *to).copy_from_slice(black_box(from)));
        });
        group.bench_function(BenchmarkId::new("device", name), |b| {
            b.iter(|| memory.write(black_box(range), black_box(from)).unwrap());
        });
        group.finish();

        let mut group = c.benchmark_group("read");
        group.throughput(throughput.clone());
        group.bench_function(BenchmarkId::new("memcpy", name), |b| {
            b.iter(|| black_box(&mut *to).copy_from_slice(black_box(from)));
        });
        group.bench_function(BenchmarkId::new("device", name), |b| {
            b.iter(|| memory.read(black_box(range), black_box(&mut *to)).unwrap());
        });
        group.finish();

        let mut group = c.benchmark_group("fill");
        group.throughput(throughput);
        group.bench_function(BenchmarkId::new("memset", name), |b| {
            b.iter(|| black_box(&mut *to).fill(black_box(0)));
        });
        group.bench_function(BenchmarkId::new("device", name), |b| {
            b.iter(|| memory.fill(black_box(range), black_box(0)).unwrap());
        });
        group.finish();
    }
}

/// The first write of a byte, which also makes the host allocate its page.
fn first_touch(c: &mut Criterion) {
    let len = ByteLen::from_mib_saturating(32);
    let source = vec![7; 32 << 20];
    let mut group = c.benchmark_group("first_write");
    group.throughput(Throughput::Bytes(len.get()));
    group.sample_size(20);
    group.bench_function("fresh_vector", |b| b.iter(|| black_box(&source).clone()));
    group.bench_function("fresh_allocation", |b| {
        let device = HostDevice::new(GpuIndex::new(0), len).unwrap();
        b.iter(|| {
            let memory = device.allocate(len).unwrap();
            memory.write(DeviceRange::whole(len), black_box(&source)).unwrap();
            memory
        });
    });
    group.finish();
}

criterion_group!(benches, copies, first_touch);
criterion_main!(benches);
