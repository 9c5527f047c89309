//! Eviction: what has to go is said first, goes as its owner asked, and nothing in use goes at all
//! (P14, P15).

use core::time::Duration;
use std::sync::Arc;
use std::sync::Mutex;

use vram_residency::device::GpuError;
use vram_residency::device::fault::{Action, Op, When};
use vram_residency::{
    AdmitRequest, ByteLen, Candidate, CostPerByte, EvictionPlan, EvictionPolicy, GpuChoice,
    ImportRequest, Lru, MemoryMode, OnEviction, Priority, ReaderSource, SealKey, SealOptions,
    SealRequest, SealedShard, SliceSource, VramError, VramManager,
};

use super::hands::{KIB, TestClock, bytes, faulty, hosts, no_room, picture, plan, room};

const KB8: [u8; 8 * 1024] = [5; 8 * 1024];

fn free(manager: &VramManager, model: &str, data: &[u8]) -> SealedShard {
    let request = SealRequest::new(model, 0).on_eviction(OnEviction::Free);
    manager.seal(request, data).unwrap()
}

fn names(plan: &EvictionPlan) -> Vec<&str> {
    plan.evictions.iter().map(|eviction| &*eviction.model_id).collect()
}

fn shortfall<T>(outcome: Result<T, VramError>) -> vram_residency::Shortfall {
    match outcome {
        Err(VramError::InsufficientVram(shortfall)) => *shortfall,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("there was room"),
    }
}

#[test]
fn room_is_made_by_what_was_not_used_for_longest() {
    let manager = hosts(&[24 * KIB]).eviction(Lru).build().unwrap();
    let a = free(&manager, "a", &KB8);
    let b = free(&manager, "b", &KB8);
    let c = free(&manager, "c", &KB8);
    manager.read_shard_at_offset(&a, 0, 1).unwrap();
    let plan = manager.plan_eviction(0, bytes(8 * KIB)).unwrap();
    assert_eq!(names(&plan), ["b"]);
    assert_eq!((plan.bytes.get(), plan.after[0].room.get()), (8 * KIB, 8 * KIB));

    // A dry run changes nothing.
    assert_eq!(manager.shards().len(), 3);
    let d = free(&manager, "d", &KB8);
    assert!(matches!(manager.unseal_model(&b), Err(VramError::ShardFreed { .. })));
    for kept in [&a, &c, &d] {
        assert_eq!(manager.unseal_model(kept).unwrap(), KB8);
    }
    // A lease is a use too.
    drop(manager.lease(&c).unwrap());
    assert_eq!(names(&manager.plan_eviction(0, bytes(16 * KIB)).unwrap()), ["a", "d"]);
}

#[test]
fn nothing_is_evicted_without_a_policy_or_against_its_owners_word() {
    let manager = hosts(&[8 * KIB]).build().unwrap();
    free(&manager, "a", &KB8);
    let refused = shortfall(manager.seal_model("b", 0, b"1"));
    assert_eq!(refused.plan, None);
    assert!(matches!(manager.plan_eviction(0, bytes(1)), Err(VramError::Config { .. })));

    let manager = hosts(&[8 * KIB]).eviction(Lru).build().unwrap();
    let silent = manager.seal_model("a", 0, &KB8).unwrap();
    assert_eq!(shortfall(manager.seal_model("b", 0, b"1")).plan, None);
    assert!(no_room(&manager.plan_eviction(0, bytes(1))));
    manager.unseal_model(&silent).unwrap();

    let manager = hosts(&[8 * KIB]).eviction(Lru).on_eviction(OnEviction::Free).build().unwrap();
    let request = SealRequest::new("a", 0).on_eviction(OnEviction::Never);
    let kept = manager.seal(request, &KB8[..4096]).unwrap();
    let silent = manager.seal_model("b", 0, &KB8[..4096]).unwrap();
    manager.seal_model("c", 0, &KB8[..4096]).unwrap();
    assert!(manager.shard(&kept.shard_id).is_some());
    assert!(manager.shard(&silent.shard_id).is_none());
}

/// triton #3583, llama.cpp #21231: a model in use was unloaded.
#[test]
fn what_is_leased_pinned_quarantined_or_more_important_stays() {
    let (device, shared) = faulty(32 * KIB);
    let manager = VramManager::builder().device(shared).eviction(Lru).build().unwrap();
    let [leased, pinned, altered] =
        ["leased", "pinned", "altered"].map(|model| free(&manager, model, &KB8));
    let request = SealRequest::new("important", 0).on_eviction(OnEviction::Free).priority(7);
    let important = manager.seal(request, &KB8).unwrap();
    let lease = manager.lease(&leased).unwrap();
    manager.pin(&pinned).unwrap();
    let at = vram_alloc::DeviceOffset::new(32 * KIB - 17 * KIB);
    device.flip_bit_at(None, at, 0).unwrap();
    assert!(!manager.verify_shard_integrity(&altered).unwrap());

    let before = picture(&manager);
    assert_eq!(shortfall(manager.seal_model("new", 0, &KB8)).plan, None);
    assert_eq!(picture(&manager), before);
    // By hand everything may go that is not held; for a request, only what is less important.
    assert_eq!(names(&manager.plan_eviction(0, bytes(1)).unwrap()), ["important"]);
    manager.seal(SealRequest::new("new", 0).priority(7), &KB8).unwrap();
    assert!(manager.shard(&important.shard_id).is_none());
    drop(lease);
    manager.unpin(&pinned).unwrap();
    manager.seal_model("more", 0, &KB8).unwrap();
    assert_eq!(manager.shards_of("pinned").len() + manager.shards_of("leased").len(), 1);
}

#[test]
fn what_is_parked_to_make_room_is_kept_and_wakes() {
    let manager = hosts(&[8 * KIB, 8 * KIB]).eviction(Lru).build().unwrap();
    let request = SealRequest::new("a", 0).on_eviction(OnEviction::Park);
    let a = manager.seal(request, &KB8).unwrap();
    let b = manager.seal_model("b", 0, &KB8).unwrap();
    assert!(matches!(manager.unseal_model(&a), Err(VramError::Parked { .. })));
    let mut parked = manager.take_evicted();
    assert!(manager.take_evicted().is_empty());
    assert_eq!(parked.len(), 1);
    manager.wake(parked.remove(0), 1).unwrap();
    assert_eq!(manager.unseal_model(&a).unwrap(), KB8);
    assert_eq!(manager.unseal_model(&b).unwrap(), KB8);
}

#[test]
fn a_full_host_parks_nothing_and_another_way_is_found() {
    let manager = hosts(&[24 * KIB])
        .eviction(Lru)
        .park_limit(bytes(8 * KIB))
        .on_eviction(OnEviction::Park)
        .build()
        .unwrap();
    let b = manager.seal_model("b", 0, &KB8).unwrap();
    let a = manager.seal_model("a", 0, &KB8).unwrap();
    let c = free(&manager, "c", &KB8);
    for shard in [&a, &b, &c] {
        manager.read_shard_at_offset(shard, 0, 1).unwrap();
    }
    // Only one of the first two can be parked.
    let plan = manager.plan_eviction(0, bytes(16 * KIB)).unwrap();
    assert_eq!(names(&plan), ["a", "c"]);
    assert!(no_room(&manager.plan_eviction(0, bytes(24 * KIB))));
    let report = manager.evict(&plan).unwrap();
    assert!(report.is_complete());
    assert_eq!((report.evicted.len(), report.parked.len()), (2, 1));
    assert_eq!(report.bytes.get(), 16 * KIB);
}

#[test]
fn priority_and_cost_decide_where_they_are_asked_to() {
    let fill = |policy: Arc<dyn EvictionPolicy>| {
        let manager = hosts(&[32 * KIB]).eviction(Shared(policy)).build().unwrap();
        for (model, priority, cost, kib) in [("a", 2, 800, 8), ("b", 1, 900, 8), ("c", 3, 800, 16)]
        {
            let request = SealRequest::new(model, 0).on_eviction(OnEviction::Free);
            let data = vec![1; kib * 1024];
            manager.seal(request.priority(priority).cost(cost), &data).unwrap();
        }
        let plan = manager.plan_eviction(0, bytes(8 * KIB)).unwrap();
        plan.evictions[0].model_id.to_string()
    };
    assert_eq!(fill(Arc::new(Lru)), "a");
    assert_eq!(fill(Arc::new(Priority)), "b");
    assert_eq!(fill(Arc::new(CostPerByte)), "c");
}

/// A policy that is shared, and one of a caller's own.
#[derive(Debug)]
struct Shared(Arc<dyn EvictionPolicy>);

impl EvictionPolicy for Shared {
    fn rank(&self, candidates: &[Candidate]) -> Vec<usize> {
        self.0.rank(candidates)
    }
}

struct Answers(Mutex<Box<Answer>>);

type Answer = dyn FnMut(&[Candidate]) -> Vec<usize> + Send;

impl core::fmt::Debug for Answers {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Answers")
    }
}

impl Answers {
    fn new(answer: impl FnMut(&[Candidate]) -> Vec<usize> + Send + 'static) -> Self {
        Self(Mutex::new(Box::new(answer)))
    }
}

impl EvictionPolicy for Answers {
    fn rank(&self, candidates: &[Candidate]) -> Vec<usize> {
        let mut answer = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        answer(candidates)
    }
}

#[test]
fn a_policy_that_panics_or_answers_nonsense_harms_nothing() {
    let panicking = || Answers::new(|_| panic!("no idea"));
    let manager = hosts(&[8 * KIB]).eviction(panicking()).build().unwrap();
    let a = free(&manager, "a", &KB8);
    for _ in 0..2 {
        assert_eq!(shortfall(manager.seal_model("b", 0, b"1")).plan, None);
    }
    assert_eq!(manager.unseal_model(&a).unwrap(), KB8);

    let nonsense = || Answers::new(|_| vec![7, usize::MAX, 1, 1, 0, 1]);
    let manager = hosts(&[16 * KIB]).eviction(nonsense()).build().unwrap();
    free(&manager, "a", &KB8);
    free(&manager, "b", &KB8);
    assert_eq!(names(&manager.plan_eviction(0, bytes(16 * KIB)).unwrap()), ["b", "a"]);
    manager.seal_model("c", 0, &KB8).unwrap();
    assert_eq!(manager.shards_of("a").len(), 1);
}

/// A policy sees what it decides about, and may ask the manager meanwhile.
#[test]
fn a_policy_is_told_everything_and_holds_nobody_up() {
    let seen: Arc<Mutex<Vec<Candidate>>> = Arc::default();
    let own = Arc::new(Mutex::new(None::<Arc<VramManager>>));
    let policy = {
        let (seen, own) = (Arc::clone(&seen), Arc::clone(&own));
        Answers::new(move |candidates| {
            seen.lock().unwrap().extend_from_slice(candidates);
            let manager = own.lock().unwrap().clone().unwrap();
            assert_eq!(manager.report().shards.len(), 1);
            for shard in manager.shards() {
                manager.unseal_model(&shard).unwrap();
            }
            Vec::new()
        })
    };
    let clock = TestClock::new();
    let told = Arc::<TestClock>::clone(&clock);
    let manager = Arc::new(hosts(&[8 * KIB]).clock(told).eviction(policy).build().unwrap());
    *own.lock().unwrap() = Some(Arc::clone(&manager));
    let request = SealRequest::new("a", 0).on_eviction(OnEviction::Park).owner("pool").cost(9);
    let shard = manager.seal(request.priority(4), &KB8[..5000]).unwrap();
    clock.advance(Duration::from_secs(3));
    assert!(no_room(&manager.plan_eviction(0, bytes(8 * KIB))));
    let seen = core::mem::take(&mut *seen.lock().unwrap());
    let [one] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!(one.shard_id, shard.shard_id);
    assert_eq!((&*one.model_id, one.owner.as_deref(), one.gpu), ("a", Some("pool"), 0));
    assert_eq!((one.bytes.get(), one.priority, one.cost), (5120, 4, 9));
    assert_eq!((one.idle, one.on_eviction), (Duration::from_secs(3), OnEviction::Park));
    *own.lock().unwrap() = None;
}

/// rmm #2039, pytorch #35901: out of memory with half the card free.
#[test]
fn a_hole_is_made_of_neighbours_and_nothing_goes_in_vain() {
    let manager = hosts(&[16 * KIB]).eviction(Lru).build().unwrap();
    // Small shards lie from the high end down: a is the highest.
    let shards: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h"]
        .map(|model| free(&manager, model, &[1; 2048]))
        .into();
    // Used in this order; c and d are the first two neighbours to be complete.
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
        let before = picture(&manager);
        match manager.evict(&plan) {
            Err(VramError::PlanOutdated { shard, why: found }) => {
                assert_eq!((shard, found), (b.shard_id.clone(), why));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(picture(&manager), before);
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

/// A device that refuses halfway: what went went, what stayed stayed, and both are said.
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

/// vllm #34600: out of memory said only that it was. Here it says who holds what, and what helps.
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

#[test]
fn a_whole_model_makes_room_for_itself_or_for_nothing() {
    let manager = hosts(&[32 * KIB]).eviction(Lru).on_eviction(OnEviction::Free).build().unwrap();
    let file = vec![3; 48 * 1024];
    let source = vec![SliceSource::new(&file)];
    let admit = |name: &str, lens: &[u64]| {
        manager.admit(AdmitRequest::new(name, GpuChoice::One(0)), &plan(lens), &source)
    };
    let first = admit("first", &[8 * KIB, 4 * KIB, 4 * KIB]).unwrap();
    let second = admit("second", &[8 * KIB, 8 * KIB]).unwrap();
    let leases = manager.lease_model(&first).unwrap();

    // More than the second holds: it stays, since its going would not help.
    let refused = shortfall(admit("third", &[10 * KIB, 10 * KIB]));
    assert_eq!(refused.plan, None);
    assert!(second.shards().all(|shard| manager.shard(&shard.shard_id).is_some()));
    let third = admit("third", &[6 * KIB, 9 * KIB]).unwrap();
    assert!(second.shards().all(|shard| manager.shard(&shard.shard_id).is_none()));
    assert!(third.shards().all(|shard| manager.shard(&shard.shard_id).is_some()));
    drop(leases);
    let big = admit("big", &[32 * KIB]).unwrap();
    assert_eq!(manager.shards().len(), big.pieces.len());
}

#[test]
fn a_model_over_several_gpus_makes_room_on_all_of_them() {
    let builder = hosts(&[16 * KIB, 16 * KIB]).eviction(Lru).on_eviction(OnEviction::Free);
    let manager = builder.build().unwrap();
    for gpu in [0, 1] {
        for model in ["a", "b"] {
            manager.seal_model(model, gpu, &KB8).unwrap();
        }
    }
    let file = vec![3; 48 * 1024];
    let source = vec![SliceSource::new(&file)];
    let lens = plan(&[16 * KIB, 8 * KIB]);
    let request = || AdmitRequest::new("wide", GpuChoice::MostRoomFirst);
    let refused = shortfall(manager.admit(request().evicts(false), &lens, &source));
    let eviction = refused.plan.unwrap();
    assert_eq!((eviction.evictions.len(), eviction.after.len()), (3, 2));
    let wide = manager.admit(request(), &lens, &source).unwrap();
    assert_eq!(manager.shards().len(), 1 + wide.pieces.len());
}

/// The driver says that it is full though the books had room: once more, if somebody gives way.
#[test]
fn a_driver_out_of_memory_is_answered_by_one_eviction_and_one_retry() {
    let full = || {
        Action::Fail(GpuError::OutOfMemory {
            gpu: vram_residency::GpuIndex::new(0),
            wanted: bytes(1),
            free: None,
        })
    };
    let setup = |policy: bool| {
        let (device, shared) = faulty(32 * KIB);
        let builder = VramManager::builder().device(shared);
        let builder = if policy { builder.eviction(Lru) } else { builder };
        let manager = builder.build().unwrap();
        let old = free(&manager, "old", &KB8);
        (device, manager, old)
    };
    let (device, manager, old) = setup(true);
    device.next(Op::QueueWrite, full()).unwrap();
    manager.seal_model("new", 0, &KB8).unwrap();
    assert!(manager.shard(&old.shard_id).is_none());

    // Once, not for ever; and not where nobody may go.
    let (device, manager, old) = setup(true);
    device.add(Op::QueueWrite, When::From(1), full()).unwrap();
    assert!(manager.seal_model("new", 0, &KB8).unwrap_err().is_capacity());
    assert!(manager.shard(&old.shard_id).is_none());
    assert_eq!(room(&manager, 0), 32 * KIB);

    let (device, manager, old) = setup(false);
    device.next(Op::QueueWrite, full()).unwrap();
    assert!(manager.seal_model("new", 0, &KB8).unwrap_err().is_capacity());
    assert!(manager.shard(&old.shard_id).is_some());
}

type Ask<'a> = &'a dyn Fn(&VramManager) -> Result<(), VramError>;

/// Whatever asks for memory: a slice, a source, an image, a model.
#[test]
fn a_driver_without_a_block_is_answered_by_one_eviction_whoever_asks() {
    let full = || {
        let gpu = vram_residency::GpuIndex::new(0);
        // The driver counts enough, and still has no piece that is long enough.
        Action::Fail(GpuError::OutOfMemory { gpu, wanted: bytes(1), free: None })
    };
    let image = {
        let manager = hosts(&[32 * KIB]).key(SealKey::from_bytes([1; 32])).build().unwrap();
        let shard = manager.seal_model("new", 0, &KB8).unwrap();
        let mut image = Vec::new();
        manager.export(&shard, &mut image).unwrap();
        image
    };
    let asks: [(&str, Ask<'_>); 4] = [
        ("a slice", &|manager| manager.seal_model("new", 0, &KB8).map(drop)),
        ("a source", &|manager| {
            let source = ReaderSource::new(KB8.as_slice(), 8 * KIB);
            let request = SealRequest::new("new", 0);
            manager.seal_from(request, source, SealOptions::new()).map(drop)
        }),
        ("an image", &|manager| {
            manager.import(ImportRequest::new("new", 0), image.as_slice()).map(drop)
        }),
        ("a model", &|manager| {
            let request = AdmitRequest::new("new", GpuChoice::MostRoomFirst);
            let source = vec![SliceSource::new(&KB8)];
            manager.admit(request, &plan(&[4 * KIB, 4 * KIB]), &source).map(drop)
        }),
    ];
    for (who, ask) in asks {
        for (always, policy) in [(false, true), (true, true), (false, false)] {
            let (device, shared) = faulty(32 * KIB);
            let builder = VramManager::builder().device(shared).memory(0, MemoryMode::Blocks);
            let builder = builder.key(SealKey::from_bytes([1; 32]));
            let builder = if policy { builder.eviction(Lru) } else { builder };
            let manager = builder.build().unwrap();
            let old = [free(&manager, "old", &KB8), free(&manager, "older", &KB8)];
            let when = if always { When::From(1) } else { When::Nth(1) };
            device.add(Op::Allocate, when, full()).unwrap();
            let answer = ask(&manager);
            let left = old.iter().filter(|old| manager.shard(&old.shard_id).is_some()).count();
            let works = policy && !always;
            assert_eq!(answer.is_ok(), works, "{who}, {always}, {policy}: {answer:?}");
            assert_eq!(left, if policy { 1 } else { 2 }, "{who}, {always}, {policy}");
            if let Err(error) = answer {
                assert!(error.is_capacity(), "{who}: {error}");
            }
        }
    }
}

/// Many threads seal more than fits: every refusal is honest, and what is resident is whole.
#[test]
fn threads_that_evict_each_others_shards_lose_no_byte_and_no_room() {
    let manager = hosts(&[64 * KIB]).eviction(Lru).on_eviction(OnEviction::Free).build().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let manager = &manager;
            scope.spawn(move || {
                for step in 0..60_usize {
                    let data = vec![thread; 1024 * (1 + (step * 7) % 20)];
                    let Ok(shard) = manager.seal_model("model", 0, &data) else { continue };
                    match manager.lease(&shard) {
                        Ok(lease) => {
                            assert_eq!(manager.unseal_model(&shard).unwrap(), data);
                            drop(lease);
                        }
                        Err(VramError::ShardFreed { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let held: u64 = manager.shards().iter().map(|shard| shard.plaintext_len).sum();
    let capacity = manager.capacity(0).unwrap();
    assert_eq!((capacity.used.get(), capacity.reserved.get()), (held, 0));
    for shard in manager.shards() {
        manager.unseal_and_free(&shard).unwrap();
    }
    assert_eq!(room(&manager, 0), 64 * KIB);
}

/// Of blocks every hole is the driver's, and as large as the room.
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

/// What an image brings makes room, or does not, as its request says.
#[test]
fn an_import_evicts_only_with_leave() {
    let manager = hosts(&[16 * KIB]).eviction(Lru).build().unwrap();
    let carried = free(&manager, "carried", &KB8);
    let mut image = Vec::new();
    manager.export(&carried, &mut image).unwrap();
    let other = free(&manager, "other", &KB8);

    let import = || ImportRequest::new("carried", 0).priority(3).on_eviction(OnEviction::Free);
    let refused = manager.import(import().evicts(false), image.as_slice());
    assert!(no_room(&refused), "{refused:?}");
    assert_eq!(manager.shards().len(), 2);
    let shard = manager.import(import(), image.as_slice()).unwrap();
    assert_eq!(manager.unseal_model(&shard).unwrap(), KB8);
    assert!(manager.shard(&carried.shard_id).is_none(), "it was not used for longest");
    assert!(manager.shard(&other.shard_id).is_some());
}

/// A shard whose bytes could not be wiped is gone all the same: it is not called kept.
#[test]
fn an_evicted_shard_whose_bytes_stay_counted_went_and_brought_nothing() {
    let (device, shared) = faulty(32 * KIB);
    let manager = VramManager::builder().device(shared).eviction(Lru).build().unwrap();
    let stuck = free(&manager, "stuck", &KB8);
    let plan = manager.plan_eviction(0, bytes(32 * KIB)).unwrap();
    device.next(Op::Fill, Action::Driver(999)).unwrap();
    let report = manager.evict(&plan).unwrap();
    assert!(report.kept.is_empty() && manager.shard(&stuck.shard_id).is_none());
    assert_eq!((report.evicted.len(), report.evicted[0].bytes.get()), (1, 0));
    assert_eq!((report.bytes.get(), room(&manager, 0)), (0, 24 * KIB));
}
