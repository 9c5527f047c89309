//! Property: a shard contains the bytes of its source, for any pattern of reads, any segment size,
//! any number of threads, and any number of openings and closings. It equals the shard that the
//! bytes alone give.
//!
//! Method: the reference is the content itself, and the shard that `seal` makes of it.

#![expect(clippy::arithmetic_side_effects, reason = "a test fails by panicking")]

#[macro_use]
extern crate vram_testkit;

use std::io::{self, Read};

use proptest::prelude::*;
use vram_residency::{
    ByteLen, Limits, Protection, ReaderSource, SealKey, SealOptions, SealRequest, SegmentSize,
    SivScope, SliceSource, Source, Suite, Threads, Verify, VramManager,
};

/// Reads an arbitrary number of bytes at a time.
struct Uneven<'a> {
    bytes: &'a [u8],
    steps: Vec<usize>,
    at: usize,
}

impl Read for Uneven<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let step = self.steps.get(self.at % self.steps.len()).copied().unwrap_or(1);
        self.at = self.at.wrapping_add(1);
        let len = step.min(target.len());
        self.bytes.read(target.get_mut(..len).unwrap_or_default())
    }
}

proptest! {
    #[test]
    fn a_shard_holds_what_its_source_gave(
        bytes in prop::collection::vec(any::<u8>(), 0..60_000),
        // Sometimes long enough for several windows, so that threads share the work.
        times in prop_oneof![7 => Just(1_usize), 1 => Just(20)],
        steps in prop::collection::vec(1..9000_usize, 1..5),
        kind in 0..3_u8,
        encrypted in any::<bool>(),
        aes in any::<bool>(),
        log2 in 12..=16_u8,
        staging_segments in prop_oneof![1..8_u64, Just(1 << 12)],
        threads in 1..4_usize,
        tight in any::<bool>(),
    ) {
        let bytes = bytes.repeat(times);
        let segment = SegmentSize::from_log2(log2).unwrap();
        let len = ByteLen::from_usize(bytes.len());
        let total = if tight { len.get().next_multiple_of(256).max(256) } else { 1 << 22 };
        let manager = VramManager::builder()
            .host_device(ByteLen::new(total))
            .key(SealKey::from_bytes(&[9; 32]))
            .segment_size(segment)
            .limits(Limits::default().staging_bytes(segment.bytes().checked_mul(staging_segments).unwrap()))
            .threads(Threads::exactly(threads))
            .build()
            .unwrap();
        let suite = if aes { Suite::Aes256Gcm } else { Suite::ChaCha20Poly1305 };
        let protection =
            if encrypted { Protection::Encrypted } else { Protection::Authenticated };
        let request = |scope| {
            SealRequest::new("model", 0).protection(protection).suite(suite).scope(scope)
        };
        let reader =
            ReaderSource::new(Uneven { bytes: &bytes, steps, at: 0 }, len.get());
        let slice = SliceSource::new(&bytes);
        let (source, scope): (&dyn Source, _) = match kind {
            0 => (&reader, SivScope::Segment),
            1 => (&slice, SivScope::Segment),
            _ => (&slice, SivScope::Shard),
        };

        let shard = manager.seal_from(request(scope), source, SealOptions::new()).unwrap();
        prop_assert!(manager.unseal_model(&shard).unwrap() == bytes);
        let mut out = Vec::new();
        manager.unseal_to(&shard, &mut out).unwrap();
        prop_assert!(out == bytes);

        let first = shard.sealed_data.clone();
        let opened = manager.open_resident(&shard).unwrap();
        prop_assert!(manager.verify(&opened, Verify::Full).unwrap().sound);
        prop_assert!(manager.unseal_model(&opened).unwrap() == bytes);
        let closed = manager.close_resident(&opened).unwrap();
        prop_assert!(manager.verify(&closed, Verify::Full).unwrap().sound);
        prop_assert!(manager.unseal_model(&closed).unwrap() == bytes);
        if encrypted {
            prop_assert_eq!(&closed.sealed_data, &first);
        }
        manager.free_shard(&closed).unwrap();

        let alone = manager.seal(request(scope), &bytes).unwrap();
        prop_assert_eq!(&alone.sealed_data, &first);
        manager.free_shard(&alone).unwrap();
        prop_assert_eq!(manager.capacity(0).unwrap().free, ByteLen::new(total));
    }
}
