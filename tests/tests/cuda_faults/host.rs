//! Host memory of copies: page-locked, or not, and wiped.

use cuda_sim::{CallKind, Fault, Sim};
use vram_alloc::{ByteLen, DeviceOffset, DeviceRange};
use vram_gpu::{Device, codes};

use crate::{Bench, LEN, bytes, odd_ones, whole};

/// Memory that a driver still has locked must not be freed to the host: another allocation could
/// reuse it, and locking it again is refused.
#[test]
fn host_memory_that_cannot_be_unlocked_is_kept() {
    let pinned = |bench: &Bench| Sim::leak_report(bench.ordinal).pinned;
    let (one, two) = (Bench::new(), Bench::new());
    let first = one.staging(1);
    one.next(CallKind::Unpin, Fault::Fail(999));
    drop(first);
    let kept = pinned(&one);
    assert_eq!(kept.len(), 1, "it is still locked");
    let second = one.staging(2);
    assert_eq!(pinned(&one).len(), 2, "so the next buffer lies elsewhere");

    // A lost device gets no call at all.
    let memory = one.device.allocate(ByteLen::new(1)).unwrap();
    one.next(CallKind::Fill, Fault::Fail(codes::ECC_UNCORRECTABLE));
    memory.fill(DeviceRange::whole(memory.len()), 0).unwrap_err();
    drop((second, memory));
    let third = two.staging(3);
    assert_eq!(pinned(&two).len(), 1, "another device's buffer lies elsewhere as well");
    drop(third);
    one.finish();
    two.finish();
}

#[test]
fn page_locking_that_is_refused_only_costs_speed() {
    let bench = Bench::new();
    Sim::faults(bench.ordinal).always(CallKind::Pin, Fault::Fail(801));
    let memory = bench.filled(0);
    memory.write(whole(), &vec![7; LEN]).unwrap();
    assert_eq!(odd_ones(&bytes(&*memory), 7), 0);
    let len = ByteLen::from_usize(LEN);
    let staging = bench.staging(8);
    assert!(!staging.is_page_locked(), "and it is told");
    let (staging, outcome) = memory.queue_write(DeviceOffset::START, staging, len).wait();
    outcome.unwrap();
    assert_eq!(odd_ones(&bytes(&*memory), 8), 0);
    let (staging, outcome) = memory.queue_read(whole(), staging).wait();
    outcome.unwrap();
    assert_eq!(odd_ones(staging.as_slice(), 8), 0);
    drop((staging, memory));
    bench.finish();
}

#[test]
fn what_passed_through_host_memory_is_wiped() {
    const SECRET: [u8; 64] = [0xA7; 64];
    let bench = Bench::new();
    let memory = bench.filled(0);
    let first = DeviceRange::whole(ByteLen::from_usize(SECRET.len()));
    let pinned_secrets = || {
        let blocks = Sim::inspect_pinned(bench.ordinal);
        assert!(blocks.len() >= 2, "copies go through page-locked buffers");
        blocks.iter().filter(|bytes| bytes.windows(64).any(|part| part == SECRET)).count()
    };
    memory.write(first, &SECRET).unwrap();
    assert_eq!(pinned_secrets(), 0, "after a write");
    memory.read(first, &mut [0; 64]).unwrap();
    assert_eq!(pinned_secrets(), 0, "after a read");
    bench.next(CallKind::Order, Fault::Fail(999));
    memory.write(first, &SECRET).unwrap_err();
    assert_eq!(pinned_secrets(), 0, "after a write that failed");

    let mut staging = bench.staging(0);
    staging.as_mut_slice()[..64].copy_from_slice(&SECRET);
    assert_eq!(pinned_secrets(), 1, "a buffer in somebody's hands is theirs");
    staging.wipe();
    assert_eq!(pinned_secrets(), 0);
    drop((memory, staging));
    bench.finish();
}
