//! A shard that changes while a call waits for it, or between two of its reads.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::{Arc, mpsc};
use std::thread;

use vram_residency::device::fault::Op;
use vram_residency::{ExportOptions, Protection, SealKey, Verify, VramError};
use vram_test_rigs::{Rig, SEGMENT, content, held_up};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_call_that_waited_while_its_shard_was_sealed_anew_is_told_that_its_handle_is_stale() {
    let rig = Arc::new(Rig::new(&[1 << 16]));
    let bytes = content(3 * SEGMENT, 1);
    let shard = rig.seal(0, Protection::Encrypted, &bytes);
    let other = SealKey::from_bytes(&[9; 32]);
    let id = other.id();
    rig.manager.add_key(other).unwrap();
    let (is_inside, go_on) = held_up(&rig.devices[0], Op::Read);
    let (told, answers) = mpsc::channel();
    let (sealing, handle) = (Arc::clone(&rig), shard.clone());
    thread::spawn(move || sealing.manager.reseal_shard(&handle, &id).map(drop));
    is_inside.recv_timeout(PATIENCE).unwrap();
    let (freeing, handle) = (Arc::clone(&rig), shard.clone());
    thread::spawn(move || told.send(freeing.manager.free_shard(&handle).map(drop)));
    let early = answers.recv_timeout(Duration::from_millis(200));
    go_on.send(()).unwrap();
    assert!(early.is_err(), "it did not wait: {early:?}");
    let refused = answers.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(refused, Err(VramError::StaleHandle { .. })), "{refused:?}");
    let fresh = rig.manager.shard(&shard.shard_id).unwrap();
    assert_eq!(rig.manager.unseal_model(&fresh).unwrap(), bytes);
}

/// Also if the altered segment has been written already.
#[test]
fn an_export_ends_when_another_call_finds_the_shard_altered() {
    let rig = Rig::new(&[1 << 16]);
    let shard = rig.seal(0, Protection::Encrypted, &content(9 * SEGMENT, 1));
    let start = rig.written_at(0);
    let done = AtomicBool::new(false);
    let options = ExportOptions::new().progress(|progress| {
        let early = progress.done >= SEGMENT as u64 && progress.done < progress.total / 2;
        if early && !done.swap(true, Ordering::SeqCst) {
            rig.flip(0, start, 3);
            assert!(!rig.manager.verify(&shard, Verify::Segments).unwrap().sound);
        }
    });
    let mut image = Vec::new();
    let refused = rig.manager.export_with(&shard, &mut image, options);
    assert!(done.into_inner(), "nothing was altered");
    assert!(matches!(refused, Err(VramError::Quarantined { .. })), "{refused:?}");
}
