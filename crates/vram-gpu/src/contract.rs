//! What every device promises, as checks that any test can run over its own devices.
//!
//! [`run`] runs all of them; each is also a function of its own. A check panics, naming the broken
//! promise, where a device does not keep its word. The factory gives fresh devices, or the same
//! ones again with nothing allocated: at least one, each with 16 MiB free.
//!
//! ```
//! # use std::sync::Arc;
//! # use vram_alloc::ByteLen;
//! # use vram_gpu::{Device, HostDevice};
//! # #[cfg(feature = "contract")]
//! vram_gpu::contract::run(&|| {
//!     let devices = HostDevice::several(&[ByteLen::from_mib_saturating(64); 2]).unwrap();
//!     devices.into_iter().map(|device| -> Arc<dyn Device> { device }).collect()
//! });
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::missing_panics_doc,
    reason = "a check is a test body: it panics where a device breaks its word"
)]

use std::collections::BTreeSet;
use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange};

use crate::{Device, DeviceMemory, GpuError};

/// Makes the devices to check.
pub type Factory<'a> = &'a dyn Fn() -> Vec<Arc<dyn Device>>;

/// A check and its name.
pub type Check = (&'static str, fn(Factory<'_>));

/// Every check, in the order in which [`run`] runs them.
pub const CHECKS: &[Check] = &[
    ("identities_are_plausible_and_distinct", identities_are_plausible_and_distinct),
    ("memory_figures_follow_allocations", memory_figures_follow_allocations),
    (
        "what_cannot_be_allocated_is_refused_and_changes_nothing",
        what_cannot_be_allocated_is_refused_and_changes_nothing,
    ),
    ("addresses_of_live_allocations_are_apart", addresses_of_live_allocations_are_apart),
    ("bytes_come_back_as_written", bytes_come_back_as_written),
    (
        "ranges_outside_are_refused_and_nothing_is_touched",
        ranges_outside_are_refused_and_nothing_is_touched,
    ),
    (
        "unequal_lengths_are_refused_and_nothing_is_touched",
        unequal_lengths_are_refused_and_nothing_is_touched,
    ),
    ("empty_copies_are_fine_everywhere", empty_copies_are_fine_everywhere),
    ("fill_sets_its_range_and_no_other_byte", fill_sets_its_range_and_no_other_byte),
    ("copies_inside_a_device_move_exact_bytes", copies_inside_a_device_move_exact_bytes),
    ("copies_between_devices_are_exact_or_refused", copies_between_devices_are_exact_or_refused),
    ("staging_starts_as_zeros_and_has_its_length", staging_starts_as_zeros_and_has_its_length),
    ("queued_copies_are_there_after_the_wait", queued_copies_are_there_after_the_wait),
    (
        "queued_copies_refuse_bad_arguments_at_the_wait",
        queued_copies_refuse_bad_arguments_at_the_wait,
    ),
    ("a_dropped_copy_is_finished_first", a_dropped_copy_is_finished_first),
    ("memory_may_be_freed_under_a_queued_copy", memory_may_be_freed_under_a_queued_copy),
    ("freeing_gives_the_bytes_back", freeing_gives_the_bytes_back),
    ("many_threads_may_call_at_once", many_threads_may_call_at_once),
    (
        "memory_outlives_the_thread_and_the_handle_it_came_from",
        memory_outlives_the_thread_and_the_handle_it_came_from,
    ),
    ("nothing_shows_addresses_or_content", nothing_shows_addresses_or_content),
    (
        "a_reset_empties_the_device_and_strands_what_was_before",
        a_reset_empties_the_device_and_strands_what_was_before,
    ),
];

/// Runs every check over devices of the factory.
pub fn run(factory: Factory<'_>) {
    for (name, check) in CHECKS {
        tracing::info!(name, "contract check");
        check(factory);
    }
}

/// Indices and UUIDs tell devices apart; a device has a name and a size that stays.
pub fn identities_are_plausible_and_distinct(factory: Factory<'_>) {
    let devices = factory();
    assert!(!devices.is_empty(), "the factory gave no device");
    let uuids: BTreeSet<_> = devices.iter().map(|device| device.info().uuid).collect();
    let indices: BTreeSet<_> = devices.iter().map(|device| device.info().index).collect();
    assert_eq!((uuids.len(), indices.len()), (devices.len(), devices.len()));
    for device in &devices {
        let info = device.info();
        assert!(!info.name.is_empty());
        assert!(!info.copy_window.is_zero(), "a copy of nothing makes no progress");
        assert!(device.state().is_ready());
        let memory = device.memory().unwrap();
        assert_eq!(memory.total, info.total);
        assert!(memory.free <= memory.total);
        assert!(device.can_copy_from_peer(&**device), "a device reaches itself");
    }
}

/// An allocation costs at least its bytes, and exactly gives back what it cost.
pub fn memory_figures_follow_allocations(factory: Factory<'_>) {
    for device in factory() {
        let before = device.memory().unwrap().free;
        let memory = allocate(&*device, 3 << 20);
        let during = device.memory().unwrap().free;
        assert!(before.checked_sub(during).unwrap() >= ByteLen::new(3 << 20));
        drop(memory);
        assert_eq!(device.memory().unwrap().free, before);
    }
}

/// Zero bytes, more than there is, more than there could be.
pub fn what_cannot_be_allocated_is_refused_and_changes_nothing(factory: Factory<'_>) {
    for device in factory() {
        let gpu = device.info().index;
        let before = device.memory().unwrap();
        let zero = device.allocate(ByteLen::ZERO).unwrap_err();
        assert_eq!(zero, GpuError::ZeroLength { gpu });
        let total = device.info().total;
        for wanted in [total.saturating_add(ByteLen::new(1)), ByteLen::new(u64::MAX)] {
            let refused = device.allocate(wanted).unwrap_err();
            let GpuError::OutOfMemory { gpu: named, wanted: asked, free } = refused else {
                unreachable!("{wanted} on a device of {total} gave: {refused}");
            };
            assert_eq!((named, asked), (gpu, wanted));
            assert!(free.is_none_or(|free| free <= total));
            assert!(refused.is_out_of_memory() && !refused.is_sticky());
        }
        assert_eq!(device.memory().unwrap(), before);
        assert!(device.state().is_ready());
    }
}

/// No two live allocations share an address, and none is at zero.
pub fn addresses_of_live_allocations_are_apart(factory: Factory<'_>) {
    for device in factory() {
        let memories: Vec<_> = [1, 4096, 1, 300, 1 << 20].map(|len| allocate(&*device, len)).into();
        let mut spans: Vec<_> =
            memories.iter().map(|m| (m.address().get(), m.len().get())).collect();
        spans.sort_unstable();
        assert!(spans[0].0 > 0);
        assert!(spans.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{spans:?}");
    }
}

/// Against a plain vector: writes at random places, of random lengths, read back as a whole and in
/// parts.
pub fn bytes_come_back_as_written(factory: Factory<'_>) {
    const LEN: usize = (5 << 20) + 3;
    for device in factory() {
        let memory = allocate(&*device, LEN);
        let mut model = pattern(LEN, 1);
        memory.write(range(&*memory, 0, LEN), &model).unwrap();
        let mut dice = Dice(7);
        for step in 0..24 {
            let (start, len) = dice.range(LEN);
            let bytes = pattern(len, step);
            memory.write(range(&*memory, start, len), &bytes).unwrap();
            model[start..start + len].copy_from_slice(&bytes);
            let (start, len) = dice.range(LEN);
            assert!(read(&*memory, start, len) == model[start..start + len], "after step {step}");
        }
        assert!(read(&*memory, 0, LEN) == model);
    }
}

/// One byte past the end, far past it, and a length that wraps.
pub fn ranges_outside_are_refused_and_nothing_is_touched(factory: Factory<'_>) {
    const LEN: usize = 10_000;
    for device in factory() {
        let memory = allocate(&*device, LEN);
        let bytes = pattern(LEN, 2);
        memory.write(range(&*memory, 0, LEN), &bytes).unwrap();
        let mut buffer = vec![1; LEN + 1];
        for (offset, len) in
            [(0, LEN + 1), (1, LEN), (LEN, 1), (LEN + 1, 0), (1 << 40, 1), (usize::MAX, 0)]
        {
            // Checked against something larger than the allocation, as a confused caller would.
            let outside = free_range(offset, len);
            let refused = memory.write(outside, &buffer[..len]).unwrap_err();
            assert!(matches!(refused, GpuError::OutOfBounds { .. }), "{refused}");
            assert!(refused.is_caller_error() && !refused.is_sticky());
            let refused = memory.read(outside, &mut buffer[..len]).unwrap_err();
            assert!(matches!(refused, GpuError::OutOfBounds { .. }), "{refused}");
            let refused = memory.fill(outside, 9).unwrap_err();
            assert!(matches!(refused, GpuError::OutOfBounds { .. }), "{refused}");
            for (to, from) in [(outside, free_range(0, len)), (free_range(0, len), outside)] {
                let refused = memory.copy_from(to, &*memory, from).unwrap_err();
                assert!(matches!(refused, GpuError::OutOfBounds { .. }), "{refused}");
            }
        }
        assert!(buffer.iter().all(|&byte| byte == 1), "a refused read touched its target");
        assert!(read(&*memory, 0, LEN) == bytes);
        assert!(device.state().is_ready());
    }
}

/// A slice that is shorter or longer than its range.
pub fn unequal_lengths_are_refused_and_nothing_is_touched(factory: Factory<'_>) {
    const LEN: usize = 4096;
    for device in factory() {
        let memory = allocate(&*device, LEN);
        let bytes = pattern(LEN, 3);
        memory.write(range(&*memory, 0, LEN), &bytes).unwrap();
        let mut buffer = vec![1; LEN + 1];
        let whole = range(&*memory, 0, LEN);
        for len in [0, 1, LEN - 1, LEN + 1] {
            let refused = memory.write(whole, &buffer[..len]).unwrap_err();
            assert!(matches!(refused, GpuError::LengthMismatch { .. }), "{refused}");
            let refused = memory.read(whole, &mut buffer[..len]).unwrap_err();
            assert!(matches!(refused, GpuError::LengthMismatch { .. }), "{refused}");
        }
        let (short, long) = (range(&*memory, 0, 10), range(&*memory, 100, 11));
        for (to, from) in [(short, long), (long, short)] {
            let refused = memory.copy_from(to, &*memory, from).unwrap_err();
            assert!(matches!(refused, GpuError::LengthMismatch { .. }), "{refused}");
        }
        assert!(buffer.iter().all(|&byte| byte == 1));
        assert!(read(&*memory, 0, LEN) == bytes);
    }
}

/// Also at the very end.
pub fn empty_copies_are_fine_everywhere(factory: Factory<'_>) {
    for device in factory() {
        let memory = allocate(&*device, 100);
        memory.fill(range(&*memory, 0, 100), 5).unwrap();
        for at in [0, 50, 100] {
            let nothing = range(&*memory, at, 0);
            memory.write(nothing, &[]).unwrap();
            memory.read(nothing, &mut []).unwrap();
            memory.fill(nothing, 7).unwrap();
            memory.copy_from(nothing, &*memory, range(&*memory, 20, 0)).unwrap();
            let staging = device.staging(ByteLen::ZERO).unwrap();
            let start = DeviceOffset::from_usize(at);
            let (staging, outcome) = memory.queue_write(start, staging, ByteLen::ZERO).wait();
            outcome.unwrap();
            memory.queue_read(nothing, staging).wait().1.unwrap();
        }
        assert_eq!(read(&*memory, 0, 100), [5; 100]);
    }
}

/// Against a plain vector, over fresh and over written bytes.
pub fn fill_sets_its_range_and_no_other_byte(factory: Factory<'_>) {
    const LEN: usize = (4 << 20) + 77;
    for device in factory() {
        let memory = allocate(&*device, LEN);
        // Over fresh bytes: the end, then the start, so that everything is known.
        memory.fill(range(&*memory, LEN / 2, LEN - LEN / 2), 0xA1).unwrap();
        memory.fill(range(&*memory, 0, LEN / 2), 0xB2).unwrap();
        let mut model = vec![0xB2; LEN];
        model[LEN / 2..].fill(0xA1);
        let mut dice = Dice(11);
        for value in [0, 1, 0xFF, 0x80, 0] {
            let (start, len) = dice.range(LEN);
            memory.fill(range(&*memory, start, len), value).unwrap();
            model[start..start + len].fill(value);
            assert!(read(&*memory, 0, LEN) == model, "after filling {len} bytes at {start}");
        }
    }
}

/// Within one allocation and between two; overlapping ranges are refused.
pub fn copies_inside_a_device_move_exact_bytes(factory: Factory<'_>) {
    const LEN: usize = (5 << 20) + 9;
    for device in factory() {
        let (one, two) = (allocate(&*device, LEN), allocate(&*device, LEN));
        let mut models = [pattern(LEN, 4), pattern(LEN, 5)];
        one.write(range(&*one, 0, LEN), &models[0]).unwrap();
        two.write(range(&*two, 0, LEN), &models[1]).unwrap();
        let mut dice = Dice(13);
        for step in 0..16 {
            let ((from, len), (to, room)) = (dice.range(LEN), dice.range(LEN));
            let len = len.min(room);
            let (target, source) = ([0, 1, 0, 1][step % 4], [1, 0, 0, 1][step % 4]);
            let memories = [&one, &two];
            let copied = memories[target].copy_from(
                range(&*one, to, len),
                &**memories[source],
                range(&*one, from, len),
            );
            let overlap = target == source && len > 0 && from < to + len && to < from + len;
            if overlap {
                assert!(matches!(copied, Err(GpuError::Overlap { .. })), "{copied:?}");
            } else {
                copied.unwrap();
                let bytes = models[source][from..from + len].to_vec();
                models[target][to..to + len].copy_from_slice(&bytes);
            }
        }
        assert!(read(&*one, 0, LEN) == models[0] && read(&*two, 0, LEN) == models[1]);

        // Ranges that touch and do not overlap, both ways; then one byte more.
        one.copy_from(range(&*one, 100, 50), &*one, range(&*one, 50, 50)).unwrap();
        one.copy_from(range(&*one, 0, 50), &*one, range(&*one, 50, 50)).unwrap();
        assert_eq!(read(&*one, 0, 50), models[0][50..100]);
        assert_eq!(read(&*one, 100, 50), models[0][50..100]);
        for (to, from) in [(100, 51), (51, 100), (70, 70)] {
            let refused = one.copy_from(range(&*one, to, 50), &*one, range(&*one, from, 50));
            assert!(matches!(refused, Err(GpuError::Overlap { .. })), "{refused:?}");
        }
    }
}

/// Where the pair allows it, exact bytes; where it does not, a refusal that names both.
pub fn copies_between_devices_are_exact_or_refused(factory: Factory<'_>) {
    const LEN: usize = (3 << 20) + 5;
    let devices = factory();
    for target in &devices {
        for source in devices.iter().filter(|d| d.info().index != target.info().index) {
            let (to, from) = (allocate(&**target, LEN + 10), allocate(&**source, LEN));
            let bytes = pattern(LEN, 6);
            from.write(range(&*from, 0, LEN), &bytes).unwrap();
            to.fill(range(&*to, 0, LEN + 10), 0).unwrap();
            let copied = to.copy_from(range(&*to, 5, LEN), &*from, range(&*from, 0, LEN));
            let seen = read(&*to, 0, LEN + 10);
            if target.can_copy_from_peer(&**source) {
                copied.unwrap();
                assert!(seen[..5] == [0; 5] && seen[LEN + 5..] == [0; 5]);
                assert!(seen[5..LEN + 5] == bytes);
            } else {
                let (from, to) = (source.info().index, target.info().index);
                assert_eq!(copied, Err(GpuError::PeerUnsupported { from, to }));
                assert!(seen.iter().all(|&byte| byte == 0));
            }
        }
    }
}

/// Buffers of any length, zero included; impossible ones are refused.
pub fn staging_starts_as_zeros_and_has_its_length(factory: Factory<'_>) {
    for device in factory() {
        for len in [0, 1, 4095, 1 << 20] {
            let mut staging = device.staging(ByteLen::from_usize(len)).unwrap();
            assert_eq!(staging.as_slice().len(), len);
            assert!(staging.as_slice().iter().all(|&byte| byte == 0));
            staging.as_mut_slice().fill(3);
            assert!(staging.as_slice().iter().all(|&byte| byte == 3));
            staging.wipe();
            assert!(staging.as_slice().iter().all(|&byte| byte == 0));
        }
        let wanted = ByteLen::new(u64::MAX);
        let refused = device.staging(wanted).map(|_| ()).unwrap_err();
        assert_eq!(refused, GpuError::HostMemory { wanted });
    }
}

/// Two buffers in flight, as sealing uses them; what was queued is there once it was waited for.
pub fn queued_copies_are_there_after_the_wait(factory: Factory<'_>) {
    const WINDOW: usize = 300_000;
    const WINDOWS: usize = 9;
    for device in factory() {
        let memory = allocate(&*device, WINDOW * WINDOWS);
        let model = pattern(WINDOW * WINDOWS, 8);
        let mut idle: Vec<_> = (0..2)
            // Longer than the window: only the asked part is copied.
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

/// The buffer comes back all the same.
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

/// Dropping is waiting: afterwards the bytes are there, and the buffer is not used any more.
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

/// Freed or dropped while a copy is under way: the copy ends, one way or the other, and harms
/// nobody who gets the bytes next.
pub fn memory_may_be_freed_under_a_queued_copy(factory: Factory<'_>) {
    const LEN: usize = 2 << 20;
    for device in factory() {
        let before = device.memory().unwrap().free;
        let memory = allocate(&*device, LEN);
        let mut staging = device.staging(ByteLen::from_usize(LEN)).unwrap();
        staging.as_mut_slice().fill(0x66);
        let pending = memory.queue_write(DeviceOffset::START, staging, ByteLen::from_usize(LEN));
        memory.free().unwrap();
        let next = allocate(&*device, LEN);
        next.fill(range(&*next, 0, LEN), 1).unwrap();
        let (staging, _done_or_refused) = pending.wait();
        assert_eq!(staging.len(), ByteLen::from_usize(LEN));
        assert!(
            read(&*next, 0, LEN).iter().all(|&byte| byte == 1),
            "a late copy hit the next owner"
        );
        drop(next);
        assert!(device.state().is_ready());
        assert_eq!(device.memory().unwrap().free, before);
    }
}

/// By `free` and by dropping.
pub fn freeing_gives_the_bytes_back(factory: Factory<'_>) {
    for device in factory() {
        let before = device.memory().unwrap().free;
        for round in 0..20 {
            let memory = allocate(&*device, 1 << 20);
            memory.fill(range(&*memory, 0, 1 << 20), round).unwrap();
            if round % 2 == 0 { memory.free().unwrap() } else { drop(memory) }
        }
        assert_eq!(device.memory().unwrap().free, before);
    }
}

/// Threads that never saw the device allocate, write, read, copy and free at the same time.
pub fn many_threads_may_call_at_once(factory: Factory<'_>) {
    const THREADS: usize = 8;
    const PART: usize = 256 << 10;
    for device in factory() {
        let before = device.memory().unwrap().free;
        let shared = allocate(&*device, THREADS * PART);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (device, shared) = (&*device, &*shared);
                scope.spawn(move || {
                    let own = allocate(device, PART);
                    for round in 0..6 {
                        let bytes = pattern(PART, u64::try_from(thread * 100 + round).unwrap());
                        let part = range(shared, thread * PART, PART);
                        own.write(range(&*own, 0, PART), &bytes).unwrap();
                        shared.copy_from(part, &*own, range(&*own, 0, PART)).unwrap();
                        assert!(read(shared, thread * PART, PART) == bytes, "thread {thread}");
                        let staging = device.staging(ByteLen::from_usize(PART)).unwrap();
                        let (staging, outcome) = shared.queue_read(part, staging).wait();
                        outcome.unwrap();
                        assert!(staging.as_slice() == bytes);
                        assert!(device.memory().unwrap().free <= before);
                    }
                    own.free().unwrap();
                });
            }
        });
        drop(shared);
        assert_eq!(device.memory().unwrap().free, before);
    }
}

/// Allocated on one thread that has ended, freed on another, after the last device handle is gone.
pub fn memory_outlives_the_thread_and_the_handle_it_came_from(factory: Factory<'_>) {
    for device in factory() {
        let before = device.memory().unwrap().free;
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
        assert_eq!(device.memory().unwrap().free, before);
    }
    let memory = factory().first().map(|device| allocate(&**device, 10)).unwrap();
    memory.fill(range(&*memory, 0, 10), 8).unwrap();
    assert_eq!(read(&*memory, 0, 10), [8; 10]);
}

/// `Debug` output can be logged as it is.
pub fn nothing_shows_addresses_or_content(factory: Factory<'_>) {
    for device in factory() {
        let memory = allocate(&*device, 16);
        memory.fill(range(&*memory, 0, 16), 0xCD).unwrap();
        let mut staging = device.staging(ByteLen::new(16)).unwrap();
        staging.as_mut_slice().fill(0xCD);
        let address = memory.address();
        let text = format!("{device:?} {memory:?} {staging:?} {address:?}");
        let pending = memory.queue_write(DeviceOffset::START, staging, ByteLen::new(16));
        let text = format!("{text} {pending:?}");
        pending.wait().1.unwrap();
        let raw = address.get();
        for secret in [raw.to_string(), format!("{raw:x}"), "205, 205".into(), "cd, cd".into()] {
            assert!(!text.contains(&secret), "{secret} is in: {text}");
        }
    }
}

/// Everything from before is refused, frees included in the count; the device is as new.
pub fn a_reset_empties_the_device_and_strands_what_was_before(factory: Factory<'_>) {
    for device in factory() {
        let before = device.memory().unwrap().free;
        let gpu = device.info().index;
        let old = [allocate(&*device, 4096), allocate(&*device, 4096)];
        device.reset().unwrap();
        assert!(device.state().is_ready());
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

fn allocate(device: &dyn Device, len: usize) -> Box<dyn DeviceMemory> {
    let memory = device.allocate(ByteLen::from_usize(len)).unwrap();
    assert_eq!(memory.len(), ByteLen::from_usize(len));
    assert_eq!(memory.gpu(), device.info().index);
    memory
}

fn range(memory: &dyn DeviceMemory, start: usize, len: usize) -> DeviceRange {
    let (start, len) = (DeviceOffset::from_usize(start), ByteLen::from_usize(len));
    DeviceRange::checked(start, len, memory.len()).unwrap()
}

/// A range that was checked against something else.
fn free_range(start: usize, len: usize) -> DeviceRange {
    let (start, len) = (DeviceOffset::from_usize(start), ByteLen::from_usize(len));
    DeviceRange::checked(start, len, ByteLen::new(u64::MAX)).unwrap()
}

fn read(memory: &dyn DeviceMemory, start: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read(range(memory, start, len), &mut bytes).unwrap();
    bytes
}

/// Bytes without a short period, different for each seed.
fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&dice.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A generator that repeats by seed (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        crate::dice::mix(self.0)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    /// A start and a length inside `len`, short ones as likely as long ones.
    fn range(&mut self, len: usize) -> (usize, usize) {
        let start = self.below(len);
        let longest =
            if self.next().is_multiple_of(2) { len - start } else { 100.min(len - start) };
        (start, self.below(longest + 1))
    }
}

#[cfg(test)]
mod tests {
    use core::panic::AssertUnwindSafe;
    use std::panic::catch_unwind;

    use vram_alloc::GpuIndex;

    use super::*;
    use crate::fault::{Action, FaultPlan, Op, When};
    use crate::{FaultDevice, HostDevice};

    const TOTAL: ByteLen = ByteLen::new(64 << 20);

    fn hosts() -> Vec<Arc<dyn Device>> {
        let devices = HostDevice::several(&[TOTAL, TOTAL]).unwrap();
        devices.into_iter().map(|device| -> Arc<dyn Device> { device }).collect()
    }

    fn faulty(plan: &FaultPlan) -> Vec<Arc<dyn Device>> {
        let wrap = |inner| -> Arc<dyn Device> { FaultDevice::new(inner, plan.clone()) };
        hosts().into_iter().map(wrap).collect()
    }

    #[test]
    fn host_devices_keep_the_contract() {
        run(&hosts);
    }

    #[test]
    fn isolated_host_devices_keep_the_contract() {
        run(&|| {
            let lone = |index| -> Arc<dyn Device> {
                let device = HostDevice::builder(GpuIndex::new(index), TOTAL).isolated().build();
                Arc::new(device.unwrap())
            };
            vec![lone(0), lone(5)]
        });
    }

    #[test]
    fn a_fault_device_without_faults_keeps_the_contract() {
        run(&|| faulty(&FaultPlan::new(1)));
    }

    #[test]
    fn a_fault_device_that_copies_as_late_as_allowed_keeps_the_contract() {
        run(&|| faulty(&FaultPlan::new(1).deferred()));
    }

    #[test]
    fn wrapped_and_bare_devices_reach_each_other() {
        run(&|| {
            let mut devices = hosts();
            let wrapped = devices.pop().unwrap();
            devices.push(FaultDevice::new(wrapped, FaultPlan::new(1)));
            devices
        });
    }

    /// The suite itself is tested: a device that lies in one way fails at least the check named.
    #[test]
    fn each_lie_of_a_device_is_caught_by_a_check() {
        let always = When::From(1);
        let flip = Action::FlipBit { byte: 12_345, bit: 3 };
        let short = Action::ShortCopy { keep: 1 };
        for (op, action, check) in [
            (Op::Write, Action::DropCopy, "bytes_come_back_as_written"),
            (Op::Write, flip.clone(), "bytes_come_back_as_written"),
            (Op::Read, flip.clone(), "bytes_come_back_as_written"),
            (Op::Read, short.clone(), "bytes_come_back_as_written"),
            (Op::Fill, short.clone(), "fill_sets_its_range_and_no_other_byte"),
            (Op::Fill, Action::FlipAnyBit, "fill_sets_its_range_and_no_other_byte"),
            (Op::Copy, flip.clone(), "copies_inside_a_device_move_exact_bytes"),
            (Op::Copy, Action::DropCopy, "copies_inside_a_device_move_exact_bytes"),
            (Op::PeerCopy, Action::DropCopy, "copies_between_devices_are_exact_or_refused"),
            (Op::PeerCopy, short.clone(), "copies_between_devices_are_exact_or_refused"),
            (Op::QueueWrite, flip.clone(), "queued_copies_are_there_after_the_wait"),
            (Op::QueueWrite, Action::DropCopy, "queued_copies_are_there_after_the_wait"),
            (Op::QueueWrite, Action::DropCopy, "a_dropped_copy_is_finished_first"),
            (Op::QueueRead, short, "queued_copies_are_there_after_the_wait"),
            (Op::QueueRead, flip, "many_threads_may_call_at_once"),
            (Op::Free, Action::Driver(1), "freeing_gives_the_bytes_back"),
            (Op::Memory, Action::Driver(999), "memory_figures_follow_allocations"),
            (Op::Allocate, Action::OutOfMemory, "addresses_of_live_allocations_are_apart"),
        ] {
            let plan = FaultPlan::new(1).rule(op, always, action.clone()).unwrap();
            let (_, run) = CHECKS.iter().find(|(name, _)| *name == check).unwrap();
            let caught = catch_unwind(AssertUnwindSafe(|| run(&|| faulty(&plan))));
            assert!(caught.is_err(), "{check} does not see {action:?} on {op:?}");
        }
    }
}
