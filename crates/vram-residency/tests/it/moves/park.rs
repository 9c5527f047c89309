//! Parking and waking.

use core::sync::atomic::{AtomicBool, Ordering};

use vram_residency::device::GpuError;
use vram_residency::device::fault::{Action, Op, When};
use vram_residency::{
    ByteLen, GpuIndex, Protection, SealKey, SealRequest, SegmentSize, SivScope, Suite, Verify,
    VramError, VramManager,
};
use vram_test_rigs::{Rig, SEGMENT, content};

const SIZES: [usize; 7] =
    [0, 1, SEGMENT - 1, SEGMENT, 2 * SEGMENT + 1, 5 * SEGMENT, 7 * SEGMENT + 77];

pub(crate) fn kinds() -> Vec<SealRequest> {
    let base = SealRequest::new("model", 0).context(b"tenant").owner("me");
    vec![
        base.clone().scope(SivScope::Shard),
        base.clone().scope(SivScope::Segment).suite(Suite::ChaCha20Poly1305),
        base.protection(Protection::Authenticated),
    ]
}

/// P17: the bytes are equal after waking, with the same id and record, and old handles are valid
/// again.
#[test]
fn a_parked_shard_wakes_with_its_bytes_its_id_and_its_record() {
    for len in SIZES {
        let bytes = content(len, 1);
        for request in kinds() {
            let rig = Rig::new(&[(3 * len.max(SEGMENT)).next_multiple_of(256)]);
            let shard = rig.manager.seal(request, &bytes).unwrap();
            let used = rig.used(0);
            let parked = rig.manager.park(&shard).unwrap();
            assert_eq!(rig.used(0), 0);
            assert_eq!(rig.manager.shards(), []);
            assert_eq!(parked.shard_id(), &shard.shard_id);
            assert_eq!(parked.sealed_data(), shard.sealed_data);
            assert_eq!(rig.manager.park_capacity().used, parked.host_len());
            if len >= 32 {
                assert!(!rig.region(0).windows(32).any(|part| part == &bytes[..32]), "P18");
            }
            for refused in [
                rig.manager.unseal_model(&shard).map(drop),
                rig.manager.free_shard(&shard).map(drop),
                rig.manager.park(&shard).map(drop),
                rig.manager.migrate_shard(&shard, 0).map(drop),
                rig.manager.verify_shard_integrity(&shard).map(drop),
            ] {
                assert!(matches!(refused, Err(VramError::Parked { .. })), "{refused:?}");
            }
            let woken = rig.manager.wake(parked, 0).unwrap();
            assert_eq!(woken, shard, "nothing about the handle changed");
            assert_eq!(rig.used(0), used);
            assert_eq!(rig.manager.park_capacity().used, ByteLen::ZERO);
            assert_eq!(rig.manager.unseal_model(&shard).unwrap(), bytes);
            assert!(rig.manager.verify(&shard, Verify::Full).unwrap().sound);
            rig.settle(true);
        }
    }
}

/// Reproduces weights that were garbage after sleep and wake. The test cannot flip a bit in host
/// memory, but it can flip one in the copy back.
#[test]
fn a_shard_wakes_on_another_gpu_and_is_verified_there() {
    let manager = VramManager::new_mock_multi_gpu(vec![1 << 16, 1 << 16]).unwrap();
    let shard = manager.seal_model("model", 0, &content(9000, 3)).unwrap();
    let parked = manager.park(&shard).unwrap();
    let (parked, error) = manager.wake(parked, 7).unwrap_err().into_parts();
    assert!(matches!(error, VramError::UnknownGpu { gpu: 7, count: 2 }));
    let woken = manager.wake(parked, 1).unwrap();
    assert_eq!(woken.gpu_index, 1);
    assert_eq!(manager.unseal_model(&shard).unwrap(), content(9000, 3));
    assert_eq!(manager.get_used_vram(0).unwrap(), 0);
}

#[test]
fn a_parked_shard_belongs_to_its_manager_and_comes_back_from_a_refusal() {
    let (ours, theirs) = (VramManager::new_mock(1 << 16).unwrap(), VramManager::new_mock(1 << 16));
    let shard = ours.seal_model("model", 0, b"weights").unwrap();
    let refused = theirs.unwrap().wake(ours.park(&shard).unwrap(), 0).unwrap_err();
    assert!(matches!(refused.error(), VramError::ForeignHandle { .. }), "{refused}");
    assert!(core::error::Error::source(&refused).is_some());
    let woken = ours.wake(refused.into_parked(), 0).unwrap();
    assert_eq!(ours.unseal_model(&woken).unwrap(), b"weights");
}

#[test]
fn a_dropped_parked_shard_is_gone_and_its_host_memory_is_given_back() {
    let manager = VramManager::builder()
        .host_device(ByteLen::MIB)
        .park_limit(ByteLen::new(10_000))
        .build()
        .unwrap();
    let shards: Vec<_> =
        (0..3).map(|seed| manager.seal_model("m", 0, &content(4000, seed)).unwrap()).collect();
    let first = manager.park(&shards[0]).unwrap();
    let second = manager.park(&shards[1]).unwrap();
    match manager.park(&shards[2]) {
        Err(error @ VramError::ParkLimit { needed, room, limit }) => {
            assert_eq!((needed.get(), room.get(), limit.get()), (4000, 2000, 10_000));
            assert_eq!((error.code(), error.class()), ("park-limit", vram_residency::Class::Retry));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(manager.unseal_model(&shards[2]).unwrap(), content(4000, 2), "still resident");
    assert_eq!(manager.park_capacity().shard_count, 2);
    drop(first);
    assert!(matches!(manager.unseal_model(&shards[0]), Err(VramError::ShardFreed { .. })));
    let third = manager.park(&shards[2]).unwrap();
    assert_eq!(manager.park_capacity().used.get(), 8000);
    drop((second, third));
    assert_eq!(manager.park_capacity().used, ByteLen::ZERO);
    assert_eq!(manager.get_used_vram(0).unwrap(), 0);
}

/// What is parked to make room does not grow without bound.
#[test]
fn parked_memory_is_a_share_of_the_hosts_if_nothing_is_set() {
    let manager = VramManager::new_mock(1 << 16).unwrap();
    let limit = manager.park_capacity().limit;
    assert!(limit >= ByteLen::MIB, "{limit}");
    if let Ok(text) = std::fs::read_to_string("/proc/meminfo") {
        let kib = text.lines().next().unwrap().split_ascii_whitespace().nth(1).unwrap();
        let host: u64 = kib.parse().unwrap();
        assert!(limit.get() <= host * 1024 / 4, "{limit} of {host} KiB");
    } else {
        assert_eq!(limit, ByteLen::from_mib_saturating(4096));
    }
}

#[test]
fn a_parked_shard_outlives_its_manager_without_harm() {
    let manager = VramManager::new_mock(1 << 16).unwrap();
    let shard = manager.seal_model("model", 0, b"weights").unwrap();
    let parked = manager.park(&shard).unwrap();
    drop(manager);
    assert_eq!(parked.model_id(), "model");
    std::thread::spawn(move || drop(parked)).join().unwrap();
}

/// P10a: an altered shard is not parked, so it cannot return as sound.
#[test]
fn an_altered_shard_is_not_parked_and_the_segment_is_named() {
    let len = 5 * SEGMENT + 9;
    for request in kinds() {
        for segment in 0..6_u64 {
            let rig = Rig::new(&[1 << 16]);
            let shard = rig.manager.seal(request.clone(), &content(len, 4)).unwrap();
            let offset = rig.written_at(0) + segment * 4096 + 3;
            rig.flip(0, offset, 1);
            let used = rig.used(0);
            match rig.manager.park(&shard) {
                Err(VramError::ShardAltered { segments, .. }) => assert_eq!(segments, [segment]),
                other => panic!("{other:?}"),
            }
            assert_eq!(rig.used(0), used);
            assert_eq!(rig.manager.park_capacity().used, ByteLen::ZERO);
            assert!(matches!(rig.manager.park(&shard), Err(VramError::Quarantined { .. })));
            rig.settle(true);
        }
    }
}

#[test]
fn a_place_that_cannot_be_wiped_after_parking_stays_counted_and_the_shard_is_safe() {
    let rig = Rig::new(&[1 << 16]);
    let shard = rig.manager.seal_model("model", 0, &content(5000, 7)).unwrap();
    let error = GpuError::driver(GpuIndex::new(0), 1);
    rig.devices[0].add(Op::Fill, When::Nth(1), Action::Fail(error)).unwrap();
    let parked = rig.manager.park(&shard).unwrap();
    assert_eq!(rig.manager.capacity(0).unwrap().unreturned.get(), 5120);
    assert_eq!(rig.used(0), 5120);
    let woken = rig.manager.wake(parked, 0).unwrap();
    assert_eq!(rig.manager.unseal_model(&woken).unwrap(), content(5000, 7));
}

/// Callers of a shard that is parked and woken repeatedly get its bytes, or `Parked`.
#[test]
fn readers_meet_a_shard_that_comes_and_goes_whole_or_parked() {
    let manager = VramManager::builder()
        .host_device(ByteLen::MIB)
        .key(SealKey::from_bytes(&[3; 32]))
        .segment_size(SegmentSize::MIN)
        .build()
        .unwrap();
    let bytes = content(20_000, 8);
    let shard = manager.seal_model("model", 0, &bytes).unwrap();
    let moving = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..100 {
                let parked = manager.park(&shard).unwrap();
                assert_eq!(manager.wake(parked, 0).unwrap(), shard);
            }
            moving.store(false, Ordering::Release);
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while moving.load(Ordering::Acquire) {
                    match manager.unseal_model(&shard) {
                        Ok(read) => assert_eq!(read, bytes),
                        Err(VramError::Parked { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    assert_eq!(manager.capacity(0).unwrap().used.get(), 20_224);
}
