//! Ages come from the monotonic clock, and only a complete check resets a shard's age.

use core::time::Duration;

use vram_residency::{ReadBack, SealRequest, Timestamp, Verify, VramError};

use super::hands::{SEGMENT, Timed, seconds};

fn unread(model: &str, gpu: u32) -> SealRequest {
    SealRequest::new(model, gpu).read_back(ReadBack::None)
}

#[test]
fn a_clock_that_is_set_back_makes_no_shard_look_fresh() {
    let rig = Timed::new(&[1 << 16]);
    let shard = rig.manager.seal(unread("a", 0), &[1; 9000]).unwrap();
    rig.clock.advance(seconds(100));
    rig.clock.set_wall(5);
    assert_eq!(rig.manager.unverified_age(&shard).unwrap(), seconds(100));
    assert_eq!(rig.manager.oldest_unverified(), Some((shard.shard_id.clone(), seconds(100))));
    let snapshot = rig.manager.snapshot();
    assert_eq!(snapshot.counters.unverified_for, [(shard.shard_id.clone(), seconds(100))]);
    assert_eq!(rig.manager.metrics().gpus[0].oldest_unverified, Some(seconds(100)));
    assert_eq!(snapshot.state.shards[0].last_verified, None);

    let _sound = rig.manager.verify(&shard, Verify::Full).unwrap();
    rig.clock.set_wall(1);
    rig.clock.advance(seconds(3));
    let report = rig.manager.report();
    assert_eq!(rig.manager.unverified_age(&shard).unwrap(), seconds(3));
    assert_eq!(report.shards[0].last_verified, Some(Timestamp::from_unix_millis(5)));
}

#[test]
fn only_a_check_of_everything_that_finds_it_sound_makes_a_shard_younger() {
    let rig = Timed::new(&[1 << 16]);
    let shard = rig.manager.seal(unread("a", 0), &[1; 9000]).unwrap();
    rig.clock.advance(seconds(7));
    let age = || rig.manager.unverified_age(&shard).unwrap();
    for partial in [
        Verify::Record,
        Verify::Range { offset: 0, length: 1 },
        Verify::Range { offset: 0, length: 9000 },
        Verify::Sample { segments: 0, seed: 1 },
    ] {
        let _sound = rig.manager.verify(&shard, partial).unwrap();
        assert_eq!(age(), seconds(7), "{partial:?}");
    }
    let _sound = rig.manager.verify(&shard, Verify::Segments).unwrap();
    assert_eq!(age(), Duration::ZERO);

    rig.clock.advance(seconds(2));
    let found = (0..16)
        .flat_map(|granule| {
            rig.devices[0].flip_bit_at(None, vram_alloc::DeviceOffset::new(granule * SEGMENT), 0)
        })
        .count();
    assert_eq!(found, 16);
    assert!(!rig.manager.verify(&shard, Verify::Segments).unwrap().sound);
    assert_eq!(age(), seconds(2), "an altered shard is as old as it was");
    assert_eq!(rig.manager.oldest_unverified(), None, "what is in quarantine is not served");
}

#[test]
fn moves_that_verify_what_arrived_start_the_age_anew_and_seals_without_a_look_do_too() {
    let rig = Timed::new(&[1 << 16, 1 << 16]);
    let manager = &rig.manager;
    let shard = manager.seal(unread("a", 0), &[1; 9000]).unwrap();
    rig.clock.advance(seconds(5));
    let shard = manager.migrate_shard(&shard, 1).unwrap();
    assert_eq!(manager.unverified_age(&shard).unwrap(), Duration::ZERO);
    rig.clock.advance(seconds(5));
    let parked = manager.park(&shard).unwrap();
    let refused = manager.unverified_age(&shard);
    assert!(matches!(refused, Err(VramError::Parked { .. })));
    assert_eq!(manager.oldest_unverified(), None);
    rig.clock.advance(seconds(5));
    let shard = manager.wake(parked, 0).unwrap();
    assert_eq!(manager.unverified_age(&shard).unwrap(), Duration::ZERO);
    assert!(manager.report().shards[0].last_verified.is_some());

    // Read back only by sample: its bytes are new, but were not checked completely.
    rig.clock.advance(seconds(5));
    let open = manager.open_resident(&shard).unwrap();
    let closed = manager.close_resident(&open).unwrap();
    rig.clock.advance(seconds(4));
    assert_eq!(manager.unverified_age(&closed).unwrap(), seconds(4));

    manager.free_shard(&closed).unwrap();
    assert!(matches!(manager.unverified_age(&closed), Err(VramError::ShardFreed { .. })));
}

#[test]
fn the_oldest_is_told_by_its_id_and_of_equals_the_first() {
    let rig = Timed::new(&[1 << 16]);
    let [a, _b] = ["a", "b"].map(|model| rig.manager.seal(unread(model, 0), &[1; 100]).unwrap());
    rig.clock.advance(seconds(1));
    assert_eq!(rig.manager.oldest_unverified().unwrap().0, a.shard_id);
    let _sound = rig.manager.verify(&a, Verify::Segments).unwrap();
    assert_ne!(rig.manager.oldest_unverified().unwrap().0, a.shard_id);
}

#[test]
fn a_verdict_says_sound_of_tags_and_content_of_the_digest() {
    let rig = Timed::new(&[1 << 16]);
    let shard = rig.manager.seal(unread("a", 0), &[3; 9000]).unwrap();
    for (level, content) in
        [(Verify::Record, false), (Verify::Segments, false), (Verify::Full, true)]
    {
        let verdict = rig.manager.verify(&shard, level).unwrap();
        assert_eq!((verdict.sound, verdict.content), (true, content), "{level:?}");
        assert_eq!(verdict.to_string().contains("sound and content"), content, "{verdict}");
    }
}
