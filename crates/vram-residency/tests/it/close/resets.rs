//! Closing while a GPU is being reset.

use core::time::Duration;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;

use vram_residency::device::fault::Op;
use vram_residency::{Protection, ResetOptions};
use vram_test_rigs::{begin, held_up};

use super::{MODES, is_complete, is_gone, seal, two_gpus};

/// A reset puts a next generation in the place of each shard; a close that took the list of shards
/// before it would name shards as left that are not there.
#[test]
fn a_close_waits_for_a_reset_that_is_at_the_device_and_then_frees_what_it_restored() {
    for mode in MODES {
        let rig = two_gpus(mode);
        let shards = [0, 1].map(|_| seal(&rig, 0, Protection::Encrypted));
        drop(rig.manager.back_up(&shards[0]).unwrap());
        let (at_the_device, go_on) = held_up(&rig.devices[0], Op::Reset);
        let rig = Arc::new(rig);
        let resets = Arc::clone(&rig);
        let reset = begin(move || {
            resets.manager.reset_gpu(0, ResetOptions::new().force()).map(|report| report.gpu)
        });
        at_the_device.recv_timeout(Duration::from_secs(20)).unwrap();
        let closes = Arc::clone(&rig);
        let closed = begin(move || closes.manager.close(Duration::from_secs(20)));
        let early = closed.recv_timeout(Duration::from_millis(50));
        assert_eq!(early.unwrap_err(), RecvTimeoutError::Timeout, "it waits for the reset");
        drop(go_on);
        is_complete(&closed.recv_timeout(Duration::from_secs(20)).unwrap());
        drop(reset.recv_timeout(Duration::from_secs(20)).unwrap());
        is_gone(&rig, "after the reset");
    }
}
