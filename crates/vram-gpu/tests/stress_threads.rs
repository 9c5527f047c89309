//! Threads that concurrently copy, fill and free over a few shared allocations, for a given time.
//!
//! Method: every thread owns one stripe of each allocation and knows its content exactly. Copies
//! between allocations run in both directions at once, over chunks that other threads use as well.
//! A wrong lock order would therefore hang, and a wrong range would show in another thread's
//! stripe. The seed is fixed; `VRAM_STRESS_ROUNDS` sets the length of a round,
//! `VRAM_STRESS_SECONDS` for how long rounds are repeated.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a stress test is plain arithmetic on small numbers, and may panic"
)]

#[macro_use]
extern crate vram_testkit;

use core::time::Duration;
use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange};
use vram_gpu::fault::{Action, FaultPlan, Op, When};
use vram_gpu::{Device, DeviceMemory, FaultDevice, GpuError, HostDevice};
use vram_testkit::{for_a_while, setting};

const THREADS: usize = 6;
const STRIPE: usize = 700_001;
const LEN: usize = THREADS * STRIPE;

fn rounds() -> usize {
    setting("VRAM_STRESS_ROUNDS").unwrap_or(60)
}

fn stripe(thread: usize, start: usize, len: usize) -> DeviceRange {
    let start = DeviceOffset::from_usize(thread * STRIPE + start);
    DeviceRange::checked(start, ByteLen::from_usize(len), ByteLen::from_usize(LEN)).unwrap()
}

fn next(state: &mut u64, below: usize) -> usize {
    *state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
    usize::try_from(*state >> 33).unwrap() % below
}

/// The low byte of a number.
fn low(number: usize) -> u8 {
    u8::try_from(number % 256).unwrap()
}

/// One thread's work. Every call may fail with an injected error; its target is then unknown until
/// it is filled again.
fn work(thread: usize, memories: &[Box<dyn DeviceMemory>; 2]) {
    let mut models = [vec![0_u8; STRIPE], vec![0_u8; STRIPE]];
    let mut state = u64::try_from(thread).unwrap();
    let retry = |call: &dyn Fn() -> Result<(), GpuError>| {
        while let Err(error) = call() {
            assert!(matches!(error, GpuError::Driver { sticky: false, .. }), "{error}");
        }
    };
    for memory in memories {
        retry(&|| memory.fill(stripe(thread, 0, STRIPE), 0));
    }
    for round in 0..rounds() {
        let target = next(&mut state, 2);
        let (start, end) = (next(&mut state, STRIPE), next(&mut state, STRIPE));
        let (start, len) = (start.min(end), start.abs_diff(end));
        let range = stripe(thread, start, len);
        match next(&mut state, 3) {
            0 => {
                let bytes: Vec<u8> = (0..len).map(|i| low(i % 241) ^ low(round)).collect();
                retry(&|| memories[target].write(range, &bytes));
                models[target][start..start + len].copy_from_slice(&bytes);
            }
            1 => {
                let value = low(round);
                retry(&|| memories[target].fill(range, value));
                models[target][start..start + len].fill(value);
            }
            _ => {
                let source = 1 - target;
                retry(&|| memories[target].copy_from(range, &*memories[source], range));
                let bytes = models[source][start..start + len].to_vec();
                models[target][start..start + len].copy_from_slice(&bytes);
            }
        }
        let mut seen = vec![0; STRIPE];
        let whole = stripe(thread, 0, STRIPE);
        while memories[target].read(whole, &mut seen).is_err() {}
        assert!(seen == models[target], "thread {thread} in round {round}");
    }
}

fn run(devices: &[Arc<dyn Device>; 2]) {
    for_a_while(|| round(devices));
}

fn round(devices: &[Arc<dyn Device>; 2]) {
    let memories: [_; 2] =
        core::array::from_fn(|i| devices[i].allocate(ByteLen::from_usize(LEN)).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let memories = &memories;
            scope.spawn(move || work(thread, memories));
        }
    });
    drop(memories);
    for device in devices {
        let memory = device.memory().unwrap();
        assert_eq!(memory.free, memory.total);
    }
}

fn hosts() -> [Arc<HostDevice>; 2] {
    let total = ByteLen::from_usize(2 * LEN);
    HostDevice::several(&[total, total]).unwrap().try_into().unwrap()
}

#[test]
fn threads_never_see_each_others_bytes_across_two_devices() {
    let [one, two] = hosts();
    run(&[one, two]);
}

#[test]
fn threads_never_see_each_others_bytes_within_one_device() {
    let [one, _] = hosts();
    let same: Arc<dyn Device> = one;
    run(&[Arc::clone(&same), same]);
}

/// Copies in opposite directions between the same two chunks: without one lock order, each copy
/// would hold the lock that the other needs.
#[test]
fn copies_in_opposite_directions_do_not_wait_for_each_other() {
    // Short copies: the test needs many moments in which two threads are between their two locks.
    const HALF: usize = 64;
    let [device, _] = hosts();
    let allocate = || {
        let memory = device.allocate(ByteLen::from_usize(2 * HALF)).unwrap();
        memory.fill(DeviceRange::whole(memory.len()), 3).unwrap();
        memory
    };
    let (one, two) = (allocate(), allocate());
    let half = |start| {
        let (start, len) = (DeviceOffset::from_usize(start), ByteLen::from_usize(HALF));
        DeviceRange::checked(start, len, one.len()).unwrap()
    };
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let copy = |to: &dyn DeviceMemory, from: &dyn DeviceMemory, range| {
            for _ in 0..5000 * rounds() {
                to.copy_from(range, from, range).unwrap();
            }
        };
        let (one, two, other) = (&*one, &*two, done.clone());
        scope.spawn(move || {
            copy(one, two, half(0));
            done.send(()).unwrap();
        });
        scope.spawn(move || {
            copy(two, one, half(HALF));
            other.send(()).unwrap();
        });
        for _ in 0..2 {
            if finished.recv_timeout(Duration::from_mins(1)).is_err() {
                // Joining the threads would block forever, so the whole run is ended.
                eprintln!("two copies in opposite directions wait for each other");
                std::process::abort();
            }
        }
    });
}

#[test]
fn failing_calls_disturb_no_other_thread() {
    let mut plan = FaultPlan::new(20_260_701);
    for op in [Op::Write, Op::Read, Op::Fill, Op::Copy, Op::PeerCopy] {
        plan = plan.rule(op, When::PerMillion(100_000), Action::Driver(46)).unwrap();
    }
    let [one, two] = hosts().map(|host| FaultDevice::new(host, plan.clone()));
    run(&[one, two]);
}
