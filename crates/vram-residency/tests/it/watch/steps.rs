//! Single steps of a scrubber.

use std::sync::Arc;

use vram_residency::device::fault::{Action, Hook, Op, When};
use vram_residency::{ByteLen, ScrubCursor};

use vram_test_rigs::Rig;

use super::hands::Timed;
use super::scrub::{BUDGET, unread, whole_pass};

#[test]
fn a_busy_shard_is_skipped_and_comes_again() {
    let rig = Timed::new(&[1 << 16, 1 << 16]);
    let shard = rig.manager.seal(unread(0, true), &[1; 9000]).unwrap();
    let Rig { manager, devices, .. } = rig.rig;
    let manager = Arc::new(manager);
    // While another thread moves it, the scrubber takes its steps.
    let (steps, seen) = std::sync::mpsc::channel();
    let hook = {
        let manager = Arc::clone(&manager);
        Hook::new(move || {
            let manager = Arc::clone(&manager);
            let scrub = move || {
                let mut cursor = ScrubCursor::new();
                let step = manager.scrub_step(&mut cursor, BUDGET);
                (step.skipped, step.verified, step.pass_ended)
            };
            steps.send(std::thread::spawn(scrub).join().unwrap()).unwrap();
        })
    };
    devices[1].add(Op::PeerCopy, When::Nth(1), Action::Run(hook.clone())).unwrap();
    devices[1].add(Op::QueueWrite, When::Nth(1), Action::Run(hook)).unwrap();
    let shard = manager.migrate_shard(&shard, 1).unwrap();
    assert_eq!(seen.try_recv().unwrap(), (3, 0, true));
    let step = manager.scrub_step(&mut ScrubCursor::new(), ByteLen::MIB);
    assert_eq!((step.skipped, step.verified), (0, 1));
    manager.free_shard(&shard).unwrap();
}

#[test]
fn a_cursor_of_another_manager_begins_anew_and_holds_nothing() {
    let (one, other) = (Timed::new(&[1 << 16]), Timed::new(&[1 << 16]));
    let _shard = one.manager.seal(unread(0, true), &vec![1; 40_000]).unwrap();
    let _other = other.manager.seal(unread(0, true), &[1; 100]).unwrap();
    let mut cursor = ScrubCursor::new();
    assert_eq!(one.manager.scrub_step(&mut cursor, BUDGET).bytes, BUDGET);
    assert_eq!(other.manager.scrub_step(&mut cursor, BUDGET).verified, 1);
    let device = Arc::clone(&one.devices[0]);
    assert_eq!(one.manager.scrub_step(&mut cursor, BUDGET).bytes, BUDGET);
    drop(one);
    assert!(device.live().is_empty(), "a cursor keeps no memory");
    drop(cursor);
}

#[test]
fn thousands_of_tiny_shards_cost_more_than_their_bytes() {
    let rig = Timed::new(&[1 << 16]);
    for _ in 0..100 {
        rig.manager.seal(unread(0, true), &[]).unwrap();
    }
    let mut cursor = ScrubCursor::new();
    let steps = whole_pass(&rig, &mut cursor);
    let charged: u64 = steps.iter().map(|step| step.charged.get()).sum();
    assert_eq!((charged, steps.iter().map(|step| step.verified).sum::<u64>()), (409_600, 100));
    assert!(steps.len() >= 50, "a step is bounded: {}", steps.len());
}
