//! Unsealing to sinks, and the memory use of streams.

use core::panic::AssertUnwindSafe;
use std::io::{self};
use std::panic::catch_unwind;
use std::sync::Mutex;

use vram_residency::device::fault::{Action, Op, When};
use vram_residency::{
    ByteLen, Limits, Protection, SealOptions, SealRequest, SegmentSize, Threads, VramError,
    VramManager,
};

use vram_test_rigs::{ActingSource, ActingWriter, Rig, SEGMENT, content};

#[test]
fn a_shard_is_written_out_in_order_and_a_failing_sink_had_a_prefix() {
    let rig = Rig::new(&[1 << 17]);
    for len in [0, 1, SEGMENT, 4 * SEGMENT, 17 * SEGMENT + 3] {
        let bytes = content(len, 9);
        for protection in [Protection::Encrypted, Protection::Authenticated] {
            let shard = rig
                .manager
                .seal(SealRequest::new("model", 0).protection(protection), &bytes)
                .unwrap();
            let mut out = Vec::new();
            rig.manager.unseal_to(&shard, &mut out).unwrap();
            assert_eq!(out, bytes);

            let room = len / 2;
            for panics in [false, true] {
                let mut taken = Vec::new();
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    let sink = ActingWriter(|bytes: &[u8]| {
                        let len = bytes.len().min(room - taken.len()).min(1000);
                        if len == 0 && !bytes.is_empty() {
                            assert!(!panics, "sink");
                            return Err(io::ErrorKind::StorageFull.into());
                        }
                        taken.extend_from_slice(&bytes[..len]);
                        Ok(len)
                    });
                    rig.manager.unseal_to(&shard, sink)
                }));
                match outcome {
                    Ok(Ok(())) => assert_eq!(len, 0),
                    Ok(Err(VramError::Io { source, .. })) => {
                        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
                    }
                    Ok(Err(other)) => panic!("{other}"),
                    Err(_panic) => assert!(panics),
                }
                assert_eq!(taken, &bytes[..room]);
            }
            // The gate is open again.
            rig.manager.free_shard(&shard).unwrap();
        }
    }
    rig.settle(true);
}

/// P9: only authenticated bytes are written.
#[test]
fn a_sink_gets_nothing_of_an_altered_segment() {
    let rig = Rig::new(&[1 << 17]);
    let bytes = content(17 * SEGMENT, 10);
    let shard = rig.manager.seal(SealRequest::new("model", 0), &bytes).unwrap();
    rig.devices[0].add(Op::Read, When::Nth(3), Action::FlipBit { byte: 100, bit: 0 }).unwrap();
    let mut out = Vec::new();
    let refused = rig.manager.unseal_to(&shard, &mut out);
    assert!(matches!(refused, Err(VramError::ShardAltered { .. })), "{refused:?}");
    assert!(out.len() < bytes.len() && bytes.starts_with(&out));
    rig.devices[0].clear();
    rig.settle(true);
}

#[test]
fn buffers_stay_within_the_limit_whatever_the_size_of_the_shard() {
    // The need of 8 threads with two windows each.
    let limit = ByteLen::from_mib_saturating(4);
    let manager = VramManager::builder()
        .host_device(ByteLen::from_mib_saturating(64))
        .segment_size(SegmentSize::MIN)
        .limits(Limits::default().staging_bytes(limit))
        .threads(Threads::exactly(8))
        .build()
        .unwrap();
    for len in [8 << 20, 32 << 20] {
        // Bytes of buffers in use: now, and the maximum.
        let counts = Mutex::new((0_u64, 0_u64));
        let source = ActingSource::new(vec![1; len], |_offset, target: &mut [u8]| {
            let bytes = ByteLen::from_usize(target.len()).get();
            {
                let mut counts = counts.lock().unwrap();
                counts.0 += bytes;
                counts.1 = counts.0.max(counts.1);
            }
            std::thread::yield_now();
            counts.lock().unwrap().0 -= bytes;
            Ok(())
        });
        let shard =
            manager.seal_from(SealRequest::new("model", 0), &source, SealOptions::new()).unwrap();
        let most = counts.lock().unwrap().1;
        assert!(most <= limit.get(), "{most} bytes were filled at once");
        // The length of each write to a sink is bounded as well.
        let mut largest = 0;
        let sink = ActingWriter(|bytes: &[u8]| {
            largest = bytes.len().max(largest);
            Ok(bytes.len())
        });
        manager.unseal_to(&shard, sink).unwrap();
        assert!(largest <= 4 << 20, "{largest} bytes were written at once");
        manager.free_shard(&shard).unwrap();
    }
}
