//! Models go and come back as models (P58, P59).

use std::sync::Arc;

use vram_residency::device::fault::{Action, Op, When};
use vram_residency::{
    AdmitRequest, EventKind, EventLog, EvictedFor, EvictionUnit, GpuChoice, Lru, ModelHandle,
    ModelPlan, OnEviction, Piece, Priority, ResetOptions, SealRequest, SliceSource, VramError,
    VramManager, WakeModelRequest,
};
use vram_test_rigs::Rig;

use super::eviction::{free, names, shortfall};
use super::hands::{KIB, bytes, hosts};

const GPU: GpuChoice = GpuChoice::One(0);
static FILE: [u8; 64 * 1024] = [9; 64 * 1024];

/// A plan of this many pieces of 8 KiB.
pub(super) fn pieces(count: u64) -> ModelPlan {
    let piece = |at| Piece::new(format!("t{at}"), 0, at * 8 * KIB, bytes(8 * KIB));
    ModelPlan::new((0..count).map(piece)).unwrap()
}

pub(super) fn request(model: &str) -> AdmitRequest<'_> {
    AdmitRequest::new(model, GPU).on_eviction(OnEviction::Park)
}

pub(super) fn source() -> Vec<SliceSource<'static>> {
    vec![SliceSource::new(&FILE)]
}

pub(super) fn admit(manager: &VramManager, model: &str, count: u64) -> ModelHandle {
    manager.admit(request(model), &pieces(count), &source()).unwrap()
}

/// The number of shards that are resident.
pub(super) fn resident(manager: &VramManager, model: &ModelHandle) -> usize {
    let here = |shard| manager.read_shard_at_offset(shard, 0, 1).is_ok();
    model.shards().filter(|shard| here(shard)).count()
}

/// Reads one byte of every shard of two models, in turn.
fn use_in_turn(manager: &VramManager, a: &ModelHandle, b: &ModelHandle) {
    for (one, other) in a.shards().zip(b.shards()) {
        manager.read_shard_at_offset(one, 0, 1).unwrap();
        manager.read_shard_at_offset(other, 0, 1).unwrap();
    }
}

#[test]
fn of_two_models_used_in_turn_one_goes_whole_and_comes_back_whole() {
    let manager = hosts(&[80 * KIB]).eviction(Lru).build().unwrap();
    let (a, b) = (admit(&manager, "a", 5), admit(&manager, "b", 5));
    use_in_turn(&manager, &a, &b);
    let c = admit(&manager, "c", 2);
    assert_eq!((resident(&manager, &a), resident(&manager, &b)), (0, 5));
    assert_eq!(manager.lease_model(&b).unwrap().len(), 5);

    // A loser learns for whom it went.
    let refused = manager.lease_model(&a).unwrap_err();
    let VramError::Parked { evicted_for: Some(evicted_for), .. } = &refused else {
        panic!("{refused}")
    };
    assert_eq!(**evicted_for, EvictedFor::new("c".into(), None));
    assert!(refused.to_string().contains("to make room for c"), "{refused}");

    let mut gone = manager.take_evicted_models();
    assert!(manager.take_evicted().is_empty(), "all of it was a model");
    let parked = gone.pop().unwrap();
    assert!(gone.is_empty() && parked.is_whole());
    assert_eq!((&*parked.model_id, parked.pieces.len()), ("a", 5));
    assert_eq!(parked.evicted_for().unwrap().model_id, "c".into());

    // There is room for three of five pieces: it stays parked unless others may go, the longest
    // unused first.
    let refused = manager.wake_model(parked, GPU).unwrap_err();
    let (parked, error) = refused.into_parts();
    assert_eq!(names(shortfall::<()>(Err(error)).plan.as_ref().unwrap()), ["c"]);
    let woken = manager.wake_model_with(parked, WakeModelRequest::new(GPU).evicts(true)).unwrap();
    assert_eq!(woken, a);
    assert_eq!([&a, &b, &c].map(|model| resident(&manager, model)), [5, 5, 0]);
    assert_eq!(manager.take_evicted_models()[0].evicted_for().unwrap().model_id, "a".into());
}

#[test]
fn as_few_models_go_as_make_room() {
    let manager = hosts(&[96 * KIB]).eviction(Lru).build().unwrap();
    let small = admit(&manager, "small", 1);
    let large = admit(&manager, "large", 6);
    let last = admit(&manager, "last", 5);
    let plan = manager.plan_eviction_for(&pieces(6), GPU).unwrap();
    assert_eq!(names(&plan), ["large"], "which makes the older one's room unnecessary");
    assert_eq!((plan.evictions[0].shard_count, plan.bytes), (6, bytes(48 * KIB)));
    assert!(plan.to_string().contains("large (6 shards) makes 48.0 KiB"), "{plan}");
    let _new = admit(&manager, "new", 6);
    assert_eq!([&small, &large, &last].map(|model| resident(&manager, model)), [1, 0, 5]);
}

#[test]
fn a_plan_for_a_model_is_what_its_admission_does_and_can_be_carried_out() {
    let manager = hosts(&[64 * KIB]).eviction(Lru).build().unwrap();
    let (a, b) = (admit(&manager, "a", 4), admit(&manager, "b", 4));
    let plan = manager.plan_eviction_for(&pieces(5), GPU).unwrap();
    assert_eq!(names(&plan), ["a", "b"]);
    let plan = manager.plan_eviction_for(&pieces(3), GPU).unwrap();
    assert_eq!(names(&plan), ["a"]);
    let report = manager.evict(&plan).unwrap();
    assert!(report.is_complete() && report.parked.is_empty());
    assert_eq!((report.models.len(), report.bytes), (1, bytes(32 * KIB)));
    assert_eq!(report.models[0].evicted_for(), None, "the program itself did it");
    assert_eq!((resident(&manager, &a), resident(&manager, &b)), (0, 4));
    assert!(manager.take_evicted_models().is_empty(), "they are in the report");

    // What has changed since is no plan any more.
    let plan = manager.plan_eviction_for(&pieces(5), GPU).unwrap();
    manager.free_shard(&b.pieces[2].shard).unwrap();
    let refused = manager.evict(&plan).unwrap_err();
    assert!(matches!(refused, VramError::PlanOutdated { .. }), "{refused}");
    assert_eq!(resident(&manager, &b), 3);
    let too_large = manager.plan_eviction_for(&pieces(9), GPU);
    assert!(matches!(too_large, Err(VramError::InsufficientVram(_))));
}

#[test]
fn a_shard_that_fails_to_go_keeps_its_model_where_it_is() {
    let totals = [40 * 1024];
    let rig = Rig::with(&totals, |builder| builder.eviction(Lru));
    let model = admit(&rig.manager, "model", 4);
    rig.devices[0].add(Op::Read, When::From(3), Action::Driver(1)).unwrap();
    let refused = rig.manager.admit(request("new"), &pieces(3), &source()).unwrap_err();
    assert!(matches!(refused, VramError::InsufficientVram(_)), "{refused}");
    rig.clear();
    assert_eq!(resident(&rig.manager, &model), 4);
    assert!(rig.manager.take_evicted().is_empty());
    assert_eq!(rig.manager.park_capacity().used, bytes(0), "the copies made before are gone");
    rig.manager.admit(request("new"), &pieces(3), &source()).unwrap();
    assert_eq!(resident(&rig.manager, &model), 0);
}

#[test]
fn a_model_that_may_not_go_as_a_whole_stays_as_a_whole() {
    let manager = hosts(&[32 * KIB]).eviction(Priority).build().unwrap();
    let model = admit(&manager, "model", 4);
    let third = &model.pieces[2].shard;
    let refused = || shortfall(manager.admit(request("new"), &pieces(1), &source()));

    manager.pin(third).unwrap();
    let pinned = refused();
    assert!(pinned.plan.is_none());
    let rest = pinned.after_all.as_deref().unwrap();
    assert_eq!((rest.missing, rest.room), (bytes(8 * KIB), bytes(0)));
    assert_eq!(rest.held_by[0].model_id.as_deref(), Some("model"));
    let says = pinned.to_string();
    let missing = "after everything has gone that may go, 8.0 KiB (8192 bytes) are missing";
    assert!(says.contains(missing), "{says}");
    assert!(says.ends_with("the rest is held by model: 32.0 KiB (32768 bytes)"), "{says}");
    manager.unpin(third).unwrap();

    let lease = manager.lease(third).unwrap();
    let leased = refused();
    assert_eq!((leased.busy.count, leased.busy.bytes), (1, bytes(32 * KIB)));
    assert_eq!(leased.busy.first.as_slice(), core::slice::from_ref(&third.shard_id));
    assert!(leased.to_string().contains("; model of 32.0 KiB (32768 bytes) is in use"), "{leased}");
    drop(lease);
    assert_eq!(resident(&manager, &model), 4);
    manager.admit(request("new"), &pieces(1), &source()).unwrap();
    assert_eq!(resident(&manager, &model), 0);
}

#[test]
fn what_stays_is_told_with_what_would_go() {
    let manager = hosts(&[64 * KIB]).eviction(Lru).build().unwrap();
    let _may_go = admit(&manager, "may-go", 2);
    let stays = manager.admit(request("stays").pinned(true).owner("pool"), &pieces(4), &source());
    let _reserved = manager.reserve(0, bytes(16 * KIB)).unwrap();
    let refused = shortfall(manager.admit(request("new"), &pieces(5), &source()));
    let rest = refused.after_all.unwrap();
    assert_eq!((rest.room, rest.missing), (bytes(16 * KIB), bytes(24 * KIB)));
    let held: Vec<_> = rest.held_by.iter().map(|holder| holder.bytes.get() / KIB).collect();
    assert_eq!(held, [32, 16], "the pinned model and the reservation: {:?}", rest.held_by);
    assert_eq!(rest.held_by[0].owner.as_deref(), Some("pool"));
    manager.free_model(&stays.unwrap()).unwrap();
}

#[test]
fn shards_go_one_by_one_where_the_program_chose_that() {
    let builder = hosts(&[64 * KIB]).eviction(Lru).eviction_unit(EvictionUnit::Shard);
    let manager = builder.build().unwrap();
    let (a, b) = (admit(&manager, "a", 4), admit(&manager, "b", 4));
    use_in_turn(&manager, &a, &b);
    let _new = admit(&manager, "new", 2);
    assert_eq!((resident(&manager, &a), resident(&manager, &b)), (3, 3));
    assert_eq!(manager.take_evicted_models().len(), 2, "parts of models, to be woken as such");
}

#[test]
fn the_parts_of_a_model_that_were_evicted_one_by_one_say_that_they_are_parts() {
    let builder = hosts(&[64 * KIB]).eviction(Lru).eviction_unit(EvictionUnit::Shard);
    let manager = builder.build().unwrap();
    let model = admit(&manager, "model", 8);
    let _new = admit(&manager, "new", 3);
    let parts = manager.take_evicted_models();
    assert!(parts.iter().all(|part| !part.is_whole()));
    let pieces: Vec<_> = parts.iter().flat_map(|part| &part.pieces).collect();
    assert_eq!(pieces.len(), 3);
    for piece in &pieces {
        let in_plan = model.tensor(&piece.piece.name).next().unwrap();
        assert_eq!(in_plan.shard.shard_id, *piece.parked.shard_id());
    }
}

/// Also what was taken shard by shard, and pieces that the program parked by itself.
#[test]
fn evicted_models_are_taken_as_models_or_shard_by_shard() {
    let manager = hosts(&[32 * KIB]).eviction(Lru).build().unwrap();
    let model = admit(&manager, "model", 3);
    let loose = SealRequest::new("loose", 0).on_eviction(OnEviction::Park);
    let loose = manager.seal(loose, &FILE[..8192]).unwrap();
    let by_hand = manager.park(&model.pieces[1].shard).unwrap();
    assert_eq!(by_hand.evicted_for(), None);
    let new = admit(&manager, "new", 4);
    let mut taken = manager.take_evicted();
    assert_eq!(taken.len(), 3, "two of the model, and the one that is no model");
    assert!(manager.take_evicted_models().is_empty());
    manager.free_model(&new).unwrap();
    taken.push(by_hand);
    for parked in taken {
        manager.wake(parked, 0).unwrap();
    }
    assert_eq!(resident(&manager, &model), 3);
    assert!(manager.unseal_model(&loose).is_ok());
}

#[test]
fn an_advice_does_not_name_what_is_there_of_the_model_that_is_woken() {
    let manager = hosts(&[40 * KIB]).eviction(Lru).build().unwrap();
    let model = admit(&manager, "model", 4);
    let mut parked = manager.park_model(&model).unwrap();
    // The program wakes one piece by hand, then lacks room for the others.
    let piece = parked.pieces.pop().unwrap();
    manager.wake(piece.parked, 0).unwrap();
    let _pinned = manager.admit(request("pinned").pinned(true), &pieces(2), &source()).unwrap();
    let request = WakeModelRequest::new(GPU).evicts(true);
    let (parked, error) = manager.wake_model_with(parked, request).unwrap_err().into_parts();
    let refused = shortfall::<()>(Err(error));
    assert!(refused.plan.is_none(), "{refused}");
    assert_eq!((resident(&manager, &model), parked.pieces.len()), (1, 3));
}

#[test]
fn a_model_on_two_gpus_goes_from_both() {
    let manager = hosts(&[32 * KIB, 32 * KIB]).eviction(Lru).build().unwrap();
    let both = AdmitRequest::new("both", GpuChoice::MostRoomFirst).on_eviction(OnEviction::Park);
    let both = manager.admit(both, &pieces(6), &source()).unwrap();
    assert!(both.shards().any(|shard| shard.gpu_index == 1));
    let plan = manager.plan_eviction_for(&pieces(3), GPU).unwrap();
    assert_eq!((names(&plan).len(), plan.bytes), (1, bytes(48 * KIB)), "{plan}");
    let _new = admit(&manager, "new", 3);
    assert_eq!(resident(&manager, &both), 0);
    assert_eq!(manager.get_used_vram(1).unwrap(), 0);
    assert!(manager.take_evicted_models()[0].is_whole());
}

#[test]
fn a_model_that_is_to_be_freed_is_freed_as_a_whole_and_its_events_say_for_whom() {
    let log = EventLog::new(1000);
    let manager = hosts(&[32 * KIB]).eviction(Lru).event_sink(log.clone()).build().unwrap();
    let freed = AdmitRequest::new("old", GPU).on_eviction(OnEviction::Free);
    let old = manager.admit(freed, &pieces(3), &source()).unwrap();
    let keeps = free(&manager, "other", &FILE[..8192]);
    manager.read_shard_at_offset(&keeps, 0, 1).unwrap();
    let _new = manager.admit(request("new").owner("me"), &pieces(2), &source()).unwrap();
    let refused = manager.refresh_model(&old).unwrap_err();
    assert!(matches!(refused, VramError::ShardFreed { .. }), "{refused}");
    assert_eq!(manager.unseal_model(&keeps).unwrap().len(), 8192);
    assert!(manager.flush_events(core::time::Duration::from_secs(20)));
    let evicted = log.take().into_iter().filter_map(|event| match event.kind {
        EventKind::Evicted { bytes, evicted_for, gpu, .. } => Some((bytes, gpu, evicted_for)),
        _ => None,
    });
    let asker = Arc::new(EvictedFor::new("new".into(), Some("me".into())));
    assert_eq!(evicted.collect::<Vec<_>>(), vec![(bytes(8 * KIB), 0, Some(asker)); 3]);
}

#[test]
fn a_model_that_came_back_after_a_reset_still_goes_as_one() {
    let rig = Rig::with(&[64 * 1024], |builder| builder.eviction(Lru));
    let model = admit(&rig.manager, "model", 4);
    for shard in model.shards() {
        rig.manager.back_up(shard).unwrap();
    }
    rig.lose(&model.pieces[0].shard);
    assert!(rig.manager.reset_gpu(0, ResetOptions::default()).unwrap().lost.is_empty());
    assert_eq!(resident(&rig.manager, &rig.manager.refresh_model(&model).unwrap()), 4);
    let _new = admit(&rig.manager, "new", 5);
    let gone = rig.manager.take_evicted_models();
    assert_eq!((gone.len(), gone[0].pieces.len()), (1, 4));
}
