//! One life of a GPU's memory after the other: what waits, what is told, and what is refused.

use core::time::Duration;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Instant;

use vram_alloc::{ByteLen, GpuIndex};
use vram_gpu::GpuError;
use vram_gpu::fault::{Action, Hook, Op};
use vram_space::{DryRun, Gpu, MemoryMode, Space, SpaceError, Tenants, WipePolicy};

use super::{BOTH, Bench, bench, filled, open};

/// Longer than anything takes here that does not hang.
const PATIENCE: Duration = Duration::from_secs(20);
const BRIEF: Duration = Duration::from_millis(100);

const LOSS: GpuError =
    GpuError::Driver { gpu: GpuIndex::new(0), code: 700, name: "a loss", sticky: true };

/// Begins the next life after a loss.
fn begin_anew(gpu: &Gpu) {
    gpu.lose(LOSS, None);
    gpu.renew(gpu.empty().unwrap());
    gpu.recover(|| ());
}

/// An owner that takes its time to hear of a loss.
#[derive(Debug)]
struct Slow {
    inside: mpsc::Sender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl Tenants for Slow {
    fn stamp(&self) -> u64 {
        0
    }

    fn sweep(&self) {}

    fn lost(&self, _stamp: u64, _gpu: u32, _error: GpuError) -> usize {
        let _ = self.inside.send(());
        let _ = self.go_on.lock().unwrap().recv_timeout(PATIENCE);
        0
    }

    fn not_returned(&self, _gpu: u32, _bytes: ByteLen) {}

    fn came_back(&self, _gpu: u32, _bytes: ByteLen) {}
}

/// Otherwise what arrives would be missing in what is told of the loss, or be told after it.
#[test]
fn nothing_arrives_while_a_loss_is_told() {
    let ((inside, is_inside), (go, go_on)) = (mpsc::channel(), mpsc::channel());
    let owner = Arc::new(Slow { inside, go_on: Mutex::new(go_on) });
    let (_device, gpu) = open(owner, MemoryMode::Region, WipePolicy::Always);
    let pass = gpu.enter().unwrap();
    let losing = Arc::clone(&gpu);
    thread::spawn(move || losing.lose(LOSS, None));
    is_inside.recv_timeout(PATIENCE).unwrap();
    let (told, answer) = mpsc::channel();
    let arriving = Arc::clone(&gpu);
    thread::spawn(move || told.send(arriving.arrive(&pass, || ()).is_ok()));
    let early = answer.recv_timeout(BRIEF);
    go.send(()).unwrap();
    assert!(early.is_err(), "it did not wait: {early:?}");
    assert_eq!(answer.recv_timeout(PATIENCE), Ok(false));
}

/// To a reset they are one call, which is asked about the device before each piece.
#[test]
fn what_one_call_places_is_under_way_until_its_last_piece_is_done() {
    for mode in BOTH {
        let Bench { gpu, .. } = bench(mode, WipePolicy::Always);
        let placing = gpu.begin_placing().unwrap();
        let mut spaces = [256, 512].map(|len| placing.place(ByteLen::new(len)).unwrap());
        drop(placing);
        for space in &mut spaces {
            assert_eq!(gpu.life.quiet_until(Some(Instant::now()), false), Err(1), "{mode:?}");
            space.finish_placing();
        }
        assert_eq!(gpu.life.quiet_until(Some(Instant::now()), false), Ok(()), "{mode:?}");

        let placing = gpu.begin_placing().unwrap();
        gpu.lose(LOSS, None);
        let late = placing.place(ByteLen::new(256));
        assert!(matches!(late, Err(SpaceError::DeviceLost { .. })), "{mode:?}: {late:?}");
    }
}

#[test]
fn what_a_call_of_an_earlier_life_brings_does_not_arrive_in_the_next() {
    for mode in BOTH {
        let Bench { gpu, .. } = bench(mode, WipePolicy::Always);
        let pass = gpu.enter().unwrap();
        begin_anew(&gpu);
        let refused = gpu.arrive(&pass, || panic!("it arrived"));
        assert!(matches!(refused, Err(SpaceError::InUse { .. })), "{refused:?}");
        let pass = gpu.enter().unwrap();
        assert_eq!(gpu.arrive(&pass, || 7).unwrap(), 7);
    }
}

#[test]
fn an_error_of_an_earlier_life_is_no_loss_of_the_next() {
    for mode in BOTH {
        let Bench { gpu, owner, .. } = bench(mode, WipePolicy::Always);
        let epoch = gpu.life.epoch();
        begin_anew(&gpu);
        gpu.lose(LOSS, Some(epoch));
        assert!(gpu.lost().is_none());
        assert_eq!(owner.told(), ["lost 3"]);
        gpu.lose(LOSS, Some(gpu.life.epoch()));
        assert!(gpu.lost().is_some());
    }
}

/// Also if a call still holds that memory, so that the device alone would have to refuse.
#[test]
fn nothing_is_sent_to_memory_of_an_earlier_life() {
    for mode in BOTH {
        let Bench { device, gpu, .. } = bench(mode, WipePolicy::Always);
        let old = filled(&gpu);
        let mut promised = gpu.place(ByteLen::new(1000)).unwrap();
        promised.open().unwrap();
        promised.finish_placing();
        let _held = (old.memory().unwrap(), promised.memory().unwrap());
        begin_anew(&gpu);
        device.clear_log();
        let returned = old.give_back().unwrap();
        assert!(!returned.wiped && gpu.unreturned().is_none());
        assert_eq!(device.call_count(Op::Fill), 0);

        promised.written().unwrap();
        promised.memory().unwrap().write(promised.range(), &[7; 1000]).unwrap();
        assert!(gpu.lost().is_none());
    }
}

#[test]
fn a_wait_for_calls_ends_with_the_last_of_them() {
    let Bench { gpu, .. } = bench(MemoryMode::Region, WipePolicy::Always);
    let call = gpu.enter().unwrap();
    let (told, answer) = mpsc::channel();
    let waiting = Arc::clone(&gpu);
    thread::spawn(move || {
        let deadline = Instant::now().checked_add(2 * PATIENCE);
        told.send(waiting.life.quiet_until(deadline, false))
    });
    assert!(answer.recv_timeout(BRIEF).is_err(), "it did not wait");
    drop(call);
    assert_eq!(answer.recv_timeout(PATIENCE / 2), Ok(Ok(())));
}

#[test]
fn a_wait_for_calls_is_also_one_for_what_goes_back() {
    for mode in BOTH {
        let Bench { device, gpu, .. } = bench(mode, WipePolicy::Always);
        let mut space = filled(&gpu);
        space.finish_placing();
        let ((inside, is_inside), (go, go_on)) = (mpsc::channel(), mpsc::channel::<()>());
        let ends = Mutex::new((inside, go_on));
        let hook = Hook::new(move || {
            let ends = ends.lock().unwrap();
            let _ = ends.0.send(());
            let _ = ends.1.recv_timeout(PATIENCE);
        });
        device.next(Op::Fill, Action::Run(hook)).unwrap();
        thread::spawn(move || drop(space));
        is_inside.recv_timeout(PATIENCE).unwrap();
        let quiet = |wait| gpu.life.quiet_until(Instant::now().checked_add(wait), false);
        let early = quiet(BRIEF);
        go.send(()).unwrap();
        assert_eq!(early, Err(1));
        assert_eq!(quiet(PATIENCE), Ok(()));
    }
}

/// Bytes in flight would be taken for those of another process.
#[test]
fn a_figure_of_the_driver_does_not_count_if_a_block_came_meanwhile() {
    let Bench { device, gpu, .. } = bench(MemoryMode::Blocks, WipePolicy::Always);
    let came: Arc<Mutex<Option<Space>>> = Arc::default();
    let (weak, theirs) = (Arc::downgrade(&gpu), Arc::clone(&came));
    let hook = Hook::new(move || {
        let Some(gpu) = weak.upgrade() else { return };
        // On another thread: this one asks for the figures.
        let space = thread::spawn(move || filled(&gpu)).join().unwrap();
        *theirs.lock().unwrap() = Some(space);
    });
    device.next(Op::Memory, Action::Run(hook)).unwrap();
    let figures = gpu.refresh().unwrap();
    assert!(came.lock().unwrap().is_some(), "the hook did not run");
    assert!(figures.steady && figures.ours == ByteLen::new(1024), "{figures:?}");
    assert_eq!(gpu.ledger.capacity().foreign, ByteLen::ZERO);
}

#[test]
fn a_dry_run_removes_a_placement_once() {
    for mode in BOTH {
        let Bench { gpu, .. } = bench(mode, WipePolicy::Always);
        let (space, _other) = (filled(&gpu), filled(&gpu));
        let mut dry_run = DryRun::of(core::slice::from_ref(&gpu));
        assert!(space.remove_from(&mut dry_run));
        let room = dry_run.room();
        assert!(!space.remove_from(&mut dry_run));
        assert_eq!(dry_run.room(), room);
    }
}

/// What was let in ends in its own time; its memory comes back, and nobody follows.
#[test]
fn an_owner_that_closes_lets_nobody_in_while_the_last_call_runs() {
    for mode in BOTH {
        let Bench { gpu, .. } = bench(mode, WipePolicy::Always);
        let running = gpu.enter().unwrap();
        gpu.life.close();
        assert!(matches!(gpu.enter(), Err(SpaceError::Closed)), "{mode:?}");
        assert!(matches!(gpu.place(ByteLen::new(100)), Err(SpaceError::Closed)), "{mode:?}");
        gpu.ready().unwrap();
        drop(running);
        assert!(matches!(gpu.enter(), Err(SpaceError::Closed)), "{mode:?}");
    }
}
