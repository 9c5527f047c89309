//! What the bytes of a host allocation read as: chunks that take host memory on their first write.
//!
//! ```text
//!   allocation   |  chunk 0  |  chunk 1  |  chunk 2  |ch 3|      CHUNK_LEN each, the last one short
//!   mapping      [written~~~~0000)       [written0000)           a prefix was written; behind it
//!   reads as     [written~~~~|garbage   )[written|garbage...)    the mapping still holds zeros
//! ```
//!
//! Fresh bytes read as one repeated byte, as garbage does on a card. That byte is stored only where a
//! write leaves a gap before it. Through the address of the memory, fresh bytes read as zeros.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "every position here lies inside an allocation whose range was checked, at most 2^48"
)]

use core::ops::Range;

use vram_alloc::{ByteLen, host};

use super::map::{CHUNK_LEN, Map, ReadChunk, WriteChunk};
use crate::GpuError;

/// A call that needs two chunks locks them in rising order of this key, so that two copies in
/// opposite directions cannot deadlock.
pub(super) type LockKey = (u64, usize);

/// All chunks of one allocation.
#[derive(Debug)]
pub(super) struct Chunks {
    seed: u64,
    map: Map,
}

/// A chunk that is locked for reading, or of which nothing was ever written.
pub(super) struct Source<'a> {
    chunk: Option<ReadChunk<'a>>,
    garbage: u8,
}

/// A chunk that is locked for writing.
pub(super) struct Target<'a> {
    chunk: WriteChunk<'a>,
    garbage: u8,
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
    /// Room for `len` bytes, at least 1; none of them has host memory yet.
    pub(super) fn new(len: ByteLen, seed: u64) -> Result<Self, GpuError> {
        Ok(Self { seed, map: Map::new(len)? })
    }

    /// The address of the first byte. All bytes follow each other from there.
    pub(super) fn address(&self) -> usize {
        self.map.address()
    }

    /// Locks a chunk for reading, for one copy of at most [`CHUNK_LEN`] bytes.
    pub(super) fn read(&self, chunk: usize) -> Source<'_> {
        Source { chunk: self.map.read(chunk), garbage: self.garbage(chunk) }
    }

    /// Locks a chunk for writing, likewise.
    pub(super) fn write(&self, chunk: usize) -> Result<Target<'_>, GpuError> {
        Ok(Target { chunk: self.map.write(chunk)?, garbage: self.garbage(chunk) })
    }

    /// The value of a chunk's unwritten bytes: never zero, and different in the next chunk.
    fn garbage(&self, chunk: usize) -> u8 {
        let chunk = u64::try_from(chunk).unwrap_or(u64::MAX);
        let mixed = (self.seed ^ chunk.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed.to_be_bytes()[0] | 0x81
    }
}

impl Source<'_> {
    /// Copies the bytes at `start` to `target`.
    pub(super) fn read(&self, start: usize, target: &mut [u8]) {
        let (written, unwritten) = target.split_at_mut(self.known(start, target.len()));
        if let Some(chunk) = self.chunk.as_ref().filter(|_| !written.is_empty()) {
            // An allocation begins at a page, so `start` says how the two lie to each other.
            let step = host::longest_piece(start, written.as_ptr().addr(), written.len());
            let mut at = start;
            for part in written.chunks_mut(step) {
                chunk.read(at, part);
                at += part.len();
            }
        }
        unwritten.fill(self.garbage);
    }

    /// How many of the `len` bytes at `start` come before the first that was not written.
    fn known(&self, start: usize, len: usize) -> usize {
        let written = self.chunk.as_ref().map_or(0, ReadChunk::written);
        written.saturating_sub(start).min(len)
    }
}

impl Target<'_> {
    /// Copies `source` to `start`.
    pub(super) fn write(&mut self, start: usize, source: &[u8]) {
        self.grow_to(start);
        let step = host::longest_piece(source.as_ptr().addr(), start, source.len());
        let mut at = start;
        for part in source.chunks(step) {
            self.chunk.write(at, part);
            at += part.len();
        }
        self.chunk.extend_written(start + source.len());
    }

    /// Sets `len` bytes at `start`. Zeros behind the written bytes take no host memory.
    pub(super) fn fill(&mut self, start: usize, len: usize, value: u8) {
        self.grow_to(start);
        // The mapping holds zeros there.
        let stored = if value == 0 { len.min(self.chunk.written() - start) } else { len };
        self.chunk.fill(start, stored, value);
        self.chunk.extend_written(start + len);
    }

    /// Copies `len` bytes at `start` of `source` to `to`.
    pub(super) fn copy(&mut self, to: usize, source: &Source<'_>, start: usize, len: usize) {
        let known = source.known(start, len);
        if let Some(chunk) = source.chunk.as_ref().filter(|_| known > 0) {
            self.grow_to(to);
            self.chunk.copy(to, chunk, start, known);
            self.chunk.extend_written(to + known);
        }
        if known < len {
            self.fill(to + known, len - known, source.garbage);
        }
    }

    /// Copies inside the chunk; the ranges must not overlap.
    pub(super) fn copy_within(&mut self, to: usize, start: usize, len: usize) {
        self.grow_to(to.max(start + len));
        self.chunk.copy_within(to, start, len);
        self.chunk.extend_written(to + len);
    }

    /// Stores garbage so that every byte before `end` counts as written.
    fn grow_to(&mut self, end: usize) {
        let written = self.chunk.written();
        if end > written {
            self.chunk.fill(written, end - written, self.garbage);
            self.chunk.extend_written(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(len: usize) -> Chunks {
        Chunks::new(ByteLen::from_usize(len), 1).unwrap()
    }

    fn seen(chunks: &Chunks, start: usize, len: usize) -> Vec<u8> {
        let mut seen = vec![0; len];
        chunks.read(0).read(start, &mut seen);
        seen
    }

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
    fn bytes_that_were_not_written_read_as_garbage_and_then_as_they_were_filled() {
        let chunks = Chunks::new(ByteLen::from_usize(3 * CHUNK_LEN), 1).unwrap();
        let mut seen = [1; 8];
        chunks.read(2).read(CHUNK_LEN - 8, &mut seen);
        assert_eq!(seen, [chunks.garbage(2); 8], "nothing was written yet");
        chunks.write(1).unwrap().fill(0, CHUNK_LEN, 0);
        chunks.read(1).read(CHUNK_LEN - 8, &mut seen);
        assert_eq!(seen, [0; 8]);
        chunks.write(1).unwrap().fill(8, CHUNK_LEN - 8, 7);
        chunks.read(1).read(CHUNK_LEN - 8, &mut seen);
        assert_eq!(seen, [7; 8]);
        chunks.read(2).read(0, &mut seen);
        assert_eq!(seen, [chunks.garbage(2); 8], "the next chunk is as fresh as before");
    }

    #[test]
    fn zeros_overwrite_the_written_bytes_themselves() {
        let chunks = chunks(64);
        let mut cells = chunks.write(0).unwrap();
        cells.write(0, &[7; 48]);
        cells.fill(8, 56, 0);
        drop(cells);
        assert_eq!(seen(&chunks, 0, 8), [7; 8]);
        assert_eq!(seen(&chunks, 8, 56), [0; 56], "hidden bytes would still be in host memory");
    }

    #[test]
    fn unwritten_bytes_can_be_copied_and_stay_what_they_read_as() {
        let (chunks, other) = (chunks(64), chunks(64));
        let (own, foreign) = (chunks.garbage(0), other.garbage(0) ^ 0x10);
        let mut cells = chunks.write(0).unwrap();
        cells.write(0, &[7; 8]);
        cells.copy_within(0, 4, 4);
        cells.copy_within(8, 40, 8);
        cells.copy_within(2, 60, 4);
        other.write(0).unwrap().write(0, &[1; 4]);
        let source = Source { garbage: foreign, ..other.read(0) };
        cells.copy(20, &source, 0, 10);
        cells.copy(60, &source, 10, 4);
        drop(cells);

        let mut wanted = [own; 64];
        wanted[..8].copy_from_slice(&[7, 7, own, own, own, own, 7, 7]);
        wanted[20..24].fill(1);
        wanted[24..30].fill(foreign);
        wanted[60..].fill(foreign);
        assert_eq!(seen(&chunks, 0, 64), wanted);
    }

    #[test]
    fn garbage_is_never_zero() {
        let chunks = Chunks::new(ByteLen::MIB, 7).unwrap();
        assert!((0..10_000).all(|chunk| chunks.garbage(chunk) != 0));
    }
}
