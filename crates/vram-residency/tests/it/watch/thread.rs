//! The scrubber's threads: they find alterations, pause, stop at once, and neither outlive their
//! manager nor keep it alive.

use core::time::Duration;
use std::sync::Arc;

use vram_residency::device::GpuError;
use vram_residency::device::fault::{Action, Op};
use vram_residency::{
    ByteLen, GpuIndex, MemoryMode, Protection, ReadBack, ScrubOptions, ScrubRate, Scrubber,
    SealRequest, SystemClock, VramError,
};

use super::hands::Timed;
use vram_test_rigs::held_up;

/// Longer than any test, and short enough to end a run that hangs.
const LONG: Duration = Duration::from_mins(10);

fn rig() -> Timed {
    Timed::with(&[1 << 20, 1 << 20], |builder| builder.clock(Arc::new(SystemClock)))
}

fn unread(gpu: u32) -> SealRequest {
    SealRequest::new("model", gpu).protection(Protection::Authenticated).read_back(ReadBack::None)
}

fn at_once(rate: ScrubRate) -> ScrubOptions {
    ScrubOptions::new(rate).pass_at_least(Duration::ZERO)
}

/// Waits until the scrubber has reached a state.
fn until(scrubber: &Scrubber, reached: impl Fn(&vram_residency::ScrubStatus) -> bool) {
    while !reached(&scrubber.status()) {
        std::thread::yield_now();
    }
}

#[test]
fn it_walks_all_gpus_at_every_kind_of_rate_and_says_what_it_did() {
    for rate in [
        ScrubRate::BytesPerSecond(u64::MAX),
        ScrubRate::BytesPerSecond(1 << 30),
        ScrubRate::Share(0.5),
        ScrubRate::Share(1.0),
        ScrubRate::Within(Duration::from_millis(20)),
    ] {
        let rig = rig();
        let shards = [0, 1].map(|gpu| rig.manager.seal(unread(gpu), &vec![7; 50_000]).unwrap());
        let scrubber = rig.manager.start_scrubber(at_once(rate)).unwrap();
        until(&scrubber, |status| status.gpus.iter().all(|gpu| gpu.passes >= 2));
        let status = scrubber.status();
        assert!(status.running && !status.paused && status.rate == rate);
        assert!(status.bytes.get() >= 200_000 && status.verified >= 4, "{status:?}");
        assert_eq!(status.resident.get(), 100_000);
        assert!(status.worst_case.is_some() && status.oldest_unverified.is_some(), "{status:?}");
        assert_eq!((status.altered, status.errors, status.last_error), (0, 0, None));
        let last = scrubber.stop();
        assert!(!last.running && last.passes >= 2 && last.worst_case.is_none());
        assert!(rig.manager.report().shards.iter().all(|shard| shard.last_verified.is_some()));
        assert!(shards.iter().all(|shard| rig.manager.free_shard(shard).is_ok()));
    }
}

#[test]
fn it_finds_an_altered_bit_and_closes_the_shard() {
    let rig = rig();
    let shard = rig.manager.seal(unread(0), &vec![7; 50_000]).unwrap();
    let rate = ScrubRate::Within(Duration::from_millis(20));
    let scrubber = rig.manager.start_scrubber(at_once(rate)).unwrap();
    until(&scrubber, |status| status.passes >= 1);
    for at in (0..1_u64 << 20).step_by(4096) {
        rig.flip(0, at, 1);
    }
    until(&scrubber, |status| status.altered == 1);
    assert!(matches!(rig.manager.unseal_model(&shard), Err(VramError::Quarantined { .. })));
    assert_eq!(scrubber.status().resident, ByteLen::ZERO, "it is left alone from now on");
    assert_eq!(scrubber.stop().altered, 1);
}

#[test]
fn stopping_does_not_wait_for_the_rate_and_nothing_to_do_is_no_reason_to_spin() {
    let rig = rig();
    let slow = ScrubOptions::new(ScrubRate::BytesPerSecond(1));
    let scrubber = rig.manager.start_scrubber(slow.pass_at_least(LONG)).unwrap();
    // Its first step found nothing: it sleeps for the minimum time of a pass.
    std::thread::yield_now();
    assert_eq!(scrubber.stop().passes, 0);

    let _shard = rig.manager.seal(unread(0), &vec![7; 50_000]).unwrap();
    let scrubber = rig.manager.start_scrubber(slow).unwrap();
    until(&scrubber, |status| status.bytes.get() > 0);
    let status = scrubber.status();
    assert_eq!(status.bytes.get(), 4096, "one segment, and an hour of sleep");
    assert!(status.worst_case.is_some_and(|time| time > Duration::from_secs(50_000)));
    drop(scrubber);
    // No thread is left running.
    drop(rig.manager.start_scrubber(slow).unwrap());
}

#[test]
fn a_scrubber_ends_with_its_manager_and_keeps_no_memory_of_it() {
    for mode in [MemoryMode::Region, MemoryMode::Blocks] {
        let rig = Timed::with(&[1 << 20], |builder| builder.memory(0, mode));
        let _shard = rig.manager.seal(unread(0), &vec![7; 50_000]).unwrap();
        let rate = ScrubRate::BytesPerSecond(u64::MAX);
        let scrubber = rig.manager.start_scrubber(at_once(rate)).unwrap();
        until(&scrubber, |status| status.bytes.get() > 0);
        let device = Arc::clone(&rig.devices[0]);
        drop(rig);
        assert!(device.live().is_empty(), "everything was given back when the manager was gone");
        assert!(!scrubber.status().running);
        drop(scrubber);
    }
}

#[test]
fn a_manager_that_goes_while_a_step_is_under_way_waits_for_that_step_alone() {
    let rig = rig();
    let _shard = rig.manager.seal(unread(0), &vec![7; 50_000]).unwrap();
    let (is_inside, go_on) = held_up(&rig.devices[0], Op::Read);
    let device = Arc::clone(&rig.devices[0]);
    let slow = ScrubOptions::new(ScrubRate::BytesPerSecond(1));
    let scrubber = rig.manager.start_scrubber(slow).unwrap();
    is_inside.recv().unwrap();
    std::thread::scope(|scope| {
        let gone = scope.spawn(move || drop(rig));
        assert!(!device.live().is_empty(), "the step is under way");
        go_on.send(()).unwrap();
        gone.join().unwrap();
    });
    assert!(!scrubber.status().running);
}

#[test]
fn a_paused_scrubber_promises_nothing_and_goes_on_when_resumed() {
    let rig = rig();
    let _shard = rig.manager.seal(unread(0), &vec![7; 50_000]).unwrap();
    let rate = ScrubRate::Within(Duration::from_millis(20));
    let scrubber = rig.manager.start_scrubber(at_once(rate)).unwrap();
    until(&scrubber, |status| status.passes >= 1);
    scrubber.pause();
    let status = scrubber.status();
    assert!(status.running && status.paused && !status.kept && status.worst_case.is_none());
    scrubber.resume();
    let before = scrubber.status().passes;
    until(&scrubber, |status| status.passes >= before + 2);
    scrubber.pause();
    // Stopping does not wait for a resume.
    assert!(scrubber.stop().passes > before);
}

#[test]
fn a_device_that_fails_or_panics_is_counted_and_the_scrubber_goes_on() {
    let rig = rig();
    let _shard = rig.manager.seal(unread(0), &[7; 5000]).unwrap();
    let error = GpuError::driver(GpuIndex::new(0), 1);
    rig.devices[0].next(Op::Read, Action::Fail(error)).unwrap();
    let rate = ScrubRate::BytesPerSecond(u64::MAX);
    let scrubber = rig.manager.start_scrubber(at_once(rate)).unwrap();
    until(&scrubber, |status| status.errors == 1 && status.verified >= 1);
    assert!(scrubber.status().last_error.is_some_and(|text| text.contains("gpu")));
    scrubber.pause();
    rig.devices[0].next(Op::Read, Action::Panic).unwrap();
    scrubber.resume();
    until(&scrubber, |status| status.errors == 2);
    assert!(scrubber.status().last_error.is_some_and(|text| text.contains("panicked")));
    drop(scrubber.stop());
    assert!(rig.manager.verify_shard_integrity(&rig.manager.shards()[0]).unwrap());
}

#[test]
fn a_rate_that_gets_nowhere_and_a_second_scrubber_are_refused() {
    let rig = rig();
    let refused = |rate| {
        let outcome = rig.manager.start_scrubber(ScrubOptions::new(rate));
        matches!(outcome, Err(VramError::Config { .. }))
    };
    for rate in [
        ScrubRate::BytesPerSecond(0),
        ScrubRate::Share(0.0),
        ScrubRate::Share(-1.0),
        ScrubRate::Share(1.01),
        ScrubRate::Share(f64::NAN),
        ScrubRate::Share(f64::INFINITY),
        ScrubRate::Within(Duration::ZERO),
    ] {
        assert!(refused(rate), "{rate:?}");
    }
    let scrubber = rig.manager.start_scrubber(ScrubOptions::new(ScrubRate::Share(0.1))).unwrap();
    assert!(refused(ScrubRate::Share(0.1)), "one is running");
    drop(scrubber);
    drop(rig.manager.start_scrubber(ScrubOptions::new(ScrubRate::Share(0.1))).unwrap());
}

#[test]
fn threads_that_start_pause_and_stop_scrubbers_end_with_none_and_a_closed_manager_takes_none() {
    let rig = rig();
    let _shard = rig.manager.seal(unread(0), &vec![7; 50_000]).unwrap();
    let rate = at_once(ScrubRate::BytesPerSecond(u64::MAX));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for turn in 0..50 {
                    let Ok(scrubber) = rig.manager.start_scrubber(rate) else { continue };
                    std::thread::scope(|inner| {
                        inner.spawn(|| scrubber.pause());
                        inner.spawn(|| scrubber.resume());
                        inner.spawn(|| assert!(rig.manager.metrics().scrub.running));
                        inner.spawn(|| scrubber.status());
                    });
                    // A paused one also ends at once.
                    if turn % 2 == 0 {
                        scrubber.pause();
                    }
                    assert!(!scrubber.stop().running);
                }
            });
        }
    });
    assert!(!rig.manager.metrics().scrub.running);
    let scrubber = rig.manager.start_scrubber(rate).unwrap();
    assert!(rig.manager.close(LONG).complete);
    assert!(!scrubber.status().running);
    assert!(matches!(rig.manager.start_scrubber(rate), Err(VramError::Closed)));
}

#[test]
fn metrics_show_the_scrubber_and_what_it_did_and_no_counter_goes_down() {
    let rig = rig();
    let shard = rig.manager.seal(unread(0), &vec![7; 50_000]).unwrap();
    let before = rig.manager.metrics().scrub;
    assert_eq!((before.running, before.kept, before.passes), (false, false, 0));
    assert!(rig.manager.metrics().to_prometheus().contains("\nvram_scrub_running 0\n"));

    let hour = ScrubRate::Within(Duration::from_hours(1));
    let scrubber = rig.manager.start_scrubber(at_once(hour)).unwrap();
    let metrics = rig.manager.metrics();
    assert!(metrics.scrub.running && metrics.scrub.kept && !metrics.scrub.paused);
    assert_eq!(metrics.scrub.worst_case, Some(Duration::from_hours(1)));
    let text = metrics.to_prometheus();
    for line in ["vram_scrub_running 1", "vram_scrub_kept 1", "vram_scrub_worst_case_seconds 3600"]
    {
        assert!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
    }
    scrubber.pause();
    let paused = rig.manager.metrics().scrub;
    assert!(paused.running && paused.paused && !paused.kept && paused.worst_case.is_none());
    drop(scrubber);

    for turn in 1..=2 {
        let fast = at_once(ScrubRate::BytesPerSecond(u64::MAX));
        let scrubber = rig.manager.start_scrubber(fast).unwrap();
        until(&scrubber, |status| status.passes >= 2);
        let status = scrubber.stop();
        let scrub = rig.manager.metrics().scrub;
        assert!(scrub.passes >= 2 * turn && scrub.verified >= 2 * turn, "{scrub:?}");
        assert!(scrub.bytes.get() >= 100_000 * turn && scrub.bytes >= status.bytes);
    }
    let before = rig.manager.metrics().scrub;
    for granule in 0..4096 {
        rig.flip(0, granule * 256, 0);
    }
    // Steps by hand count as well.
    let mut cursor = vram_residency::ScrubCursor::new();
    while rig.manager.scrub_step(&mut cursor, ByteLen::MIB).altered.is_empty() {}
    let after = rig.manager.metrics().scrub;
    assert_eq!((after.altered, after.verified), (before.altered + 1, before.verified));
    assert!(after.bytes > before.bytes && after.errors == 0);
    assert!(rig.manager.unseal_model(&shard).is_err());
    assert!(rig.manager.metrics().to_prometheus().contains("\nvram_scrub_altered_total 1\n"));
}

#[test]
fn what_cannot_be_kept_is_said() {
    // The wall clock and the monotonic clock stand still: an age only grows when the test advances
    // them.
    let rig = Timed::new(&[1 << 20]);
    let _shard = rig.manager.seal(unread(0), &vec![7; 50_000]).unwrap();
    let hour = ScrubOptions::new(ScrubRate::Within(Duration::from_hours(1)));
    rig.clock.advance(Duration::from_hours(2));
    let scrubber = rig.manager.start_scrubber(hour).unwrap();
    let status = scrubber.status();
    assert_eq!(status.oldest_unverified, Some(Duration::from_hours(2)));
    assert_eq!(status.worst_case, Some(Duration::from_hours(1)));
    assert!(!status.kept, "it was not looked at for longer than that");
    drop(scrubber);
    let _sound = rig.manager.verify(&rig.manager.shards()[0], vram_residency::Verify::Segments);
    let scrubber = rig.manager.start_scrubber(hour).unwrap();
    assert!(scrubber.status().kept);
}

#[cfg(feature = "serde")]
#[test]
fn a_status_survives_json() {
    let rig = rig();
    let scrubber = rig.manager.start_scrubber(ScrubOptions::new(ScrubRate::Within(LONG))).unwrap();
    let status = scrubber.stop();
    let json = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<vram_residency::ScrubStatus>(&json).unwrap(), status);
}

#[test]
fn threads_that_seal_move_and_free_beside_a_scrubber_lose_nothing() {
    let rig = rig();
    let rate = ScrubRate::BytesPerSecond(u64::MAX);
    let scrubber = rig.manager.start_scrubber(at_once(rate)).unwrap();
    let keep = rig.manager.seal(unread(0), &vec![9; 50_000]).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..2_u8 {
            let manager = &rig.manager;
            scope.spawn(move || {
                for turn in 0..60_u8 {
                    let bytes = vec![turn; 5000 + 300 * usize::from(turn)];
                    let shard = manager.seal(unread(u32::from(thread)), &bytes).unwrap();
                    let shard = manager.migrate_shard(&shard, u32::from(1 - thread)).unwrap();
                    let shard = manager.close_resident(&shard).unwrap();
                    let parked = manager.park(&shard).unwrap();
                    let shard = manager.wake(parked, u32::from(thread)).unwrap();
                    assert_eq!(manager.unseal_and_free(&shard).unwrap(), bytes);
                }
            });
        }
    });
    until(&scrubber, |status| status.passes >= 2);
    let status = scrubber.stop();
    assert_eq!((status.altered, status.errors), (0, 0), "{status:?}");
    assert_eq!(rig.manager.unseal_and_free(&keep).unwrap(), vec![9; 50_000]);
    for accounts in rig.manager.reconcile_all() {
        let accounts = accounts.unwrap();
        assert!(accounts.agrees && accounts.used.is_zero() && accounts.reserved.is_zero());
    }
}
