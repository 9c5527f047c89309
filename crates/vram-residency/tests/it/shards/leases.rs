//! Leases and pins: a leased shard stays in place, and a call that would remove it waits or is
//! refused, as requested (P14).

use core::time::Duration;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use vram_alloc::DeviceOffset;
use vram_residency::device::FaultDevice;
use vram_residency::device::fault::{FaultPlan, Op};
use vram_residency::{
    AdmitRequest, ByteLen, Class, Device, GpuChoice, Lease, ModelPlan, Piece, Protection, ReadBack,
    SealRequest, SealedShard, SliceSource, VramError, VramManager,
};
use vram_test_rigs::{devices, held_up};

const MIB: usize = 1 << 20;
/// Longer than any step of these tests, and short enough for a test run.
const LONG: Duration = Duration::from_mins(1);
const SHORT: Duration = Duration::from_millis(30);

fn two_gpus() -> VramManager {
    VramManager::new_mock_multi_gpu(vec![MIB, MIB]).unwrap()
}

fn plain(manager: &VramManager, data: &[u8]) -> SealedShard {
    let request = SealRequest::new("model", 0).protection(Protection::Authenticated);
    manager.seal(request, data).unwrap()
}

fn leased(outcome: Result<impl Sized, VramError>) -> usize {
    match outcome {
        Err(VramError::InUse { leases, .. }) => leases,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was not refused"),
    }
}

#[test]
fn a_leased_shard_is_not_freed_moved_opened_or_closed() {
    let manager = two_gpus();
    let shard = plain(&manager, &[7; 5000]);
    let before = manager.report();
    let lease = manager.lease(&shard).unwrap();

    assert_eq!(leased(manager.free_shard(&shard)), 1);
    assert_eq!(leased(manager.unseal_and_free(&shard)), 1);
    assert_eq!(leased(manager.migrate_shard(&shard, 1)), 1);
    assert_eq!(leased(manager.migrate_shard(&shard, 0)), 1);
    assert_eq!(leased(manager.open_resident(&shard)), 1);
    assert_eq!(leased(manager.close_resident(&shard)), 1);
    // Reading it still works.
    assert_eq!(manager.unseal_model(&shard).unwrap(), [7; 5000]);
    assert!(manager.verify_shard_integrity(&shard).unwrap());
    assert_eq!(manager.report().shards[0].leases, 1);

    drop(lease);
    assert_eq!(manager.report().gpus, before.gpus);
    assert_eq!(manager.migrate_shard(&shard, 1).unwrap().gpu_index, 1);
    manager.free_shard(&shard).unwrap();
}

#[test]
fn every_lease_counts_and_the_last_one_frees_the_way() {
    let manager = two_gpus();
    let shard = plain(&manager, b"weights");
    let leases: Vec<Lease> = (0..3).map(|_| manager.lease(&shard).unwrap()).collect();
    for (ended, lease) in leases.into_iter().enumerate() {
        assert_eq!(leased(manager.free_shard(&shard)), 3 - ended);
        drop(lease);
    }
    manager.free_shard(&shard).unwrap();
}

#[test]
fn a_lease_moves_to_another_thread_and_outlives_the_manager() {
    fn owned<T: Send + Sync + 'static>(value: T) -> T {
        value
    }
    let manager = two_gpus();
    let shard = plain(&manager, b"weights");
    let lease = owned(manager.lease(&shard).unwrap());
    drop(manager);
    thread::spawn(move || {
        lease.ensure_sound().unwrap();
        assert!(lease.device_pointer().is_some());
        assert_eq!(lease.len().get(), 7);
    })
    .join()
    .unwrap();
}

/// Only an Authenticated shard has plaintext for a pointer.
#[test]
fn the_pointer_is_given_for_plaintext_alone_and_points_to_it() {
    let manager = two_gpus();
    let sealed = manager.seal_model("model", 0, b"weights").unwrap();
    assert_eq!(manager.lease(&sealed).unwrap().device_pointer(), None);

    // Small shards are placed at the high end, so the second lies below the first.
    let (first, second) = (plain(&manager, &[1; 1000]), plain(&manager, &[2; 1000]));
    let address = |shard| manager.lease(shard).unwrap().device_pointer().unwrap().get();
    assert_eq!(address(&first) - address(&second), 1024);
    assert_eq!(address(&first), address(&first));

    let opened = manager.open_resident(&sealed).unwrap();
    assert!(manager.lease(&opened).unwrap().device_pointer().is_some());
    let closed = manager.close_resident(&opened).unwrap();
    assert_eq!(manager.lease(&closed).unwrap().device_pointer(), None);
}

fn faulty() -> (Arc<FaultDevice>, VramManager) {
    let device = devices(&[MIB], &FaultPlan::new(1)).remove(0);
    let shared: Arc<dyn Device> = Arc::<FaultDevice>::clone(&device);
    let manager = VramManager::builder().device(shared).build().unwrap();
    (device, manager)
}

fn flip(device: &FaultDevice, at: u64) {
    device.flip_bit_at(None, DeviceOffset::new(at), 3).unwrap();
}

#[test]
fn plaintext_that_was_never_verified_is_verified_before_its_first_lease() {
    let (device, manager) = faulty();
    let request = SealRequest::new("model", 0)
        .protection(Protection::Authenticated)
        .read_back(ReadBack::None);
    let shard = manager.seal(request, &[9; 4096]).unwrap();
    assert_eq!(manager.report().shards[0].last_verified, None);

    let reads = device.call_count(Op::Read);
    let lease = manager.lease(&shard).unwrap();
    assert!(device.call_count(Op::Read) > reads);
    assert!(manager.report().shards[0].last_verified.is_some());
    assert!(lease.device_pointer().is_some());

    let reads = device.call_count(Op::Read);
    let _second = manager.lease(&shard).unwrap();
    assert_eq!(device.call_count(Op::Read), reads, "once is enough");
}

#[test]
fn altered_plaintext_gets_no_lease_and_its_lease_no_pointer() {
    let (device, manager) = faulty();
    let request = SealRequest::new("model", 0)
        .protection(Protection::Authenticated)
        .read_back(ReadBack::None);
    let shard = manager.seal(request.clone(), &[9; 1 << 20]).unwrap();
    flip(&device, 300_000);
    match manager.lease(&shard) {
        Err(VramError::ShardAltered { segments, .. }) => assert_eq!(segments, [1]),
        other => panic!("{other:?}"),
    }
    assert!(matches!(manager.lease(&shard), Err(VramError::Quarantined { .. })));
    assert_eq!(manager.report().shards[0].leases, 0);
    manager.free_shard(&shard).unwrap();

    let shard = manager.seal(request, &[9; 1 << 20]).unwrap();
    let lease = manager.lease(&shard).unwrap();
    flip(&device, 0);
    assert!(!manager.verify_shard_integrity(&shard).unwrap());
    assert_eq!(lease.device_pointer(), None);
    assert!(matches!(lease.ensure_sound(), Err(VramError::Quarantined { .. })));
}

#[test]
fn a_lease_waits_for_a_mover_no_longer_than_asked() {
    let (device, manager) = faulty();
    let shard = plain(&manager, &[1; 5000]);
    let (freeing, go_on) = held_up(&device, Op::Fill);
    thread::scope(|scope| {
        let freed = scope.spawn(|| manager.free_shard(&shard).unwrap());
        freeing.recv().unwrap();
        // It is already removed from the listings, and its gate is closed.
        assert!(manager.lease_within(&shard, SHORT).is_err());
        go_on.send(()).unwrap();
        freed.join().unwrap();
    });
    assert!(matches!(manager.lease(&shard), Err(VramError::ShardFreed { .. })));

    let shard = plain(&manager, &[1; 5000]);
    let (opening, go_on) = held_up(&device, Op::Read);
    thread::scope(|scope| {
        let closed = scope.spawn(|| manager.close_resident(&shard).unwrap());
        opening.recv().unwrap();
        match manager.lease_within(&shard, SHORT) {
            Err(error @ VramError::TimedOut { waited, .. }) => {
                assert_eq!(waited, SHORT);
                assert_eq!(error.class(), Class::Retry);
                assert!(error.retry_after().is_some());
            }
            other => panic!("{other:?}"),
        }
        let waiting = scope.spawn(|| manager.lease_within(&shard, LONG));
        go_on.send(()).unwrap();
        let closed = closed.join().unwrap();
        // The handle is from before the shard was closed: the error is returned after the wait.
        assert!(matches!(waiting.join().unwrap(), Err(VramError::StaleHandle { .. })));
        assert!(manager.lease_within(&closed, LONG).is_ok());
    });
}

#[test]
fn a_caller_with_patience_waits_for_leases_and_then_frees_or_moves() {
    let manager = two_gpus();
    let shard = plain(&manager, &[1; 5000]);
    for moves in [true, false] {
        let lease = manager.lease(&shard).unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                if moves {
                    manager.migrate_shard_within(&shard, 1, LONG).map(|moved| moved.gpu_index)
                } else {
                    manager.free_shard_within(&shard, LONG).map(|receipt| receipt.gpu)
                }
            });
            thread::sleep(SHORT);
            assert!(!waiting.is_finished());
            // The waiting call blocks neither readers nor other leases.
            assert_eq!(manager.unseal_model(&shard).unwrap(), [1; 5000]);
            drop(manager.lease(&shard).unwrap());
            assert!(!waiting.is_finished());
            drop(lease);
            assert_eq!(waiting.join().unwrap().unwrap(), 1);
        });
    }
    assert!(manager.shards().is_empty());
}

/// The end of the lease wakes the call, and not the end of its patience.
#[test]
fn a_free_that_waits_for_a_lease_goes_on_when_the_lease_ends() {
    let manager = Arc::new(two_gpus());
    let shard = plain(&manager, &[7; 1000]);
    let lease = manager.lease(&shard).unwrap();
    let (told, freed) = mpsc::channel();
    let theirs = Arc::clone(&manager);
    thread::spawn(move || told.send(theirs.free_shard_within(&shard, 10 * LONG)));
    assert!(freed.recv_timeout(SHORT).is_err(), "the shard is leased");
    drop(lease);
    assert!(freed.recv_timeout(LONG).unwrap().unwrap().wiped);
}

#[test]
fn a_caller_whose_patience_ends_is_told_of_the_leases_and_nothing_changed() {
    let manager = two_gpus();
    let shard = plain(&manager, &[1; 5000]);
    let _lease = manager.lease(&shard).unwrap();
    let before = manager.snapshot().state;
    for timeout in [Duration::ZERO, SHORT] {
        let start = Instant::now();
        assert_eq!(leased(manager.free_shard_within(&shard, timeout)), 1);
        assert_eq!(leased(manager.migrate_shard_within(&shard, 1, timeout)), 1);
        assert!(start.elapsed() >= 2 * timeout && start.elapsed() < LONG);
    }
    assert_eq!(manager.snapshot().state, before);
    // A deadline beyond the clock's range means no deadline.
    let patient = manager.lease_within(&shard, Duration::MAX).unwrap();
    assert_eq!(patient.shard().shard_id, shard.shard_id);
}

/// The call also waits for a running reader, and its error then says that it was no lease.
#[test]
fn a_reader_at_work_is_waited_for_up_to_the_time_out() {
    let (device, manager) = faulty();
    let shard = plain(&manager, &[1; 5000]);
    let (reading, go_on) = held_up(&device, Op::Read);
    thread::scope(|scope| {
        let reader = scope.spawn(|| manager.unseal_model(&shard).unwrap());
        reading.recv().unwrap();
        let refused = manager.free_shard_within(&shard, SHORT);
        assert!(matches!(refused, Err(VramError::TimedOut { .. })), "{refused:?}");
        // A call that gave up waiting blocks no other call.
        assert!(manager.lease_within(&shard, LONG).is_ok());
        go_on.send(()).unwrap();
        assert_eq!(reader.join().unwrap(), [1; 5000]);
    });
    manager.free_shard_within(&shard, LONG).unwrap();
}

#[test]
fn a_thread_that_leases_and_frees_is_refused_and_not_stuck() {
    let manager = two_gpus();
    let shard = plain(&manager, b"weights");
    let _lease = manager.lease(&shard).unwrap();
    assert_eq!(leased(manager.free_shard_within(&shard, SHORT)), 1);
    assert_eq!(manager.unseal_model(&shard).unwrap(), b"weights");
}

#[test]
fn a_whole_model_is_leased_or_nothing_of_it() {
    let manager = two_gpus();
    let plan = ModelPlan::new(
        (0..4).map(|at| Piece::new(format!("tensor {at}"), 0, at * 1000, ByteLen::new(1000))),
    )
    .unwrap();
    let file = vec![5; 4000];
    let request = AdmitRequest::new("model", GpuChoice::MostRoomFirst);
    let model = manager.admit(request, &plan, &vec![SliceSource::new(&file)]).unwrap();

    let leases = manager.lease_model(&model).unwrap();
    assert_eq!(leases.len(), 4);
    for shard in model.shards() {
        assert_eq!(leased(manager.free_shard(shard)), 1);
    }
    drop(leases);

    manager.free_shard(&model.pieces[2].shard).unwrap();
    assert!(matches!(manager.lease_model(&model), Err(VramError::ShardFreed { .. })));
    assert!(manager.report().shards.iter().all(|shard| shard.leases == 0));
}

#[test]
fn a_bad_handle_gets_no_lease_and_no_pin() {
    let (manager, other) = (two_gpus(), two_gpus());
    let shard = plain(&manager, b"weights");
    assert!(matches!(other.lease(&shard), Err(VramError::ForeignHandle { .. })));
    let mut altered = shard.clone();
    altered.sealed_data[0] ^= 1;
    assert!(matches!(manager.lease(&altered), Err(VramError::HandleAltered { .. })));
    assert!(matches!(manager.pin(&altered), Err(VramError::HandleAltered { .. })));
    assert!(!manager.report().shards[0].pinned);
    manager.free_shard(&shard).unwrap();
    assert!(matches!(manager.lease(&shard), Err(VramError::ShardFreed { .. })));
}

#[test]
fn a_pin_shows_in_the_report_and_is_undone() {
    let manager = two_gpus();
    let shard = plain(&manager, b"weights");
    let pinned = || manager.report().shards[0].pinned;
    manager.pin(&shard).unwrap();
    manager.pin(&shard).unwrap();
    assert!(pinned());
    manager.unpin(&shard).unwrap();
    assert!(!pinned());
    manager.pin(&shard).unwrap();
    // It can still be freed by its name.
    manager.free_shard(&shard).unwrap();
}

/// Many threads lease, check and release while others try to free: no leased shard is ever freed.
#[test]
fn what_is_leased_is_there_whatever_other_threads_try() {
    let manager = two_gpus();
    let shards: Vec<_> = (0..4_u8).map(|at| plain(&manager, &[at; 3000])).collect();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for (at, shard) in (0_u8..).zip(&shards).cycle().take(200) {
                    match manager.lease(shard) {
                        Ok(lease) => {
                            lease.ensure_sound().unwrap();
                            assert_eq!(manager.unseal_model(shard).unwrap(), [at; 3000]);
                            drop(lease);
                        }
                        Err(VramError::ShardFreed { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        scope.spawn(|| {
            for (target, shard) in [1, 0].into_iter().zip(&shards).cycle().take(50) {
                match manager.migrate_shard(shard, target) {
                    Ok(_) | Err(VramError::InUse { leases: 1.., .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            for shard in &shards[..2] {
                manager.free_shard_within(shard, LONG).unwrap();
            }
        });
    });
    assert_eq!(manager.shards().len(), 2);
}
