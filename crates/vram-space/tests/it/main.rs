//! Device memory used alone: the counts, the wipes, and the effects of a lost device.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[macro_use]
extern crate vram_testkit;

mod lives;

use core::time::Duration;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use vram_alloc::{ByteLen, DeviceRange, GpuIndex};
use vram_gpu::fault::{Action, FaultPlan, Op, When};
use vram_gpu::{Device, FaultDevice, GpuError, HostDevice, codes};
use vram_space::{
    Compute, Gpu, GpuOptions, Means, MemoryMode, Space, SpaceError, StagingBound, Tenants,
    WipePolicy,
};

#[derive(Debug, Default)]
struct Owner {
    told: Mutex<Vec<String>>,
}

impl Owner {
    fn told(&self) -> Vec<String> {
        core::mem::take(&mut self.told.lock().unwrap())
    }
}

impl Tenants for Owner {
    fn stamp(&self) -> u64 {
        0
    }

    fn sweep(&self) {}

    fn lost(&self, _stamp: u64, gpu: u32, _error: GpuError) -> usize {
        self.told.lock().unwrap().push(format!("lost {gpu}"));
        0
    }

    fn not_returned(&self, gpu: u32, bytes: ByteLen) {
        self.told.lock().unwrap().push(format!("{} kept on {gpu}", bytes.get()));
    }

    fn came_back(&self, gpu: u32, bytes: ByteLen) {
        self.told.lock().unwrap().push(format!("{} back on {gpu}", bytes.get()));
    }
}

struct Bench {
    device: Arc<FaultDevice>,
    owner: Arc<Owner>,
    gpu: Arc<Gpu>,
}

fn bench(mode: MemoryMode, wipe: WipePolicy) -> Bench {
    let owner = Arc::<Owner>::default();
    let (device, gpu) = open(Arc::<Owner>::clone(&owner), mode, wipe);
    Bench { device, owner, gpu }
}

fn open(
    owner: Arc<dyn Tenants>,
    mode: MemoryMode,
    wipe: WipePolicy,
) -> (Arc<FaultDevice>, Arc<Gpu>) {
    let host = Arc::new(HostDevice::new(GpuIndex::new(0), ByteLen::MIB).unwrap());
    let device = FaultDevice::new(host, FaultPlan::new(1));
    let memory = device.memory().unwrap();
    let options = GpuOptions {
        index: 3,
        budget: ByteLen::MIB,
        headroom: ByteLen::ZERO,
        mode,
        wipe,
        means: Means {
            workers: 1,
            staging_bytes: ByteLen::MIB,
            staging: StagingBound::for_calls_of(ByteLen::MIB),
        },
        compute: Compute::default(),
    };
    let shared: Arc<dyn Device> = Arc::<FaultDevice>::clone(&device);
    let gpu = Gpu::open(shared, memory, owner, options).unwrap();
    device.clear_log();
    (device, Arc::new(gpu))
}

const BOTH: [MemoryMode; 2] = [MemoryMode::Region, MemoryMode::Blocks];

#[test]
fn what_is_placed_is_counted_and_what_is_dropped_is_not() {
    for mode in BOTH {
        let Bench { gpu, .. } = bench(mode, WipePolicy::Always);
        let mut space = gpu.place(ByteLen::new(1000)).unwrap();
        assert_eq!(
            (gpu.capacity().reserved, gpu.capacity().used),
            (ByteLen::new(1024), ByteLen::ZERO)
        );
        space.commit();
        assert_eq!(
            (gpu.capacity().reserved, gpu.capacity().used),
            (ByteLen::ZERO, ByteLen::new(1024))
        );
        drop(space);
        assert_eq!(gpu.capacity().free, ByteLen::MIB);
    }
}

#[test]
fn a_refusal_says_what_is_missing_and_takes_nothing() {
    for mode in BOTH {
        let Bench { gpu, .. } = bench(mode, WipePolicy::Always);
        let held = gpu.place(ByteLen::new(1 << 19)).unwrap();
        let wanted = ByteLen::new((1 << 19) + 1);
        let SpaceError::NoRoom(lack) = gpu.place(wanted).unwrap_err() else { panic!("no room") };
        assert_eq!((lack.gpu, lack.room), (3, ByteLen::new(1 << 19)));
        assert!(lack.needed > lack.room && lack.largest_hole == lack.room);
        drop(held);
        assert_eq!(gpu.capacity().free, ByteLen::MIB);
    }
}

#[test]
fn written_bytes_are_zeros_when_they_go_back_and_untouched_ones_cost_no_call() {
    let Bench { device, gpu, .. } = bench(MemoryMode::Region, WipePolicy::Always);
    drop(gpu.place(ByteLen::new(600)).unwrap());
    assert_eq!(device.call_count(Op::Fill), 0, "nothing was written");

    let mut space = gpu.place(ByteLen::new(600)).unwrap();
    space.written().unwrap();
    let range = space.range();
    space.memory().unwrap().write(range, &[9; 600]).unwrap();
    assert!(space.give_back().unwrap().wiped);
    let again = gpu.place(ByteLen::new(600)).unwrap();
    let mut bytes = [1; 600];
    again.memory().unwrap().read(range, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 600]);
}

/// A space that holds a shard of 1000 bytes, which take 1024.
fn filled(gpu: &Arc<Gpu>) -> Space {
    let mut space = gpu.place(ByteLen::new(1000)).unwrap();
    space.written().unwrap();
    space.commit();
    space
}

#[test]
fn bytes_that_cannot_be_wiped_are_handed_out_to_nobody_until_they_were_wiped() {
    const AT_ONCE: Duration = Duration::from_secs(30);
    for mode in BOTH {
        let Bench { device, owner, gpu } = bench(mode, WipePolicy::Always);
        let space = filled(&gpu);
        device.add(Op::Fill, When::From(1), Action::Driver(codes::INVALID_VALUE)).unwrap();
        let (bytes, _why) = space.give_back().unwrap_err();
        assert_eq!((bytes, gpu.capacity().unreturned), (ByteLen::new(1024), ByteLen::new(1024)));
        assert_eq!(owner.told(), ["1024 kept on 3"]);
        for _ in 0..3 {
            assert!(gpu.place(ByteLen::MIB).is_err(), "it is not there");
        }
        assert_eq!(owner.told(), [""; 0], "told once, however often it is tried");
        assert!(gpu.unreturned().is_some());

        device.clear();
        let deadline = Instant::now() + AT_ONCE;
        while gpu.place(ByteLen::MIB).is_err() {
            assert!(Instant::now() < deadline, "the bytes did not come back");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(owner.told(), ["1024 back on 3"]);
        assert!(gpu.unreturned().is_none() && gpu.capacity().unreturned.is_zero());
    }
}

#[test]
fn a_refusal_that_passes_at_once_costs_no_bytes() {
    for mode in BOTH {
        for op in [Op::Fill, Op::Free] {
            let Bench { device, owner, gpu } = bench(mode, WipePolicy::Always);
            let space = filled(&gpu);
            if mode == MemoryMode::Region && op == Op::Free {
                continue;
            }
            device.next(op, Action::Driver(codes::INVALID_VALUE)).unwrap();
            space.give_back().unwrap_err();
            // The very next call that wants room finds it.
            drop(gpu.place(ByteLen::MIB).unwrap());
            assert_eq!(owner.told(), ["1024 kept on 3", "1024 back on 3"]);
            assert!(device.live().len() <= 1, "{:?}", device.live());
        }
    }
}

#[test]
fn what_fails_again_and_again_is_tried_ever_more_rarely() {
    let Bench { device, gpu, .. } = bench(MemoryMode::Region, WipePolicy::Always);
    let space = filled(&gpu);
    device.add(Op::Fill, When::From(1), Action::Driver(codes::INVALID_VALUE)).unwrap();
    space.give_back().unwrap_err();
    device.clear_log();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(450) {
        drop(gpu.place(ByteLen::new(1)).unwrap());
    }
    // At once, after 100 ms, after another 200 ms; the next try is due at 700 ms.
    let (tries, took) = (device.call_count(Op::Fill), began.elapsed());
    assert!(tries <= 3 || took > Duration::from_millis(700), "{tries} tries in {took:?}");
}

#[test]
fn memory_that_is_not_trusted_is_taken_out_of_use_for_good() {
    for mode in BOTH {
        let Bench { gpu, owner, .. } = bench(mode, WipePolicy::Always);
        let error = GpuError::StaleAllocation { gpu: GpuIndex::new(0) };
        assert_eq!(filled(&gpu).abandon(error), ByteLen::new(1024));
        for _ in 0..3 {
            gpu.bring_back();
            assert!(gpu.place(ByteLen::MIB).is_err());
        }
        assert_eq!(gpu.capacity().unreturned, ByteLen::new(1024));
        assert_eq!(owner.told(), ["1024 kept on 3"]);
    }
}

#[test]
fn a_loss_is_told_once_and_settles_the_books_without_a_call() {
    for mode in BOTH {
        let Bench { device, owner, gpu } = bench(mode, WipePolicy::Always);
        let mut space = gpu.place(ByteLen::new(1000)).unwrap();
        space.written().unwrap();
        space.commit();
        device.next(Op::Write, Action::Driver(codes::ECC_UNCORRECTABLE)).unwrap();
        let memory = space.memory().unwrap();
        for _ in 0..2 {
            let refused = memory.write(DeviceRange::whole(ByteLen::new(4)), &[1; 4]).unwrap_err();
            assert!(matches!(gpu.failed(refused), SpaceError::DeviceLost { gpu: 3, .. }));
        }
        drop(memory);
        assert!(matches!(gpu.place(ByteLen::new(1)), Err(SpaceError::DeviceLost { .. })));
        drop(space);
        assert_eq!(owner.told(), ["lost 3"]);
        assert!(gpu.capacity().used.is_zero() && device.calls_after_loss() <= 1);
    }
}

#[test]
fn a_reset_begins_a_new_life_into_which_nothing_reaches() {
    for mode in BOTH {
        let Bench { device, gpu, .. } = bench(mode, WipePolicy::Always);
        let mut old = gpu.place(ByteLen::new(1000)).unwrap();
        old.written().unwrap();
        old.commit();
        device.next(Op::Write, Action::Driver(codes::ILLEGAL_ADDRESS)).unwrap();
        let refused = old.memory().unwrap().write(old.range(), &[1; 1000]).unwrap_err();
        assert!(matches!(gpu.failed(refused), SpaceError::DeviceLost { .. }));

        let claim = gpu.life.claim().unwrap();
        assert!(gpu.life.claim().is_none(), "one at a time");
        gpu.renew(gpu.empty().unwrap());
        gpu.recover(|| ());
        drop(claim);
        let mut new = gpu.place(ByteLen::new(1000)).unwrap();
        new.written().unwrap();
        new.memory().unwrap().fill(new.range(), 7).unwrap();
        drop(old);
        let mut bytes = [0; 1000];
        new.memory().unwrap().read(new.range(), &mut bytes).unwrap();
        assert_eq!(bytes, [7; 1000], "what went back belonged to the last life");
    }
}

#[test]
fn a_panic_gives_back_what_was_placed() {
    let Bench { gpu, .. } = bench(MemoryMode::Region, WipePolicy::Always);
    let panicked = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
        let mut space = gpu.place(ByteLen::new(1000)).unwrap();
        space.written().unwrap();
        panic!("in the middle");
    }));
    assert!(panicked.is_err());
    assert_eq!(gpu.capacity().free, ByteLen::MIB);
}

#[test]
fn a_wait_for_calls_ends_at_its_deadline_and_never_on_a_thread_that_is_inside() {
    let Bench { gpu, .. } = bench(MemoryMode::Region, WipePolicy::Never);
    let call = gpu.enter().unwrap();
    let soon = || Instant::now().checked_add(Duration::from_millis(20));
    std::thread::scope(|scope| {
        let waited = scope.spawn(|| gpu.life.quiet_until(soon(), false)).join().unwrap();
        assert_eq!(waited, Err(1), "the call of the other thread is still there");
    });
    assert_eq!(gpu.life.quiet_until(None, false), Err(1), "its own call: it would never end");
    drop(call);
    assert_eq!(gpu.life.quiet_until(soon(), false), Ok(()));
}
