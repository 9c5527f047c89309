//! Shards that are parked again while the call that woke them has not returned yet.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use vram_residency::{ParkedShard, Protection, VramError};
use vram_test_rigs::{CallingClock, Rig, SEGMENT, content};

/// A shard can be parked as soon as it is resident: the end of the host copy that it was woken from
/// does not end it.
#[test]
fn a_shard_that_is_parked_again_before_its_wake_returns_stays_parked() {
    // Once armed, the clock parks the shard again as soon as it is resident.
    let armed = Arc::new(AtomicBool::new(false));
    let rig_of = Arc::new(Mutex::new(Weak::<Rig>::new()));
    let again = Arc::new(Mutex::new(None::<ParkedShard>));
    let on_now = {
        let (armed, rig_of, again) = (Arc::clone(&armed), Arc::clone(&rig_of), Arc::clone(&again));
        move || {
            let rig = rig_of.lock().unwrap().upgrade();
            if let Some(rig) = rig
                && let Some(shard) = rig.manager.shards().first()
                && armed.swap(false, Ordering::SeqCst)
            {
                let parked = rig.manager.park(shard).unwrap();
                *again.lock().unwrap() = Some(parked);
            }
        }
    };
    let clock = Arc::new(CallingClock { on_now, on_monotonic: || {} });
    let rig = Arc::new(Rig::with(&[8 * SEGMENT], |builder| builder.clock(clock)));
    *rig_of.lock().unwrap() = Arc::downgrade(&rig);

    let bytes = content(2 * SEGMENT, 1);
    let shard = rig.seal(0, Protection::Encrypted, &bytes);
    let parked = rig.manager.park(&shard).unwrap();
    armed.store(true, Ordering::SeqCst);
    drop(rig.manager.wake(parked, 0).unwrap());
    assert!(!armed.load(Ordering::SeqCst), "the clock was asked after the shard was resident");

    let refused = rig.manager.unseal_model(&shard).unwrap_err();
    assert!(matches!(refused, VramError::Parked { .. }), "{refused}");
    assert_eq!(rig.manager.park_capacity().shard_count, 1);
    let again = again.lock().unwrap().take().unwrap();
    let woken = rig.manager.wake(again, 0).unwrap();
    assert_eq!(rig.manager.unseal_and_free(&woken).unwrap(), bytes);
    assert_eq!(rig.manager.park_capacity().shard_count, 0);
}
