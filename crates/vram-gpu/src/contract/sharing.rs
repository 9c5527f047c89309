//! Checks with several threads, threads that have ended, other processes, and resets.

use core::time::Duration;
use std::sync::Arc;

use vram_alloc::ByteLen;

use super::capacity::costs_nothing;
use super::{Factory, allocate, pattern, range, read};
use crate::{Device, DeviceMemory, GpuError, ShareHandle};

/// Threads that have not used the device before allocate, write, read, copy and free concurrently.
pub fn many_threads_may_call_at_once(factory: Factory<'_>) {
    const THREADS: usize = 8;
    const PART: usize = 256 << 10;
    for device in factory() {
        costs_nothing(&*device, &|| {
            let shared = allocate(&*device, THREADS * PART);
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    let (device, shared) = (&*device, &*shared);
                    scope.spawn(move || share(device, shared, thread, PART));
                }
            });
        });
    }
}

/// A device shares whole units with other processes or says why not; never a part of one, and no
/// device opens what its own process shares.
pub fn memory_is_shared_in_whole_units_or_not_at_all(factory: Factory<'_>) {
    for device in factory() {
        let gpu = device.info().index;
        let is_refusal = |error: GpuError| {
            let named = matches!(error, GpuError::NotShareable { gpu: named, .. } if named == gpu);
            assert!(named && error.is_caller_error() && !error.is_sticky(), "{error}");
        };
        costs_nothing(&*device, &|| {
            let part = allocate(&*device, (2 << 20) + 4096);
            is_refusal(part.share().unwrap_err());
            let unit = allocate(&*device, 2 << 20);
            let content = pattern(2 << 20, 17);
            unit.write(range(&*unit, 0, 2 << 20), &content).unwrap();
            match unit.share() {
                Ok(handle) => {
                    assert_eq!(unit.share(), Ok(handle));
                    assert_eq!(format!("{handle:?}"), "ShareHandle(..)");
                    is_refusal(device.open_shared(&handle).map(drop).unwrap_err());
                }
                Err(error) => is_refusal(error),
            }
            assert!(device.open_shared(&ShareHandle::from_bytes([0; 64])).is_err());
            assert_eq!(read(&*unit, 0, 2 << 20), content);
            assert!(device.state().is_ready());
        });
    }
}

/// The work of one of many threads: no other thread changes its part of the shared memory.
fn share(device: &dyn Device, shared: &dyn DeviceMemory, thread: usize, len: usize) {
    let own = allocate(device, len);
    let part = range(shared, thread * len, len);
    for round in 0..6 {
        let bytes = pattern(len, u64::try_from(thread * 100 + round).unwrap());
        own.write(range(&*own, 0, len), &bytes).unwrap();
        shared.copy_from(part, &*own, range(&*own, 0, len)).unwrap();
        assert!(read(shared, thread * len, len) == bytes, "thread {thread}");
        let staging = device.staging(ByteLen::from_usize(len)).unwrap();
        let (staging, outcome) = shared.queue_read(part, staging).wait();
        outcome.unwrap();
        assert!(staging.as_slice() == bytes);
        assert!(device.memory().unwrap().free <= device.info().total);
    }
    own.free().unwrap();
}

/// Allocated on a thread that has ended, and freed on another after the last device handle was
/// dropped.
pub fn memory_outlives_the_thread_and_the_handle_it_came_from(factory: Factory<'_>) {
    for device in factory() {
        costs_nothing(&*device, &|| {
            let other = Arc::clone(&device);
            let memory = std::thread::spawn(move || {
                let memory = allocate(&*other, 1000);
                memory.write(range(&*memory, 0, 3), &[1, 2, 3]).unwrap();
                memory
            })
            .join()
            .unwrap();
            assert_eq!(read(&*memory, 0, 3), [1, 2, 3]);
            std::thread::spawn(move || memory.free().unwrap()).join().unwrap();
        });
    }
    let memory = factory().first().map(|device| allocate(&**device, 10)).unwrap();
    memory.fill(range(&*memory, 0, 10), 8).unwrap();
    assert_eq!(read(&*memory, 0, 10), [8; 10]);
}

/// Uses each operation once: a driver takes memory for itself at first use, in each life anew.
fn use_everything(device: &dyn Device) {
    let (one, two) = (allocate(device, 4096), allocate(device, 4096));
    let whole = range(&*one, 0, 4096);
    one.write(whole, &[1; 4096]).unwrap();
    one.read(whole, &mut [0; 4096]).unwrap();
    one.fill(whole, 2).unwrap();
    two.copy_from(whole, &*one, whole).unwrap();
    // Two buffers and two copies at once, as below.
    let stagings = [device.staging(one.len()).unwrap(), device.staging(one.len()).unwrap()];
    let [first, second] = stagings;
    let pending = [one.queue_write(whole.start(), first, one.len()), two.queue_read(whole, second)];
    for pending in pending {
        pending.wait().1.unwrap();
    }
    // Loaded by a thread of their own, with memory of their own.
    let _there_or_not = device.wait_for_kernels(Duration::from_mins(1));
}

/// A reset makes every earlier allocation stale; freeing one changes no count. The device is empty
/// again.
pub fn a_reset_empties_the_device_and_strands_what_was_before(factory: Factory<'_>) {
    for device in factory() {
        let gpu = device.info().index;
        device.reset().unwrap();
        use_everything(&*device);
        let before = device.memory().unwrap().free;
        let old = [allocate(&*device, 4096), allocate(&*device, 4096)];
        device.reset().unwrap();
        assert!(device.state().is_ready());
        use_everything(&*device);
        let new = allocate(&*device, 4096);
        let left = device.memory().unwrap().free;
        let bytes = pattern(4096, 9);
        new.write(range(&*new, 0, 4096), &bytes).unwrap();

        let stale = Err(GpuError::StaleAllocation { gpu });
        let [dropped, freed] = old;
        let whole = range(&*freed, 0, 4096);
        assert_eq!(freed.write(whole, &[0; 4096]), stale);
        assert_eq!(freed.read(whole, &mut [0; 4096]), stale);
        assert_eq!(freed.fill(whole, 0), stale);
        assert_eq!(new.copy_from(whole, &*freed, whole), stale);
        assert_eq!(freed.copy_from(whole, &*new, whole), stale);
        let staging = device.staging(ByteLen::new(4096)).unwrap();
        let (staging, outcome) = freed.queue_read(whole, staging).wait();
        assert_eq!(outcome, stale);
        let (_, outcome) = freed.queue_write(whole.start(), staging, ByteLen::new(1)).wait();
        assert_eq!(outcome, stale);
        drop(dropped);
        freed.free().unwrap();

        assert!(read(&*new, 0, 4096) == bytes, "a stale handle reached new memory");
        assert_eq!(device.memory().unwrap().free, left, "a stale free was counted");
        new.free().unwrap();
        assert_eq!(device.memory().unwrap().free, before);
    }
}
