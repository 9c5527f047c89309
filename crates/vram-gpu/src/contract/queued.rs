//! Checks of queued copies.

use vram_alloc::{ByteLen, DeviceOffset};

use super::capacity::costs_nothing;
use super::{Factory, allocate, free_range, pattern, range, read};
use crate::GpuError;

/// Two running copies, as sealing uses them; their bytes are on the device after the wait.
pub fn queued_copies_are_there_after_the_wait(factory: Factory<'_>) {
    const WINDOW: usize = 300_000;
    const WINDOWS: usize = 9;
    for device in factory() {
        let memory = allocate(&*device, WINDOW * WINDOWS);
        let model = pattern(WINDOW * WINDOWS, 8);
        let mut idle: Vec<_> = (0..2)
            // Longer than the window: only the requested part is copied.
            .map(|_| device.staging(ByteLen::from_usize(WINDOW + 11)).unwrap())
            .collect();
        let mut flying = std::collections::VecDeque::new();
        for (index, window) in model.chunks(WINDOW).enumerate() {
            let mut staging = idle.pop().unwrap_or_else(|| {
                let pending: crate::Pending = flying.pop_front().unwrap();
                let (staging, outcome) = pending.wait();
                outcome.unwrap();
                staging
            });
            staging.as_mut_slice()[..WINDOW].copy_from_slice(window);
            let at = DeviceOffset::from_usize(index * WINDOW);
            flying.push_back(memory.queue_write(at, staging, ByteLen::from_usize(WINDOW)));
        }
        for pending in flying {
            pending.wait().1.unwrap();
        }
        assert!(read(&*memory, 0, WINDOW * WINDOWS) == model);

        for index in (0..WINDOWS).rev() {
            let staging = device.staging(ByteLen::from_usize(WINDOW + 1)).unwrap();
            let from = range(&*memory, index * WINDOW, WINDOW);
            let (staging, outcome) = memory.queue_read(from, staging).wait();
            outcome.unwrap();
            assert!(staging.as_slice()[..WINDOW] == model[index * WINDOW..(index + 1) * WINDOW]);
            assert_eq!(staging.as_slice()[WINDOW], 0, "one byte more than asked");
        }
    }
}

/// The wait returns the buffer even then.
pub fn queued_copies_refuse_bad_arguments_at_the_wait(factory: Factory<'_>) {
    for device in factory() {
        let memory = allocate(&*device, 100);
        memory.fill(range(&*memory, 0, 100), 4).unwrap();
        let staging = || device.staging(ByteLen::new(50)).unwrap();
        let end = DeviceOffset::from_usize(60);
        let (back, outside) = memory.queue_write(end, staging(), ByteLen::new(41)).wait();
        assert!(matches!(outside, Err(GpuError::OutOfBounds { .. })), "{outside:?}");
        assert_eq!(back.len(), ByteLen::new(50));
        let (_, wraps) =
            memory.queue_write(DeviceOffset::new(u64::MAX), staging(), ByteLen::new(2)).wait();
        assert!(matches!(wraps, Err(GpuError::OutOfBounds { .. })), "{wraps:?}");
        let (_, long) = memory.queue_write(DeviceOffset::START, staging(), ByteLen::new(51)).wait();
        assert!(matches!(long, Err(GpuError::LengthMismatch { .. })), "{long:?}");
        let (_, outside) = memory.queue_read(free_range(90, 11), staging()).wait();
        assert!(matches!(outside, Err(GpuError::OutOfBounds { .. })), "{outside:?}");
        let (_, long) = memory.queue_read(range(&*memory, 0, 51), staging()).wait();
        assert!(matches!(long, Err(GpuError::LengthMismatch { .. })), "{long:?}");
        assert_eq!(read(&*memory, 0, 100), [4; 100]);
        assert!(device.state().is_ready());
    }
}

/// Dropping a queued copy waits for it: afterwards its bytes are there, and the device no longer
/// uses the buffer.
pub fn a_dropped_copy_is_finished_first(factory: Factory<'_>) {
    for device in factory() {
        let memory = allocate(&*device, 1 << 20);
        memory.fill(range(&*memory, 0, 1 << 20), 0).unwrap();
        let mut staging = device.staging(ByteLen::new(1 << 20)).unwrap();
        staging.as_mut_slice().fill(6);
        drop(memory.queue_write(DeviceOffset::START, staging, ByteLen::new(1 << 20)));
        assert!(read(&*memory, 0, 1 << 20).iter().all(|&byte| byte == 6));
    }
}

/// Frees or drops memory while a copy is running: the copy ends or fails, and does not change bytes
/// that are allocated next.
pub fn memory_may_be_freed_under_a_queued_copy(factory: Factory<'_>) {
    const LEN: usize = 2 << 20;
    for device in factory() {
        costs_nothing(&*device, &|| {
            let memory = allocate(&*device, LEN);
            let mut staging = device.staging(ByteLen::from_usize(LEN)).unwrap();
            staging.as_mut_slice().fill(0x66);
            let len = ByteLen::from_usize(LEN);
            let pending = memory.queue_write(DeviceOffset::START, staging, len);
            memory.free().unwrap();
            let next = allocate(&*device, LEN);
            next.fill(range(&*next, 0, LEN), 1).unwrap();
            let (staging, _done_or_refused) = pending.wait();
            assert_eq!(staging.len(), len);
            let seen = read(&*next, 0, LEN);
            assert!(seen.iter().all(|&byte| byte == 1), "a late copy hit the next owner");
        });
        assert!(device.state().is_ready());
    }
}
