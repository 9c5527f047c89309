//! Closing a manager: everything is wiped and given back, what is in use is left and said so, and
//! nothing is taken or served afterwards.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::io::{self, Read, Write};
use std::sync::{Arc, Barrier, Mutex, Weak, mpsc};
use std::thread;

use vram_residency::device::fault::{Action, FaultDevice, FaultPlan, Hook, Op};
use vram_residency::device::{GpuError, HostDevice};
use vram_residency::{
    AdmitRequest, ByteLen, Clock, CloseReport, CompactBudget, ExportOptions, GpuChoice, GpuIndex,
    ImportRequest, LinkState, Lru, MemoryMode, ModelPlan, OnEviction, Piece, Protection,
    ReaderSource, RepairOptions, ReservePlanRequest, ReserveRequest, ResetOptions, ScrubCursor,
    ScrubOptions, ScrubRate, SealKey, SealOptions, SealRequest, SealedShard, SegmentSize,
    SliceSource, Source, SourceError, SystemClock, Threads, TicketOptions, Timestamp, Verify,
    VramError, VramManager, VramManagerBuilder,
};

const MODES: [MemoryMode; 2] = [MemoryMode::Region, MemoryMode::Blocks];
const KINDS: [Protection; 2] = [Protection::Encrypted, Protection::Authenticated];
const SEGMENT: usize = 4096;
const TOTAL: usize = 32 * SEGMENT;
const LEN: usize = 5 * SEGMENT + 9;
const LONG: u64 = 4 << 20;

struct Rig {
    manager: VramManager,
    devices: Vec<Arc<FaultDevice>>,
}

impl Rig {
    fn new(mode: MemoryMode) -> Self {
        Self::on(mode, Threads::ONE)
    }

    fn on(mode: MemoryMode, threads: Threads) -> Self {
        Self::with(mode, threads, |builder| builder)
    }

    fn with(
        mode: MemoryMode,
        threads: Threads,
        change: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder,
    ) -> Self {
        let total = ByteLen::from_usize(TOTAL);
        let hosts = HostDevice::several(&[total, total]).unwrap();
        let devices: Vec<_> =
            hosts.into_iter().map(|host| FaultDevice::new(host, FaultPlan::new(5))).collect();
        let mut builder = VramManager::builder();
        for (gpu, device) in (0..).zip(&devices) {
            device.watch_frees();
            builder = builder.device(device.clone()).memory(gpu, mode);
        }
        let builder = builder.segment_size(SegmentSize::MIN).threads(threads);
        let builder = builder.eviction(Lru).on_eviction(OnEviction::Park);
        Self { manager: change(builder).build().unwrap(), devices }
    }

    fn seal(&self, gpu: u32, protection: Protection) -> SealedShard {
        let request = SealRequest::new("model", gpu).protection(protection);
        self.manager.seal(request, &content()).unwrap()
    }

    /// Nothing is left: not in the books, and not at the driver.
    fn is_gone(&self, what: &str) {
        for (gpu, device) in (0..).zip(&self.devices) {
            let books = self.manager.capacity(gpu).unwrap();
            assert_eq!(books.used, ByteLen::ZERO, "{what}");
            assert_eq!(books.reserved, ByteLen::ZERO, "{what}");
            assert_eq!((books.total, books.largest_hole), (ByteLen::ZERO, ByteLen::ZERO), "{what}");
            assert_eq!(device.live(), [], "gpu {gpu}: {what}");
        }
        assert!(self.manager.shards().is_empty(), "{what}");
        let again = self.manager.close(Duration::ZERO);
        assert!(again.complete && again.freed == 0, "{what}: {again:?}");
    }
}

fn content() -> Vec<u8> {
    (0..LEN).map(|at| u8::try_from((at * 31 + at / 255) % 251).unwrap()).collect()
}

fn is_complete(report: &CloseReport) {
    assert!(report.complete, "{report:?}");
    assert!(report.left.is_empty() && report.unreturned.is_empty(), "{report:?}");
    assert_eq!((report.reservations, report.under_way), (0, 0), "{report:?}");
}

fn refuse() -> Action {
    Action::Fail(GpuError::driver(GpuIndex::new(0), 1))
}

#[test]
fn a_closed_manager_has_given_everything_back_and_its_end_does_nothing_more() {
    let total = u64::try_from(TOTAL).unwrap();
    for mode in MODES {
        let rig = Rig::new(mode);
        for kind in KINDS {
            rig.manager.back_up(&rig.seal(0, kind)).unwrap();
            rig.seal(1, kind);
        }
        let altered = rig.seal(1, Protection::Encrypted);
        rig.devices[1].next(Op::Read, Action::FlipBit { byte: 9, bit: 1 }).unwrap();
        assert!(!rig.manager.verify_shard_integrity(&altered).unwrap());
        rig.manager.seal_model("empty", 0, &[]).unwrap();

        // What a region held is looked at as it goes.
        let held = content();
        for device in &rig.devices {
            let (inside, held) = (Arc::downgrade(device), held.clone());
            let look = Hook::new(move || {
                let device = inside.upgrade().unwrap();
                for (number, len) in device.live() {
                    let start = vram_alloc::DeviceOffset::START;
                    let bytes = device.inspect(Some(number), start, len).unwrap();
                    assert!(
                        len.get() < total || !bytes.windows(64).any(|part| part == &held[..64])
                    );
                }
            });
            device.next(Op::Free, Action::Run(look)).unwrap();
        }
        let report = rig.manager.close(Duration::ZERO);
        is_complete(&report);
        assert_eq!(report.freed, 6);
        assert_eq!(report.bytes.to_usize().unwrap(), 5 * LEN.next_multiple_of(256));
        assert_eq!(rig.manager.park_capacity().used, ByteLen::ZERO);
        rig.is_gone("closed");
        // P18: a region holds what it held before anybody wrote to it, and was looked at above.
        for freed in rig.devices.iter().flat_map(|device| device.freed()) {
            assert!(freed.wiped == Some(true) || freed.len.get() == total, "{freed:?}");
        }
        if mode == MemoryMode::Region {
            assert!(rig.devices.iter().all(|device| device.call_count(Op::Free) == 1));
        }

        let Rig { manager, devices } = rig;
        let calls: Vec<_> = devices.iter().map(|device| device.calls().len()).collect();
        drop(manager);
        let after: Vec<_> = devices.iter().map(|device| device.calls().len()).collect();
        assert_eq!(calls, after, "{mode:?}");
    }
}

/// Every public call, and what it answers.
#[expect(clippy::too_many_lines, reason = "it is a table")]
#[test]
fn every_call_of_a_closed_manager_is_refused_but_for_figures() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let rig = Rig::new(MemoryMode::Region);
    let m = &rig.manager;
    let shard = rig.seal(0, Protection::Encrypted);
    let data = vec![SliceSource::new(b"weights")];
    let plan = ModelPlan::new([Piece::new("a", 0, 0, ByteLen::new(7))]).unwrap();
    let admit = || AdmitRequest::new("model", GpuChoice::One(0));
    let model = m.admit(admit(), &plan, &data).unwrap();
    let parked = m.park(&rig.seal(0, Protection::Encrypted)).unwrap();
    let parked_model = m.park_model(&m.admit(admit(), &plan, &data).unwrap()).unwrap();
    m.export_to(&shard, path("image"), ExportOptions::new()).unwrap();
    let mut room = m.reserve(1, ByteLen::new(1 << 10)).unwrap();
    let mut places = m.reserve_plan(&plan, GpuChoice::One(1)).unwrap();
    let evictions = m.plan_eviction(0, ByteLen::from_usize(TOTAL)).unwrap();
    let (active, other) = (m.active_key(), SealKey::from_bytes([3; 32]).id());
    let report = m.close(Duration::ZERO);
    assert_eq!((report.freed, report.reservations, report.complete), (2, 2, false));

    let seal = || SealRequest::new("model", 0);
    let import = || ImportRequest::new("model", 0);
    let one = GpuChoice::One(0);
    let (source, mut cursor) = (SliceSource::new(b"weights"), ScrubCursor::new());
    let bytes = ByteLen::new(1);
    let soon = Duration::ZERO;
    let calls: Vec<(&str, Result<(), VramError>)> = vec![
        ("seal_model", m.seal_model("model", 0, b"1").map(drop)),
        ("seal", m.seal(seal(), b"1").map(drop)),
        ("seal_from", m.seal_from(seal(), SliceSource::new(b"1"), SealOptions::new()).map(drop)),
        ("seal_reserved", m.seal_reserved(&mut room, SealRequest::new("model", 1), b"1").map(drop)),
        ("admit", m.admit(admit(), &plan, &data).map(drop)),
        ("admit_reserved", m.admit_reserved(&mut places, admit(), &data).map(drop)),
        ("import", m.import(import(), &b""[..]).map(drop)),
        ("import_from", m.import_from(import(), path("image")).map(drop)),
        ("wake", m.wake(parked, 0).map(drop).map_err(|error| error.error().clone())),
        (
            "wake_model",
            m.wake_model(parked_model, one).map(drop).map_err(|error| error.error().clone()),
        ),
        ("reserve", m.reserve(0, bytes).map(drop)),
        ("reserve_with", m.reserve_with(ReserveRequest::new(0, bytes)).map(drop)),
        ("reserve_plan", m.reserve_plan(&plan, one).map(drop)),
        ("reserve_plan_with", m.reserve_plan_with(&plan, ReservePlanRequest::new(one)).map(drop)),
        ("unseal_model", m.unseal_model(&shard).map(drop)),
        ("unseal_into", m.unseal_into(&shard, &mut content())),
        ("unseal_to", m.unseal_to(&shard, io::sink())),
        ("unseal_and_free", m.unseal_and_free(&shard).map(drop)),
        ("read_shard_at_offset", m.read_shard_at_offset(&shard, 0, 1).map(drop)),
        ("read_into", m.read_into(&shard, 0, &mut [0])),
        ("verify_shard_integrity", m.verify_shard_integrity(&shard).map(drop)),
        ("ensure_intact", m.ensure_intact(&shard)),
        ("verify", m.verify(&shard, Verify::Record).map(drop)),
        ("verify_model", m.verify_model(&model, Verify::Record).map(drop)),
        ("content_digest", m.content_digest(&shard).map(drop)),
        ("free_shard", m.free_shard(&shard).map(drop)),
        ("free_shard_within", m.free_shard_within(&shard, soon).map(drop)),
        ("free_model", m.free_model(&model).map(drop)),
        ("refresh_model", m.refresh_model(&model).map(drop)),
        ("migrate_shard", m.migrate_shard(&shard, 1).map(drop)),
        ("migrate_shard_within", m.migrate_shard_within(&shard, 1, soon).map(drop)),
        ("migrate_model", m.migrate_model(&model, 1).map(drop)),
        ("park", m.park(&shard).map(drop)),
        ("park_model", m.park_model(&model).map(drop)),
        ("back_up", m.back_up(&shard).map(drop)),
        ("drop_backup", m.drop_backup(&shard).map(drop)),
        ("export", m.export(&shard, io::sink()).map(drop)),
        ("export_with", m.export_with(&shard, io::sink(), ExportOptions::new()).map(drop)),
        ("export_to", m.export_to(&shard, path("more"), ExportOptions::new()).map(drop)),
        ("open_resident", m.open_resident(&shard).map(drop)),
        ("close_resident", m.close_resident(&shard).map(drop)),
        ("reseal_shard", m.reseal_shard(&shard, &active).map(drop)),
        ("lease", m.lease(&shard).map(drop)),
        ("lease_within", m.lease_within(&shard, soon).map(drop)),
        ("lease_model", m.lease_model(&model).map(drop)),
        ("pin", m.pin(&shard)),
        ("unpin", m.unpin(&shard)),
        ("fits", m.fits(&plan, one).map(drop)),
        ("plan_eviction", m.plan_eviction(0, bytes).map(drop)),
        ("evict", m.evict(&evictions).map(drop)),
        ("compact", m.compact(0, CompactBudget::new()).map(drop)),
        ("set_budget", m.set_budget(0, bytes)),
        ("set_headroom", m.set_headroom(0, bytes)),
        ("refresh", m.refresh(0).map(drop)),
        ("reset_gpu", m.reset_gpu(0, ResetOptions::new().force()).map(drop)),
        ("ticket", m.ticket(&shard, [0; 32]).map(drop)),
        ("ticket_with", m.ticket_with(&shard, TicketOptions::new([0; 32])).map(drop)),
        ("reconcile", m.reconcile(0).map(drop)),
        ("repair_from", m.repair_from(&shard, source, RepairOptions::new()).map(drop)),
        (
            "repair_from_image",
            m.repair_from_image(&shard, path("image"), RepairOptions::new()).map(drop),
        ),
        ("start_scrubber", m.start_scrubber(ScrubOptions::new(ScrubRate::Share(1.0))).map(drop)),
        ("scrub_step", m.scrub_step(&mut cursor, bytes).error.map_or(Ok(()), Err)),
        ("add_key", m.add_key(SealKey::from_bytes([9; 32]))),
        ("set_active_key", m.set_active_key(&other)),
        ("retire_key", m.retire_key(&other)),
    ];
    for (name, answer) in calls {
        let error = answer.expect_err(name);
        assert!(matches!(error, VramError::Closed), "{name}: {error}");
        assert_eq!((error.code(), error.class()), ("closed", vram_residency::Class::Caller));
    }
    let links = m.probe_links();
    assert!(
        links.iter().all(|link| link.state == LinkState::Unknown
            && matches!(link.error, Some(VramError::Closed)))
    );

    let accounts = m.reconcile_all();
    assert!(
        accounts.len() == 2 && accounts.iter().all(|one| matches!(one, Err(VramError::Closed)))
    );

    // Figures.
    let metrics = m.metrics();
    let refused = metrics
        .calls
        .iter()
        .flat_map(|call| &call.failures)
        .filter(|failure| &*failure.code == "closed");
    assert!(refused.map(|failure| failure.count).sum::<u64>() > 50);
    let state = m.snapshot().state;
    assert!(state.shards.is_empty() && state.parked.is_empty() && state.reservations.len() == 2);
    assert!(m.event_counts().is_empty() && m.flush_events(Duration::ZERO));
    assert_eq!(m.scrub_bound(&cursor, 1), Duration::ZERO);
    assert!(m.shards().is_empty() && m.shard(&shard.shard_id).is_none());
    assert!(m.shards_of("model").is_empty() && m.report().shards.is_empty());
    assert_eq!((m.gpu_count(), m.gpus().len()), (2, 2));
    assert_eq!((m.get_used_vram(0).unwrap(), m.get_free_vram(0).unwrap()), (0, 0));
    assert_eq!(m.capacity(1).unwrap().reserved.get(), 1024 + 256);
    assert_eq!(m.reservations().len(), 2);
    assert!(m.take_evicted().is_empty());
    assert!(m.key_ids().is_empty(), "the keys are wiped");
    assert_eq!(m.active_key(), active);
    assert_eq!(m.park_capacity().shard_count, 0, "those above were dropped");
    drop((room, places));
    is_complete(&m.close(Duration::ZERO));
    rig.is_gone("reservations ended");
}

#[test]
fn parked_shards_stay_their_holders_and_can_be_looked_at_and_dropped() {
    let rig = Rig::new(MemoryMode::Region);
    let shard = rig.seal(0, Protection::Authenticated);
    let parked = rig.manager.park(&shard).unwrap();
    is_complete(&rig.manager.close(Duration::ZERO));
    let (parked, error) = rig.manager.wake(parked, 0).unwrap_err().into_parts();
    assert!(matches!(error, VramError::Closed));
    assert_eq!((parked.shard_id(), parked.model_id()), (&shard.shard_id, "model"));
    assert_eq!(rig.manager.park_capacity().shard_count, 1);
    drop(rig.manager);
    drop(parked);
}

#[test]
fn what_was_parked_to_make_room_goes_with_the_manager() {
    let rig = Rig::new(MemoryMode::Region);
    let shard = rig.seal(0, Protection::Encrypted);
    rig.manager.seal_model("large", 0, &vec![1; TOTAL]).unwrap();
    assert!(matches!(rig.manager.unseal_model(&shard), Err(VramError::Parked { .. })));
    is_complete(&rig.manager.close(Duration::ZERO));
    assert_eq!(rig.manager.park_capacity().shard_count, 0);
    assert!(rig.manager.park_capacity().used.is_zero());
}

#[test]
fn what_is_leased_is_left_and_the_next_close_finishes() {
    for mode in MODES {
        let rig = Rig::new(mode);
        let shard = rig.seal(0, Protection::Authenticated);
        rig.seal(0, Protection::Encrypted);
        let lease = rig.manager.lease(&shard).unwrap();
        let report = rig.manager.close(Duration::ZERO);
        assert_eq!((report.freed, report.complete), (1, false));
        let [(left, why)] = report.left.as_slice() else { panic!("{report:?}") };
        assert_eq!(left, &shard.shard_id);
        assert!(matches!(why, VramError::InUse { leases: 1, .. }), "{why}");
        let [held] = report.unreturned.as_slice() else { panic!("{report:?}") };
        assert_eq!((held.gpu, held.error), (0, None));
        // It is as good as before for whoever holds the lease.
        assert!(lease.device_pointer().is_some() && lease.ensure_sound().is_ok());
        let books = rig.manager.capacity(0).unwrap();
        assert_eq!(books.used.to_usize().unwrap(), LEN.next_multiple_of(256));

        // With patience it is waited for.
        let (go, gone) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                gone.recv().unwrap();
                drop(lease);
            });
            let closer = scope.spawn(|| rig.manager.close(Duration::MAX));
            go.send(()).unwrap();
            is_complete(&closer.join().unwrap());
        });
        rig.is_gone("the lease has ended");
    }
}

#[test]
fn reservations_are_waited_for_until_they_end_or_expire() {
    for mode in MODES {
        let rig = Rig::new(mode);
        let plan = ModelPlan::new([Piece::new("a", 0, 0, ByteLen::from_usize(LEN))]).unwrap();
        let bytes = rig.manager.reserve(0, ByteLen::new(1000)).unwrap();
        let places = rig.manager.reserve_plan(&plan, GpuChoice::One(1)).unwrap();
        let request = ReserveRequest::new(1, ByteLen::new(512));
        let expiring =
            rig.manager.reserve_with(request.expires_in(Duration::from_millis(1))).unwrap();
        let report = rig.manager.close(Duration::ZERO);
        assert!(report.reservations >= 2 && !report.complete, "{report:?}");
        drop((bytes, places));
        is_complete(&rig.manager.close(Duration::MAX));
        assert!(expiring.remaining().is_zero());
        rig.is_gone("reservations ended");

        // Nothing expires here: the close is told when the last one ends.
        let rig = Rig::new(mode);
        let bytes = rig.manager.reserve(0, ByteLen::new(1000)).unwrap();
        thread::scope(|scope| {
            let closer = scope.spawn(|| rig.manager.close(Duration::MAX));
            while rig.manager.reserve(0, ByteLen::new(1)).is_ok() {
                thread::yield_now();
            }
            (0..100).for_each(|_| thread::yield_now());
            drop(bytes);
            is_complete(&closer.join().unwrap());
        });
        rig.is_gone("the last reservation ended");
    }
}

#[test]
fn what_the_driver_does_not_take_back_is_named_stays_counted_and_is_tried_again() {
    for action in [refuse(), Action::Panic] {
        let rig = Rig::new(MemoryMode::Region);
        rig.seal(0, Protection::Encrypted);
        rig.devices[0].next(Op::Free, action.clone()).unwrap();
        let report = rig.manager.close(Duration::ZERO);
        assert_eq!((report.freed, report.left.len(), report.complete), (1, 0, false));
        let [held] = report.unreturned.as_slice() else { panic!("{report:?}") };
        assert_eq!((held.gpu, held.bytes), (0, ByteLen::from_usize(TOTAL)));
        assert!(held.error.is_some());
        if matches!(action, Action::Panic) {
            continue; // What a panicking driver did with it, nobody knows.
        }
        is_complete(&rig.manager.close(Duration::ZERO));
        rig.is_gone("taken back at last");
    }
}

#[test]
fn bytes_that_could_not_be_wiped_keep_their_memory_from_the_driver_until_they_can() {
    for mode in MODES {
        let ops = match mode {
            MemoryMode::Blocks => vec![Op::Fill, Op::Free],
            _ => vec![Op::Fill],
        };
        for op in ops {
            let rig = Rig::new(mode);
            rig.seal(0, Protection::Encrypted);
            // Once when the shard is freed, once when that is tried again.
            rig.devices[0].next(op, refuse()).unwrap();
            rig.devices[0].add(op, vram_residency::device::fault::When::Nth(2), refuse()).unwrap();
            let report = rig.manager.close(Duration::ZERO);
            let [held] = report.unreturned.as_slice() else { panic!("{mode:?} {report:?}") };
            assert!(held.gpu == 0 && held.error.is_some(), "{mode:?} {op:?}");
            let books = rig.manager.capacity(0).unwrap();
            assert_eq!(books.unreturned.to_usize().unwrap(), LEN.next_multiple_of(256));
            assert_eq!(rig.devices[0].live().len(), 1);
            is_complete(&rig.manager.close(Duration::ZERO));
            rig.is_gone("wiped and taken back at last");
        }
    }
}

#[test]
fn a_lost_gpu_is_left_alone_and_named_and_the_others_are_given_back() {
    for mode in MODES {
        let rig = Rig::new(mode);
        let shard = rig.seal(0, Protection::Encrypted);
        rig.seal(1, Protection::Encrypted);
        rig.devices[0].next(Op::Read, Action::Driver(214)).unwrap();
        assert!(rig.manager.unseal_model(&shard).is_err());
        for _ in 0..2 {
            let report = rig.manager.close(Duration::ZERO);
            let [(left, why)] = report.left.as_slice() else { panic!("{report:?}") };
            assert_eq!(left, &shard.shard_id);
            assert!(matches!(why, VramError::DeviceLost { gpu: 0, .. }), "{why}");
            let [held] = report.unreturned.as_slice() else { panic!("{report:?}") };
            assert!(held.gpu == 0 && held.error.is_some() && !report.complete);
        }
        assert_eq!(rig.devices[0].calls_after_loss(), 0);
        assert_eq!(rig.devices[1].live(), []);
    }
}

/// A reader or sink that does something else as well.
struct Inside<'a, F>(&'a [u8], F);

impl<F: FnMut()> Read for Inside<'_, F> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        (self.1)();
        Read::read(&mut self.0, target)
    }
}

impl<F: FnMut()> Write for Inside<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.1)();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn closing_from_inside_a_call_does_not_wait_for_that_call() {
    for (mode, threads) in [(MODES[0], 1), (MODES[1], 1), (MODES[0], 3)] {
        let threads = Threads::exactly(threads);
        let data = content();
        let len = u64::try_from(LEN).unwrap();

        // From a source, on whichever thread reads it.
        let rig = Rig::on(mode, threads);
        let closed = AtomicU64::new(0);
        let close = || {
            let report = rig.manager.close(Duration::MAX);
            assert!(!report.complete && report.under_way > 0, "{report:?}");
            closed.fetch_add(1, Ordering::Relaxed);
        };
        let source = ReaderSource::new(Inside(&data, close), len);
        let sealed =
            rig.manager.seal_from(SealRequest::new("model", 0), source, SealOptions::new());
        assert!(closed.into_inner() > 0);
        // It was let in before: it is there, to be freed, or it was refused on the way.
        drop(sealed);
        is_complete(&rig.manager.close(Duration::MAX));
        rig.is_gone("from a source");

        // From the callback after the last byte, on the caller's thread.
        let rig = Rig::on(mode, threads);
        let options = SealOptions::new().progress(|_| {
            let report = rig.manager.close(Duration::MAX);
            assert!(!report.complete && report.under_way > 0, "{report:?}");
        });
        drop(rig.manager.seal_from(SealRequest::new("model", 0), SliceSource::new(&data), options));
        is_complete(&rig.manager.close(Duration::MAX));
        rig.is_gone("from a callback");

        // From a sink: the shard that is being read is left.
        let rig = Rig::on(mode, threads);
        let shard = rig.seal(0, Protection::Encrypted);
        let sink = Inside(&[], || {
            let report = rig.manager.close(Duration::MAX);
            assert!(matches!(report.left[0].1, VramError::InUse { leases: 0, .. }), "{report:?}");
        });
        rig.manager.unseal_to(&shard, sink).unwrap();
        is_complete(&rig.manager.close(Duration::MAX));
        rig.is_gone("from a sink");

        // From the device, in the middle of a close.
        let rig = Arc::new(Rig::on(mode, threads));
        rig.seal(0, Protection::Encrypted);
        let inner = Arc::downgrade(&rig);
        let hook = Hook::new(move || {
            let report = inner.upgrade().unwrap().manager.close(Duration::MAX);
            assert!(!report.complete, "{report:?}");
        });
        rig.devices[0].next(Op::Fill, Action::Run(hook)).unwrap();
        is_complete(&rig.manager.close(Duration::MAX));
        rig.is_gone("from a device");
    }
}

/// A source that two threads read: the caller's waits until the other one has closed the manager.
struct TwoReaders<'a> {
    manager: &'a VramManager,
    caller: thread::ThreadId,
    closed: (Mutex<mpsc::Sender<()>>, Mutex<mpsc::Receiver<()>>),
}

impl Source for TwoReaders<'_> {
    fn len(&self) -> u64 {
        LONG
    }

    fn read_at(&self, _offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        let report = if thread::current().id() == self.caller {
            self.closed.1.lock().unwrap().recv().unwrap();
            None
        } else {
            Some(self.manager.close(Duration::MAX))
        };
        self.closed.0.lock().unwrap().send(()).unwrap();
        if let Some(report) = report {
            assert!(!report.complete && report.under_way > 0, "{report:?}");
        }
        target.fill(1);
        Ok(())
    }
}

#[test]
fn closing_from_a_worker_thread_does_not_wait_for_the_call_that_it_works_for() {
    // Enough for several windows, so that both threads have something to read.
    let builder =
        VramManager::builder().host_device(ByteLen::new(LONG)).threads(Threads::exactly(2));
    let manager = builder.build().unwrap();
    let (send, receive) = mpsc::channel();
    let source = TwoReaders {
        manager: &manager,
        caller: thread::current().id(),
        closed: (Mutex::new(send), Mutex::new(receive)),
    };
    let request = SealRequest::new("model", 0);
    drop(manager.seal_from(request, source, SealOptions::new()));
    is_complete(&manager.close(Duration::MAX));
    assert_eq!(manager.get_used_vram(0).unwrap(), 0);
}

/// A clock that closes the manager the next time it is asked.
#[derive(Debug, Default)]
struct ClosingClock(Mutex<Option<Weak<Rig>>>);

impl Clock for ClosingClock {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn monotonic(&self) -> Duration {
        let armed = self.0.lock().unwrap().take();
        if let Some(rig) = armed {
            let report = rig.upgrade().unwrap().manager.close(Duration::MAX);
            assert!(!report.complete && report.under_way == 1, "{report:?}");
        }
        SystemClock.monotonic()
    }
}

/// The manager is closed between a call's check and the moment in which it takes memory.
#[test]
fn a_call_that_was_let_in_before_the_end_takes_nothing_after_it() {
    for mode in MODES {
        let clock = Arc::new(ClosingClock::default());
        let rig = Rig::with(mode, Threads::ONE, |builder| builder.clock(clock.clone()));
        let rig = Arc::new(rig);
        // So that the clock is asked whenever a place is looked for.
        let request = ReserveRequest::new(0, ByteLen::ZERO).expires_in(Duration::ZERO);
        let _room = rig.manager.reserve_with(request).unwrap();
        *clock.0.lock().unwrap() = Some(Arc::downgrade(&rig));
        let refused = rig.manager.seal_model("model", 0, &content()).unwrap_err();
        assert!(clock.0.lock().unwrap().is_none(), "the clock was asked");
        assert!(matches!(refused, VramError::Closed), "{refused}");
        is_complete(&rig.manager.close(Duration::ZERO));
        rig.is_gone("closed in between");
    }
}

#[test]
fn a_seal_that_is_under_way_is_named_and_freed_by_the_next_close() {
    for mode in MODES {
        let rig = Rig::new(mode);
        let data = content();
        let (told, started) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let may_go = Mutex::new(may_go);
        thread::scope(|scope| {
            let sealer = scope.spawn(|| {
                let mut first = Some(told);
                let wait = || {
                    if let Some(told) = first.take() {
                        told.send(()).unwrap();
                        may_go.lock().unwrap().recv().unwrap();
                    }
                };
                let source = ReaderSource::new(Inside(&data, wait), u64::try_from(LEN).unwrap());
                rig.manager.seal_from(SealRequest::new("model", 0), source, SealOptions::new())
            });
            started.recv().unwrap();
            let report = rig.manager.close(Duration::ZERO);
            assert_eq!((report.under_way, report.complete), (1, false));
            assert_eq!(report.unreturned.len(), 1, "the other gpu is given back");
            go.send(()).unwrap();
            drop(sealer.join().unwrap());
        });
        is_complete(&rig.manager.close(Duration::ZERO));
        rig.is_gone("the seal has ended");
    }
}

/// Either a seal is resident before the manager is closed, and is freed, or it is refused: nothing
/// is ever left behind.
#[test]
fn a_seal_that_races_with_the_end_is_freed_or_refused() {
    for round in 0..150_u32 {
        let rig = Rig::new(MODES[usize::try_from(round).unwrap() % 2]);
        let (start, sealed) = (Barrier::new(4), AtomicU64::new(0));
        let parked = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for worker in 0..2_u32 {
                let (rig, start, sealed, parked) = (&rig, &start, &sealed, &parked);
                scope.spawn(move || {
                    start.wait();
                    loop {
                        match rig.manager.seal_model("model", worker % 2, &content()[..SEGMENT]) {
                            Ok(shard) => {
                                sealed.fetch_add(1, Ordering::Relaxed);
                                match rig.manager.park(&shard) {
                                    Ok(waiting) if worker == 0 => {
                                        drop(rig.manager.wake(waiting, 1));
                                    }
                                    Ok(waiting) => parked.lock().unwrap().push(waiting),
                                    Err(error) => assert!(ended(&error), "{error}"),
                                }
                            }
                            Err(error) => {
                                assert!(ended(&error) || error.is_capacity(), "{error}");
                                if ended(&error) {
                                    break;
                                }
                                thread::yield_now();
                            }
                        }
                    }
                });
            }
            // Two close at once: together they finish, and neither is wrong about the other.
            let other = scope.spawn(|| {
                start.wait();
                rig.manager.close(Duration::MAX)
            });
            start.wait();
            for _ in 0..round % 7 {
                thread::yield_now();
            }
            let reports = [rig.manager.close(Duration::MAX), other.join().unwrap()];
            for report in &reports {
                is_complete(report);
            }
        });
        rig.is_gone("raced");
    }
}

fn ended(error: &VramError) -> bool {
    // A shard may be freed between a handle's check and its use.
    matches!(error, VramError::Closed | VramError::ShardFreed { .. })
}

#[test]
fn a_close_that_cannot_wait_for_another_one_says_what_is_there() {
    let rig = Arc::new(Rig::new(MemoryMode::Region));
    rig.seal(0, Protection::Encrypted);
    let (inner, seen) = (Arc::downgrade(&rig), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&seen);
    let hook = Hook::new(move || {
        let rig = inner.upgrade().unwrap();
        let other = thread::spawn(move || rig.manager.close(Duration::ZERO));
        let report = other.join().unwrap();
        assert!(!report.complete && report.under_way == 1 && report.freed == 0, "{report:?}");
        told.store(true, Ordering::Release);
    });
    rig.devices[0].next(Op::Fill, Action::Run(hook)).unwrap();
    is_complete(&rig.manager.close(Duration::ZERO));
    assert!(seen.load(Ordering::Acquire));
}

#[test]
fn a_running_scrubber_ends_with_the_manager_that_is_closed() {
    let rig = Rig::new(MemoryMode::Region);
    let shard = rig.seal(0, Protection::Encrypted);
    let lease = rig.manager.lease(&shard).unwrap();
    let options = ScrubOptions::new(ScrubRate::BytesPerSecond(u64::MAX));
    let scrubber = rig.manager.start_scrubber(options.pass_at_least(Duration::ZERO)).unwrap();
    while scrubber.status().passes == 0 {
        thread::yield_now();
    }
    let report = rig.manager.close(Duration::ZERO);
    assert_eq!(report.left.len(), 1, "it is leased");
    while scrubber.status().running {
        thread::yield_now();
    }
    // What is left is not looked at any more.
    let reads = rig.devices[0].call_count(Op::Read);
    let step = rig.manager.scrub_step(&mut ScrubCursor::new(), ByteLen::MIB);
    assert!(step.idle && step.bytes.is_zero() && matches!(step.error, Some(VramError::Closed)));
    assert_eq!(rig.devices[0].call_count(Op::Read), reads);
    drop((lease, scrubber));
    is_complete(&rig.manager.close(Duration::MAX));
    rig.is_gone("scrubbed");
}

#[test]
fn a_scrubber_that_is_started_while_the_manager_is_closed_ends_too() {
    for round in 0..200_u32 {
        let rig = Rig::new(MemoryMode::Region);
        let start = Barrier::new(2);
        thread::scope(|scope| {
            let scrubber = scope.spawn(|| {
                start.wait();
                rig.manager.start_scrubber(ScrubOptions::new(ScrubRate::Share(1.0)))
            });
            start.wait();
            for _ in 0..round {
                core::hint::spin_loop();
            }
            is_complete(&rig.manager.close(Duration::MAX));
            if let Ok(scrubber) = scrubber.join().unwrap() {
                while scrubber.status().running {
                    thread::yield_now();
                }
            }
        });
    }
}

#[test]
fn a_close_waits_for_a_slow_sink_no_longer_than_asked() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let rig = Rig::with(MemoryMode::Region, Threads::ONE, |builder| {
        builder.event_sink(move |_event: &vram_residency::Event| {
            let _ended = released.lock().unwrap().recv();
        })
    });
    rig.seal(0, Protection::Encrypted);
    let report = rig.manager.close(Duration::from_millis(20));
    assert!(report.complete && !report.events_flushed, "{report:?}");
    assert!(rig.devices[0].live().is_empty(), "nothing waits for it");
    drop(release);
    assert!(rig.manager.close(Duration::MAX).events_flushed);
}
