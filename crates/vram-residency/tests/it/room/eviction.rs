//! Eviction: the plan names the shards first, each is parked or freed as its owner asked, and a
//! shard in use is never evicted (P14, P15).

use vram_residency::device::GpuError;
use vram_residency::device::fault::{Action, Op, When};
use vram_residency::{
    AdmitRequest, EvictionPlan, GpuChoice, ImportRequest, Lru, MemoryMode, OnEviction,
    ReaderSource, SealKey, SealOptions, SealRequest, SealedShard, SliceSource, VramError,
    VramManager,
};

use super::hands::{KIB, bytes, faulty, hosts, no_room, plan, room};

pub(super) const KB8: [u8; 8 * 1024] = [5; 8 * 1024];

pub(super) fn free(manager: &VramManager, model: &str, data: &[u8]) -> SealedShard {
    let request = SealRequest::new(model, 0).on_eviction(OnEviction::Free);
    manager.seal(request, data).unwrap()
}

pub(super) fn names(plan: &EvictionPlan) -> Vec<&str> {
    plan.evictions.iter().map(|eviction| &*eviction.model_id).collect()
}

pub(super) fn shortfall<T>(outcome: Result<T, VramError>) -> vram_residency::Shortfall {
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
    // A lease counts as a use.
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

    let before = manager.snapshot().state;
    assert_eq!(shortfall(manager.seal_model("new", 0, &KB8)).plan, None);
    assert_eq!(manager.snapshot().state, before);
    // A manual eviction may include every shard that is not held; an eviction for a request only
    // less important ones.
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

    // More than the second shard's bytes: it stays, since evicting it would not help.
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

/// The driver is full although the ledger has room: one more attempt, after an eviction.
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

    // One more attempt only; and none if no shard may be evicted.
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

/// Every kind of request for memory: a slice, a source, an image, a model.
#[test]
fn a_driver_without_a_block_is_answered_by_one_eviction_whoever_asks() {
    let full = || {
        let gpu = vram_residency::GpuIndex::new(0);
        // The driver has enough bytes, but no piece of that length.
        Action::Fail(GpuError::OutOfMemory { gpu, wanted: bytes(1), free: None })
    };
    let image = {
        let manager = hosts(&[32 * KIB]).key(SealKey::from_bytes(&[1; 32])).build().unwrap();
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
            let builder = builder.key(SealKey::from_bytes(&[1; 32]));
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

/// Many threads seal more than fits: every refusal is justified, and every resident shard is
/// intact.
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

/// An import makes room, or does not, as its request says.
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

/// A shard whose bytes could not be wiped is still removed: it is not reported as kept.
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
