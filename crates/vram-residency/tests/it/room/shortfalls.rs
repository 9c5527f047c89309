//! The error for lack of room, and what an eviction plan promises.

use vram_residency::device::GpuError;
use vram_residency::device::fault::{Action, Op};
use vram_residency::{
    ByteLen, GpuChoice, Lru, MemoryMode, OnEviction, SealRequest, VramError, VramManager,
};

use super::eviction::{KB8, free, names, shortfall};
use super::hands::{KIB, bytes, faulty, hosts, no_room, plan, room};

/// rmm #2039, pytorch #35901: out of memory with half the card free.
#[test]
fn a_hole_is_made_of_neighbours_and_nothing_goes_in_vain() {
    let manager = hosts(&[16 * KIB]).eviction(Lru).build().unwrap();
    // Small shards are placed from the high end down: a is the highest.
    let shards: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h"]
        .map(|model| free(&manager, model, &[1; 2048]))
        .into();
    // Used in this order; c and d are the first two neighbours in it.
    for at in [0, 2, 5, 3, 7, 1, 4, 6] {
        manager.read_shard_at_offset(&shards[at], 0, 1).unwrap();
    }
    let plan = manager.plan_eviction(0, bytes(4 * KIB)).unwrap();
    assert_eq!(names(&plan), ["c", "d"]);
    assert_eq!(plan.after[0].largest_hole.get(), 4 * KIB);
    assert!(manager.evict(&plan).unwrap().is_complete());
    let capacity = manager.capacity(0).unwrap();
    assert_eq!(
        (capacity.room, capacity.largest_hole),
        (plan.after[0].room, plan.after[0].largest_hole)
    );
    manager.seal_model("new", 0, &[1; 4096]).unwrap();
}

#[test]
fn a_plan_for_what_fits_already_is_empty_and_harmless() {
    let manager = hosts(&[16 * KIB]).eviction(Lru).build().unwrap();
    free(&manager, "a", &KB8);
    let plan = manager.plan_eviction(0, bytes(8 * KIB)).unwrap();
    assert!(plan.evictions.is_empty());
    assert_eq!(plan.to_string(), "nothing has to go");
    let report = manager.evict(&plan).unwrap();
    assert!(report.is_complete() && report.evicted.is_empty());
    assert!(no_room(&manager.plan_eviction(0, ByteLen::MAX)));
    assert!(matches!(manager.plan_eviction(3, bytes(1)), Err(VramError::UnknownGpu { .. })));
}

#[test]
fn an_outdated_plan_is_refused_as_a_whole() {
    let manager = hosts(&[16 * KIB, 16 * KIB]).eviction(Lru).build().unwrap();
    let [a, b] = ["a", "b"].map(|model| free(&manager, model, &KB8));
    let plan = manager.plan_eviction(0, bytes(16 * KIB)).unwrap();
    let outdated = |why| {
        let before = manager.snapshot().state;
        match manager.evict(&plan) {
            Err(VramError::PlanOutdated { shard, why: found }) => {
                assert_eq!((shard, found), (b.shard_id.clone(), why));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(manager.snapshot().state, before);
    };
    let lease = manager.lease(&b).unwrap();
    outdated("is leased");
    drop(lease);
    manager.pin(&b).unwrap();
    outdated("is pinned");
    manager.unpin(&b).unwrap();
    manager.migrate_shard(&b, 1).unwrap();
    outdated("has moved");
    manager.free_shard(&b).unwrap();
    outdated("is gone");
    manager.unseal_model(&a).unwrap();

    let other = hosts(&[16 * KIB]).eviction(Lru).build().unwrap();
    assert!(matches!(other.evict(&plan), Err(VramError::PlanOutdated { .. })));
}

/// A device that refuses in the middle: the report names the evicted and the remaining shards.
#[test]
fn an_eviction_that_fails_halfway_says_what_went() {
    let (device, shared) = faulty(16 * KIB);
    let manager = VramManager::builder().device(shared).eviction(Lru).build().unwrap();
    let request = |model| SealRequest::new(model, 0).on_eviction(OnEviction::Park);
    let a = manager.seal(request("a"), &KB8).unwrap();
    manager.seal(request("b"), &KB8).unwrap();
    let plan = manager.plan_eviction(0, bytes(16 * KIB)).unwrap();
    device.next(Op::Read, Action::Fail(GpuError::HostMemory { wanted: bytes(1) })).unwrap();
    let report = manager.evict(&plan).unwrap();
    assert!(!report.is_complete());
    assert_eq!((report.evicted.len(), report.parked.len(), report.kept.len()), (1, 1, 1));
    assert_eq!(report.kept[0].0, a.shard_id);
    assert_eq!(manager.unseal_model(&a).unwrap(), KB8);
    assert_eq!(room(&manager, 0), 8 * KIB);
}

/// vllm #34600: the error said only that memory had run out. Here it says who holds it, and what
/// helps.
#[test]
fn a_refusal_names_the_holders_and_a_plan_that_works() {
    let manager = hosts(&[64 * KIB]).eviction(Lru).build().unwrap();
    let seal = |model: &str, owner: &str, kib: usize| {
        let request = SealRequest::new(model, 0).owner(owner).on_eviction(OnEviction::Free);
        manager.seal(request, &vec![1; kib * 1024]).unwrap()
    };
    seal("llama", "pool-1", 8);
    let leased = seal("llama", "pool-1", 16);
    seal("qwen", "pool-2", 8);
    let _lease = manager.lease(&leased).unwrap();
    let reserve = vram_residency::ReserveRequest::new(0, bytes(20 * KIB)).owner("pool-3");
    let _held = manager.reserve_with(reserve.purpose("mixtral")).unwrap();

    let request = SealRequest::new("new", 0).evicts(false);
    let refused = shortfall(manager.seal(request.clone(), &[0; 20 * 1024]));
    let holders: Vec<_> = refused
        .holders
        .iter()
        .map(|holder| (holder.owner.as_deref(), holder.bytes.get() / KIB, holder.leased_count))
        .collect();
    assert_eq!(holders, [(Some("pool-1"), 24, 1), (Some("pool-3"), 20, 0), (Some("pool-2"), 8, 0)]);
    assert_eq!(refused.holders[0].model_id.as_deref(), Some("llama"));
    assert_eq!(refused.holders[0].shard_count, 2);
    assert_eq!(refused.holders[1].purpose.as_deref(), Some("mixtral"));
    assert!(refused.holders[1].reservation.is_some());
    let text = refused.to_string();
    assert!(text.contains("most is held by llama of pool-1"), "{text}");
    assert!(text.contains("evicting"), "{text}");

    let plan = refused.plan.unwrap();
    assert!(manager.evict(&plan).unwrap().is_complete());
    manager.seal(request, &[0; 20 * 1024]).unwrap();
}

#[test]
fn the_list_of_holders_is_bounded() {
    let manager = hosts(&[64 * KIB]).build().unwrap();
    for model in 0..40 {
        manager.seal_model(&format!("model {model}"), 0, &[0; 1024]).unwrap();
    }
    assert_eq!(shortfall(manager.seal_model("new", 0, &[0; 32 * 1024])).holders.len(), 16);
}

#[test]
fn reserving_moving_and_waking_say_what_would_help_and_evict_nobody() {
    let manager = hosts(&[16 * KIB, 8 * KIB]).eviction(Lru).build().unwrap();
    let moving = manager.seal_model("moving", 1, &KB8).unwrap();
    free(&manager, "a", &KB8);
    free(&manager, "b", &KB8);
    let shards = manager.shards();
    let check = |refused: vram_residency::Shortfall| {
        let plan = refused.plan.unwrap();
        assert_eq!(names(&plan), ["a"]);
        assert_eq!(manager.shards(), shards);
    };
    check(shortfall(manager.reserve(0, bytes(5 * KIB))));
    check(shortfall(manager.reserve_plan(&plan(&[4 * KIB, 1]), GpuChoice::One(0))));
    check(shortfall(manager.migrate_shard(&moving, 0)));
    let parked = manager.park(&moving).unwrap();
    let refused = manager.wake(parked, 0).unwrap_err();
    match refused.error() {
        VramError::InsufficientVram(refused) => {
            assert_eq!(names(refused.plan.as_ref().unwrap()), ["a"]);
        }
        other => panic!("{other}"),
    }
}

/// In mode `Blocks` the driver provides every hole, and the longest is as large as the room.
#[test]
fn a_plan_over_blocks_says_what_could_be_placed() {
    let manager = hosts(&[16 * KIB]).eviction(Lru).memory(0, MemoryMode::Blocks).build().unwrap();
    let shards = [free(&manager, "a", &KB8), free(&manager, "b", &KB8)];
    let plan = manager.plan_eviction(0, bytes(8 * KIB)).unwrap();
    let after = plan.after[0];
    assert_eq!((after.room.get(), after.largest_hole.get()), (8 * KIB, 8 * KIB));
    assert!(manager.evict(&plan).unwrap().is_complete());
    assert_eq!(manager.capacity(0).unwrap().largest_hole, after.largest_hole);
    drop(shards);
}
