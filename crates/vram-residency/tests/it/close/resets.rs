//! Closing while a GPU is being reset.

use core::time::Duration;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;

use vram_residency::device::fault::Op;
use vram_residency::{Protection, ResetOptions};
use vram_test_rigs::{begin, held_up};

use super::{MODES, is_complete, is_gone, seal, two_gpus};

const LONG: Duration = Duration::from_secs(20);

/// A reset puts a next generation in the place of each shard: a close that took the list of shards
/// before it, and then waited for a lease elsewhere, would name shards as left by generations that
/// are not there.
#[test]
fn a_close_that_overlaps_a_reset_frees_what_the_reset_restored() {
    for mode in MODES {
        let rig = Arc::new(two_gpus(mode));
        let leased = seal(&rig, 1, Protection::Encrypted);
        let shards = [0, 1].map(|_| seal(&rig, 0, Protection::Encrypted));
        drop(rig.manager.back_up(&shards[0]).unwrap());
        let lease = rig.manager.lease(&leased).unwrap();
        let (at_the_device, go_on) = held_up(&rig.devices[0], Op::Reset);
        let resets = Arc::clone(&rig);
        let reset = begin(move || {
            resets.manager.reset_gpu(0, ResetOptions::new().force()).map(|report| report.gpu)
        });
        at_the_device.recv_timeout(LONG).unwrap();
        let closes = Arc::clone(&rig);
        let closed = begin(move || closes.manager.close(LONG));
        let early = closed.recv_timeout(Duration::from_millis(50));
        assert_eq!(early.unwrap_err(), RecvTimeoutError::Timeout, "a lease and a reset are there");
        drop(go_on);
        // Its shards are gone, or were freed: a closed manager restores none.
        drop(reset.recv_timeout(LONG).unwrap());
        drop(lease);
        is_complete(&closed.recv_timeout(LONG).unwrap());
        is_gone(&rig, "after the reset");
    }
}
