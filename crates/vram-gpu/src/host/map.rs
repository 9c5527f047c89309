//! The memory behind a host allocation: one anonymous mapping, with a lock for each chunk of it.
//! All `unsafe` of the host device is in this file. (A short one is a zeroed piece of the allocator's.)
//!
//! ```text
//!   mapping   |..slack..|  chunk 0  |  chunk 1  |  chunk 2  |ch 3|..slack..|     CHUNK_LEN each
//!             address() ^ at a multiple of 2 MiB, if the allocation is that long
//! ```
//!
//! A mapping costs address space. The kernel gives it zeroed pages of memory as they are touched, huge
//! ones where it can, and takes them back when the mapping is dropped.
//!
//! # Why this is sound
//!
//! - The mapping is private and anonymous. It is made by [`Mapping::new`], starts as zeros, is never
//!   moved, remapped or shrunk, and ends in the drop of [`Mapping`]. [`ReadChunk`] and [`WriteChunk`] borrow the [`Map`] that
//!   owns it, so none of them outlives it.
//! - No data races among our calls. Only methods of `ReadChunk` and `WriteChunk` touch the bytes of a
//!   chunk. A `ReadChunk` holds the chunk's lock for reading and only reads; a `WriteChunk` holds it for
//!   writing. Both are made by [`Map::read`] and [`Map::write`] alone, which pair the lock of chunk `i`
//!   with the bytes of chunk `i`. Bytes of two chunks never overlap. So two accesses to one byte, one
//!   of them a write, are ordered by that lock.
//! - Each access is checked against the length of its chunk, in release builds as well.
//! - No reference to bytes of the mapping is ever made, neither `&[u8]` nor `&mut [u8]`: bytes are
//!   copied through raw pointers, over exactly the range of the call. So code outside that reads a
//!   range through [`Map::address`] conflicts with no call on other bytes of the same chunk.
//! - Code that uses the address keeps two rules, as with the address of a card: it reads only while it
//!   knows that no call writes to those bytes (a lease says so), and it does not write. A buffer that
//!   is passed to a call must not overlap the device range of that call.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "a position here lies inside a mapping that exists, so sums of such positions fit"
)]

use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;
use std::alloc::{alloc_zeroed, dealloc};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use vram_alloc::ByteLen;

use crate::GpuError;

/// Bytes in a chunk: a huge page, large enough that the lock costs little compared with the copy,
/// small enough that two threads rarely use one chunk.
pub(super) const CHUNK_LEN: usize = 2 << 20;

/// The alignment of a long allocation, and the size of a huge page.
const HUGE: usize = 2 << 20;

/// The alignment of a short allocation.
const PAGE: usize = 4 << 10;

/// Fewer bytes come from the allocator. A process has some 65,000 areas of memory, and a hole between
/// two mappings costs one: 10^5 short mappings could leave none for anything else.
const MAPPED_MIN: usize = 128 << 10;

/// Chunks in a page of the directory; a page is allocated on first use.
const PAGE_CHUNKS: usize = 1024;

/// The memory of one allocation and the locks of its chunks.
pub(super) struct Map {
    mapping: Mapping,
    pages: Box<[OnceLock<Box<[Chunk]>>]>,
}

/// The lock of a chunk. It guards the chunk's bytes, and the number of bytes at its start that were
/// written.
type Chunk = RwLock<usize>;

/// One chunk, locked for reading.
pub(super) struct ReadChunk<'a> {
    written: RwLockReadGuard<'a, usize>,
    bytes: Bytes<'a>,
}

/// One chunk, locked for writing.
pub(super) struct WriteChunk<'a> {
    written: RwLockWriteGuard<'a, usize>,
    bytes: Bytes<'a>,
}

impl Map {
    /// Maps `len` bytes, at least 1; none of them has host memory yet.
    pub(super) fn new(len: ByteLen) -> Result<Self, GpuError> {
        let refused = GpuError::HostMemory { wanted: len };
        let count = len.to_usize().ok_or(refused)?;
        let page_count = count.div_ceil(CHUNK_LEN).div_ceil(PAGE_CHUNKS);
        let mut pages = Vec::new();
        pages.try_reserve_exact(page_count).map_err(|_no_room| refused)?;
        pages.resize_with(page_count, OnceLock::new);
        let mapping = Mapping::new(count).ok_or(refused)?;
        Ok(Self { mapping, pages: pages.into_boxed_slice() })
    }

    /// The address of the first byte.
    pub(super) fn address(&self) -> usize {
        // Exposed, so that code outside may make a pointer of it.
        self.mapping.start.as_ptr().expose_provenance()
    }

    /// Locks a chunk for reading; `None` if no chunk in its directory page was ever written.
    pub(super) fn read(&self, chunk: usize) -> Option<ReadChunk<'_>> {
        let page = self.pages.get(chunk / PAGE_CHUNKS)?.get()?;
        let lock = page.get(chunk % PAGE_CHUNKS)?;
        // If a copy panicked (it cannot), the bytes would be a mix, which the trait permits.
        let written = lock.read().unwrap_or_else(PoisonError::into_inner);
        Some(ReadChunk { written, bytes: self.bytes(chunk) })
    }

    /// Locks a chunk for writing.
    pub(super) fn write(&self, chunk: usize) -> Result<WriteChunk<'_>, GpuError> {
        let outside = GpuError::HostMemory { wanted: ByteLen::from_usize(CHUNK_LEN) };
        let page = self.page(chunk / PAGE_CHUNKS)?;
        let lock = page.get(chunk % PAGE_CHUNKS).ok_or(outside)?;
        let written = lock.write().unwrap_or_else(PoisonError::into_inner);
        Ok(WriteChunk { written, bytes: self.bytes(chunk) })
    }

    fn page(&self, page: usize) -> Result<&[Chunk], GpuError> {
        let first = page * PAGE_CHUNKS;
        let count = self.mapping.len.div_ceil(CHUNK_LEN).saturating_sub(first).min(PAGE_CHUNKS);
        let wanted = ByteLen::from_usize(count * size_of::<Chunk>());
        let refused = GpuError::HostMemory { wanted };
        let slot = self.pages.get(page).ok_or(refused)?;
        if let Some(chunks) = slot.get() {
            return Ok(chunks);
        }
        let mut chunks = Vec::new();
        chunks.try_reserve_exact(count).map_err(|_no_room| refused)?;
        chunks.resize_with(count, || RwLock::new(0));
        // Another thread may have set the page first; then that page is used.
        Ok(slot.get_or_init(|| chunks.into_boxed_slice()))
    }

    /// The place of a chunk that has a lock, so that it lies inside.
    fn bytes(&self, chunk: usize) -> Bytes<'_> {
        let offset = chunk * CHUNK_LEN;
        let len = self.mapping.len.checked_sub(offset).map_or(0, |left| left.min(CHUNK_LEN));
        assert!(len > 0, "a chunk that has a lock has bytes");
        // SAFETY: `offset` is less than the length of the mapping, from whose start it counts, and
        // no mapping is longer than `isize::MAX`.
        let start = unsafe { self.mapping.start.add(offset) };
        Bytes { start, len, map: PhantomData }
    }
}

impl ReadChunk<'_> {
    /// Bytes at the start of the chunk that were written; behind them nothing was.
    pub(super) fn written(&self) -> usize {
        *self.written
    }

    /// Copies the bytes at `start` to `target`.
    pub(super) fn read(&self, start: usize, target: &mut [u8]) {
        let from = self.bytes.at(start, target.len());
        // SAFETY: `from` points to `target.len()` bytes of the mapping, which are initialised: a
        // mapping starts as zeros. This value holds their lock for reading, and a call's buffer does not
        // overlap its device range. Bytes need no alignment.
        unsafe { from.copy_to_nonoverlapping(NonNull::from_mut(target).cast(), target.len()) }
    }
}

impl WriteChunk<'_> {
    /// Bytes at the start of the chunk that were written; behind them nothing was, and the mapping
    /// holds zeros there.
    pub(super) fn written(&self) -> usize {
        *self.written
    }

    /// Records that every byte before `end` was written.
    pub(super) fn extend_written(&mut self, end: usize) {
        debug_assert!(end <= self.bytes.len, "outside the chunk");
        *self.written = end.max(*self.written);
    }

    /// Copies `source` to `start`.
    pub(super) fn write(&mut self, start: usize, source: &[u8]) {
        let to = self.bytes.at(start, source.len());
        // SAFETY: `to` points to `source.len()` bytes of the mapping. This value holds their lock
        // for writing, and a call's buffer does not overlap its device range.
        unsafe { to.copy_from_nonoverlapping(NonNull::from_ref(source).cast(), source.len()) }
    }

    /// Sets `len` bytes at `start`.
    pub(super) fn fill(&mut self, start: usize, len: usize, value: u8) {
        let to = self.bytes.at(start, len);
        // SAFETY: `to` points to `len` bytes of the mapping, and this value holds their lock for
        // writing.
        unsafe { to.write_bytes(value, len) }
    }

    /// Copies `len` bytes at `from` of another chunk to `to`.
    pub(super) fn copy(&mut self, to: usize, source: &ReadChunk<'_>, from: usize, len: usize) {
        let (to, from) = (self.bytes.at(to, len), source.bytes.at(from, len));
        // SAFETY: both point to `len` bytes of a mapping. The two values hold their locks, one for
        // writing; one chunk cannot be locked so twice, so these are two chunks and do not overlap.
        unsafe { to.copy_from_nonoverlapping(from, len) }
    }

    /// Copies `len` bytes inside the chunk; the ranges may overlap.
    pub(super) fn copy_within(&mut self, to: usize, from: usize, len: usize) {
        let (to, from) = (self.bytes.at(to, len), self.bytes.at(from, len));
        // SAFETY: both point to `len` bytes of the mapping, and this value holds their lock for
        // writing.
        unsafe { to.copy_from(from, len) }
    }
}

/// Where the bytes of a chunk lie, in a mapping that is borrowed.
struct Bytes<'a> {
    start: NonNull<u8>,
    len: usize,
    map: PhantomData<&'a Map>,
}

impl Bytes<'_> {
    /// A pointer to `len` bytes at `start`, all of which lie in the chunk.
    fn at(&self, start: usize, len: usize) -> NonNull<u8> {
        assert!(start <= self.len && len <= self.len - start, "a piece lies in its chunk");
        // SAFETY: `start` is at most the length of the chunk, which lies in one mapping.
        unsafe { self.start.add(start) }
    }
}

/// An anonymous mapping of this process's own, or a piece of the allocator's memory.
struct Mapping {
    /// The first byte of the allocation.
    start: NonNull<u8>,
    /// Bytes of the allocation.
    len: usize,
    /// Unmapped when this value is dropped.
    _whole: Whole,
}

// SAFETY: a mapping belongs to the process, not to a thread, and this is its one owner.
unsafe impl Send for Mapping {}

// SAFETY: a shared `Mapping` shows two numbers. Its bytes are reached through `Map`, which locks them.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `None` if the system refuses.
    fn new(len: usize) -> Option<Self> {
        // A page-aligned start is enough for a short one, which has no huge page inside.
        let slack = if len >= HUGE { HUGE } else { 0 };
        let whole = len.checked_add(slack).filter(|&whole| isize::try_from(whole).is_ok())?;
        let whole = Whole::new(whole, slack > 0)?;
        let lead = if slack > 0 { whole.start.as_ptr().align_offset(HUGE) } else { 0 };
        assert!(lead <= slack, "each run of 2 MiB has an aligned address");
        // SAFETY: `lead` is at most `slack`, and the whole mapping has `len` bytes more.
        let start = unsafe { whole.start.add(lead) };
        Some(Self { start, len, _whole: whole })
    }
}

/// All of the memory behind a [`Mapping`].
struct Whole {
    start: NonNull<u8>,
    layout: Layout,
    mapped: bool,
}

impl Whole {
    /// `len` zero bytes, more than none, at the start of a page.
    fn new(len: usize, huge: bool) -> Option<Self> {
        let layout = Layout::from_size_align(len, PAGE).ok()?;
        let mapped = cfg!(target_os = "linux") && len >= MAPPED_MIN;
        let start = if mapped {
            system::map(len, huge)?
        } else {
            // SAFETY: the layout has bytes.
            NonNull::new(unsafe { alloc_zeroed(layout) })?
        };
        Some(Self { start, layout, mapped })
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if self.mapped {
            // SAFETY: exactly what `new` mapped, and whose last user was its `Map`.
            unsafe { system::unmap(self.start, self.layout.size()) }
        } else {
            // SAFETY: exactly what `new` allocated, in the same layout, likewise.
            unsafe { dealloc(self.start.as_ptr(), self.layout) }
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use core::ptr::{NonNull, null_mut};

    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

    /// Maps `len` zero bytes, more than none.
    pub(super) fn map(len: usize, huge: bool) -> Option<NonNull<u8>> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // Not reserved: a large device costs nothing until it is used.
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: without a wish for an address, the kernel chooses one where nothing lies.
        let start = unsafe { mmap_anonymous(null_mut(), len, access, flags) }.ok()?;
        if huge {
            // SAFETY: this is the mapping that was just made, and the advice changes no byte.
            // A kernel without huge pages refuses, and gives small ones.
            let _advised = unsafe { madvise(start, len, Advice::LinuxHugepage) };
        }
        NonNull::new(start.cast())
    }

    /// Unmaps what [`map`] made.
    ///
    /// # Safety
    ///
    /// `start` and `len` are of one call of [`map`], and nothing uses these bytes any more.
    pub(super) unsafe fn unmap(start: NonNull<u8>, len: usize) {
        // SAFETY: as the caller promises.
        if let Err(error) = unsafe { munmap(start.as_ptr().cast(), len) } {
            // Possible where the kernel would have to split an area and has too many of them.
            tracing::warn!(%error, bytes = len, "host memory could not be unmapped");
        }
    }
}

/// Never called: where no call to map is known, all memory is of the allocator.
#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) fn map(_len: usize, _huge: bool) -> Option<super::NonNull<u8>> {
        None
    }

    pub(super) unsafe fn unmap(_start: super::NonNull<u8>, _len: usize) {}
}

impl fmt::Debug for Map {
    /// Neither addresses nor device bytes are ever shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("len", &self.mapping.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(len: usize) -> Map {
        Map::new(ByteLen::from_usize(len)).unwrap()
    }

    #[test]
    fn the_bytes_follow_each_other_from_the_address() {
        let map = map(2 * CHUNK_LEN + 3);
        assert_eq!(map.address() % HUGE, 0);
        map.write(0).unwrap().write(CHUNK_LEN - 2, b"ab");
        map.write(1).unwrap().write(0, b"cd");
        map.write(2).unwrap().write(2, b"e");
        let seen = |at: usize| {
            let byte = core::ptr::with_exposed_provenance::<u8>(map.address() + at);
            // SAFETY: the byte lies in the mapping, and no other thread has it.
            unsafe { byte.read() }
        };
        assert_eq!([3, 2, 1, 0].map(|before| seen(CHUNK_LEN + 1 - before)), *b"abcd");
        assert_eq!(seen(2 * CHUNK_LEN + 2), b'e');
    }

    #[test]
    fn a_piece_outside_its_chunk_is_never_reached() {
        let map = map(CHUNK_LEN + 3);
        for (chunk, start, len) in [(0, CHUNK_LEN, 1), (1, 2, 2), (1, usize::MAX, 2)] {
            let refused =
                std::panic::catch_unwind(|| map.write(chunk).unwrap().fill(start, len, 1));
            assert!(refused.is_err(), "{chunk} {start} {len}");
        }
        map.write(1).unwrap().fill(3, 0, 1);
        assert!(map.write(2).is_err() && map.read(2).is_none() && map.read(usize::MAX).is_none());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn short_allocations_take_no_area_of_memory_each() {
        let areas = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
        let before = areas();
        let mut maps: Vec<_> = (0..4000).map(|_| Some(map(1))).collect();
        maps.iter_mut().step_by(2).for_each(|map| *map = None);
        assert!(areas() < before + 1000);
        assert!(maps.iter().flatten().all(|map| map.address() % PAGE == 0));
    }

    #[test]
    fn more_than_the_address_space_is_refused() {
        for len in [1 << 47, 1 << 62, u64::MAX] {
            let wanted = ByteLen::new(len);
            assert_eq!(Map::new(wanted).map(drop), Err(GpuError::HostMemory { wanted }));
        }
    }
}
