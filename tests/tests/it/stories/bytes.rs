//! Stories of bytes: weights that were wrong after a transfer, and devices that were lost.

use core::time::Duration;

use vram_gpu::codes;
use vram_gpu::fault::{Action, Op, When};
use vram_residency::{
    ByteLen, Class, CompactBudget, LinkState, Lru, OnEviction, Protection, RepairOptions,
    ResetOptions, ScrubCursor, SealRequest, SliceSource, Verify, VramError, VramManager,
};
use vram_tests::reference::{bytes, footprint};
use vram_tests::rig::Rig;

use super::{KIB, used};

/// vllm #48310, #53888, #54235, #29341, `torch_memory_saver` #71: after sleep and wake, the model
/// returns nonsense.
#[test]
fn silent_corruption_after_sleep_and_wake() {
    let rig = Rig::new(&[256 * KIB], 1).unwrap();
    let (manager, device) = (&rig.manager, &rig.devices[0]);
    let data = bytes(50_000, 1);
    for protection in [Protection::Encrypted, Protection::Authenticated] {
        let request = SealRequest::new("llama", 0).protection(protection);
        let shard = manager.seal(request, &data).unwrap();

        // Even if the copy back reports success, its bytes are checked before the shard becomes
        // resident.
        let mut parked = manager.park(&shard).unwrap();
        let wrong = [
            Action::DropCopy,
            Action::ShortCopy { keep: 20_000 },
            Action::FlipBit { byte: 777, bit: 7 },
        ];
        for action in wrong {
            device.next(Op::QueueWrite, action.clone()).unwrap();
            let failed = manager.wake(parked, 0).expect_err("it must be noticed");
            let error = failed.error();
            assert!(matches!(error, VramError::WriteNotKept { .. }), "{action:?}: {error}");
            assert_eq!((used(manager, 0), error.class()), (0, Class::Fatal));
            parked = failed.into_parked();
        }
        // The parked copy is unchanged, and wakes when the copy works.
        let awake = manager.wake(parked, 0).unwrap();
        assert_eq!(manager.unseal_and_free(&awake).unwrap(), data);
    }
}

/// vllm #53537 (a customer was served from a corrupted 4 GB shard), #52689, #51350, diffusers
/// #14784, sglang #17009: the weights in use are never compared with the intended ones.
#[test]
fn corrupt_weights_served() {
    let rig = Rig::new(&[256 * KIB], 1).unwrap();
    let manager = &rig.manager;
    let data = bytes(50_000, 1);

    // Corrupted before sealing: the content is compared with the digest of the catalogue.
    let meant = vram_residency::ContentHasher::digest(vram_residency::HashKind::Blake3, &data);
    let mut damaged = data.clone();
    damaged[33_333] ^= 4;
    let options = vram_residency::SealOptions::new().expected_digest(meant);
    let answer =
        manager.seal_from(SealRequest::new("llama", 0), SliceSource::new(&damaged), options);
    assert!(matches!(answer, Err(VramError::DigestMismatch { .. })), "{answer:?}");
    assert_eq!(used(manager, 0), 0);

    // Corrupted in transfer, although the copy reports success.
    rig.devices[0].next(Op::QueueWrite, Action::FlipBit { byte: 5, bit: 5 }).unwrap();
    let answer = manager.seal_model("llama", 0, &data);
    assert!(matches!(answer, Err(VramError::WriteNotKept { .. })), "{answer:?}");

    // Corrupted in device memory: the error names the segment, and no byte of it is returned.
    for protection in [Protection::Encrypted, Protection::Authenticated] {
        let request = SealRequest::new("llama", 0).protection(protection);
        let shard = manager.seal(request, &data).unwrap();
        assert!(rig.flip(&shard, 0, 33_333, 2));
        let verdict = manager.verify(&shard, Verify::Segments).unwrap();
        let altered: Vec<u64> = verdict.altered.iter().map(|span| span.segment).collect();
        assert_eq!((verdict.sound, altered), (false, vec![33_333 / 4096]));
        let answer = manager.read_shard_at_offset(&shard, 0, 1);
        assert!(matches!(answer, Err(VramError::Quarantined { .. })), "{answer:?}");
        assert!(matches!(manager.lease(&shard), Err(VramError::Quarantined { .. })));
        manager.free_shard(&shard).unwrap();
    }
}

/// NVIDIA/open-gpu-kernel-modules #1257, pytorch #84803, unsloth #10613: a copy between two GPUs
/// returns success, and other bytes arrive.
#[test]
fn a_copy_between_gpus_that_returns_success_and_wrong_bytes() {
    let rig = Rig::new(&[256 * KIB, 256 * KIB], 1).unwrap();
    let (manager, target) = (&rig.manager, &rig.devices[1]);
    let data = bytes(50_000, 1);
    let shard = manager.seal_model("llama", 0, &data).unwrap();

    target.add(Op::PeerCopy, When::From(1), Action::DropCopy).unwrap();
    let moved = manager.migrate_shard(&shard, 1).unwrap();
    assert_eq!(manager.unseal_model(&moved).unwrap(), data, "it went the long way");
    assert_eq!(manager.report().distrusted_links, [(0, 1)], "and the link is known");

    // The link can be checked without the failure of a migration.
    let rig = Rig::new(&[2 << 20, 2 << 20], 1).unwrap();
    rig.devices[1].add(Op::PeerCopy, When::From(1), Action::FlipBit { byte: 900, bit: 1 }).unwrap();
    let links = rig.manager.probe_links();
    let state = |source, target| {
        let found = links.iter().find(|link| (link.source, link.target) == (source, target));
        found.unwrap().state
    };
    assert_eq!((state(0, 1), state(1, 0)), (LinkState::Distrusted, LinkState::Direct));
}

/// triton-inference-server #3583, llama.cpp #21231: a model is unloaded while a request reads it.
#[test]
fn a_model_in_use_is_unloaded() {
    let manager = VramManager::builder()
        .host_device(ByteLen::new(64 * KIB))
        .eviction(Lru)
        .on_eviction(OnEviction::Free)
        .build()
        .unwrap();
    let request = SealRequest::new("llama", 0).protection(Protection::Authenticated);
    let shard = manager.seal(request, &[7; 40_000]).unwrap();
    let lease = manager.lease(&shard).unwrap();

    // No call frees it: not on demand, not to make room, not to compact.
    let in_use = |answer: &VramError| matches!(answer, VramError::InUse { leases: 1, .. });
    assert!(in_use(&manager.free_shard(&shard).unwrap_err()));
    assert!(in_use(&manager.park(&shard).unwrap_err()));
    assert!(in_use(&manager.close_resident(&shard).unwrap_err()));
    let patience = Duration::from_millis(1);
    assert!(in_use(&manager.free_shard_within(&shard, patience).unwrap_err()));
    let urgent = SealRequest::new("urgent", 0).priority(u32::MAX);
    let refusal = manager.seal(urgent.clone(), &[1; 40_000]).unwrap_err();
    assert!(refusal.is_capacity(), "{refusal}");
    let report = manager.compact(0, CompactBudget::new()).unwrap();
    assert_eq!(report.moves, 0);
    assert!(lease.device_pointer().is_some(), "the kernel reads on");

    drop(lease);
    assert!(manager.seal(urgent, &[1; 40_000]).is_ok(), "and then it makes room");
    assert!(matches!(manager.unseal_model(&shard), Err(VramError::ShardFreed { .. })));
}

/// antirez/ds4 #759: after one uncorrectable error the process returns only errors for hours, on
/// every card, until it is restarted.
#[test]
fn a_poisoned_context_serves_only_errors_for_hours() {
    let rig = Rig::new(&[256 * KIB, 256 * KIB], 1).unwrap();
    let (manager, device) = (&rig.manager, &rig.devices[0]);
    let data = bytes(50_000, 1);
    let saved = manager.seal_model("saved", 0, &data).unwrap();
    let unsaved = manager.seal_model("unsaved", 0, &data).unwrap();
    let elsewhere = manager.seal_model("elsewhere", 1, &data).unwrap();
    manager.back_up(&saved).unwrap();

    device.next(Op::Read, Action::Driver(codes::ECC_UNCORRECTABLE)).unwrap();
    for shard in [&saved, &unsaved] {
        let answer = manager.unseal_model(shard);
        assert!(matches!(answer, Err(VramError::DeviceLost { gpu: 0, .. })), "{answer:?}");
    }
    // Only that card is affected, and no further call is sent to it.
    assert_eq!(device.calls_after_loss(), 0);
    assert_eq!(manager.unseal_model(&elsewhere).unwrap(), data);

    // One call makes it usable again: shards with a copy are restored, the report names the others.
    let report = manager.reset_gpu(0, ResetOptions::new()).unwrap();
    assert_eq!(report.restored[0].shard_id, saved.shard_id);
    assert_eq!(report.lost[0].shard_id, unsaved.shard_id);
    assert_eq!(manager.unseal_model(&report.restored[0]).unwrap(), data);
    assert_eq!(used(manager, 0), footprint(data.len()));
    let fresh = manager.seal_model("unsaved", 0, &data).unwrap();
    assert_eq!(manager.unseal_model(&fresh).unwrap(), data);
    // A handle from before is not accepted for the shard that lies there now.
    assert!(matches!(manager.unseal_model(&saved), Err(VramError::StaleHandle { .. })));
    assert!(matches!(manager.unseal_model(&unsaved), Err(VramError::ShardFreed { .. })));
}

/// vllm #53537 again, sglang #17009, radixark/miles #405: the weights were checked when they were
/// loaded, and never again; a bit that flips a week later has an effect until a user notices the
/// answers.
#[test]
fn nothing_watches_the_weights_after_they_were_loaded() {
    let rig = Rig::new(&[256 * KIB], 1).unwrap();
    let manager = &rig.manager;
    let data = bytes(50_000, 1);
    let request = SealRequest::new("llama", 0).protection(Protection::Authenticated);
    let shard = manager.seal(request, &data).unwrap();
    let lease = manager.lease(&shard).unwrap();
    assert!(rig.flip(lease.shard(), 0, 12_345, 6));
    assert!(lease.ensure_sound().is_ok(), "nobody has looked yet");

    // The scrubber checks the shard while kernels read it, and revokes the pointer.
    let mut cursor = ScrubCursor::new();
    let step = manager.scrub_step(&mut cursor, ByteLen::MIB);
    assert_eq!(step.altered, core::slice::from_ref(&shard.shard_id));
    assert!(lease.device_pointer().is_none() && lease.ensure_sound().is_err());
    drop(lease);

    // Three of four segments are unaltered: only the fourth is written again.
    let source = SliceSource::new(&data);
    let report = manager.repair_from(&shard, source, RepairOptions::new()).unwrap();
    assert_eq!(report.segments, [12_345 / 4096]);
    assert_eq!(manager.unseal_model(&shard).unwrap(), data);
}
