//! Stress: threads that share devices lose no byte and no capacity.
//!
//! Each thread allocates, writes, fills, reads and frees on two shared devices, and checks the
//! contents at every step; a third thread of each device only counts. At the end both devices are
//! empty and were not misused. The number of rounds follows `PROPTEST_CASES`; `VRAM_STRESS_SECONDS`
//! sets for how long all of that is repeated.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "helpers of tests are tests"
)]

#[macro_use]
extern crate vram_testkit;

use cuda_sim::{DeviceSpec, Sim};
use cust::context::{Context, CurrentContext};
use cust::device::Device;
use cust::error::CudaError;
use cust::memory::{AsyncCopyDestination, CopyDestination, DeviceBuffer, LockedBuffer};
use cust::stream::{Stream, StreamFlags};
use proptest::test_runner::Config;
use vram_testkit::for_a_while;

const CAPACITY: u64 = 1 << 20;

/// One thread's work; returns how many allocations were refused for lack of room.
fn work(contexts: &[Context], thread: usize, rounds: usize) -> usize {
    let mut refused = 0;
    for round in 0..rounds {
        let context = &contexts[(thread + round) % contexts.len()];
        CurrentContext::set_current(context).unwrap();
        let stream = Stream::new(StreamFlags::DEFAULT, None).unwrap();
        let len = 1 + (thread * 7919 + round * 104_729) % 200_000;
        let byte = u8::try_from((thread * 16 + round) % 256).unwrap();
        // SAFETY: written before it is read.
        let allocated = unsafe { DeviceBuffer::<u8>::uninitialized(len) };
        let mut target = match allocated {
            Ok(target) => target,
            Err(CudaError::OutOfMemory) => {
                refused += 1;
                continue;
            }
            Err(other) => panic!("{other}"),
        };
        let source = LockedBuffer::new(&byte, len).unwrap();
        // SAFETY: both buffers live until the wait.
        unsafe { target.async_copy_from(&source, &stream) }.unwrap();
        stream.synchronize().unwrap();
        let mut back = vec![0; len];
        target.copy_to(&mut back).unwrap();
        assert!(back.iter().all(|other| *other == byte), "thread {thread}, round {round}");
        target.set_8(!byte).unwrap();
        target.copy_to(&mut back).unwrap();
        assert!(back.iter().all(|other| *other == !byte), "thread {thread}, round {round}");
        DeviceBuffer::drop(target).unwrap();
    }
    refused
}

#[test]
fn threads_that_share_devices_lose_no_byte_and_no_capacity() {
    cuda_sim::install();
    let rounds = usize::try_from(Config::default().cases.clamp(64, 4096)).unwrap() / 4;
    let spec = || DeviceSpec { capacity: CAPACITY, ..DeviceSpec::default() };
    let devices = [Sim::add_device(spec()), Sim::add_device(spec())];
    cust::init(cust::CudaFlags::empty()).unwrap();
    let contexts = devices.map(|device| Context::new(Device::get_device(device).unwrap()).unwrap());
    for_a_while(|| {
        let refused: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|thread| {
                    let contexts = &contexts;
                    scope.spawn(move || work(contexts, thread, rounds))
                })
                .collect();
            for _ in 0..rounds {
                assert!(devices.iter().all(|device| Sim::used(*device) <= CAPACITY));
            }
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(refused < 8 * rounds, "every allocation was refused");
    });
    drop(contexts);
    for device in devices {
        assert_eq!(Sim::used(device), 0);
        Sim::assert_clean(device);
    }
}
