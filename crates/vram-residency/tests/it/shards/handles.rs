//! Promises of the facade beyond the guide: handles, listings, limits, levels, repeatability.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use vram_residency::{
    Budget, ByteLen, Class, Limits, Protection, SealKey, SealRequest, SealedShard, SegmentSize,
    SivScope, Suite, Threads, Verify, VramError, VramManager,
};
use vram_test_rigs::{ActingWriter, TestClock, weights};

const MIB: usize = 1 << 20;

/// The whole state that a caller can read, without the times.
fn state(manager: &VramManager) -> String {
    let mut state = manager.snapshot().state;
    for shard in &mut state.shards {
        shard.last_verified = None;
    }
    format!("{state:?} {:?}", manager.shards())
}

#[test]
fn bad_handles_are_told_apart_and_change_nothing() {
    let manager = VramManager::new_mock_multi_gpu(vec![MIB, MIB]).unwrap();
    let other = VramManager::new_mock(MIB).unwrap();
    let data = weights(5000);
    let good = manager.seal_model("model", 0, &data).unwrap();
    let foreign = other.seal_model("model", 0, &data).unwrap();
    let mut altered = good.clone();
    altered.sealed_data[100] ^= 1;
    let mut renamed = good.clone();
    renamed.model_id = "another".into();
    let freed = manager.seal_model("model", 0, &data).unwrap();
    manager.free_shard(&freed).unwrap();

    let stale = manager.seal_model("model", 0, &data).unwrap();
    manager.open_resident(&stale).unwrap();

    let before = state(&manager);
    let code = |shard: &SealedShard| {
        let mut target = vec![0; 5000];
        let answers = [
            manager.unseal_model(shard).map(|_| ()),
            manager.unseal_into(shard, &mut target),
            manager.unseal_and_free(shard).map(|_| ()),
            manager.read_shard_at_offset(shard, 0, 1).map(|_| ()),
            manager.read_into(shard, 0, &mut target),
            manager.migrate_shard(shard, 1).map(|_| ()),
            manager.free_shard(shard).map(|_| ()),
            manager.verify(shard, Verify::Full).map(|_| ()),
            manager.ensure_intact(shard),
            manager.content_digest(shard).map(|_| ()),
        ];
        let codes: Vec<_> = answers.into_iter().map(|answer| answer.unwrap_err().code()).collect();
        assert!(codes.windows(2).all(|pair| pair[0] == pair[1]), "{codes:?}");
        codes[0]
    };
    assert_eq!(code(&foreign), "foreign-handle");
    assert_eq!(code(&altered), "handle-altered");
    assert_eq!(code(&renamed), "handle-altered");
    assert_eq!(code(&freed), "shard-freed");
    assert_eq!(code(&stale), "stale-handle");
    assert!(matches!(manager.verify_shard_integrity(&altered), Ok(false)));
    for shard in [&foreign, &freed, &stale] {
        assert!(manager.verify_shard_integrity(shard).is_err());
    }
    assert_eq!(state(&manager), before);
    assert_eq!(manager.unseal_model(&good).unwrap(), data);
}

#[test]
fn clones_stay_good_across_a_migration_and_listings_know_where_it_is() {
    let manager = VramManager::new_mock_multi_gpu(vec![MIB, MIB]).unwrap();
    let data = weights(300_000);
    let shards: Vec<_> = (0..3).map(|_| manager.seal_model("model", 0, &data).unwrap()).collect();
    let moved = manager.migrate_shard(&shards[1], 1).unwrap();
    assert_eq!(moved.shard_id, shards[1].shard_id);
    assert_eq!(moved.sealed_data, shards[1].sealed_data);
    assert_eq!(manager.unseal_model(&shards[1]).unwrap(), data, "an old clone");

    let listed = manager.shards();
    assert!(listed.is_sorted_by(|a, b| a.shard_id < b.shard_id));
    assert_eq!(listed.iter().map(|shard| shard.gpu_index).collect::<Vec<_>>(), [0, 1, 0]);
    assert_eq!(manager.shards_of("model").len(), 3);
    assert!(manager.shards_of("other").is_empty());
    assert_eq!(manager.shard(&moved.shard_id), Some(moved.clone()));
    // Back again, with the clone from before the first move; and nowhere.
    assert_eq!(manager.migrate_shard(&shards[1], 0).unwrap().gpu_index, 0);
    assert_eq!(manager.migrate_shard(&moved, 0).unwrap().gpu_index, 0);
    assert_eq!(manager.get_used_vram(1).unwrap(), 0);
}

#[test]
fn an_empty_shard_is_a_shard() {
    for protection in [Protection::Encrypted, Protection::Authenticated] {
        // Also on a GPU without any memory.
        let manager = VramManager::new_mock_multi_gpu(vec![0, 0]).unwrap();
        let request = SealRequest::new("model", 0).protection(protection);
        let shard = manager.seal(request, &[]).unwrap();
        assert_eq!(manager.unseal_model(&shard).unwrap(), b"");
        assert_eq!(manager.read_shard_at_offset(&shard, 0, 0).unwrap(), b"");
        assert!(manager.read_shard_at_offset(&shard, 0, 1).is_err());
        assert!(manager.verify(&shard, Verify::Full).unwrap().sound);
        let shard = manager.migrate_shard(&shard, 1).unwrap();
        assert!(manager.verify_shard_integrity(&shard).unwrap());
        assert_eq!(manager.capacity(1).unwrap().used, ByteLen::ZERO);
        assert_eq!(manager.free_shard(&shard).unwrap().bytes, ByteLen::ZERO);
        assert!(manager.seal_model("model", 0, b"x").unwrap_err().is_capacity());
    }
}

#[test]
fn ranges_are_right_for_every_kind_of_seal_at_every_edge() {
    let segment = SegmentSize::MIN;
    let data = weights(3 * 4096 + 100);
    let edges: Vec<usize> =
        [0, 1, 4095, 4096, 4097, 8191, 8192, 12_287, 12_288, 12_387, 12_388].to_vec();
    for request in [
        SealRequest::new("model", 0),
        SealRequest::new("model", 0).scope(SivScope::Segment).suite(Suite::ChaCha20Poly1305),
        SealRequest::new("model", 0).protection(Protection::Authenticated),
    ] {
        for threads in [1, 3] {
            let manager = VramManager::builder()
                .host_device(ByteLen::MIB)
                .threads(Threads::exactly(threads))
                .limits(Limits::default().staging_bytes(ByteLen::new(8192)))
                .segment_size(segment)
                .build()
                .unwrap();
            let shard = manager.seal(request.clone(), &data).unwrap();
            for &start in &edges {
                for &end in edges.iter().filter(|end| **end >= start) {
                    let read = manager.read_shard_at_offset(&shard, start, end - start).unwrap();
                    assert!(read == data[start..end], "{start}..{end}");
                }
            }
            for (offset, length) in [(12_389, 0), (0, 12_389), (usize::MAX, 1), (1, usize::MAX)] {
                let refused = manager.read_shard_at_offset(&shard, offset, length);
                assert!(matches!(refused, Err(VramError::OutOfBounds { .. })), "{refused:?}");
            }
        }
    }
}

#[test]
fn a_target_of_another_length_is_refused_and_left_alone() {
    let manager = VramManager::new_mock(MIB).unwrap();
    let shard = manager.seal_model("model", 0, &weights(1000)).unwrap();
    for len in [0, 999, 1001] {
        let mut target = vec![7; len];
        let refused = manager.unseal_into(&shard, &mut target);
        assert!(matches!(refused, Err(VramError::TargetLength { .. })), "{refused:?}");
        assert!(target.iter().all(|byte| *byte == 7));
    }
    let mut target = vec![7; 1000];
    manager.unseal_into(&shard, &mut target).unwrap();
    assert_eq!(target, weights(1000));
}

#[test]
fn a_refusal_says_what_room_there_is() {
    let manager = VramManager::builder()
        .host_device(ByteLen::MIB)
        .headroom(0, ByteLen::new(256 * 1024))
        .build()
        .unwrap();
    manager.seal_model("model", 0, &weights(512 * 1024)).unwrap();
    let before = state(&manager);
    match manager.seal_model("model", 0, &weights(256 * 1024 + 1)) {
        Err(VramError::InsufficientVram(shortfall)) => {
            assert_eq!(shortfall.gpu, 0);
            assert_eq!(shortfall.needed.get(), 256 * 1024 + 256);
            assert_eq!(shortfall.room.get(), 256 * 1024);
            assert_eq!(shortfall.largest_hole.get(), 512 * 1024);
            assert_eq!(shortfall.headroom.get(), 256 * 1024);
            let error = VramError::InsufficientVram(shortfall);
            assert_eq!((error.class(), error.code()), (Class::Retry, "insufficient-vram"));
            assert!(error.retry_after().is_some());
        }
        other => panic!("{other:?}"),
    }
    // The most that there could ever be is the budget less headroom: more is never granted.
    for (len, class) in [(768 * 1024, Class::Retry), (768 * 1024 + 1, Class::Caller)] {
        let error = manager.seal_model("model", 0, &weights(len)).unwrap_err();
        assert_eq!((error.class(), error.code()), (class, "insufficient-vram"));
        assert_eq!(error.retry_after().is_some(), class == Class::Retry);
        let told = error.to_string();
        assert_eq!(told.contains("never more than 768.0 KiB"), class == Class::Caller, "{told}");
    }
    assert_eq!(state(&manager), before);
    manager.seal_model("model", 0, &weights(256 * 1024)).unwrap();
}

#[test]
fn limits_hold_and_are_given_back() {
    let limits = Limits::default().shard_len_max(ByteLen::new(1000)).shard_count_max(2);
    let manager = VramManager::builder().host_device(ByteLen::MIB).limits(limits).build().unwrap();
    let refused = manager.seal_model("model", 0, &weights(1001)).unwrap_err();
    assert!(matches!(refused, VramError::LimitExceeded { limit: 1000, wanted: 1001, .. }));
    let first = manager.seal_model("model", 0, &weights(1000)).unwrap();
    manager.seal_model("model", 0, b"").unwrap();
    let refused = manager.seal_model("model", 0, b"").unwrap_err();
    assert!(matches!(refused, VramError::LimitExceeded { limit: 2, wanted: 3, .. }));
    manager.free_shard(&first).unwrap();
    manager.seal_model("model", 0, b"").unwrap();
}

#[test]
fn model_ids_have_one_to_1024_bytes() {
    let manager = VramManager::new_mock(MIB).unwrap();
    for bad in [String::new(), "x".repeat(1025)] {
        let refused = manager.seal_model(&bad, 0, b"weights").unwrap_err();
        assert_eq!((refused.code(), refused.class()), ("model-id", Class::Caller));
    }
    assert_eq!(manager.get_used_vram(0).unwrap(), 0);
    manager.seal_model(&"x".repeat(1024), 0, b"weights").unwrap();
}

#[test]
fn a_configuration_that_cannot_work_is_refused_in_words() {
    let mib = ByteLen::MIB;
    let host = || VramManager::builder().host_device(mib);
    let device =
        Arc::new(vram_residency::HostDevice::new(vram_residency::GpuIndex::new(0), mib).unwrap());
    for refused in [
        VramManager::builder().build(),
        VramManager::new_mock_multi_gpu(Vec::new()),
        VramManager::new_mock(usize::MAX),
        host().budget(0, Budget::FractionOfFree(0.0)).build(),
        host().budget(0, Budget::FractionOfFree(f64::NAN)).build(),
        host().budget(0, Budget::Bytes(ByteLen::GIB)).build(),
        host().limits(Limits::default().staging_bytes(ByteLen::new(4096))).build(),
        VramManager::builder().device(device.clone()).device(device.clone()).build(),
    ] {
        match refused {
            Err(VramError::Config { what }) => assert!(what.len() > 10, "{what}"),
            other => panic!("{other:?}"),
        }
    }
    let refused = host().headroom(1, mib).build();
    assert!(matches!(refused, Err(VramError::UnknownGpu { gpu: 1, count: 1 })));
    // The refused builder kept nothing of the device that was listed twice.
    assert!(VramManager::builder().device(device).build().is_ok());
}

/// P20.
#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = || {
        let clock = TestClock::new();
        clock.set_wall(1_700_000_000_000);
        let manager = VramManager::builder()
            .host_device(ByteLen::MIB)
            .host_device(ByteLen::MIB)
            .key(SealKey::from_bytes(&[3; 32]))
            .clock(clock)
            .id_seed(42)
            .build()
            .unwrap();
        let mut trace = Vec::new();
        let mut shards = Vec::new();
        for len in [1000, 200_000, 0, 77, 300_000] {
            shards.push(manager.seal_model("model", 0, &weights(len)).unwrap());
        }
        manager.free_shard(&shards[1]).unwrap();
        manager.migrate_shard(&shards[4], 1).unwrap();
        for shard in manager.shards() {
            trace.push(format!("{shard:?} {:?}", shard.sealed_data.as_bytes()));
        }
        trace.push(format!("{:?}", manager.report()));
        trace
    };
    assert_eq!(run(), run());
}

/// P1: two loaders never both get the last bytes, and one always does.
#[test]
fn the_last_bytes_go_to_exactly_one() {
    let manager = VramManager::builder()
        .host_device(ByteLen::new(64 * 1024))
        .threads(Threads::ONE)
        .build()
        .unwrap();
    let data = weights(40_000);
    for _round in 0..50 {
        let (won, start) = (AtomicUsize::new(0), Barrier::new(4));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    match manager.seal_model("model", 0, &data) {
                        Ok(_) => won.fetch_add(1, Ordering::Relaxed),
                        Err(error) => usize::from(!error.is_capacity()) * 100,
                    }
                });
            }
        });
        assert_eq!(won.load(Ordering::Relaxed), 1);
        let capacity = manager.capacity(0).unwrap();
        assert_eq!(capacity.used.get(), 40_192);
        manager.unseal_and_free(&manager.shards()[0]).unwrap();
        assert_eq!(manager.get_used_vram(0).unwrap(), 0);
    }
}

/// A sink that calls back: it may read the shard that it is written from, and may not free it.
#[test]
fn a_callback_into_the_manager_never_waits_for_itself() {
    let manager = VramManager::new_mock(4 * MIB).unwrap();
    let data = weights(600_000);
    let shard = manager.seal_model("model", 0, &data).unwrap();
    let other = manager.seal_model("model", 0, &weights(1000)).unwrap();
    let mut written = 0;
    let sink = ActingWriter(|bytes: &[u8]| {
        assert_eq!(manager.read_shard_at_offset(&shard, 0, 3).unwrap(), data[..3]);
        for refused in [
            manager.free_shard(&shard).map(|_| ()),
            manager.migrate_shard(&shard, 0).map(|_| ()),
            manager.unseal_and_free(&shard).map(|_| ()),
        ] {
            assert!(matches!(refused, Err(VramError::InUse { leases: 0, .. })), "{refused:?}");
        }
        let more = manager.seal_model("more", 0, b"more").unwrap();
        manager.free_shard(&more).unwrap();
        assert!(manager.verify(&other, Verify::Full).unwrap().sound);
        written += bytes.len();
        Ok(bytes.len())
    });
    manager.unseal_to(&shard, sink).unwrap();
    assert_eq!(written, 600_000);
    manager.free_shard(&shard).unwrap();
}

/// P13.
#[test]
fn debug_and_display_show_neither_keys_nor_content_nor_digests() {
    let key = [0xC3; 32];
    let manager = VramManager::builder()
        .host_device(ByteLen::MIB)
        .key(SealKey::from_bytes(&key))
        .build()
        .unwrap();
    let data = weights(2000);
    let shard = manager.seal_model("model", 0, &data).unwrap();
    let digest = manager.content_digest(&shard).unwrap().to_string();
    let shown = format!("{manager:?} {shard:?} {:?} {}", manager.report(), manager.report());
    for secret in [&digest, &digest[..16], "195, 195", "c3c3c3", &format!("{:?}", &data[5..9])] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}
