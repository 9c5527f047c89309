//! Where long buffers of the host begin, and copies between them.
//!
//! Some processors copy at a fifth of their speed when the target lies 1 to 31 bytes behind the source,
//! both taken modulo a page: 2.7 instead of 15 GB/s on an AMD EPYC of family 25 (Zen 3), in the kernel and
//! in the C library alike, since both copy long runs by `rep movsb`.
//!
//! ```text
//!   position in a page    0                16                    64
//!   begins there          pages of files,  long blocks of        buffers that begin as
//!                         mapped memory    glibc's allocator     this module says
//! ```
//!
//! So the usual buffer, at 16, is the worst target for a read of a file. One that begins at 64 is far enough
//! from both, as a target and as a source. Nothing but speed depends on it.
//!
//! # Source
//!
//! glibc bugs 30994 and 30995, <https://sourceware.org/bugzilla/show_bug.cgi?id=30994>.

/// Bytes of a page.
const PAGE: usize = 4096;

/// Where a buffer begins in its page: a cache line behind the start.
const START: usize = 64;

/// A target less than this far behind its source is slow.
const NEAR: usize = 32;

/// Bytes of one copy where source and target are near: C libraries copy fewer than 2112 without
/// `rep movsb`.
const PIECE: usize = 2048;

/// Shorter buffers begin anywhere.
const LONG: usize = 64 << 10;

/// Bytes to allocate for a buffer of `len` bytes; `None` if no host has as many.
#[must_use]
pub const fn room_for(len: usize) -> Option<usize> {
    if len < LONG { Some(len) } else { len.checked_add(PAGE) }
}

/// Bytes to leave out at `address`, so that the buffer begins where copies are fast: at most `spare`, which
/// is 0 for a buffer that begins anywhere.
#[must_use]
pub const fn lead(address: usize, spare: usize) -> usize {
    let lead = START.wrapping_sub(address) % PAGE;
    if lead <= spare { lead } else { 0 }
}

/// Copies as many bytes as both have, from the start, and returns how many.
pub fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let len = from.len().min(to.len());
    let step = longest_piece(from.as_ptr().addr(), to.as_ptr().addr(), len);
    copy_by(step, from, to)
}

/// As [`copy`], to bytes that are read next: always in short pieces, which stay in the cache. `rep movsb`
/// leaves them to the memory on an AMD EPYC (Zen 3): a segment that is copied so and then opened takes
/// twice the time of one that is copied in pieces.
pub fn copy_to_use(from: &[u8], to: &mut [u8]) -> usize {
    copy_by(PIECE, from, to)
}

/// Copies as many bytes as both have, `step` at a time; `step` is at least 1.
fn copy_by(step: usize, from: &[u8], to: &mut [u8]) -> usize {
    let len = from.len().min(to.len());
    let (Some(from), Some(to)) = (from.get(..len), to.get_mut(..len)) else { return 0 };
    for (to, from) in to.chunks_mut(step).zip(from.chunks(step)) {
        to.copy_from_slice(from);
    }
    len
}

/// How many bytes to copy at a time from one address to another, of `len`: all of them, or short pieces
/// where that is quicker. At least 1.
#[must_use]
pub const fn longest_piece(from: usize, to: usize, len: usize) -> usize {
    let behind = to.wrapping_sub(from) % PAGE;
    let near = 0 < behind && behind < NEAR;
    if near && len > PIECE {
        PIECE
    } else if len == 0 {
        1
    } else {
        len
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn bytes_that_are_used_next_are_copied_whatever_the_lengths() {
        let from: Vec<u8> = (0..10_000_u32).map(|at| at.to_le_bytes()[0] ^ 0x5a).collect();
        for len in [0, 1, PIECE - 1, PIECE, PIECE + 1, 5000, 10_000, 12_000] {
            let mut to = vec![7; len];
            let done = copy_to_use(&from, &mut to);
            assert_eq!(done, len.min(from.len()));
            assert_eq!(to[..done], from[..done]);
            assert!(to[done..].iter().all(|byte| *byte == 7));
            assert_eq!(copy_to_use(&from[..len.min(3)], &mut to), len.min(3));
        }
    }

    #[test]
    fn a_long_buffer_begins_a_line_behind_a_page_and_any_buffer_lies_inside() {
        for len in [0, 1, LONG - 1, LONG, LONG + 1, 300_000] {
            let room = vec![0_u8; room_for(len).unwrap()];
            let address = room.as_ptr().addr();
            let lead = lead(address, room.len() - len);
            assert!(lead + len <= room.len(), "{lead} + {len} of {}", room.len());
            if len >= LONG {
                assert_eq!((address + lead) % PAGE, START);
            }
        }
        for address in [0, 1, 16, 63, 64, 65, 4095, 4096, usize::MAX] {
            assert_eq!(address.wrapping_add(lead(address, PAGE)) % PAGE, START, "{address}");
            assert_eq!(lead(address, 0), 0);
        }
        assert_eq!(room_for(usize::MAX), None);
    }

    #[test]
    fn a_copy_is_exact_however_source_and_target_lie() {
        let from: Vec<u8> = (0..20_000_usize).map(|at| (at ^ (at >> 8)).to_le_bytes()[0]).collect();
        let mut to = vec![0; 30_000];
        for shift in (0..70).chain([4000, 4064, 4095, 4096]) {
            for len in [0, 1, PIECE, PIECE + 1, 3 * PIECE, 20_000] {
                to.fill(0xA5);
                assert_eq!(copy(&from[..len], &mut to[shift..]), len);
                assert_eq!(to[shift..shift + len], from[..len], "{shift}, {len}");
                assert!(to[shift + len..].iter().all(|byte| *byte == 0xA5), "{shift}, {len}");
            }
        }
        assert_eq!(copy(&from, &mut to[..3]), 3);
    }

    #[test]
    fn only_a_target_close_behind_its_source_is_copied_in_pieces() {
        for (from, to, near) in [
            (4096, 4096, false),
            (4096, 8192, false),
            (4096, 8193, true),
            (4096, 8192 + 31, true),
            (4096, 8192 + 32, false),
            (16, 4096, false),
            (4096 + 64, 16, false),
            (4095, 4096, true),
        ] {
            let piece = longest_piece(from, to, 1 << 20);
            assert_eq!(piece, if near { PIECE } else { 1 << 20 }, "{from}, {to}");
            assert_eq!(longest_piece(from, to, 100), 100);
            assert_eq!(longest_piece(from, to, 0), 1);
        }
    }
}
