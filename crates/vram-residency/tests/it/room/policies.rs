//! Policies of the caller: their input, and the effect of a wrong answer.

use core::time::Duration;
use std::sync::Arc;
use std::sync::Mutex;

use vram_residency::{
    Candidate, CostPerByte, EvictionPolicy, Lru, OnEviction, Priority, SealRequest, VramManager,
};

use super::eviction::{KB8, free, names, shortfall};
use super::hands::{KIB, bytes, hosts, no_room};
use vram_test_rigs::TestClock;

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

/// A shared policy, and a caller's own one.
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

/// A policy gets the candidates, and may call the manager meanwhile.
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
