//! Staging memory has one bound for all calls of a manager.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use vram_residency::device::{Device, HostDevice};
use vram_residency::{
    ByteLen, Class, ExportOptions, GpuIndex, Limits, NotRestored, ResetOptions, SealKey,
    SealOptions, SealRequest, SegmentSize, Threads, VramError, VramManager,
};
use vram_test_rigs::{ActingSource, ActingWriter, SEGMENT, content};

/// No step of these tests takes longer on any machine.
const LONG: Duration = Duration::from_mins(1);

/// A device that counts the bytes of its live staging buffers.
mod counting {
    use super::{Arc, AtomicU64, Device, HostDevice, Ordering};

    use vram_residency::ByteLen;
    use vram_residency::device::{
        DeviceInfo, DeviceMemory, DeviceState, GpuError, MemoryInfo, Staging, StagingBuffer,
    };

    /// Bytes of live buffers of several devices: now, and the most so far.
    #[derive(Debug, Default)]
    pub(super) struct Live {
        now: AtomicU64,
        most: AtomicU64,
    }

    impl Live {
        pub(super) fn most(&self) -> u64 {
            self.most.load(Ordering::SeqCst)
        }

        pub(super) fn now(&self) -> u64 {
            self.now.load(Ordering::SeqCst)
        }
    }

    #[derive(Debug)]
    struct Counted {
        bytes: Vec<u8>,
        live: Arc<Live>,
    }

    impl StagingBuffer for Counted {
        fn as_slice(&self) -> &[u8] {
            &self.bytes
        }

        fn as_mut_slice(&mut self) -> &mut [u8] {
            &mut self.bytes
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.live.now.fetch_sub(self.bytes.len() as u64, Ordering::SeqCst);
        }
    }

    #[derive(Debug)]
    pub(super) struct Counting {
        pub(super) inner: HostDevice,
        pub(super) live: Arc<Live>,
    }

    impl Device for Counting {
        fn info(&self) -> &DeviceInfo {
            self.inner.info()
        }

        fn memory(&self) -> Result<MemoryInfo, GpuError> {
            self.inner.memory()
        }

        fn allocate(&self, len: ByteLen) -> Result<Box<dyn DeviceMemory>, GpuError> {
            self.inner.allocate(len)
        }

        fn staging(&self, len: ByteLen) -> Result<Staging, GpuError> {
            let now = self.live.now.fetch_add(len.get(), Ordering::SeqCst) + len.get();
            self.live.most.fetch_max(now, Ordering::SeqCst);
            let (bytes, live) = (vec![0; len.to_usize().unwrap()], Arc::clone(&self.live));
            Ok(Staging::special(Box::new(Counted { bytes, live })))
        }

        fn state(&self) -> DeviceState {
            self.inner.state()
        }

        fn reset(&self) -> Result<(), GpuError> {
            self.inner.reset()
        }

        fn can_copy_from_peer(&self, _other: &dyn Device) -> bool {
            // Migrations go through staging.
            false
        }

        fn backing(&self) -> &dyn Device {
            self.inner.backing()
        }

        fn as_any(&self) -> &dyn core::any::Any {
            self
        }
    }
}

use counting::{Counting, Live};

/// A manager of GPUs with these budgets, whose calls may hold `one` bytes of staging and all
/// together `all`, and the count of live staging bytes.
fn manager(budgets: &[usize], one: usize, all: usize, wait: Duration) -> (VramManager, Arc<Live>) {
    let live = Arc::<Live>::default();
    let bytes = ByteLen::from_usize;
    let limits = Limits::default().staging_bytes(bytes(one)).staging_total(bytes(all));
    let mut builder = VramManager::builder()
        .key(SealKey::from_bytes(&[7; 32]))
        .segment_size(SegmentSize::MIN)
        .threads(Threads::exactly(4))
        .limits(limits.staging_wait(wait));
    for (index, budget) in (0..).zip(budgets) {
        let inner = HostDevice::new(GpuIndex::new(index), bytes(*budget)).unwrap();
        let device: Arc<dyn Device> = Arc::new(Counting { inner, live: Arc::clone(&live) });
        builder = builder.device(device);
    }
    (builder.build().unwrap(), live)
}

/// Waits for `count` threads, and fails with the name of the one that is late.
fn all_came(done: &Receiver<String>, mut names: Vec<String>) {
    let deadline = Instant::now() + LONG;
    while !names.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let name = done.recv_timeout(left).unwrap_or_else(|_| panic!("still at work: {names:?}"));
        names.retain(|other| *other != name);
    }
}

#[test]
fn many_calls_at_once_never_exceed_the_bound_of_staging_and_all_come_through() {
    // Seven buffers of one segment, of which some calls need two.
    const ALL: usize = 7 * SEGMENT;
    const LEN: usize = 9 * SEGMENT + 5;
    // GPU 0 is full, so that resealing works in place, with two buffers that it cannot do without.
    let budget = 8 * LEN.next_multiple_of(256);
    let (manager, live) = manager(&[budget, 16 * LEN], 4 * SEGMENT, ALL, LONG);
    let manager = Arc::new(manager);
    let keys = [manager.active_key(), {
        let key = SealKey::from_bytes(&[8; 32]);
        let id = key.id();
        manager.add_key(key).unwrap();
        id
    }];
    let (done, came) = channel();
    let mut names = Vec::new();
    let resident: Vec<_> = (0..8_u64)
        .map(|seat| {
            let bytes = content(LEN, seat);
            (seat, manager.seal_model("resident", 0, &bytes).unwrap(), bytes)
        })
        .collect();
    for (seat, mut shard, bytes) in resident {
        let name = format!("reader and resealer {seat}");
        names.push(name.clone());
        let (manager, done) = (Arc::clone(&manager), done.clone());
        thread::spawn(move || {
            for round in 0..6 {
                assert_eq!(manager.unseal_model(&shard).unwrap(), bytes);
                shard = manager.reseal_shard(&shard, &keys[(round + 1) % 2]).unwrap();
                assert!(manager.verify_shard_integrity(&shard).unwrap());
            }
            drop(manager);
            done.send(name).unwrap();
        });
    }
    for seat in 0..8_u64 {
        let name = format!("sealer {seat}");
        names.push(name.clone());
        let (manager, done) = (Arc::clone(&manager), done.clone());
        thread::spawn(move || {
            let bytes = content(LEN, 100 + seat);
            for _ in 0..6 {
                let source = ActingSource::new(bytes.clone(), |_, _: &mut [u8]| {
                    thread::yield_now();
                    Ok(())
                });
                let request = SealRequest::new("passing", 1);
                let shard = manager.seal_from(request, &source, SealOptions::new()).unwrap();
                let mut out = Vec::new();
                manager.unseal_to(&shard, &mut out).unwrap();
                assert_eq!(out, bytes);
                manager.free_shard(&shard).unwrap();
            }
            drop(manager);
            done.send(name).unwrap();
        });
    }
    all_came(&came, names);
    let most = live.most();
    assert!(most <= ALL as u64, "{most} bytes of staging at once");
    assert!(most > 4 * SEGMENT as u64, "{most}: the calls never met");
    drop(manager);
    assert_eq!(live.now(), 0, "staging outlived its manager");
}

/// Seals that hold a buffer until the returned sender is dropped or sends.
fn hold(
    manager: &Arc<VramManager>,
    (seat, gpu): (u64, u32),
    done: &Sender<String>,
) -> (Sender<()>, String) {
    let (go_on, wait) = channel::<()>();
    let (began, has_begun) = channel();
    let name = format!("slow seal {seat}");
    let (manager, done, own) = (Arc::clone(manager), done.clone(), name.clone());
    thread::spawn(move || {
        let (wait, began) = (Mutex::new(wait), Mutex::new(began));
        let source = ActingSource::new(vec![1; SEGMENT], move |_, _: &mut [u8]| {
            began.lock().unwrap().send(()).unwrap();
            let _until_dropped = wait.lock().unwrap().recv_timeout(LONG);
            Ok(())
        });
        let request = SealRequest::new("slow", gpu);
        manager.seal_from(request, &source, SealOptions::new()).unwrap();
        done.send(own).unwrap();
    });
    has_begun.recv_timeout(LONG).unwrap();
    (go_on, name)
}

#[test]
fn slow_sources_that_hold_all_staging_do_not_hang_other_calls() {
    let wait = Duration::from_millis(50);
    let (manager, live) = manager(&[1 << 20], SEGMENT, 2 * SEGMENT, wait);
    let manager = Arc::new(manager);
    let bytes = content(3 * SEGMENT, 1);
    let shard = manager.seal_model("m", 0, &bytes).unwrap();
    let (done, came) = channel();
    let (first, first_name) = hold(&manager, (1, 0), &done);
    // One buffer is left: slower, and it comes through.
    assert_eq!(manager.unseal_model(&shard).unwrap(), bytes);

    let (second, second_name) = hold(&manager, (2, 0), &done);
    let (answer, answered) = channel();
    {
        let (manager, shard) = (Arc::clone(&manager), shard.clone());
        thread::spawn(move || answer.send(manager.unseal_model(&shard)).unwrap());
    }
    let refused = answered.recv_timeout(LONG).unwrap().unwrap_err();
    let all = ByteLen::from_usize(2 * SEGMENT);
    match &refused {
        VramError::StagingLimit { needed, taken, limit } => {
            assert_eq!((*needed, *taken, *limit), (ByteLen::from_usize(SEGMENT), all, all));
        }
        other => panic!("{other}"),
    }
    assert_eq!((refused.class(), refused.code()), (Class::Retry, "staging-limit"));
    assert!(refused.retry_after().is_some());
    assert!(refused.to_string().contains("8.0 KiB"), "{refused}");

    drop((first, second));
    all_came(&came, vec![first_name, second_name]);
    assert_eq!(manager.unseal_model(&shard).unwrap(), bytes);
    assert!(live.most() <= all.get());
}

#[test]
fn a_reset_waits_for_staging_before_it_gives_up_a_shard_that_has_an_image() {
    let wait = Duration::from_millis(10);
    let (manager, _live) = manager(&[1 << 20; 2], SEGMENT, SEGMENT, wait);
    let (manager, folder) = (Arc::new(manager), tempfile::tempdir().unwrap());
    let bytes = content(3 * SEGMENT, 1);
    let shard = manager.seal_model("m", 0, &bytes).unwrap();
    let image = folder.path().join("image");
    manager.export_to(&shard, image, ExportOptions::new()).unwrap();

    let (done, came) = channel();
    let (go_on, name) = hold(&manager, (1, 1), &done);
    let (answer, answered) = channel();
    {
        let manager = Arc::clone(&manager);
        let options = ResetOptions::new().force().within(LONG);
        thread::spawn(move || answer.send(manager.reset_gpu(0, options)).unwrap());
    }
    // Many times as long as one call waits for staging.
    let early = answered.recv_timeout(20 * wait);
    assert!(early.is_err(), "{early:?}");
    drop(go_on);
    let report = answered.recv_timeout(LONG).unwrap().unwrap();
    let [back] = report.restored.as_slice() else { panic!("{report:?}") };
    assert_eq!(manager.unseal_model(back).unwrap(), bytes);
    all_came(&came, vec![name]);

    // Not for ever: the reset says why the shard is lost.
    let image = folder.path().join("again");
    manager.export_to(back, image, ExportOptions::new()).unwrap();
    let (go_on, name) = hold(&manager, (1, 1), &done);
    let options = ResetOptions::new().force().within(Duration::from_millis(50));
    let report = manager.reset_gpu(0, options).unwrap();
    let [lost] = report.lost.as_slice() else { panic!("{report:?}") };
    let why = &lost.why;
    assert!(matches!(why, NotRestored::Failed(VramError::StagingLimit { .. })), "{why}");
    drop(go_on);
    all_came(&came, vec![name]);
}

#[test]
fn a_sink_holds_no_staging_however_slow_it_is() {
    let wait = Duration::from_millis(50);
    let (manager, _live) = manager(&[1 << 20], SEGMENT, SEGMENT, wait);
    let manager = Arc::new(manager);
    let bytes = content(3 * SEGMENT, 1);
    let shard = manager.seal_model("m", 0, &bytes).unwrap();
    let ((go_on, wait), (began, has_begun), (done, is_done)) = (channel(), channel(), channel());
    {
        let (manager, shard) = (Arc::clone(&manager), shard.clone());
        thread::spawn(move || {
            let sink = ActingWriter(|bytes: &[u8]| {
                let _first_only = began.send(());
                let _until_dropped: Result<(), _> = wait.recv_timeout(LONG);
                Ok(bytes.len())
            });
            done.send(manager.unseal_to(&shard, sink)).unwrap();
        });
    }
    has_begun.recv_timeout(LONG).unwrap();
    assert_eq!(manager.unseal_model(&shard).unwrap(), bytes);
    drop(go_on);
    is_done.recv_timeout(LONG).unwrap().unwrap();
}

#[test]
fn a_source_that_reads_the_same_manager_is_refused_in_time_where_staging_is_for_one() {
    let wait = Duration::from_millis(50);
    let (manager, _live) = manager(&[1 << 20], SEGMENT, SEGMENT, wait);
    let manager = Arc::new(manager);
    let inner = manager.seal_model("inner", 0, &[5; 100]).unwrap();
    let (answer, answered) = channel();
    let reader = Arc::clone(&manager);
    thread::spawn(move || {
        let nested = Mutex::new(None);
        let source = ActingSource::new(vec![1; 100], |_, _: &mut [u8]| {
            *nested.lock().unwrap() = Some(reader.unseal_model(&inner));
            Ok(())
        });
        let request = SealRequest::new("outer", 0);
        let outer = reader.seal_from(request, &source, SealOptions::new()).map(drop);
        let nested = nested.lock().unwrap().take();
        answer.send((outer, nested)).unwrap();
    });
    let (outer, nested) = answered.recv_timeout(LONG).unwrap();
    outer.unwrap();
    assert!(matches!(nested, Some(Err(VramError::StagingLimit { .. }))), "{nested:?}");
    drop(manager);
}

#[test]
fn a_bound_for_all_calls_below_that_of_one_call_is_no_configuration() {
    let limits = Limits::default()
        .staging_bytes(ByteLen::from_usize(2 * SEGMENT))
        .staging_total(ByteLen::from_usize(SEGMENT));
    let builder = VramManager::builder().host_device(ByteLen::MIB).limits(limits);
    let refused = builder.segment_size(SegmentSize::MIN).build().unwrap_err();
    assert!(refused.to_string().contains("all calls"), "{refused}");
}
