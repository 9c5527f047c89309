//! Device memory used alone: the counts, the wipes, and the effects of a lost device.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[macro_use]
extern crate vram_testkit;

use core::time::Duration;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use vram_alloc::{ByteLen, DeviceRange, GpuIndex};
use vram_gpu::fault::{Action, FaultPlan, Op};
use vram_gpu::{Device, FaultDevice, GpuError, HostDevice, codes};
use vram_space::{Gpu, GpuOptions, Means, MemoryMode, SpaceError, Tenants, WipePolicy};

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
}

struct Bench {
    device: Arc<FaultDevice>,
    owner: Arc<Owner>,
    gpu: Arc<Gpu>,
}

fn bench(mode: MemoryMode, wipe: WipePolicy) -> Bench {
    let host = Arc::new(HostDevice::new(GpuIndex::new(0), ByteLen::MIB).unwrap());
    let device = FaultDevice::new(host, FaultPlan::new(1));
    let (memory, owner) = (device.memory().unwrap(), Arc::<Owner>::default());
    let options = GpuOptions {
        index: 3,
        budget: ByteLen::MIB,
        headroom: ByteLen::ZERO,
        mode,
        wipe,
        means: Means { workers: 1, staging_bytes: ByteLen::MIB },
    };
    let shared: Arc<dyn Device> = Arc::<FaultDevice>::clone(&device);
    let gpu = Gpu::open(shared, memory, Arc::<Owner>::clone(&owner), options).unwrap();
    device.clear_log();
    Bench { device, owner, gpu: Arc::new(gpu) }
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

#[test]
fn bytes_that_cannot_be_wiped_stay_counted_and_are_never_handed_out_again() {
    for mode in BOTH {
        let Bench { device, owner, gpu } = bench(mode, WipePolicy::Always);
        let mut space = gpu.place(ByteLen::new(1000)).unwrap();
        space.written().unwrap();
        space.commit();
        device.next(Op::Fill, Action::Driver(codes::INVALID_VALUE)).unwrap();
        let (bytes, _why) = space.give_back().unwrap_err();
        assert_eq!((bytes, gpu.capacity().unreturned), (ByteLen::new(1024), ByteLen::new(1024)));
        assert_eq!(owner.told(), ["1024 kept on 3"]);
        assert!(gpu.place(ByteLen::MIB).is_err(), "it is not there any more");
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
