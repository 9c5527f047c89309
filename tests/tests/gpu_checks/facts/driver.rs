//! What allocations, streams, page locks and pointers cost and answer.

use cust::memory::{CopyDestination, DeviceBuffer, LockedBuffer};
use cust::sys::{self, CUpointer_attribute_enum as Attribute};

use super::{fact, ordinals};
use crate::facts::raw::{self, Stream, code, fell_since, free, in_us};
use crate::plain::context;

const MIB: usize = 1 << 20;
/// What a driver may keep of freed memory.
const KEPT: u64 = 32 << 20;

#[test]
fn allocations_come_in_steps_and_come_back() {
    for ordinal in ordinals() {
        let _context = context(ordinal);
        let at_first = free();
        fact(ordinal, &"free at first", &at_first);
        for len in [1, 1, 4096, 64 << 10, MIB, MIB + 1, 2 * MIB, 2 * MIB + 1, 3 * MIB, 64 * MIB] {
            let before = free();
            let (buffer, took) = in_us(|| raw::buffer(len));
            let fell = fell_since(before);
            let address = buffer.as_device_ptr().as_raw();
            let ((), freed) = in_us(|| drop(buffer));
            let answer = format!(
                "{fell}, {} after the free; address mod 2 MiB {}; {took} us, free {freed} us",
                fell_since(before),
                address % (2 << 20)
            );
            fact(ordinal, &format_args!("allocate {len} bytes"), &answer);
        }
        assert!(at_first.saturating_sub(free()) <= KEPT, "{}", fell_since(at_first));
    }
}

#[test]
fn streams_and_first_uses_take_device_memory() {
    for ordinal in ordinals() {
        let _context = context(ordinal);
        let (mut one, two) = (raw::buffer(8 * MIB), raw::buffer(8 * MIB));
        let before = free();
        let mut streams = Vec::new();
        for count in [1, 2, 8, 32] {
            streams.resize_with(count, || Stream::new(false));
            fact(ordinal, &format_args!("{count} streams"), &fell_since(before));
        }
        drop(streams);
        fact(ordinal, &"streams destroyed", &fell_since(before));
        let before = free();
        one.set_8(1).unwrap();
        cust::context::CurrentContext::synchronize().unwrap();
        fact(ordinal, &"first fill", &fell_since(before));
        let before = free();
        one.copy_from(&two).unwrap();
        cust::context::CurrentContext::synchronize().unwrap();
        fact(ordinal, &"first copy within", &fell_since(before));
    }
}

#[test]
fn page_locks_take_time_and_can_be_repeated() {
    for ordinal in ordinals() {
        let _context = context(ordinal);
        let device = raw::buffer(8 * MIB);
        let stream = Stream::new(false);
        for len in [4096, MIB, 4 * MIB, 64 * MIB] {
            let mut bytes = Vec::new();
            let pages = raw::pages(&mut bytes, len);
            for round in 0..2 {
                let before = free();
                let (answer, took) = in_us(|| raw::lock(pages));
                assert_eq!(answer, 0, "{len} bytes");
                let fell = fell_since(before);
                let count = (32 * MIB / len).clamp(1, 32);
                let part = len.min(8 * MIB);
                let ((), copied) = in_us(|| {
                    for _ in 0..count {
                        let (to, from) = (device.as_device_ptr().as_raw(), pages.as_ptr());
                        // SAFETY: both ends are valid for `part` bytes until the wait below.
                        let queued =
                            unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.cast(), part, stream.0) };
                        assert_eq!(code(queued), 0);
                    }
                    stream.wait();
                });
                let rate = (count * part) as f64 / (copied.max(1) as f64) / 1e3;
                let (unlocked, took_back) = in_us(|| raw::unlock(pages));
                assert_eq!(unlocked, 0);
                let what = format!("lock {len} bytes, round {round}");
                let answer = format!(
                    "{took} us, unlock {took_back} us; {fell}; {count} copies of {part} bytes to \
                     the device at {rate:.1} GB/s"
                );
                fact(ordinal, &what, &answer);
            }
        }
    }
}

/// The reason why streams of the CUDA device do not block.
#[test]
fn copies_wait_for_the_default_stream_in_blocking_streams_alone() {
    for ordinal in ordinals() {
        let _context = context(ordinal);
        let len = (free() / 4).clamp(MIB as u64, 4 << 30) as usize;
        let (mut busy, device) = (raw::buffer(len), raw::buffer(MIB));
        let mut locked = LockedBuffer::new(&1_u8, MIB).unwrap();
        for blocking in [false, true] {
            let stream = Stream::new(blocking);
            for _ in 0..8 {
                busy.set_8(1).unwrap();
            }
            let ((), took) = in_us(|| {
                let (to, from) = (device.as_device_ptr().as_raw(), locked.as_mut_ptr());
                // SAFETY: both ends are valid for a MiB until the wait.
                let queued = unsafe {
                    sys::cuMemcpyHtoDAsync_v2(to, from.cast_const().cast(), MIB, stream.0)
                };
                assert_eq!(code(queued), 0);
                stream.wait();
            });
            let what = if blocking { "blocking" } else { "not blocking" };
            let what = format!("1 MiB in a stream, {what}, beside 8 fills of {} MiB", len >> 20);
            fact(ordinal, &what, &format_args!("{took} us"));
            cust::context::CurrentContext::synchronize().unwrap();
        }
    }
}

/// Memory type, managed, host pointer, ordinal; and the code.
fn attributes(address: u64) -> (u32, u32, u32, usize, i32) {
    let (mut kind, mut managed, mut ordinal) = (9_u32, 9_u32, -9_i32);
    let mut host: usize = 9;
    let mut wanted = [
        Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
        Attribute::CU_POINTER_ATTRIBUTE_IS_MANAGED,
        Attribute::CU_POINTER_ATTRIBUTE_HOST_POINTER,
        Attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
    ];
    let mut answers = [
        (&raw mut kind).cast(),
        (&raw mut managed).cast(),
        (&raw mut host).cast(),
        (&raw mut ordinal).cast(),
    ];
    // SAFETY: four attributes and a place for each answer; any address may be queried.
    let result = unsafe {
        sys::cuPointerGetAttributes(4, wanted.as_mut_ptr(), answers.as_mut_ptr(), address)
    };
    (code(result), kind, managed, host, ordinal)
}

#[test]
fn pointers_of_every_kind_have_attributes() {
    for ordinal in ordinals() {
        let _context = context(ordinal);
        let say = |what: &str, address: u64| {
            let (code, kind, managed, host, place) = attributes(address);
            let host = if host == 0 { "none" } else { "some" };
            let answer = format!(
                "code {code}, type {kind}, managed {managed}, host pointer {host}, ordinal {place}"
            );
            fact(ordinal, &format_args!("attributes of {what}"), &answer);
            (code, kind)
        };
        let buffer: DeviceBuffer<u8> = raw::buffer(MIB);
        assert_eq!(say("an allocation", buffer.as_device_ptr().as_raw()), (0, 2));
        say("an address that nobody knows", 0x1000);
        let mut bytes = Vec::new();
        let pages = raw::pages(&mut bytes, MIB);
        say("ordinary memory", pages.as_ptr().addr() as u64);
        assert_eq!(raw::lock(pages), 0);
        assert_eq!(say("locked memory", pages.as_ptr().addr() as u64), (0, 1));
        assert_eq!(raw::unlock(pages), 0);
    }
}
