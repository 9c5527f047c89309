//! Leases have a holder and an age, and whoever is kept out is told both (P47).

use core::time::Duration;
use std::sync::Arc;

use vram_residency::{
    AdmitRequest, ByteLen, GpuChoice, Lease, ModelHandle, ModelPlan, Piece, SealedShard,
    SliceSource, VramError, VramManager,
};
use vram_test_rigs::TestClock;

const MIB: usize = 1 << 20;

fn rig() -> (Arc<TestClock>, VramManager) {
    let clock = Arc::new(TestClock::default());
    let shared: Arc<dyn vram_residency::Clock> = Arc::<TestClock>::clone(&clock);
    let builder = VramManager::builder().host_device(ByteLen::from_usize(MIB));
    (clock, builder.clock(shared).build().unwrap())
}

/// The lease that a refusal names: its number of leases, the holder of the oldest, and its age.
fn named(refused: Result<impl Sized, VramError>) -> (usize, Option<String>, Duration) {
    match refused {
        Err(VramError::InUse { leases, oldest: Some(oldest), .. }) => {
            (leases, oldest.holder.as_deref().map(str::to_owned), oldest.age)
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was not refused"),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_refusal_names_the_oldest_lease_its_holder_and_its_age() {
    let (clock, manager) = rig();
    let shard = manager.seal_model("llama", 0, b"weights").unwrap();
    let first = manager.lease_as(&shard, "worker-1").unwrap();
    clock.advance(seconds(60));
    let second = manager.lease(&shard).unwrap();
    clock.advance(seconds(1));
    assert_eq!((first.holder(), first.age()), (Some("worker-1"), seconds(61)));
    assert_eq!((second.holder(), second.age()), (None, seconds(1)));

    let worker = Some("worker-1".to_owned());
    assert_eq!(named(manager.free_shard(&shard)), (2, worker.clone(), seconds(61)));
    assert_eq!(named(manager.free_shard_within(&shard, Duration::ZERO)).1, worker);
    assert_eq!(named(manager.park(&shard)).1, worker);
    assert_eq!(named(manager.close_resident(&shard)).1, worker);
    let text = manager.free_shard(&shard).unwrap_err().to_string();
    assert!(text.ends_with("2 leases are out, the oldest for 61s, by \"worker-1\""), "{text}");

    drop(first);
    assert_eq!(named(manager.free_shard(&shard)), (1, None, seconds(1)));
    let text = manager.free_shard(&shard).unwrap_err().to_string();
    assert!(text.ends_with("one lease is out for 1s, by a holder without a name"), "{text}");
    drop(second);
    manager.free_shard(&shard).unwrap();
}

/// A lease that its holder forgot: nothing can end it, and everybody can find whose it is.
#[test]
fn a_forgotten_lease_is_found_by_its_holder_in_errors_and_at_the_close() {
    let (clock, manager) = rig();
    let shards: Vec<SealedShard> =
        (0..3).map(|_| manager.seal_model("llama", 0, b"weights").unwrap()).collect();
    core::mem::forget(manager.lease_as(&shards[0], "job 7\n").unwrap());
    clock.advance(seconds(3600));
    core::mem::forget(manager.lease_as(&shards[1], "job 8").unwrap());
    core::mem::forget(manager.lease_as(&shards[1], "job 7\n").unwrap());
    clock.advance(seconds(5));

    let error = manager.free_shard(&shards[0]).unwrap_err().to_string();
    assert!(error.contains("3605s") && error.contains("job 7") && !error.contains('\n'), "{error}");
    let report = manager.close(Duration::ZERO);
    assert_eq!((report.freed, report.left.len(), report.lease_count), (1, 2, 3));
    let held: Vec<_> =
        report.leases.iter().map(|one| (one.holder.as_deref(), one.count, one.oldest)).collect();
    assert_eq!(held, [(Some("job 7\n"), 2, seconds(3605)), (Some("job 8"), 1, seconds(5))]);
    assert!(matches!(&report.left[0].1, VramError::InUse { oldest: Some(_), .. }));
}

fn admit(manager: &VramManager) -> ModelHandle {
    let piece = |name, at| Piece::new(name, 0, at, ByteLen::new(100));
    let plan = ModelPlan::new([piece("a", 0), piece("b", 100)]).unwrap();
    let request = AdmitRequest::new("llama", GpuChoice::One(0));
    manager.admit(request, &plan, &vec![SliceSource::new(&[1; 200])]).unwrap()
}

#[test]
fn a_model_is_leased_in_the_name_of_a_holder() {
    let (clock, manager) = rig();
    let model = admit(&manager);
    let leases = manager.lease_model_as(&model, "server").unwrap();
    clock.advance(seconds(2));
    let holders: Vec<_> = leases.iter().map(|lease| (lease.holder(), lease.age())).collect();
    assert_eq!(holders, [(Some("server"), seconds(2)); 2]);
    assert_eq!(named(manager.free_model(&model)), (1, Some("server".to_owned()), seconds(2)));
    drop(leases);
    manager.free_model(&model).unwrap();
}

#[test]
fn a_name_that_is_too_long_takes_no_lease_and_an_empty_one_names_nobody() {
    let (_clock, manager) = rig();
    let model = admit(&manager);
    let shard = &model.pieces[0].shard;
    let longest = "h".repeat(1024);
    assert_eq!(manager.lease_as(shard, &longest).unwrap().holder(), Some(&*longest));
    assert_eq!(manager.lease_as(shard, "").unwrap().holder(), None);
    let too_long = "h".repeat(1025);
    for refused in [
        manager.lease_as(shard, &too_long).map(|_lease| ()),
        manager.lease_model_as(&model, &too_long).map(|_leases| ()),
    ] {
        let limit = matches!(refused, Err(VramError::LimitExceeded { limit: 1024, .. }));
        assert!(limit, "{refused:?}");
    }
    manager.free_model(&model).unwrap();
}

/// A lease outlives its manager, and can still say how old it is.
#[test]
fn the_age_of_a_lease_is_known_without_its_manager() {
    let (clock, manager) = rig();
    let shard = manager.seal_model("llama", 0, b"weights").unwrap();
    let lease: Lease = manager.lease_as(&shard, "worker").unwrap();
    drop(manager);
    clock.advance(seconds(9));
    assert_eq!((lease.holder(), lease.age()), (Some("worker"), seconds(9)));
}
