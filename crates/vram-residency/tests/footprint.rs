//! Host memory of a resident shard besides its bytes: what a manager keeps allocated for each.
//!
//! A block of the allocator counts with its length and 16 bytes, which glibc takes at most to find it
//! again and to round its length up.

#![expect(clippy::arithmetic_side_effects, reason = "small numbers, checked in test builds")]
#![expect(clippy::print_stderr, reason = "a measurement prints")]

#[macro_use]
extern crate vram_testkit;

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use vram_residency::{
    AdmitRequest, ByteLen, GpuChoice, ModelPlan, Piece, ReadBack, SealRequest, SliceSource,
    VramManager,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The aim, in bytes, in a model of 100,000 shards.
const MOST: usize = 1024;
/// With a small model, which has more of what tables keep in reserve.
const MOST_SMALL: usize = 1040;
/// For shards that are sealed one by one: each has a holder of its own.
const MOST_ALONE: usize = 1100;
const LEN: usize = 64;
/// What a block of the allocator takes besides its length.
const BLOCK: usize = 16;

/// Bytes and blocks that are allocated for each shard after `work`.
fn kept<T>(what: &str, count: usize, work: impl FnOnce() -> T) -> usize {
    let region = Region::new(ALLOCATOR);
    drop(work());
    let change = region.change();
    let bytes = change.bytes_allocated - change.bytes_deallocated;
    let blocks = change.allocations - change.deallocations;
    let each = (bytes + BLOCK * blocks) / count;
    let (bytes, blocks) = (bytes / count, blocks * 10 / count);
    eprintln!("{what}, {count} shards: {each} bytes each: {bytes} in {blocks} tenths of a block");
    each
}

/// One test, so that nothing else allocates meanwhile.
#[test]
fn the_host_memory_of_a_resident_shard_besides_its_bytes_is_bounded() {
    for (count, most) in [(10_000, MOST_SMALL), (100_000, MOST)] {
        let manager = VramManager::builder().host_device(ByteLen::new(64 << 20)).build().unwrap();
        let file = vec![7; LEN * count];
        let len = u64::try_from(LEN).unwrap();
        let piece = |at| Piece::new(format!("t{at}"), 0, at * len, ByteLen::new(len));
        let plan = ModelPlan::new((0..u64::try_from(count).unwrap()).map(piece)).unwrap();
        let source = vec![SliceSource::new(&file)];
        let admitted = kept("admitted", count, || {
            let request = AdmitRequest::new("model", GpuChoice::One(0)).read_back(ReadBack::None);
            manager.admit(request, &plan, &source).unwrap()
        });
        assert!(admitted <= most, "{admitted}");
    }
    let (count, piece) = (10_000, [7; LEN]);
    let manager = VramManager::builder().host_device(ByteLen::new(64 << 20)).build().unwrap();
    let request = SealRequest::new("model", 0).read_back(ReadBack::None);
    let sealed = kept("sealed one by one", count, || {
        for _ in 0..count {
            manager.seal(request.clone(), &piece).unwrap();
        }
    });
    assert!(sealed <= MOST_ALONE, "{sealed}");
}
