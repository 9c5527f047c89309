//! Short ranges of one long shard: how long a read of 4 KiB at a random place takes, beside a copy of
//! as many bytes from random places, and how many segments are read for it.
//!
//! ```text
//! cargo bench -p vram-residency --bench ranges -- [--quick]
//! ```
//!
//! A shard of 1 GiB on a host device, Encrypted; with `--quick`, of 16 MiB. Which segments are read is
//! seen by a device that logs its calls, in a pass of its own, which is not timed.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and may panic"
)]

use core::hint::black_box;
use core::time::Duration;
use std::sync::Arc;

use turns::{Dice, content, timed};
use vram_residency::device::fault::{FaultPlan, Op};
use vram_residency::device::{FaultDevice, HostDevice};
use vram_residency::{ByteLen, GpuIndex, SegmentSize, VramManager};

#[expect(dead_code, reason = "other benches take turns")]
mod turns;

const MIB: usize = 1 << 20;
const LEN: usize = 4 << 10;

/// Offsets of which hardly one is a multiple of anything.
fn offset(dice: &mut Dice, len: usize) -> usize {
    let ends = ByteLen::from_usize(len - LEN + 1).get();
    usize::try_from((dice.roll() >> 8) % ends).unwrap()
}

/// The time of each of `count` reads.
fn each(count: usize, len: usize, mut read: impl FnMut(usize)) -> Vec<Duration> {
    let mut dice = Dice::new(1);
    let mut took: Vec<_> = (0..count)
        .map(|_| {
            let at = offset(&mut dice, len);
            timed(|| read(black_box(at))).1
        })
        .collect();
    took.sort_unstable();
    took
}

/// The most segments that one read took from the device, of `count` reads.
fn most_segments(count: usize, data: &[u8]) -> u64 {
    let host = HostDevice::new(GpuIndex::default(), ByteLen::from_usize(data.len())).unwrap();
    let device = FaultDevice::new(Arc::new(host), FaultPlan::new(0));
    let manager = VramManager::builder().device(device.clone()).build().unwrap();
    let shard = manager.seal_model("model", 0, data).unwrap();
    let segment = SegmentSize::DEFAULT.bytes().get();
    let mut dice = Dice::new(2);
    let read = |_| {
        let at = offset(&mut dice, data.len());
        device.clear_log();
        let bytes = manager.read_shard_at_offset(&shard, at, LEN).unwrap();
        assert_eq!(bytes, data[at..at + LEN]);
        let calls = device.calls();
        let reads = calls.iter().filter(|call| matches!(call.op, Op::Read | Op::QueueRead));
        reads.map(|call| call.len.unwrap().get().div_ceil(segment)).sum()
    };
    (0..count).map(read).max().unwrap()
}

fn main() {
    let (mib, count) = if turns::is_quick() { (16, 200) } else { (1024, 4000) };
    let data = content(mib * MIB, 0);
    let manager = VramManager::new_mock(data.len()).unwrap();
    let shard = manager.seal_model("model", 0, &data).unwrap();
    let mut target = vec![1; LEN];
    println!("4 KiB of {mib} MiB, {count} reads each");
    let row = |name: &str, took: &[Duration]| {
        let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1e6;
        println!("  {name:34} p50 {:8.2} us  p99 {:8.2} us", at(50), at(99));
    };
    let copied =
        each(count, data.len(), |at| target.copy_from_slice(black_box(&data[at..at + LEN])));
    row("a plain copy", &copied);
    let returned = each(count, data.len(), |at| {
        black_box(manager.read_shard_at_offset(&shard, at, LEN).unwrap());
    });
    row("read_shard_at_offset", &returned);
    let filled = each(count, data.len(), |at| {
        manager.read_into(&shard, ByteLen::from_usize(at).get(), black_box(&mut target)).unwrap();
    });
    row("read_into", &filled);
    drop(manager);
    println!("  at most {} segments a read", most_segments(count, &data));
}
