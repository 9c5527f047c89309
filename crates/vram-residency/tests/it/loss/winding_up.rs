//! A reset of a working GPU waits for running calls there, and can still be refused: a refused
//! reset has no visible effect.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::thread;

use vram_residency::device::fault::{Action, Hook, Op};
use vram_residency::{
    ByteLen, DeviceOffset, MemoryMode, Protection, ReaderSource, ResetOptions, SealOptions,
    SealRequest, VramError,
};

use vram_test_rigs::{ActingWriter, Rig, SEGMENT, content};

use super::{LEN, MODES, TOTAL, is_lost, seal, two_gpus};

/// Starts a forced reset when called, and returns when the GPU takes no more calls.
struct Start {
    rig: Weak<Rig>,
    go: Mutex<Option<mpsc::Sender<()>>>,
    over: Arc<AtomicBool>,
}

impl Start {
    fn now(&self) {
        let Some(go) = self.go.lock().unwrap().take() else { return };
        go.send(()).unwrap();
        let rig = self.rig.upgrade().unwrap();
        while rig.manager.report().gpus[0].lost.is_none() && !self.over.load(Ordering::Acquire) {
            thread::yield_now();
        }
    }
}

/// Runs `work` while a reader blocks any reset, until the reset that `work` starts has given up
/// waiting.
fn while_a_reset_waits(rig: &Arc<Rig>, work: impl FnOnce(Arc<Start>)) {
    let held = rig.manager.seal_model("held", 0, b"held").unwrap();
    let (go, started) = mpsc::channel();
    let (entered, inside) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let over = Arc::new(AtomicBool::new(false));
    let start = Start { rig: Arc::downgrade(rig), go: Some(go).into(), over: Arc::clone(&over) };
    thread::scope(|scope| {
        let sink = ActingWriter(move |bytes: &[u8]| {
            entered.send(()).unwrap();
            released.recv().unwrap();
            Ok(bytes.len())
        });
        scope.spawn(|| rig.manager.unseal_to(&held, sink).unwrap());
        inside.recv().unwrap();
        scope.spawn(move || {
            started.recv().unwrap();
            let options = ResetOptions::new().force().within(Duration::from_millis(200));
            let refused = rig.manager.reset_gpu(0, options).unwrap_err();
            assert!(matches!(refused, VramError::GpuInUse { gpu: 0, .. }), "{refused}");
            over.store(true, Ordering::Release);
            release.send(()).unwrap();
        });
        work(Arc::new(start));
    });
    assert!(rig.manager.report().gpus[0].lost.is_none());
    rig.manager.free_shard(&held).unwrap();
}

struct Starting<'a> {
    data: &'a [u8],
    start: Arc<Start>,
}

impl Read for Starting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.data.len() < LEN - 2 * SEGMENT {
            self.start.now();
        }
        let len = buffer.len().min(SEGMENT);
        self.data.read(&mut buffer[..len])
    }
}

/// P18, P6: a call that ends because of a reset leaves no byte behind, even if the reset is
/// refused.
#[test]
fn what_a_call_leaves_while_a_reset_waits_is_wiped_and_given_back() {
    for mode in MODES {
        let rig = Arc::new(two_gpus(mode));
        let data = content(LEN, 2);
        while_a_reset_waits(&rig, |start| {
            let reader = Starting { data: &data, start };
            let source = ReaderSource::new(reader, u64::try_from(LEN).unwrap());
            let request = SealRequest::new("model", 0).protection(Protection::Authenticated);
            let sealed = rig.manager.seal_from(request, source, SealOptions::new());
            // Unless the reset gave up before the seal checked the device.
            assert!(is_lost(sealed) || rig.manager.report().gpus[0].lost.is_none());
        });
        for shard in rig.manager.shards() {
            rig.manager.free_shard(&shard).unwrap();
        }
        rig.books_agree("a reset was refused");
        for (number, len) in rig.devices[0].live() {
            let held = rig.devices[0].inspect(Some(number), DeviceOffset::START, len).unwrap();
            assert!(!held.windows(64).any(|part| data.windows(64).step_by(64).any(|d| d == part)));
        }
        rig.is_whole(0);
    }
}

/// A shard that is being sealed again in place has one seal as a whole, whatever the reset does.
#[test]
fn a_shard_that_is_rewritten_in_place_is_whole_though_a_reset_waits() {
    let rig = Arc::new(two_gpus(MemoryMode::Region));
    let len = TOTAL - 6 * SEGMENT;
    let data = content(len, 4);
    let shard = rig.manager.seal_model("large", 0, &data).unwrap();
    while_a_reset_waits(&rig, |start| {
        rig.devices[0].next(Op::Write, Action::Run(Hook::new(move || start.now()))).unwrap();
        drop(rig.manager.open_resident(&shard));
        assert!(rig.devices[0].call_count(Op::Write) > 1, "it was rewritten in place");
    });
    let shard = rig.manager.shard(&shard.shard_id).unwrap();
    assert!(rig.manager.unseal_and_free(&shard).unwrap() == data);
    rig.is_whole(0);
    assert_eq!(rig.books(0).used, ByteLen::ZERO);
}

/// While a reset wipes and empties a GPU that works, nothing leaves it: a call is told to try again.
#[test]
fn no_shard_leaves_while_its_gpu_is_wiped() {
    for mode in MODES {
        let rig = Arc::new(two_gpus(mode));
        let mut shards: Vec<_> =
            (0..2).map(|seed| seal(&rig, 1, Protection::Encrypted, seed)).collect();
        shards.sort_unstable_by(|a, b| a.shard_id.cmp(&b.shard_id));
        for shard in &shards {
            let _held = rig.manager.back_up(shard).unwrap();
        }
        let (weak, last) = (Arc::downgrade(&rig), shards[1].clone());
        let wakes = Hook::new(move || {
            let rig = weak.upgrade().unwrap();
            let refused = rig.manager.park(&last);
            assert!(matches!(refused, Err(VramError::GpuInUse { gpu: 1, .. })), "{refused:?}");
        });
        // During the wipe of the first one.
        rig.devices[1].next(Op::Fill, Action::Run(wakes)).unwrap();
        let report = rig.manager.reset_gpu(1, ResetOptions::new().force()).unwrap();
        assert_eq!(report.restored.len(), 2);
        for shard in &shards {
            let now = rig.manager.shard(&shard.shard_id).unwrap();
            assert_eq!(now.gpu_index, 1);
            let data = rig.manager.unseal_and_free(&now).unwrap();
            assert!((0..2).any(|seed| data == content(LEN, seed)));
        }
        rig.is_whole(0);
        rig.is_whole(1);
    }
}
