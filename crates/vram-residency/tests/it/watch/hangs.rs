//! A device that hangs in a step of the scrubber holds up nothing but its own GPU: the others go on
//! being checked, and neither the scrubber's handle nor its manager waits for it for ever.

use core::time::Duration;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

use vram_alloc::DeviceOffset;
use vram_residency::device::FaultDevice;
use vram_residency::device::fault::{Action, Hook, Op, When};
use vram_residency::{
    ByteLen, Event, EventKind, EventLog, GpuScrub, Limits, MemoryMode, Protection, ReadBack,
    ScrubCursor, ScrubOptions, ScrubRate, Scrubber, SealRequest, SealedShard, VramError,
};
use vram_test_rigs::{Rig, in_time};

use super::hands::Timed;

/// How long anything may take that needs no more than the bounds of the house, which are some
/// seconds.
const PATIENCE: Duration = Duration::from_mins(1);

/// A device that comes back from no read.
struct Hang {
    inside: mpsc::Receiver<()>,
    let_go: mpsc::Sender<()>,
}

impl Hang {
    fn of(device: &FaultDevice) -> Self {
        let (entered, inside) = mpsc::channel();
        let (let_go, may_go) = mpsc::channel();
        let may_go = Mutex::new(may_go);
        let hook = Hook::new(move || {
            let _test_is_over = entered.send(());
            let _let_go = may_go.lock().unwrap().recv_timeout(PATIENCE);
        });
        device.add(Op::Read, When::From(1), Action::Run(hook)).unwrap();
        Self { inside, let_go }
    }

    fn has_begun(&self) {
        self.inside.recv_timeout(PATIENCE).unwrap();
    }

    fn let_go(self) {
        drop(self.let_go);
    }
}

fn rig(mode: MemoryMode) -> (Rig, EventLog) {
    let log = EventLog::new(10_000);
    let rig = Rig::in_mode(mode, &[1 << 20, 1 << 20], |builder| {
        builder.limits(Limits::default()).event_sink(log.clone())
    });
    (rig, log)
}

fn unread(gpu: u32) -> SealRequest {
    SealRequest::new("model", gpu).protection(Protection::Authenticated).read_back(ReadBack::None)
}

fn fast() -> ScrubOptions {
    ScrubOptions::new(ScrubRate::BytesPerSecond(u64::MAX)).pass_at_least(Duration::ZERO)
}

/// Starts a scrubber, of which the thread of GPU 0 then hangs.
fn start(rig: &Rig) -> (Scrubber, Hang) {
    let hang = Hang::of(&rig.devices[0]);
    let scrubber = rig.manager.start_scrubber(fast()).unwrap();
    hang.has_begun();
    (scrubber, hang)
}

fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < PATIENCE, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn of_gpu(scrubber: &Scrubber, gpu: usize) -> GpuScrub {
    scrubber.status().gpus[gpu].clone()
}

/// What the manager said when it was gone, and what was freed.
fn last_words(events: &[Event]) -> (Option<u64>, usize) {
    let left = events.iter().find_map(|event| match event.kind {
        EventKind::Closed { left } => Some(left),
        _ => None,
    });
    let freed = events.iter().filter(|event| event.kind.name() == "freed").count();
    (left, freed)
}

#[test]
fn while_one_gpu_hangs_in_a_scrub_the_others_go_on_being_verified_and_an_alteration_is_found() {
    let (rig, _log) = rig(MemoryMode::Region);
    let held = rig.manager.seal(unread(0), &vec![7; 50_000]).unwrap();
    let [altered, sound] = [5, 6].map(|fill| rig.manager.seal(unread(1), &vec![fill; 50_000]));
    let (altered, sound) = (altered.unwrap(), sound.unwrap());
    let (scrubber, hang) = start(&rig);
    let before = of_gpu(&scrubber, 1).passes;
    until("passes", || of_gpu(&scrubber, 1).passes >= before + 3);
    let verified = |shard: &SealedShard| {
        let shards = rig.manager.report().shards;
        let found = shards.iter().find(|listed| listed.shard_id == shard.shard_id).unwrap();
        found.last_verified.is_some()
    };
    assert_eq!([&held, &altered, &sound].map(verified), [false, true, true]);

    let there = rig.region(1).windows(100).position(|bytes| bytes == [5; 100]).unwrap();
    let there = DeviceOffset::new(u64::try_from(there).unwrap());
    rig.devices[1].flip_bit_at(None, there, 1).unwrap();
    until("an alteration", || scrubber.status().altered == 1);
    assert!(matches!(rig.manager.unseal_model(&altered), Err(VramError::Quarantined { .. })));
    assert_eq!(rig.manager.unseal_model(&sound).unwrap(), vec![6; 50_000]);

    // The GPU that hangs is named, and its shard is not said to be sound.
    let status = scrubber.status();
    assert_eq!((status.gpus[0].passes, status.gpus[0].verified), (0, 0));
    assert!(status.gpus[0].step_for.is_some_and(|time| time > Duration::ZERO), "{status:?}");
    let scrape = rig.manager.metrics().to_prometheus();
    let gauge = |gpu: u32| {
        let name = format!("vram_gpu_scrub_step_seconds{{gpu=\"{gpu}\"");
        let line = scrape.lines().find(|line| line.starts_with(&name)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(gauge(0) > 0.0 && gauge(0) > gauge(1), "{scrape}");

    hang.let_go();
    until("the GPU that let go", || of_gpu(&scrubber, 0).passes >= 1);
    assert_eq!(scrubber.stop().errors, 0);
}

#[test]
fn a_cursor_over_one_gpu_reads_no_other_and_follows_no_shard_that_moves_away() {
    // Time stands still, so that no age tells that the shard was checked when it moved.
    let rig = Timed::new(&[1 << 20, 1 << 20]);
    let [_first, second] = [0, 0].map(|gpu| rig.manager.seal(unread(gpu), &vec![7; 4096]).unwrap());
    let there = rig.manager.seal(unread(1), &vec![7; 4096]).unwrap();
    let reads = || [0, 1].map(|gpu: usize| rig.devices[gpu].call_count(Op::Read));
    let (mut cursor, one, all) = (ScrubCursor::on_gpu(0), ByteLen::new(4096), ByteLen::MIB);
    let before = reads();
    assert_eq!(rig.manager.scrub_step(&mut cursor, one).verified, 1);
    assert_eq!(reads()[1], before[1]);

    // The second of the round moves before its turn.
    let gone = rig.manager.migrate_shard(&second, 1).unwrap();
    let before = reads();
    let step = rig.manager.scrub_step(&mut cursor, all);
    assert!(step.pass_ended && step.bytes.is_zero() && step.errors == 0, "{step:?}");
    assert_eq!(reads(), before);

    let step = rig.manager.scrub_step(&mut ScrubCursor::on_gpu(1), all);
    assert_eq!((step.verified, step.bytes.get()), (2, 2 * 4096));
    assert!(rig.manager.scrub_step(&mut ScrubCursor::on_gpu(9), all).idle, "there is none");
    assert_eq!([&gone, &there].map(|shard| rig.manager.free_shard(shard).is_ok()), [true; 2]);
}

#[test]
fn a_scrubber_that_a_device_holds_is_stopped_in_time_and_another_takes_its_place() {
    let (rig, _log) = rig(MemoryMode::Region);
    let _held = rig.manager.seal(unread(0), &vec![7; 50_000]).unwrap();
    let watched = rig.manager.seal(unread(1), &vec![7; 50_000]).unwrap();
    let (scrubber, hang) = start(&rig);
    let last = in_time("stopping a scrubber", move || scrubber.stop());
    assert!(!last.running && !last.kept);

    let next = rig.manager.start_scrubber(fast()).unwrap();
    until("passes", || of_gpu(&next, 1).passes >= 2);
    hang.let_go();
    until("the GPU that let go", || of_gpu(&next, 0).passes >= 1);
    drop(next);
    rig.manager.free_shard(&watched).unwrap();
    // The thread that hung has ended too: the manager waits for nobody.
    let (device, began) = (Arc::clone(&rig.devices[0]), Instant::now());
    drop(rig);
    assert!(began.elapsed() < Duration::from_secs(4) && device.live().is_empty());
}

/// Drops a manager while GPU 0 hangs, before or after the scrubber's handle.
fn goes_while_a_device_hangs(mode: MemoryMode, handle_first: bool) {
    let (rig, log) = rig(mode);
    let _held = rig.manager.seal(unread(0), &vec![7; 50_000]).unwrap();
    let _beside = rig.manager.seal(unread(0), &vec![8; 50_000]).unwrap();
    let _freed = rig.manager.seal(unread(1), &vec![9; 50_000]).unwrap();
    let leased = rig.manager.seal(unread(1), &vec![9; 50_000]).unwrap();
    let lease = rig.manager.lease(&leased).unwrap();
    let (scrubber, hang) = start(&rig);
    let Rig { manager, devices, .. } = rig;
    let untouched = devices[0].calls().len();
    let scrubber = if handle_first {
        in_time("dropping the handle", move || drop(scrubber));
        None
    } else {
        Some(scrubber)
    };
    in_time("dropping the manager", move || drop(manager));

    // The other GPU is given back, but for what is leased; the one that hangs got no call.
    assert_eq!(devices[0].calls().len(), untouched);
    assert!(!devices[0].live().is_empty() && !devices[1].live().is_empty());
    let (left, freed) = last_words(&log.events());
    assert_eq!((left, freed), (Some(3), 1), "two on the GPU that hangs, and the leased one");
    drop(lease);
    // Its last use ended: it is wiped, and a block of its own is freed.
    for (number, len) in devices[1].live() {
        assert_eq!(mode, MemoryMode::Region);
        let region = devices[1].inspect(Some(number), DeviceOffset::START, len).unwrap();
        assert!(!region.windows(100).any(|bytes| bytes == [9; 100]));
    }
    if let Some(scrubber) = scrubber {
        assert!(!scrubber.status().running);
        in_time("dropping the handle", move || drop(scrubber));
    }

    // The thread that hung ends the manager: everything is wiped and given back.
    hang.let_go();
    until("the end", || devices.iter().all(|device| device.live().is_empty()));
    assert!(devices[0].call_count(Op::Fill) >= 2 && devices[1].call_count(Op::Fill) >= 2);
    // Of a region, what was never used is not wiped.
    for freed in devices.iter().flat_map(|device| device.freed()) {
        assert!(mode == MemoryMode::Region || freed.wiped == Some(true), "{freed:?}");
    }
}

#[test]
fn a_manager_that_goes_while_a_device_hangs_says_what_it_left_and_all_is_wiped_in_the_end() {
    goes_while_a_device_hangs(MemoryMode::Region, false);
}

#[test]
fn a_handle_and_then_its_manager_go_while_a_device_hangs_and_all_is_wiped_in_the_end() {
    goes_while_a_device_hangs(MemoryMode::Blocks, true);
}

#[test]
fn a_close_ends_in_time_while_a_device_hangs_in_a_scrub_and_is_completed_by_the_next() {
    let (rig, _log) = rig(MemoryMode::Region);
    let shards = [0, 0, 1].map(|gpu| rig.manager.seal(unread(gpu), &vec![7; 50_000]).unwrap());
    let (_scrubber, hang) = start(&rig);
    let untouched = rig.devices[0].calls().len();
    let manager = Arc::new(rig.manager);
    let closed = Arc::clone(&manager);
    let report = in_time("a close", move || closed.close(Duration::from_secs(2)));
    let left: Vec<_> = report.left.iter().map(|(shard, _why)| shard.clone()).collect();
    assert_eq!(left, [shards[0].shard_id.clone(), shards[1].shard_id.clone()]);
    assert!(!report.complete && report.freed == 1 && report.under_way == 1, "{report:?}");
    assert_eq!(rig.devices[0].calls().len(), untouched, "another call could hang as well");
    assert!(rig.devices[1].live().is_empty());

    hang.let_go();
    let report = in_time("the next close", move || manager.close(PATIENCE));
    assert!(report.complete && report.freed == 2, "{report:?}");
    assert!(rig.devices[0].live().is_empty());
}
