//! What has changed since a plan was made, or cannot go, is seen: no model goes in part.

use std::sync::{Arc, Mutex};

use vram_residency::{
    AdmitRequest, Candidate, EvictionPolicy, EvictionUnit, GpuChoice, Lru, OnEviction, ParkedModel,
    ParkedShard, SealRequest, VramError, VramManager, WakeModelRequest,
};

use super::eviction::{names, shortfall};
use super::hands::{KIB, bytes, hosts};
use super::models::{admit, pieces, request, resident, source};

const GPU: GpuChoice = GpuChoice::One(0);

#[test]
fn a_plan_of_the_one_piece_that_was_there_is_outdated_when_another_has_come_back() {
    let manager = hosts(&[16 * KIB]).eviction(Lru).build().unwrap();
    let model = admit(&manager, "model", 2);
    let parked = manager.park(&model.pieces[0].shard).unwrap();
    let plan = manager.plan_eviction(0, bytes(16 * KIB)).unwrap();
    assert_eq!(plan.evictions[0].shard_count, 1);
    manager.wake(parked, 0).unwrap();
    let refused = manager.evict(&plan).unwrap_err();
    assert!(matches!(refused, VramError::PlanOutdated { .. }), "{refused}");
    assert_eq!(resident(&manager, &model), 2);
}

#[test]
fn a_plan_is_outdated_when_some_of_the_shards_have_moved() {
    let manager = hosts(&[32 * KIB, 32 * KIB]).eviction(Lru).build().unwrap();
    let model = admit(&manager, "model", 4);
    let plan = manager.plan_eviction(0, bytes(8 * KIB)).unwrap();
    assert_eq!(plan.evictions[0].by_gpu, [(0, bytes(32 * KIB))]);
    for piece in &model.pieces[1..] {
        manager.migrate_shard(&piece.shard, 1).unwrap();
    }
    let refused = manager.evict(&plan).unwrap_err();
    assert!(matches!(refused, VramError::PlanOutdated { why: "has moved", .. }), "{refused}");
    assert_eq!(resident(&manager, &model), 4);
}

type Waking = Option<(Arc<VramManager>, ParkedShard)>;

/// Wakes a piece the first time that it ranks, as another thread would.
#[derive(Clone, Debug, Default)]
struct WakesWhileItRanks {
    piece: Arc<Mutex<Waking>>,
}

impl EvictionPolicy for WakesWhileItRanks {
    fn rank(&self, candidates: &[Candidate]) -> Vec<usize> {
        let piece = self.piece.lock().unwrap().take();
        if let Some((manager, parked)) = piece {
            manager.wake(parked, 0).unwrap();
        }
        Lru.rank(candidates)
    }
}

#[test]
fn a_piece_that_comes_back_while_the_policy_ranks_goes_with_its_model() {
    let policy = WakesWhileItRanks::default();
    let manager = Arc::new(hosts(&[24 * KIB]).eviction(policy.clone()).build().unwrap());
    let model = admit(&manager, "model", 2);
    let parked = manager.park(&model.pieces[1].shard).unwrap();
    *policy.piece.lock().unwrap() = Some((Arc::clone(&manager), parked));
    let _new = admit(&manager, "new", 3);
    assert_eq!(resident(&manager, &model), 0);
    let gone = manager.take_evicted_models();
    assert_eq!((gone.len(), gone[0].is_whole()), (1, true));
}

/// Its own pieces are no room for it, also where they are woken one by one, or go one by one.
#[test]
fn an_advice_for_a_piece_does_not_name_the_others_of_its_model() {
    let manager = hosts(&[40 * KIB]).eviction(Lru).build().unwrap();
    let model = admit(&manager, "model", 5);
    let parked = manager.park_model(&model).unwrap();
    let _pinned = manager.admit(request("pinned").pinned(true), &pieces(2), &source()).unwrap();
    let mut refused = None;
    for piece in parked.pieces {
        if let Err(error) = manager.wake(piece.parked, 0) {
            refused = Some(error);
        }
    }
    let (_, error) = refused.unwrap().into_parts();
    assert!(shortfall::<()>(Err(error)).plan.is_none());

    let builder = hosts(&[64 * KIB]).eviction(Lru).eviction_unit(EvictionUnit::Shard);
    let manager = builder.build().unwrap();
    let model = admit(&manager, "model", 8);
    let _pinned = manager.admit(request("new").pinned(true), &pieces(3), &source()).unwrap();
    let shards = manager.take_evicted();
    let whole = ParkedModel::join(shards).unwrap();
    let refused = manager.wake_model_with(whole, WakeModelRequest::new(GPU).evicts(true));
    assert!(refused.is_err() && resident(&manager, &model) == 5);
}

#[test]
fn what_was_taken_apart_is_put_together_and_wakes_as_one() {
    let manager = hosts(&[32 * KIB]).eviction(Lru).build().unwrap();
    let model = admit(&manager, "model", 4);
    let new = admit(&manager, "new", 1);
    manager.free_model(&new).unwrap();
    let mut shards = manager.take_evicted();
    shards.reverse();
    let joined = ParkedModel::join(shards).unwrap();
    assert!(joined.is_whole() && &*joined.model_id == "model");
    assert_eq!(manager.wake_model(joined, GPU).unwrap(), model);

    // Shards that belong to no model, or to two, stay what they are.
    assert!(ParkedModel::join(Vec::new()).unwrap_err().is_empty());
    let loose = SealRequest::new("loose", 0).on_eviction(OnEviction::Park);
    manager.free_model(&model).unwrap();
    let (a, b) = (admit(&manager, "a", 1), admit(&manager, "b", 1));
    let loose = manager.seal(loose, &[1; 100]).unwrap();
    let mut parked: Vec<_> = [&a.pieces[0].shard, &loose, &b.pieces[0].shard]
        .into_iter()
        .map(|shard| manager.park(shard).unwrap())
        .collect();
    parked = ParkedModel::join(parked).unwrap_err();
    let last = parked.pop().unwrap();
    assert_eq!(ParkedModel::join(parked).unwrap_err().len(), 2);
    assert!(ParkedModel::join(vec![last]).unwrap().is_whole());
}

#[test]
fn a_refusal_for_want_of_host_memory_says_so() {
    let builder = hosts(&[64 * KIB]).eviction(Lru).park_limit(bytes(4 * KIB));
    let manager = builder.build().unwrap();
    let model = admit(&manager, "model", 8);
    let refused = shortfall(manager.admit(request("new"), &pieces(1), &source()));
    let rest = refused.after_all.as_deref().unwrap();
    assert_eq!((rest.room, rest.missing), (bytes(0), bytes(8 * KIB)));
    assert!(rest.not_parked >= bytes(60 * KIB), "{rest:?}");
    assert_eq!(rest.held_by[0].model_id.as_deref(), Some("model"));
    assert!(refused.to_string().contains("of host memory are missing to park more"), "{refused}");
    assert_eq!(resident(&manager, &model), 8);
}

/// A plan of many pieces over many small victims is found as if each were tried.
#[test]
fn of_many_small_victims_no_more_go_than_are_needed() {
    let manager = hosts(&[512 * KIB]).eviction(Lru).build().unwrap();
    for number in 0..64 {
        let request = AdmitRequest::new("small", GPU).on_eviction(OnEviction::Free);
        let request = request.owner(&format!("{number}"));
        manager.admit(request, &pieces(1), &source()).unwrap();
    }
    for count in [1, 2, 3, 7, 8] {
        let plan = manager.plan_eviction_for(&pieces(count), GPU).unwrap();
        assert_eq!(names(&plan).len() as u64, count);
        assert_eq!(plan.evictions[0].owner.as_deref(), Some("0"));
    }
    // In one piece: neighbours have to go.
    let plan = manager.plan_eviction(0, bytes(64 * KIB)).unwrap();
    assert_eq!(names(&plan).len(), 8);
}
