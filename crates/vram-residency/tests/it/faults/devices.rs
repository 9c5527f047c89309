//! The faults of devices and of links between them, each with its required effect: two GPUs, each
//! behind a fault device.

use core::time::Duration;
use std::sync::{Arc, Mutex, mpsc};

use vram_residency::device::fault::{Action, FaultPlan, Hook, Op, When};
use vram_residency::device::{FaultDevice, GpuError, HostDevice};
use vram_residency::{
    Budget, ByteLen, Class, GpuIndex, Limits, MemoryMode, Protection, ReadBack, SealKey,
    SealRequest, SealedShard, Threads, Verify, VramError, VramManager,
};
use vram_test_rigs::{Rig, SEGMENT, devices, weights};

const TOTAL: usize = 16 * SEGMENT;
pub(super) const LEN: usize = 5 * SEGMENT + 9;

/// Driver codes: uncorrectable ECC, illegal address, launch failure.
const STICKY: [u32; 3] = [214, 700, 719];

pub(super) fn rig_with(deferred: bool, threads: Threads) -> Rig {
    let plan = FaultPlan::new(7);
    let plan = if deferred { plan.deferred() } else { plan };
    Rig::over(devices(&[TOTAL; 2], &plan), MemoryMode::Region, |builder| {
        let limits = Limits::default().staging_bytes(ByteLen::from_usize(8 * SEGMENT));
        builder.threads(threads).limits(limits)
    })
}

pub(super) fn rig() -> Rig {
    rig_with(false, Threads::exactly(2))
}

pub(super) fn seal(rig: &Rig, protection: Protection) -> SealedShard {
    rig.seal(0, protection, &weights(LEN))
}

#[test]
fn one_flipped_bit_in_device_memory_is_named_and_never_served() {
    for at in [0, 1, SEGMENT - 1, SEGMENT, 3 * SEGMENT + 5, LEN - 1] {
        let rig = rig();
        let shard = seal(&rig, Protection::Authenticated);
        let position = rig.written_at(0) + u64::try_from(at).unwrap();
        let segment = u64::try_from(at / SEGMENT).unwrap();
        rig.flip(0, position, 3);

        // A read that does not touch the altered segment succeeds; the first that does fails, and
        // so do all later ones.
        let elsewhere = if at < SEGMENT { LEN - 10 } else { 10 };
        assert_eq!(
            rig.manager.read_shard_at_offset(&shard, elsewhere, 5).unwrap(),
            &weights(LEN)[elsewhere..elsewhere + 5]
        );
        match rig.manager.read_shard_at_offset(&shard, at, 1) {
            Err(VramError::ShardAltered { segments, .. }) => assert_eq!(segments, [segment]),
            other => panic!("{other:?}"),
        }
        for refused in [
            rig.manager.unseal_model(&shard).map(|_| ()),
            rig.manager.unseal_and_free(&shard).map(|_| ()),
            rig.manager.read_shard_at_offset(&shard, elsewhere, 5).map(|_| ()),
            rig.manager.migrate_shard(&shard, 1).map(|_| ()),
            rig.manager.migrate_shard(&shard, 0).map(|_| ()),
        ] {
            match refused {
                Err(VramError::Quarantined { segments, .. }) => assert_eq!(segments, [segment]),
                other => panic!("{other:?}"),
            }
        }
        let verdict = rig.manager.verify(&shard, Verify::Full).unwrap();
        assert!(!verdict.sound);
        assert_eq!(verdict.altered.len(), 1);
        assert_eq!(verdict.altered[0].segment, segment);
        assert!(!rig.manager.verify_shard_integrity(&shard).unwrap());
        assert!(rig.manager.ensure_intact(&shard).unwrap_err().is_integrity());
        assert_eq!(rig.manager.report().gpus[0].quarantined, 1);

        // Restoring the bit does not lift the quarantine: freeing does.
        rig.flip(0, position, 3);
        assert!(!rig.manager.verify_shard_integrity(&shard).unwrap());
        rig.manager.free_shard(&shard).unwrap();
        assert_eq!(rig.used(0), 0);
    }
}

/// P18.
#[test]
fn freed_device_memory_no_longer_holds_the_bytes() {
    for protection in [Protection::Encrypted, Protection::Authenticated] {
        let rig = rig();
        let before = rig.region(0);
        let shard = seal(&rig, protection);
        let held: Vec<usize> = rig
            .region(0)
            .iter()
            .zip(&before)
            .enumerate()
            .filter(|(_, (now, then))| now != then)
            .map(|(at, _)| at)
            .collect();
        assert!(held.len() > LEN / 2, "the shard was never there");
        rig.manager.free_shard(&shard).unwrap();
        let after = rig.region(0);
        assert!(held.iter().all(|at| after[*at] == 0));

        // A migration also leaves no bytes behind.
        let shard = seal(&rig, protection);
        rig.manager.migrate_shard(&shard, 1).unwrap();
        let after = rig.region(0);
        assert!(held.iter().all(|at| after[*at] == 0));
    }
}

/// P16 until the reset; `tests/it/loss/` tests the rest.
#[test]
fn after_a_sticky_error_that_gpu_answers_device_lost_and_is_left_alone() {
    for code in STICKY {
        let rig = rig();
        let here = seal(&rig, Protection::Encrypted);
        let there = rig.manager.seal_model("model", 1, &weights(LEN)).unwrap();
        rig.devices[0].add(Op::Read, When::Nth(2), Action::Driver(code)).unwrap();
        let used = rig.used(0);

        let lost = |result: Result<(), VramError>| match result {
            Err(error @ VramError::DeviceLost { gpu: 0, .. }) => {
                assert_eq!(error.class(), Class::Fatal);
            }
            other => panic!("{other:?}"),
        };
        lost(rig.manager.unseal_model(&here).map(|_| ()));
        let calls = rig.devices[0].calls().len();
        lost(rig.manager.unseal_model(&here).map(|_| ()));
        lost(rig.manager.read_shard_at_offset(&here, 1, 1).map(|_| ()));
        lost(rig.manager.verify_shard_integrity(&here).map(|_| ()));
        lost(rig.manager.free_shard(&here).map(|_| ()));
        lost(rig.manager.unseal_and_free(&here).map(|_| ()));
        lost(rig.manager.migrate_shard(&here, 1).map(|_| ()));
        lost(rig.manager.migrate_shard(&there, 0).map(|_| ()));
        lost(rig.manager.seal_model("model", 0, b"more").map(|_| ()));
        assert_eq!(rig.devices[0].calls().len(), calls, "the lost device was called");
        assert_eq!(rig.devices[0].calls_after_loss(), 0);
        assert_eq!(rig.used(0), used, "the ledger drifted");
        assert!(rig.manager.report().gpus[0].lost.is_some());

        // The other GPU is not affected.
        assert_eq!(rig.manager.unseal_and_free(&there).unwrap(), weights(LEN));
        assert_eq!(rig.used(1), 0);
        drop(rig.manager);
        let after: Vec<_> =
            rig.devices[0].calls().into_iter().filter(|call| call.after_loss).collect();
        // Dropping the region is not a call: the device knows that it is lost.
        assert!(after.iter().all(|call| call.op == Op::Drop), "{after:?}");
    }
}

#[test]
fn a_sticky_error_during_a_seal_leaves_nothing_counted_for_it() {
    for (op, nth) in [(Op::QueueWrite, 2), (Op::QueueWrite, 1), (Op::Read, 1)] {
        let rig = rig();
        rig.devices[0].add(op, When::Nth(nth), Action::Driver(700)).unwrap();
        let request = SealRequest::new("model", 0).read_back(ReadBack::Full);
        let refused = rig.manager.seal(request, &weights(LEN));
        assert!(matches!(refused, Err(VramError::DeviceLost { gpu: 0, .. })), "{refused:?}");
        assert_eq!(rig.used(0), 0);
        assert!(rig.manager.shards().is_empty());
        assert_eq!(rig.devices[0].calls_after_loss(), 0);
    }
}

#[test]
fn an_error_of_asynchronous_work_fails_the_operation_that_owns_it() {
    for nth in 1..=2 {
        for threads in [Threads::ONE, Threads::exactly(2)] {
            let rig = rig_with(true, threads);
            let error = GpuError::driver(GpuIndex::new(0), 1);
            rig.devices[0].add(Op::QueueWrite, When::Nth(nth), Action::LateFail(error)).unwrap();
            let refused = rig.manager.seal_model("model", 0, &weights(LEN));
            assert!(matches!(refused, Err(VramError::Device { gpu: 0, .. })), "{refused:?}");
            assert_eq!(rig.used(0), 0);

            // The next call is not affected by it.
            let shard = rig.manager.seal_model("model", 0, &weights(LEN)).unwrap();
            assert_eq!(rig.manager.unseal_model(&shard).unwrap(), weights(LEN));
        }
    }
}

/// A device that copies as late as it may: a caller that forgets to wait sees old bytes.
#[test]
fn copies_that_happen_as_late_as_they_may_are_waited_for() {
    let rig = rig_with(true, Threads::exactly(2));
    for protection in [Protection::Encrypted, Protection::Authenticated] {
        let request = SealRequest::new("model", 0).protection(protection).read_back(ReadBack::Full);
        let shard = rig.manager.seal(request, &weights(LEN)).unwrap();
        let moved = rig.manager.migrate_shard(&shard, 1).unwrap();
        assert_eq!(rig.manager.unseal_and_free(&moved).unwrap(), weights(LEN));
    }
    assert_eq!((rig.used(0), rig.used(1)), (0, 0));
}

/// The gate decides the order: the read that began first succeeds, and the free waits for it.
#[test]
fn a_free_waits_for_the_read_that_is_under_way() {
    let rig = rig_with(false, Threads::ONE);
    let shard = seal(&rig, Protection::Encrypted);
    let (reading, reads) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let may_go_on = Mutex::new(may_go_on);
    let hook = Hook::new(move || {
        reading.send(()).unwrap();
        may_go_on.lock().unwrap().recv().unwrap();
    });
    rig.devices[0].add(Op::Read, When::Nth(2), Action::Run(hook)).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| rig.manager.unseal_model(&shard));
        reads.recv().unwrap();
        let freer = scope.spawn(|| rig.manager.free_shard(&shard));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!freer.is_finished(), "freed under a reader");
        // Later calls wait for the free, and then find no shard.
        let late = scope.spawn(|| rig.manager.unseal_model(&shard));
        go_on.send(()).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), weights(LEN));
        freer.join().unwrap().unwrap();
        let late = late.join().unwrap();
        assert!(
            matches!(&late, Err(VramError::ShardFreed { .. }))
                || late.is_ok_and(|b| b == weights(LEN))
        );
    });
    assert_eq!(rig.used(0), 0);
}

#[test]
fn the_driver_saying_no_though_the_device_has_room_is_a_typed_error() {
    let total = ByteLen::from_usize(TOTAL);
    let host = HostDevice::new(GpuIndex::new(0), total).unwrap();
    let device = FaultDevice::new(Arc::new(host), FaultPlan::new(1));
    device.add(Op::Allocate, When::Nth(1), Action::OutOfMemory).unwrap();
    let build = || VramManager::builder().device(device.clone()).build();
    let refused = build().unwrap_err();
    assert!(refused.is_capacity() && refused.class() == Class::Retry, "{refused:?}");
    assert_eq!(build().unwrap().capacity(0).unwrap().total, total);
    assert!(device.live().is_empty(), "the region outlived its manager");
}

#[test]
fn another_process_on_the_device_leaves_less_to_take() {
    let total = ByteLen::from_usize(TOTAL);
    let host = Arc::new(HostDevice::new(GpuIndex::new(0), total).unwrap());
    host.set_foreign(ByteLen::from_usize(3 * SEGMENT));
    let build = |budget: Option<Budget>| {
        let builder = VramManager::builder().device(host.clone());
        match budget {
            Some(budget) => builder.budget(0, budget).build(),
            None => builder.build(),
        }
    };
    let left = ByteLen::from_usize(13 * SEGMENT);
    assert_eq!(build(None).unwrap().capacity(0).unwrap().total, left);
    let half = build(Some(Budget::FractionOfFree(0.5))).unwrap().capacity(0).unwrap().total;
    assert_eq!(half.get(), left.get() / 2);
    assert!(build(Some(Budget::Bytes(total))).unwrap_err().is_capacity());
}

#[test]
fn a_host_without_memory_is_told_before_the_device_is_touched() {
    let rig = rig();
    let wanted = ByteLen::MIB;
    rig.devices[0]
        .add(Op::Staging, When::From(1), Action::Fail(GpuError::HostMemory { wanted }))
        .unwrap();
    let refused = rig.manager.seal_model("model", 0, &weights(LEN));
    assert!(matches!(refused, Err(VramError::HostMemory { .. })), "{refused:?}");
    assert_eq!(rig.devices[0].call_count(Op::QueueWrite), 0);
    assert_eq!(rig.used(0), 0);
}

/// P11: a manager with another key does not accept the first one's shards.
#[test]
fn two_managers_with_different_keys_do_not_know_each_others_handles() {
    let manager = |byte| {
        let key = SealKey::from_bytes(&[byte; 32]);
        VramManager::builder().host_device(ByteLen::MIB).key(key).build().unwrap()
    };
    let (ours, theirs) = (manager(1), manager(2));
    let shard = ours.seal_model("model", 0, b"weights").unwrap();
    let twin = theirs.seal_model("model", 0, b"weights").unwrap();
    assert_ne!(shard.sealed_data, twin.sealed_data);
    for refused in [
        theirs.unseal_model(&shard).map(|_| ()),
        theirs.free_shard(&shard).map(|_| ()),
        theirs.verify_shard_integrity(&shard).map(|_| ()),
        theirs.migrate_shard(&shard, 0).map(|_| ()),
    ] {
        assert!(matches!(refused, Err(VramError::ForeignHandle { .. })), "{refused:?}");
    }
    assert_eq!(ours.unseal_model(&shard).unwrap(), b"weights");
}
