//! What is listed while a reset replaces one generation of its shards by the next.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::{Arc, mpsc};
use std::thread;

use vram_residency::{Protection, ResetOptions};
use vram_test_rigs::TestClock;

use super::{MODES, seal, two_gpus, two_gpus_with};

const PATIENCE: Duration = Duration::from_secs(20);

/// First the next generation stands in the list, then the last one ends.
#[test]
fn a_shard_that_will_come_back_is_listed_at_every_moment() {
    for mode in MODES {
        let rig = Arc::new(two_gpus(mode));
        let shard = seal(&rig, 0, Protection::Encrypted, 1);
        let _kept = rig.manager.back_up(&shard).unwrap();
        rig.lose(&shard);
        let over = Arc::new(AtomicBool::new(false));
        let (told, answer) = mpsc::channel();
        let (looking, ended, id) = (Arc::clone(&rig), Arc::clone(&over), shard.shard_id.clone());
        let (began, has_begun) = mpsc::channel();
        thread::spawn(move || {
            let (mut looks, mut missing) = (0_u64, 0_u64);
            while !ended.load(Ordering::Acquire) {
                missing += u64::from(looking.manager.shard(&id).is_none());
                looks += 1;
                if looks == 1 {
                    began.send(()).unwrap();
                }
            }
            told.send((looks, missing))
        });
        has_begun.recv_timeout(PATIENCE).unwrap();
        let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
        over.store(true, Ordering::Release);
        assert_eq!(report.restored.len(), 1);
        let (looks, missing) = answer.recv_timeout(PATIENCE).unwrap();
        assert!(looks > 0 && missing == 0, "{missing} of {looks} looks did not find it");
    }
}

/// The first GPU is lost and reset, and nothing of it comes back; its lease is still in somebody's hands.
#[test]
fn a_lease_is_told_by_metrics_and_report_until_it_ends_although_its_shard_is_gone() {
    for mode in MODES {
        let clock = TestClock::new();
        let shared: Arc<dyn vram_residency::Clock> = Arc::<TestClock>::clone(&clock);
        let rig = two_gpus_with(mode, |builder| builder.clock(shared));
        let manager = &rig.manager;
        let [gone, stays] = [0, 1].map(|gpu| seal(&rig, gpu, Protection::Encrypted, 1));
        let forgotten = manager.lease_as(&gone, "worker 7").unwrap();
        clock.advance(Duration::from_mins(1));
        let later = manager.lease_as(&stays, "worker 8").unwrap();
        rig.lose(&gone);
        let report = manager.reset_gpu(0, ResetOptions::new()).unwrap();
        assert_eq!(report.lost.len(), 1);
        clock.advance(Duration::from_secs(5));

        let (metrics, report) = (manager.metrics(), manager.report());
        assert_eq!((metrics.lease_count, report.lease_count), (2, 2));
        let oldest = metrics.oldest_lease.as_ref().unwrap();
        assert_eq!(report.oldest_lease(), Some(oldest));
        assert_eq!((oldest.holder.as_deref(), oldest.age.as_secs()), (Some("worker 7"), 65));
        assert_eq!((&oldest.shard_id, &*oldest.model_id), (&gone.shard_id, "model"));
        assert_eq!(oldest.owner.as_deref(), Some("me"));
        assert!(metrics.to_prometheus().contains("vram_oldest_lease_seconds 65\n"));

        drop(forgotten);
        let (metrics, report) = (manager.metrics(), manager.report());
        assert_eq!((metrics.lease_count, report.lease_count), (1, 1));
        assert_eq!(report.oldest_lease().unwrap().holder.as_deref(), Some("worker 8"));
        assert_eq!(report.oldest_lease(), metrics.oldest_lease.as_ref());
        drop(later);
        assert_eq!((manager.metrics().lease_count, manager.report().oldest_lease()), (0, None));
    }
}
