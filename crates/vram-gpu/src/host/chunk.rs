//! The bytes behind a host allocation: chunks that take host memory on their first write.
//!
//! ```text
//!   allocation   |  chunk 0  |  chunk 1  |  chunk 2  |ch 3|      CHUNK_LEN each, the last one short
//!   host memory  [written~~~~)           [written)               a chunk holds a prefix; what lies
//!   reads as     [written~~~~|garbage   )[written|garbage...)    behind it is one repeated byte
//! ```
//!
//! Each byte is written once: appending to the prefix copies straight into fresh memory.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "every position here lies inside an allocation whose range was checked, at most 2^48"
)]

use core::ops::Range;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use vram_alloc::ByteLen;

use crate::GpuError;

/// Bytes in a chunk: large enough that the lock costs little compared with the copy, small enough
/// that two threads rarely use one chunk.
pub(super) const CHUNK_LEN: usize = 2 << 20;

/// Chunks in a page of the directory; a page is allocated on first use.
const PAGE_CHUNKS: usize = 1024;

/// A call that needs two chunks locks them in rising order of this key, so that two copies in
/// opposite directions cannot deadlock.
pub(super) type LockKey = (u64, usize);

/// All chunks of one allocation.
#[derive(Debug)]
pub(super) struct Chunks {
    len: usize,
    seed: u64,
    pages: Box<[OnceLock<Box<[Chunk]>>]>,
}

/// One chunk: its lock is held for one copy of at most [`CHUNK_LEN`] bytes.
struct Chunk {
    cells: RwLock<Cells>,
}

/// A written prefix, and the byte value of everything behind it.
pub(super) struct Cells {
    prefix: Vec<u8>,
    rest: u8,
    len: usize,
}

/// A part of a range that lies in one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) chunk: usize,
    /// First byte, from the start of the chunk.
    pub(super) start: usize,
    pub(super) len: usize,
}

impl Piece {
    /// The remainder behind the first `len` bytes.
    pub(super) fn after(self, len: usize) -> Option<Self> {
        (len < self.len).then(|| Self {
            chunk: self.chunk,
            start: self.start + len,
            len: self.len - len,
        })
    }
}

/// Splits a range of an allocation at the chunk boundaries, in order.
pub(super) fn pieces(range: Range<usize>) -> impl Iterator<Item = Piece> {
    let mut at = range.start;
    core::iter::from_fn(move || {
        let start = at % CHUNK_LEN;
        let len = (range.end - at).min(CHUNK_LEN - start);
        let piece = Piece { chunk: at / CHUNK_LEN, start, len };
        at += len;
        (len > 0).then_some(piece)
    })
}

impl Chunks {
    /// Room for `len` bytes; none of them has host memory yet.
    pub(super) fn new(len: ByteLen, seed: u64) -> Result<Self, GpuError> {
        let refused = GpuError::HostMemory { wanted: len };
        let count = len.to_usize().ok_or(refused)?;
        let page_count = count.div_ceil(CHUNK_LEN).div_ceil(PAGE_CHUNKS);
        let mut pages = Vec::new();
        pages.try_reserve_exact(page_count).map_err(|_no_room| refused)?;
        pages.resize_with(page_count, OnceLock::new);
        Ok(Self { len: count, seed, pages: pages.into_boxed_slice() })
    }

    /// Locks a chunk for reading; `None` if no chunk in its directory page was ever written.
    pub(super) fn read(&self, chunk: usize) -> Option<RwLockReadGuard<'_, Cells>> {
        let page = self.pages[chunk / PAGE_CHUNKS].get()?;
        // If a copy panicked (it cannot), the bytes would be a mix, which the trait permits.
        Some(page[chunk % PAGE_CHUNKS].cells.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Locks a chunk for writing.
    pub(super) fn write(&self, chunk: usize) -> Result<RwLockWriteGuard<'_, Cells>, GpuError> {
        let page = self.page(chunk / PAGE_CHUNKS)?;
        Ok(page[chunk % PAGE_CHUNKS].cells.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// The value of a chunk's unwritten bytes: never zero, and different in the next chunk.
    pub(super) fn garbage(&self, chunk: usize) -> u8 {
        let chunk = u64::try_from(chunk).unwrap_or(u64::MAX);
        let mixed = (self.seed ^ chunk.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed.to_be_bytes()[0] | 0x81
    }

    fn page(&self, page: usize) -> Result<&[Chunk], GpuError> {
        let slot = &self.pages[page];
        if let Some(chunks) = slot.get() {
            return Ok(chunks);
        }
        let first = page * PAGE_CHUNKS;
        let count = (self.len.div_ceil(CHUNK_LEN) - first).min(PAGE_CHUNKS);
        let mut chunks = Vec::new();
        if chunks.try_reserve_exact(count).is_err() {
            return Err(no_host_memory(count * size_of::<Chunk>()));
        }
        chunks.extend((first..first + count).map(|chunk| {
            let len = (self.len - chunk * CHUNK_LEN).min(CHUNK_LEN);
            let cells = Cells { prefix: Vec::new(), rest: self.garbage(chunk), len };
            Chunk { cells: RwLock::new(cells) }
        }));
        // Another thread may have set the page first; then that page is used.
        Ok(slot.get_or_init(|| chunks.into_boxed_slice()))
    }
}

impl Cells {
    /// Copies `source` to `start`.
    pub(super) fn write(&mut self, start: usize, source: &[u8]) -> Result<(), GpuError> {
        self.grow_to(start)?;
        let known = (self.prefix.len() - start).min(source.len());
        let (over, fresh) = source.split_at(known);
        self.prefix[start..start + known].copy_from_slice(over);
        self.prefix.extend_from_slice(fresh);
        Ok(())
    }

    /// Copies the bytes at `start` to `target`.
    pub(super) fn read(&self, start: usize, target: &mut [u8]) {
        let known = self.prefix.len().saturating_sub(start).min(target.len());
        let (written, unwritten) = target.split_at_mut(known);
        if known > 0 {
            written.copy_from_slice(&self.prefix[start..start + known]);
        }
        unwritten.fill(self.rest);
    }

    /// Sets `len` bytes at `start`. Unwritten bytes up to the end of the chunk need no host memory.
    pub(super) fn fill(&mut self, start: usize, len: usize, value: u8) -> Result<(), GpuError> {
        let end = start + len;
        if end == self.len && start <= self.prefix.len() {
            self.prefix[start..].fill(value);
            self.rest = value;
            return Ok(());
        }
        self.grow_to(start)?;
        let known = end.min(self.prefix.len());
        self.prefix[start..known].fill(value);
        if end > known {
            self.prefix.resize(end, value);
        }
        Ok(())
    }

    /// Copies `len` bytes at `start` of `source` to `to`.
    pub(super) fn copy(
        &mut self,
        to: usize,
        source: &Self,
        start: usize,
        len: usize,
    ) -> Result<(), GpuError> {
        let known = source.prefix.len().saturating_sub(start).min(len);
        if known > 0 {
            self.write(to, &source.prefix[start..start + known])?;
        }
        if known < len { self.fill(to + known, len - known, source.rest) } else { Ok(()) }
    }

    /// Copies inside the chunk; the ranges must not overlap.
    pub(super) fn copy_within(
        &mut self,
        to: usize,
        start: usize,
        len: usize,
    ) -> Result<(), GpuError> {
        self.grow_to((to + len).max(start + len))?;
        self.prefix.copy_within(start..start + len, to);
        Ok(())
    }

    /// Extends the prefix so that every byte before `end` is written.
    fn grow_to(&mut self, end: usize) -> Result<(), GpuError> {
        if self.prefix.capacity() == 0 {
            // Reserves the whole chunk at once: untouched pages cost nothing, and the prefix never
            // moves.
            let reserved = self.prefix.try_reserve_exact(self.len);
            reserved.map_err(|_no_room| no_host_memory(self.len))?;
        }
        if end > self.prefix.len() {
            self.prefix.resize(end, self.rest);
        }
        Ok(())
    }
}

fn no_host_memory(wanted: usize) -> GpuError {
    GpuError::HostMemory { wanted: ByteLen::from_usize(wanted) }
}

impl core::fmt::Debug for Chunk {
    /// Device bytes are never shown.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Chunk(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_a_range_exactly_and_stay_in_their_chunk() {
        for (start, len) in [
            (0, 0),
            (CHUNK_LEN, 0),
            (0, 1),
            (CHUNK_LEN - 1, 2),
            (5, 3 * CHUNK_LEN),
            (CHUNK_LEN, CHUNK_LEN),
        ] {
            let mut at = start;
            for piece in pieces(start..start + len) {
                assert_eq!(piece.chunk * CHUNK_LEN + piece.start, at);
                assert!(piece.len > 0 && piece.start + piece.len <= CHUNK_LEN);
                at += piece.len;
            }
            assert_eq!(at, start + len);
        }
    }

    #[test]
    fn untouched_bytes_take_no_host_memory_even_when_filled() {
        let chunks = Chunks::new(ByteLen::from_usize(3 * CHUNK_LEN), 1).unwrap();
        assert!(chunks.read(2).is_none(), "nothing was written yet");
        let mut cells = chunks.write(1).unwrap();
        cells.fill(0, CHUNK_LEN, 0).unwrap();
        assert_eq!(cells.prefix.capacity(), 0);

        let mut seen = [1; 8];
        cells.read(CHUNK_LEN - 8, &mut seen);
        assert_eq!(seen, [0; 8]);
    }

    #[test]
    fn filling_overwrites_the_written_bytes_themselves() {
        let mut cells = Cells { prefix: Vec::new(), rest: 0xEE, len: 64 };
        cells.write(0, &[7; 48]).unwrap();
        cells.fill(8, 56, 0).unwrap();
        assert_eq!(cells.prefix[..8], [7; 8]);
        assert_eq!(cells.prefix[8..48], [0; 40], "hidden bytes would still be in host memory");
    }

    #[test]
    fn unwritten_bytes_can_be_copied_and_stay_what_they_read_as() {
        let mut cells = Cells { prefix: Vec::new(), rest: 0xEE, len: 64 };
        cells.write(0, &[7; 8]).unwrap();
        cells.copy_within(0, 4, 4).unwrap();
        cells.copy_within(8, 40, 8).unwrap();
        cells.copy_within(2, 60, 4).unwrap();
        let source = Cells { prefix: vec![1; 4], rest: 0xAA, len: 64 };
        cells.copy(20, &source, 0, 10).unwrap();
        cells.copy(60, &source, 10, 4).unwrap();

        let mut wanted = [0xEE; 64];
        wanted[..8].copy_from_slice(&[7, 7, 0xEE, 0xEE, 0xEE, 0xEE, 7, 7]);
        wanted[20..24].fill(1);
        wanted[24..30].fill(0xAA);
        wanted[60..].fill(0xAA);
        let mut seen = [0; 64];
        cells.read(0, &mut seen);
        assert_eq!(seen, wanted);
    }

    #[test]
    fn garbage_is_never_zero() {
        let chunks = Chunks::new(ByteLen::MIB, 7).unwrap();
        assert!((0..10_000).all(|chunk| chunks.garbage(chunk) != 0));
    }
}
