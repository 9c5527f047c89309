//! What is listed while a reset replaces one generation of its shards by the next.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::{Arc, mpsc};
use std::thread;

use vram_residency::{Protection, ResetOptions};

use super::{MODES, seal, two_gpus};

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
