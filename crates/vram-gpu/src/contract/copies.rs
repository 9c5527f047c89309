//! Checks of writing, reading, filling and copying bytes.

use vram_alloc::{ByteLen, DeviceOffset};

use super::{Dice, Factory, allocate, free_range, pattern, range, read};
use crate::GpuError;

/// Compares with a plain vector: writes at random places and of random lengths, read back whole and
/// in parts.
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
            // A range checked against a longer allocation than this one.
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

/// Empty copies succeed at every position, the end included.
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

/// Compares with a plain vector, over fresh and over written bytes.
pub fn fill_sets_its_range_and_no_other_byte(factory: Factory<'_>) {
    const LEN: usize = (4 << 20) + 77;
    for device in factory() {
        let memory = allocate(&*device, LEN);
        // Over fresh bytes: the end, then the start, so that all of them are known.
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

        // Ranges that touch without overlapping, in both directions; then one byte more.
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

/// Exact bytes where the pair of devices supports the copy, otherwise an error that names both.
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
