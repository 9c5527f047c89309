//! What changed while a call waited, or before it came to its end, is seen by it: planted faults
//! showed that these tests were missing.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{Arc, Barrier, Mutex, OnceLock, mpsc};
use std::thread::{self, ThreadId};
use std::time::Instant;

use vram_residency::device::FaultDevice;
use vram_residency::device::fault::{Action, FaultPlan, Hook, Op};
use vram_residency::{
    AdmitRequest, ByteLen, Clock, DeviceOffset, GpuChoice, HostDevice, Limits, Lru, MemoryMode,
    ModelPlan, ModelSource, OnEviction, Piece, Protection, ReadBack, ReservePlanRequest,
    ReserveRequest, ResetOptions, ScrubCursor, SealRequest, SegmentSize, SourceError, SystemClock,
    Threads, Timestamp, Verify, VramError, VramManager, VramManagerBuilder,
};
use vram_test_rigs::TestClock;

const PATIENCE: Duration = Duration::from_secs(20);

fn faulty(
    change: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder,
) -> (VramManager, Arc<FaultDevice>) {
    let host = HostDevice::several(&[ByteLen::MIB]).unwrap().remove(0);
    let device = FaultDevice::new(host, FaultPlan::new(1));
    let builder = VramManager::builder()
        .device(device.clone())
        .segment_size(SegmentSize::MIN)
        .threads(Threads::ONE);
    (change(builder).build().unwrap(), device)
}

/// A hook that tells that it was reached, and waits.
fn holding() -> (Hook, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (entered, inside) = mpsc::channel();
    let (go, go_on) = mpsc::channel::<()>();
    let held = Mutex::new((entered, go_on));
    let hook = Hook::new(move || {
        let held = held.lock().unwrap();
        let _ = held.0.send(());
        let _ = held.1.recv_timeout(PATIENCE);
    });
    (hook, inside, go)
}

fn patient() -> ResetOptions {
    ResetOptions::new().force().within(PATIENCE)
}

fn plan_of_one() -> ModelPlan {
    ModelPlan::new([Piece::new("p", 0, 0, ByteLen::new(1000))]).unwrap()
}

#[test]
fn a_lease_that_is_given_while_a_forced_reset_waits_refuses_it() {
    let (manager, device) = faulty(|builder| builder);
    let request = SealRequest::new("weights", 0)
        .protection(Protection::Authenticated)
        .read_back(ReadBack::None);
    let shard = manager.seal(request, &[7; 1000]).unwrap();
    let (hook, inside, go) = holding();
    // The one read of the verification before a first lease: the call has looked at the device.
    device.next(Op::Read, Action::Run(hook)).unwrap();
    thread::scope(|scope| {
        let leasing = scope.spawn(|| manager.lease(&shard));
        inside.recv_timeout(PATIENCE).unwrap();
        let resetting = scope.spawn(|| manager.reset_gpu(0, patient()).map(drop));
        thread::sleep(Duration::from_millis(200));
        go.send(()).unwrap();
        let lease = leasing.join().unwrap().unwrap();
        let refused = resetting.join().unwrap();
        assert!(matches!(refused, Err(VramError::InUse { leases: 1, .. })), "{refused:?}");
        drop(lease);
    });
    assert_eq!(manager.unseal_model(&shard).unwrap(), [7; 1000]);
}

#[test]
fn a_reset_waits_for_a_free_that_is_wiping() {
    for mode in [MemoryMode::Region, MemoryMode::Blocks] {
        let (manager, device) = faulty(|builder| builder.memory(0, mode));
        let shard = manager.seal_model("m", 0, &[7; 1000]).unwrap();
        let (hook, inside, go) = holding();
        device.next(Op::Fill, Action::Run(hook)).unwrap();
        thread::scope(|scope| {
            let freeing = scope.spawn(|| manager.free_shard(&shard));
            inside.recv_timeout(PATIENCE).unwrap();
            let options = ResetOptions::new().force().within(Duration::from_millis(50));
            let refused = manager.reset_gpu(0, options).map(drop);
            let resets = device.call_count(Op::Reset);
            go.send(()).unwrap();
            assert!(freeing.join().unwrap().unwrap().wiped);
            assert!(matches!(refused, Err(VramError::GpuInUse { .. })), "{refused:?}");
            assert_eq!(resets, 0);
        });
        assert_eq!(manager.get_used_vram(0).unwrap(), 0);
        drop(manager.reset_gpu(0, ResetOptions::new().force()).unwrap());
    }
}

#[test]
fn a_reset_that_waits_for_a_call_goes_on_when_the_call_ends() {
    let (manager, device) = faulty(|builder| builder);
    let shard = manager.seal_model("m", 0, &[7; 1000]).unwrap();
    let (hook, inside, go) = holding();
    device.next(Op::Fill, Action::Run(hook)).unwrap();
    thread::scope(|scope| {
        let freeing = scope.spawn(|| manager.free_shard(&shard));
        inside.recv_timeout(PATIENCE).unwrap();
        let began = Instant::now();
        let resetting = scope.spawn(|| manager.reset_gpu(0, patient()).map(drop));
        thread::sleep(Duration::from_millis(200));
        go.send(()).unwrap();
        freeing.join().unwrap().unwrap();
        resetting.join().unwrap().unwrap();
        assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    });
}

#[test]
fn while_a_reset_is_at_the_device_nothing_else_is_sent_there() {
    let (manager, device) = faulty(|builder| builder.memory(0, MemoryMode::Blocks));
    let held = manager.reserve_plan(&plan_of_one(), GpuChoice::One(0)).unwrap();
    let (hook, inside, go) = holding();
    device.next(Op::Reset, Action::Run(hook)).unwrap();
    thread::scope(|scope| {
        let resetting = scope.spawn(|| manager.reset_gpu(0, ResetOptions::new().force()).map(drop));
        inside.recv_timeout(PATIENCE).unwrap();
        device.clear_log();
        drop(held);
        let frees = device.call_count(Op::Free) + device.call_count(Op::Drop);
        go.send(()).unwrap();
        resetting.join().unwrap().unwrap();
        assert_eq!(frees, 0, "a block was given back to a device that is being reset");
    });
    assert_eq!(manager.get_used_vram(0).unwrap(), 0);
}

/// What was found altered is evidence.
#[test]
fn an_eviction_that_waited_for_a_reader_who_found_an_alteration_leaves_the_shard() {
    let (manager, device) = faulty(|builder| builder.eviction(Lru).on_eviction(OnEviction::Free));
    let shard = manager.seal_model("m", 0, &[7; 1000]).unwrap();
    let plan = manager.plan_eviction(0, ByteLen::MIB).unwrap();
    assert_eq!(plan.evictions.len(), 1);
    let (hook, inside, go) = holding();
    device.next(Op::Read, Action::Run(hook)).unwrap();
    for at in ((1 << 20) - 1024..1 << 20).step_by(256) {
        device.flip_bit_at(None, DeviceOffset::new(at), 1).unwrap();
    }
    thread::scope(|scope| {
        let reading = scope.spawn(|| manager.unseal_model(&shard));
        inside.recv_timeout(PATIENCE).unwrap();
        let evicting = scope.spawn(|| manager.evict(&plan).unwrap());
        thread::sleep(Duration::from_millis(200));
        go.send(()).unwrap();
        assert!(matches!(reading.join().unwrap(), Err(VramError::ShardAltered { .. })));
        let report = evicting.join().unwrap();
        assert!(report.evicted.is_empty() && report.kept.len() == 1, "{report:?}");
    });
    assert!(matches!(manager.unseal_model(&shard), Err(VramError::Quarantined { .. })));
}

#[test]
fn an_eviction_that_waited_for_a_migration_leaves_the_shard_at_its_new_place() {
    let other = HostDevice::several(&[ByteLen::MIB]).unwrap().remove(0);
    let other = FaultDevice::new(other, FaultPlan::new(2));
    let (manager, _device) =
        faulty(|builder| builder.device(other.clone()).eviction(Lru).on_eviction(OnEviction::Free));
    let shard = manager.seal_model("m", 0, &[7; 1000]).unwrap();
    let plan = manager.plan_eviction(0, ByteLen::MIB).unwrap();
    let (hook, inside, go) = holding();
    other.next(Op::Read, Action::Run(hook)).unwrap();
    thread::scope(|scope| {
        let moving = scope.spawn(|| manager.migrate_shard(&shard, 1).unwrap());
        inside.recv_timeout(PATIENCE).unwrap();
        let evicting = scope.spawn(|| manager.evict(&plan).unwrap());
        thread::sleep(Duration::from_millis(200));
        go.send(()).unwrap();
        let moved = moving.join().unwrap();
        let report = evicting.join().unwrap();
        assert!(report.evicted.is_empty() && report.kept.len() == 1, "{report:?}");
        assert_eq!(manager.unseal_model(&moved).unwrap(), [7; 1000]);
    });
}

#[test]
fn a_free_that_waits_for_a_lease_goes_on_when_the_lease_ends() {
    let (manager, _device) = faulty(|builder| builder);
    let shard = manager.seal_model("m", 0, &[7; 1000]).unwrap();
    let lease = manager.lease(&shard).unwrap();
    thread::scope(|scope| {
        let began = Instant::now();
        let freeing = scope.spawn(|| manager.free_shard_within(&shard, PATIENCE).map(drop));
        thread::sleep(Duration::from_millis(200));
        drop(lease);
        freeing.join().unwrap().unwrap();
        assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    });
}

struct Changed;

impl ModelSource for Changed {
    fn read_at(&self, _file: u32, _offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        target.fill(1);
        Ok(())
    }

    fn finish(&self) -> Result<(), SourceError> {
        Err(SourceError::io("file", std::io::Error::other("it changed")))
    }
}

#[test]
fn a_model_whose_source_says_that_it_changed_is_not_admitted() {
    let (manager, _device) = faulty(|builder| builder);
    let request = AdmitRequest::new("m", GpuChoice::One(0));
    assert!(manager.admit(request, &plan_of_one(), &Changed).is_err());
    assert!(manager.shards().is_empty() && manager.get_used_vram(0).unwrap() == 0);
}

#[test]
fn the_last_seat_goes_to_exactly_one() {
    let limits = Limits::default().shard_count_max(1);
    let (manager, _device) = faulty(|builder| builder.limits(limits));
    let start = Barrier::new(3);
    for round in 0..300 {
        let made = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    start.wait();
                    if manager.seal_model("one", 0, b"x").is_ok() {
                        made.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(made.into_inner(), 1, "round {round}");
        for shard in manager.shards() {
            manager.free_shard(&shard).unwrap();
        }
    }
}

#[test]
fn a_short_reservation_ends_before_an_older_long_one() {
    let clock = TestClock::new();
    let (manager, _device) = faulty(|builder| builder.clock(clock.clone()));
    let reserve = |minutes| {
        let request = ReserveRequest::new(0, ByteLen::new(1024));
        manager.reserve_with(request.expires_in(Duration::from_mins(minutes))).unwrap()
    };
    let (_long, _short) = (reserve(60), reserve(1));
    assert_eq!(manager.capacity(0).unwrap().reserved.get(), 2048);
    clock.advance(Duration::from_mins(2));
    assert_eq!(manager.capacity(0).unwrap().reserved.get(), 1024);
}

/// Two segments are altered and found by two calls: a repair must know both, and no call returns
/// bytes of the shard, not even of its sound segments.
#[test]
fn a_quarantine_remembers_every_finding_and_holds_for_the_whole_shard() {
    let (manager, device) = faulty(|builder| builder);
    let len = 3 * SegmentSize::MIN.bytes().get();
    let shard = manager.seal_model("m", 0, &vec![7; usize::try_from(len).unwrap()]).unwrap();
    let start = (1 << 20) - len;
    for segment in [0, 2] {
        let at = segment * SegmentSize::MIN.bytes().get();
        // Wherever the arena has put it.
        for place in [at, start + at] {
            device.flip_bit_at(None, DeviceOffset::new(place), 1).unwrap();
        }
        let found = manager.verify(&shard, Verify::Range { offset: at, length: 1 }).unwrap();
        assert!(!found.sound);
    }
    let known = manager.verify(&shard, Verify::Record).unwrap();
    let segments: Vec<u64> = known.altered.iter().map(|span| span.segment).collect();
    assert_eq!(segments, [0, 2]);
    let sound = usize::try_from(SegmentSize::MIN.bytes().get()).unwrap();
    let read = manager.read_shard_at_offset(&shard, sound, 16);
    assert!(matches!(read, Err(VramError::Quarantined { .. })), "{read:?}");
}

/// A clock at which one thread waits whenever it asks.
#[derive(Debug)]
struct Stopped {
    who: OnceLock<ThreadId>,
    ends: Mutex<(mpsc::Sender<()>, mpsc::Receiver<()>)>,
}

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn monotonic(&self) -> Duration {
        if self.who.get() == Some(&thread::current().id()) {
            let ends = self.ends.lock().unwrap();
            let _ = ends.0.send(());
            let _ = ends.1.recv_timeout(PATIENCE);
        }
        SystemClock.monotonic()
    }
}

/// Its places are taken, and not listed yet: only the call itself says that they are somebody's.
#[test]
fn a_reset_waits_for_a_reservation_until_it_is_listed() {
    let ((asks, asked), (go, go_on)) = (mpsc::channel(), mpsc::channel());
    let clock = Arc::new(Stopped { who: OnceLock::new(), ends: Mutex::new((asks, go_on)) });
    let (manager, _device) =
        faulty(|builder| builder.memory(0, MemoryMode::Blocks).clock(clock.clone()));
    let manager = Arc::new(manager);
    let (told, answer) = mpsc::channel();
    let reserving = Arc::clone(&manager);
    thread::spawn(move || {
        clock.who.set(thread::current().id()).unwrap();
        let request = ReservePlanRequest::new(GpuChoice::One(0));
        let request = request.expires_in(Duration::from_mins(1));
        told.send(reserving.reserve_plan_with(&plan_of_one(), request))
    });
    asked.recv_timeout(PATIENCE).unwrap();
    while manager.capacity(0).unwrap().reserved.is_zero() {
        go.send(()).unwrap();
        asked.recv_timeout(PATIENCE).unwrap();
    }
    let listed = manager.reservations().len();
    let refused = manager.reset_gpu(0, ResetOptions::new().within(Duration::ZERO)).map(drop);
    drop(go);
    assert_eq!(listed, 0, "the clock was asked too late for this test");
    assert!(matches!(refused, Err(VramError::GpuInUse { .. })), "{refused:?}");
    let held = answer.recv_timeout(PATIENCE).unwrap().unwrap();
    drop(manager.reset_gpu(0, ResetOptions::new()).unwrap());
    assert_eq!(held.remaining(), ByteLen::new(1024));
}

#[test]
fn a_scrub_run_does_not_count_if_another_check_ended_meanwhile() {
    let (manager, device) = faulty(|builder| builder);
    let shard = manager.seal_model("m", 0, &[7; 1000]).unwrap();
    let (hook, inside, go) = holding();
    device.next(Op::Read, Action::Run(hook)).unwrap();
    thread::scope(|scope| {
        let manager = &manager;
        let scrubbing =
            scope.spawn(move || manager.scrub_step(&mut ScrubCursor::new(), ByteLen::MIB));
        inside.recv_timeout(PATIENCE).unwrap();
        let checked = manager.verify(&shard, Verify::Segments);
        go.send(()).unwrap();
        assert!(checked.unwrap().sound);
        let step = scrubbing.join().unwrap();
        assert_eq!((step.errors, step.verified), (0, 0), "{step:?}");
    });
}
