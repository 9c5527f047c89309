//! What calls cost by the number of shards on a GPU: a refusal for want of room and `metrics()` cost
//! the same with any number; a reset and a compaction grow as that number, but for a logarithm.
//!
//! `cargo bench -p vram-residency --bench rooms`, with the largest power of ten as its argument:
//! `-- 5` for 100,000 shards (the default is 4). Above 100,000, nothing is compacted or evicted.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and may panic"
)]

use std::time::Instant;

use vram_residency::{
    ByteLen, CompactBudget, Limits, Lru, OnEviction, ReadBack, ResetOptions, Restore, SealRequest,
    SegmentSize, Threads, VramManager,
};

/// A shard takes one granule.
const GRANULE: u64 = 256;

fn manager(total: u64, evicts: bool) -> VramManager {
    let builder = VramManager::builder()
        .host_device(ByteLen::new(total))
        .segment_size(SegmentSize::MIN)
        .threads(Threads::ONE)
        .limits(Limits::default().shard_count_max(u64::MAX));
    let builder =
        if evicts { builder.eviction(Lru).on_eviction(OnEviction::Free) } else { builder };
    builder.build().unwrap()
}

fn fill(manager: &VramManager, count: u64) {
    for _ in 0..count {
        let request = SealRequest::new("tensor", 0).read_back(ReadBack::None);
        manager.seal(request, &[7; 200]).unwrap();
    }
}

/// Frees every second of twice as many shards, and compacts the rest.
fn compact(count: u64) {
    let manager = manager(2 * count * GRANULE, false);
    fill(&manager, 2 * count);
    for shard in manager.shards().iter().step_by(2) {
        manager.free_shard(shard).unwrap();
    }
    let start = Instant::now();
    let report = manager.compact(0, CompactBudget::new()).unwrap();
    let took = start.elapsed();
    println!(
        "compact   {count:>7} shards  {:>10.1} ms  {:>7} moves  {:>9} moved  {} hole, {:?}",
        took.as_secs_f64() * 1e3,
        report.moves,
        report.moved_bytes.to_string(),
        report.hole_count,
        report.end,
    );
}

/// A request for all there is, on a full GPU of which one shard is leased.
fn refuse(count: u64, evicts: bool) {
    let manager = manager(count * GRANULE, evicts);
    fill(&manager, count);
    let all = vec![1; usize::try_from(count * GRANULE).unwrap()];
    let _lease = manager.lease(&manager.shards().swap_remove(0)).unwrap();
    let start = Instant::now();
    let refused = manager.seal_model("late", 0, &all);
    let took = start.elapsed();
    assert!(refused.unwrap_err().is_capacity());
    let policy = if evicts { "with a policy" } else { "without one" };
    println!("refuse    {count:>7} shards  {:>10.1} ms  {policy}", took.as_secs_f64() * 1e3);
}

/// One shard makes room for another on a full GPU.
fn evict(count: u64) {
    let manager = manager(count * GRANULE, true);
    fill(&manager, count);
    let start = Instant::now();
    manager.seal_model("new", 0, &[1; 200]).unwrap();
    let took = start.elapsed();
    println!("evict one {count:>7} shards  {:>10.1} ms", took.as_secs_f64() * 1e3);
}

/// The figures for monitoring, and then the forced reset of the GPU, after which no shard is left.
fn watch_and_reset(count: u64) {
    let manager = manager(count * GRANULE, false);
    fill(&manager, count);
    let start = Instant::now();
    let metrics = manager.metrics();
    let took = start.elapsed();
    assert_eq!(metrics.gpus[0].shard_count, count);
    println!("metrics   {count:>7} shards  {:>10.1} ms", took.as_secs_f64() * 1e3);
    let start = Instant::now();
    let options = ResetOptions::new().force().restore(Restore::Nothing);
    let report = manager.reset_gpu(0, options).unwrap();
    let took = start.elapsed();
    println!(
        "reset     {count:>7} shards  {:>10.1} ms  {} lost",
        took.as_secs_f64() * 1e3,
        report.lost.len()
    );
}

/// What one shard costs: to seal it, to lease it, to end its lease. Of four runs the fastest.
fn each(count: u64) {
    let mut fastest = [f64::INFINITY; 4];
    for _ in 0..4 {
        let manager = manager(count * GRANULE, false);
        let each = |start: Instant| start.elapsed().as_secs_f64() * 1e6 / count as f64;
        let start = Instant::now();
        fill(&manager, count);
        let sealed = each(start);
        let shards = manager.shards();
        let start = Instant::now();
        let leases: Vec<_> = shards.iter().map(|shard| manager.lease(shard).unwrap()).collect();
        let took = each(start);
        let start = Instant::now();
        drop(leases);
        let ended = each(start);
        let start = Instant::now();
        let report = manager.report();
        let reported = each(start);
        assert_eq!(report.gpus[0].shard_count, count);
        for (least, now) in fastest.iter_mut().zip([sealed, took, ended, reported]) {
            *least = least.min(now);
        }
    }
    let [sealed, took, ended, reported] = fastest;
    println!(
        "each of   {count:>7} shards  seal {sealed:.2} µs, lease {took:.2} µs, its end {ended:.2} µs, in a report {reported:.2} µs"
    );
}

fn main() {
    let powers = std::env::args().find_map(|argument| argument.parse::<u32>().ok());
    for power in 3..=powers.unwrap_or(4) {
        let count = 10_u64.pow(power);
        refuse(count, false);
        refuse(count, true);
        watch_and_reset(count);
        each(count);
        if power <= 5 {
            compact(count);
            evict(count);
        }
    }
}
