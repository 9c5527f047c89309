//! The memory of one simulated device: addresses, allocations and bytes.

use std::collections::{BTreeMap, HashMap};

use crate::code;
use crate::shared::{Shared, Ticket};

/// The first device address. It is not canonical on any 64-bit host, so a host pointer is never
/// mistaken for a device address, and dereferencing one on the host stops the program at once.
const FIRST_ADDRESS: u64 = 0x00D0_0000_0000_0000;
/// The address space of one device, and therefore the limit of its memory.
pub(crate) const SPAN: u64 = 1 << 44;
/// Bytes between two allocations that belong to neither.
const GAP: u64 = 512;
/// Bytes are stored in chunks of this size, each allocated on its first write.
const CHUNK: u64 = Memory::CHUNK;

/// One live allocation, as the driver counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Device address of its first byte.
    pub address: u64,
    /// Bytes that were requested.
    pub len: u64,
    /// Bytes that it occupies on the device: `len` rounded up to the granularity.
    pub taken: u64,
    /// The number of the allocation on its device, from 1.
    pub serial: u64,
    pub(crate) context: u64,
    pub(crate) origin: Origin,
}

/// Where an allocation comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `cuMemAlloc`.
    Allocated,
    /// `cuMemAllocAsync`: memory of a pool, which has no handle for other processes.
    Pooled,
    /// Opened by a handle of another process, so often.
    Opened { times: u64 },
}

/// Why an access is not inside one live allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outside {
    /// It begins in a live allocation and ends outside it.
    Beyond { inside: Allocation },
    /// It begins in memory that was freed.
    Freed { address: u64, len: u64 },
    /// There was never an allocation.
    Nowhere,
}

#[derive(Debug)]
enum Chunk {
    /// All bytes are equal, as after a wipe: a wiped device costs no host memory.
    Uniform(u8),
    Bytes(Box<[u8]>),
    /// All bytes of one allocation, which other processes can open or have exported.
    Shared(Shared),
}

/// A part of a range that lies in one shared allocation, or in none.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// The slab of the allocation, and the position in it.
    shared: Option<(usize, u64)>,
    address: u64,
    len: u64,
    /// Bytes of the range before it.
    done: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Memory {
    base: u64,
    seed: u64,
    granularity: u64,
    live: BTreeMap<u64, Allocation>,
    freed: BTreeMap<u64, u64>,
    /// Free address ranges below `high`, by start; never adjacent.
    holes: BTreeMap<u64, u64>,
    high: u64,
    taken: u64,
    serial: u64,
    /// The slab of each chunk that was ever written.
    chunks: HashMap<u64, usize>,
    slabs: Vec<Chunk>,
    /// The slab of each allocation that is shared with other processes, by its address: its bytes lie
    /// there, and not in chunks.
    shared: BTreeMap<u64, usize>,
}

/// The ordinal of the device to which an address belongs, whether or not that device exists.
pub(crate) fn ordinal_of(address: u64) -> Option<u32> {
    u32::try_from(address.checked_sub(FIRST_ADDRESS)? / SPAN).ok().filter(|ordinal| *ordinal < MOST)
}

/// The maximum number of devices: further ones would have no addresses.
pub(crate) const MOST: u32 = 1 << 19;

#[expect(
    clippy::arithmetic_side_effects,
    reason = "addresses lie in a device's span, whose end is far from the end of u64"
)]
impl Memory {
    /// See [`CHUNK`]. Bytes that an aligned access covers lie in one chunk.
    pub(crate) const CHUNK: u64 = 64 << 10;

    pub(crate) fn new(ordinal: u32, granularity: u64, seed: u64) -> Self {
        let base = FIRST_ADDRESS + u64::from(ordinal) * SPAN;
        Self {
            base,
            seed: seed ^ base,
            granularity,
            live: BTreeMap::new(),
            freed: BTreeMap::new(),
            holes: BTreeMap::new(),
            // Not at zero: the first allocation of a device must not have the device's own address.
            high: base + GAP,
            taken: 0,
            serial: 0,
            chunks: HashMap::new(),
            slabs: Vec::new(),
            shared: BTreeMap::new(),
        }
    }

    /// The device's own addresses, used or not.
    pub(crate) const fn addresses(&self) -> core::ops::Range<u64> {
        self.base..self.base + SPAN
    }

    /// Bytes taken by live allocations.
    pub(crate) const fn taken(&self) -> u64 {
        self.taken
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = &Allocation> {
        self.live.values()
    }

    /// Allocates `len` bytes (not zero) from `room` bytes.
    pub(crate) fn allocate(
        &mut self,
        len: u64,
        room: u64,
        context: u64,
        origin: Origin,
    ) -> Result<u64, u32> {
        let taken = len.checked_next_multiple_of(self.granularity).ok_or(code::OUT_OF_MEMORY)?;
        if taken > room {
            return Err(code::OUT_OF_MEMORY);
        }
        let address = self.place(taken).ok_or(code::OUT_OF_MEMORY)?;
        self.serial += 1;
        let serial = self.serial;
        self.live.insert(address, Allocation { address, len, taken, serial, context, origin });
        self.taken += taken;
        // Freed memory at this place is live again, at least in part.
        self.freed.retain(|start, len| *start + *len <= address || *start >= address + taken);
        Ok(address)
    }

    /// The lowest hole that fits, or fresh addresses. Pages can be mapped anywhere, so allocations
    /// fail only for lack of memory and never because of fragmentation.
    fn place(&mut self, taken: u64) -> Option<u64> {
        let span = taken.checked_add(GAP)?;
        let aligned = |start: u64| start.checked_next_multiple_of(self.granularity);
        let hole = self.holes.iter().find_map(|(start, len)| {
            let address = aligned(*start)?;
            (address.checked_add(span)? <= start + len).then_some((*start, *len, address))
        });
        if let Some((start, len, address)) = hole {
            self.holes.remove(&start);
            if address > start {
                self.holes.insert(start, address - start);
            }
            let rest = start + len - (address + span);
            if rest > 0 {
                self.holes.insert(address + span, rest);
            }
            return Some(address);
        }
        let address = aligned(self.high)?;
        let end = address.checked_add(span)?;
        if end > self.base + SPAN {
            return None;
        }
        if address > self.high {
            self.holes.insert(self.high, address - self.high);
        }
        self.high = end;
        Some(address)
    }

    /// Frees an allocation; its bytes stay in place, as on a real device.
    pub(crate) fn free(&mut self, address: u64) -> Option<Allocation> {
        let allocation = self.live.remove(&address)?;
        self.unshare(address);
        // Memory that was opened is counted where it was allocated.
        let counted = !matches!(allocation.origin, Origin::Opened { .. });
        self.taken -= if counted { allocation.taken } else { 0 };
        self.freed.insert(address, allocation.len);
        let (mut start, mut end) = (address, address + allocation.taken + GAP);
        if let Some((before, len)) = self.holes.range(..start).next_back()
            && before + len == start
        {
            start = *before;
        }
        if let Some(len) = self.holes.get(&end) {
            let after = end;
            end += len;
            self.holes.remove(&after);
        }
        self.holes.insert(start, end - start);
        Some(allocation)
    }

    /// The live allocation that contains an address.
    pub(crate) fn holder(&self, address: u64) -> Option<Allocation> {
        let (_, allocation) = self.live.range(..=address).next_back()?;
        (address < allocation.address + allocation.len).then_some(*allocation)
    }

    /// The live allocation that contains all of `len` bytes (not zero) from `address`.
    pub(crate) fn within(&self, address: u64, len: u64) -> Result<Allocation, Outside> {
        let Some(inside) = self.holder(address) else {
            return Err(match self.freed.range(..=address).next_back() {
                Some((start, freed)) if address < start + freed => {
                    Outside::Freed { address: *start, len: *freed }
                }
                _ => Outside::Nowhere,
            });
        };
        if len <= inside.address + inside.len - address {
            Ok(inside)
        } else {
            Err(Outside::Beyond { inside })
        }
    }

    /// Whether an address is the start of memory that was freed and not allocated again.
    pub(crate) fn was_freed(&self, address: u64) -> bool {
        self.freed.contains_key(&address)
    }

    /// Moves the bytes of an allocation to where other processes find them, at the first time.
    pub(crate) fn export(&mut self, allocation: Allocation, uuid: [u8; 16]) -> Result<Ticket, u32> {
        let Allocation { address, len, .. } = allocation;
        if let Some(shared) = self.shared_at(address) {
            return Ok(shared.ticket());
        }
        let mut shared = Shared::create(uuid, len)?;
        self.read(address, shared.bytes_mut());
        let ticket = shared.ticket();
        self.share(address, shared);
        Ok(ticket)
    }

    /// The address of memory that this context has opened already; counts that it is opened again.
    pub(crate) fn open_again(&mut self, ticket: &Ticket, context: u64) -> Option<u64> {
        let of_ticket = |address: &u64| {
            self.shared_at(*address).is_some_and(|shared| shared.ticket() == *ticket)
        };
        let found = self.live.values().find(|one| {
            matches!(one.origin, Origin::Opened { .. })
                && one.context == context
                && of_ticket(&one.address)
        });
        let address = found?.address;
        if let Some(Allocation { origin: Origin::Opened { times }, .. }) =
            self.live.get_mut(&address)
        {
            *times += 1;
        }
        Some(address)
    }

    /// Gives memory of another process an address here.
    pub(crate) fn open(&mut self, shared: Shared, context: u64) -> Result<u64, u32> {
        let len = shared.ticket().len;
        let origin = Origin::Opened { times: 1 };
        let opened = self.allocate(len, u64::MAX, context, origin);
        let address = opened.inspect_err(|_| shared.note_closed())?;
        self.taken -= self.live.get(&address).map_or(0, |opened| opened.taken);
        self.share(address, shared);
        Ok(address)
    }

    /// Closes memory of another process once; the last time takes it away.
    pub(crate) fn close(&mut self, address: u64) -> Option<()> {
        let opened = self.live.get_mut(&address)?;
        let Origin::Opened { times } = &mut opened.origin else { return None };
        *times -= 1;
        if *times == 0 {
            self.free(address)?;
        }
        Some(())
    }

    /// The processes that have an allocation of this device open now.
    pub(crate) fn holders(&self, address: u64) -> Vec<u32> {
        let is_own = |one: &&Allocation| !matches!(one.origin, Origin::Opened { .. });
        let own = self.live.get(&address).filter(is_own);
        own.and_then(|_| self.shared_at(address)).map_or_else(Vec::new, Shared::holders)
    }

    fn shared_at(&self, address: u64) -> Option<&Shared> {
        match self.slabs.get(*self.shared.get(&address)?) {
            Some(Chunk::Shared(shared)) => Some(shared),
            _ => None,
        }
    }

    fn share(&mut self, address: u64, shared: Shared) {
        self.shared.insert(address, self.slabs.len());
        self.slabs.push(Chunk::Shared(shared));
    }

    /// Ends the sharing of an allocation that is no longer live. What was exported keeps its bytes, as
    /// freed memory does; what was opened leaves nothing.
    fn unshare(&mut self, address: u64) {
        let Some(slab) = self.shared.remove(&address) else { return };
        let Some(slab) = self.slabs.get_mut(slab) else { return };
        let Chunk::Shared(shared) = core::mem::replace(slab, Chunk::Uniform(0)) else { return };
        if shared.ticket().process == std::process::id() {
            shared.note_freed();
            self.write(address, shared.bytes());
        } else {
            shared.note_closed();
        }
    }

    /// The shared allocation that contains an address: its slab, and the position in it.
    fn find_shared(&self, address: u64) -> Option<(usize, u64)> {
        let (start, slab) = self.shared.range(..=address).next_back()?;
        let len = self.live.get(start)?.len;
        (address - start < len).then_some((*slab, address - start))
    }

    /// The part of a range from `address` on that lies in one shared allocation, or in none:
    /// its slab and the position in it, and its length.
    fn run(&self, address: u64, len: u64) -> (Option<(usize, u64)>, u64) {
        if let Some((slab, at)) = self.find_shared(address) {
            let start = address - at;
            let all = self.live.get(&start).map_or(len, |one| one.len);
            return (Some((slab, at)), len.min(all - at));
        }
        let next = self.shared.range(address..).next();
        (None, next.map_or(len, |(start, _)| len.min(start - address)))
    }

    /// Splits a range of the device's own addresses where shared allocations begin and end.
    fn runs(&self, address: u64, len: u64) -> Vec<Run> {
        // Nearly always: nothing is shared.
        if self.shared.is_empty() {
            return vec![Run { shared: None, address, len, done: 0 }];
        }
        let mut runs = Vec::new();
        let mut done = 0;
        while done < len {
            let (shared, run) = self.run(address + done, len - done);
            runs.push(Run { shared, address: address + done, len: run, done });
            done += run.max(1);
        }
        runs
    }

    /// Splits a range of the device's own addresses at chunk borders:
    /// chunk, first byte in it, bytes from there, bytes before in the range.
    fn pieces(&self, address: u64, len: u64) -> impl Iterator<Item = (u64, u64, u64, u64)> {
        let first = address.wrapping_sub(self.base);
        let mut done = 0;
        core::iter::from_fn(move || {
            let at = first + done;
            let within = at % CHUNK;
            let piece = (CHUNK - within).min(len - done);
            let item = (at / CHUNK, within, piece, done);
            done += piece;
            (piece > 0).then_some(item)
        })
    }

    pub(crate) fn read(&self, address: u64, target: &mut [u8]) {
        for Run { shared, address, len, done } in self.runs(address, wide(target.len())) {
            let Some(target) = target.get_mut(span(done, len)) else { continue };
            let Some((slab, at)) = shared else {
                self.read_chunks(address, target);
                continue;
            };
            if let Some(Chunk::Shared(shared)) = self.slabs.get(slab)
                && let Some(bytes) = shared.bytes().get(span(at, len))
            {
                target.copy_from_slice(bytes);
            }
        }
    }

    fn read_chunks(&self, address: u64, target: &mut [u8]) {
        for (chunk, within, piece, done) in self.pieces(address, wide(target.len())) {
            let Some(target) = target.get_mut(span(done, piece)) else { continue };
            match self.chunks.get(&chunk).and_then(|slab| self.slabs.get(*slab)) {
                Some(Chunk::Uniform(byte)) => target.fill(*byte),
                // No chunk: see `runs`.
                Some(Chunk::Shared(_)) => {}
                Some(Chunk::Bytes(bytes)) => {
                    if let Some(bytes) = bytes.get(span(within, piece)) {
                        target.copy_from_slice(bytes);
                    }
                }
                None => {
                    for (at, byte) in (within..).zip(target) {
                        *byte = garbage(self.seed, chunk, at);
                    }
                }
            }
        }
    }

    pub(crate) fn write(&mut self, address: u64, source: &[u8]) {
        for Run { shared, address, len, done } in self.runs(address, wide(source.len())) {
            let Some(source) = source.get(span(done, len)) else { continue };
            let Some((slab, at)) = shared else {
                self.write_chunks(address, source);
                continue;
            };
            if let Some(target) = self.slab(slab).get_mut(span(at, len)) {
                target.copy_from_slice(source);
            }
        }
    }

    fn write_chunks(&mut self, address: u64, source: &[u8]) {
        let pieces: Vec<_> = self.pieces(address, wide(source.len())).collect();
        for (chunk, within, piece, done) in pieces {
            let Some(source) = source.get(span(done, piece)) else { continue };
            if let Some(target) = self.chunk_mut(chunk, piece).get_mut(span(within, piece)) {
                target.copy_from_slice(source);
            }
        }
    }

    /// Writes `pattern` repeatedly over `len` bytes, a multiple of the pattern's length.
    pub(crate) fn fill(&mut self, address: u64, len: u64, pattern: &[u8]) {
        for Run { shared, address, len, done } in self.runs(address, len) {
            // A border may split the pattern, so it continues where it stopped.
            let turned = usize::try_from(done).unwrap_or(0) % pattern.len().max(1);
            let mut pattern = pattern.to_vec();
            pattern.rotate_left(turned);
            let Some((slab, at)) = shared else {
                self.fill_chunks(address, len, &pattern);
                continue;
            };
            if let Some(target) = self.slab(slab).get_mut(span(at, len)) {
                for (byte, value) in target.iter_mut().zip(pattern.iter().cycle()) {
                    *byte = *value;
                }
            }
        }
    }

    fn fill_chunks(&mut self, address: u64, len: u64, pattern: &[u8]) {
        let uniform = match pattern {
            [first, rest @ ..] if rest.iter().all(|byte| byte == first) => Some(*first),
            _ => None,
        };
        let pieces: Vec<_> = self.pieces(address, len).collect();
        for (chunk, within, piece, done) in pieces {
            if let (Some(byte), CHUNK) = (uniform, piece) {
                self.put(chunk, Chunk::Uniform(byte));
                continue;
            }
            if let Some(target) = self.chunk_mut(chunk, piece).get_mut(span(within, piece)) {
                // A chunk border may split the pattern, so it continues where it stopped.
                let skip = usize::try_from(done).unwrap_or(0) % pattern.len().max(1);
                for (byte, value) in target.iter_mut().zip(pattern.iter().cycle().skip(skip)) {
                    *byte = *value;
                }
            }
        }
    }

    /// Sets the content of a chunk, and returns the number of its slab.
    fn put(&mut self, chunk: u64, content: Chunk) -> usize {
        let slab = *self.chunks.entry(chunk).or_insert(self.slabs.len());
        match self.slabs.get_mut(slab) {
            Some(old) => *old = content,
            None => self.slabs.push(content),
        }
        slab
    }

    /// The bytes of a chunk for writing `piece` of them. They have their present content unless all
    /// of them will be written.
    fn chunk_mut(&mut self, chunk: u64, piece: u64) -> &mut [u8] {
        let slab = match self.chunks.get(&chunk) {
            Some(slab) => *slab,
            None if piece == CHUNK => self.put(chunk, Chunk::Uniform(0)),
            None => {
                let seed = self.seed;
                let bytes = (0..CHUNK).map(|at| garbage(seed, chunk, at)).collect();
                self.put(chunk, Chunk::Bytes(bytes))
            }
        };
        self.slab(slab)
    }

    /// The slab that has the byte of an address, for [`Self::slab`], and the address of its first byte.
    /// They stay the same while the allocation lives and is not exported.
    pub(crate) fn slab_of(&mut self, address: u64) -> (usize, u64) {
        if let Some((slab, at)) = self.find_shared(address) {
            return (slab, address - at);
        }
        let chunk = address.wrapping_sub(self.base) / CHUNK;
        self.chunk_mut(chunk, 0);
        let start = self.base + chunk * CHUNK;
        (self.chunks.get(&chunk).copied().unwrap_or(usize::MAX), start)
    }

    /// The bytes of a chunk, in place.
    pub(crate) fn slab(&mut self, slab: usize) -> &mut [u8] {
        let Some(content) = self.slabs.get_mut(slab) else { return &mut [] };
        if let Chunk::Uniform(byte) = *content {
            *content = Chunk::Bytes(vec![byte; span(0, CHUNK).end].into_boxed_slice());
        }
        match content {
            Chunk::Bytes(bytes) => bytes,
            Chunk::Shared(shared) => shared.bytes_mut(),
            Chunk::Uniform(_) => &mut [],
        }
    }
}

/// The content of an address before the first write: fixed by the seed, and never zero.
#[expect(clippy::arithmetic_side_effects, reason = "positions in a device's span")]
fn garbage(seed: u64, chunk: u64, at: u64) -> u8 {
    let word = crate::random::mix(seed ^ ((chunk * CHUNK + at) / 8));
    let [byte, ..] = word.rotate_right(u32::from(at.to_le_bytes()[0] % 8) * 8).to_le_bytes();
    byte | 1
}

/// A length of host memory as a device length.
pub(crate) fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// A range of positions within host memory.
fn span(start: u64, len: u64) -> core::ops::Range<usize> {
    let start = usize::try_from(start).unwrap_or(usize::MAX);
    start..start.saturating_add(usize::try_from(len).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        Memory::new(3, 512, 7)
    }

    #[test]
    fn live_allocations_are_aligned_and_apart() {
        let mut memory = memory();
        let one = memory.allocate(1, u64::MAX, 0, Origin::Allocated).unwrap();
        let two = memory.allocate(513, u64::MAX, 0, Origin::Allocated).unwrap();
        assert_eq!((one % 512, two % 512), (0, 0));
        assert!(two >= one + 512 + GAP, "a gap must lie between them");
        assert_eq!(memory.taken(), 512 + 1024);
        assert_eq!(ordinal_of(one), Some(3));
    }

    #[test]
    fn fresh_memory_is_never_zero_and_always_the_same() {
        let memory = memory();
        let mut bytes = vec![0; 200_000];
        memory.read(memory.base + 1000, &mut bytes);
        assert!(bytes.iter().all(|byte| *byte != 0));
        let mut again = vec![0; 100];
        memory.read(memory.base + 1000 + 150_000, &mut again);
        assert_eq!(again, bytes[150_000..150_100]);
        assert!(bytes.windows(64).all(|window| window.iter().any(|byte| *byte != window[0])));
    }

    #[test]
    fn what_was_written_is_read_back_across_chunks_and_the_rest_is_untouched() {
        let mut memory = memory();
        let at = memory.base + CHUNK - 10;
        let mut before = [0; 1];
        memory.read(at - 1, &mut before);
        let data: Vec<u8> = (0..(2 * CHUNK + 20)).map(|i| i.to_le_bytes()[0]).collect();
        memory.write(at, &data);
        let mut back = vec![0; data.len() + 1];
        memory.read(at - 1, &mut back);
        assert_eq!(back[0], before[0]);
        assert_eq!(back[1..], data);
    }

    #[test]
    fn a_fill_repeats_its_pattern_across_chunks() {
        let mut memory = memory();
        let at = memory.base + CHUNK - 6;
        memory.fill(at, 3 * CHUNK, &[1, 2, 3, 4]);
        let mut back = vec![0; span(0, 3 * CHUNK).end];
        memory.read(at, &mut back);
        assert!(back.chunks(4).all(|word| word == [1, 2, 3, 4]));
        memory.fill(at, 3 * CHUNK, &[0]);
        memory.read(at, &mut back);
        assert!(back.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn freed_memory_keeps_its_bytes_and_is_taken_again() {
        let mut memory = memory();
        let one = memory.allocate(4096, u64::MAX, 0, Origin::Allocated).unwrap();
        let two = memory.allocate(4096, u64::MAX, 0, Origin::Allocated).unwrap();
        memory.write(one, b"secret");
        assert_eq!(memory.free(one).unwrap().len, 4096);
        assert!(memory.was_freed(one));
        assert!(matches!(memory.within(one + 5, 1), Err(Outside::Freed { .. })));
        assert_eq!(memory.allocate(100, u64::MAX, 0, Origin::Allocated), Ok(one));
        let mut back = [0; 6];
        memory.read(one, &mut back);
        assert_eq!(&back, b"secret");
        assert!(matches!(memory.within(one, 101), Err(Outside::Beyond { .. })));
        assert!(memory.within(two, 4096).is_ok());
        assert!(memory.free(one + 1).is_none());
    }

    #[test]
    fn holes_merge_so_that_a_drained_device_is_as_new() {
        let mut memory = memory();
        let all: Vec<u64> = (1..50)
            .map(|n| memory.allocate(n * 700, u64::MAX, 0, Origin::Allocated).unwrap())
            .collect();
        for address in all.iter().step_by(2).chain(all.iter().skip(1).step_by(2)) {
            memory.free(*address).unwrap();
        }
        assert_eq!((memory.taken(), memory.holes.len()), (0, 1));
        assert_eq!(memory.allocate(1, u64::MAX, 0, Origin::Allocated), Ok(all[0]));
    }

    #[test]
    fn too_much_is_out_of_memory_at_every_size() {
        let mut memory = memory();
        for len in [1025, SPAN, u64::MAX - 511, u64::MAX] {
            assert_eq!(
                memory.allocate(len, 1024, 0, Origin::Allocated),
                Err(code::OUT_OF_MEMORY),
                "{len}"
            );
        }
        assert_eq!(memory.allocate(SPAN, u64::MAX, 0, Origin::Allocated), Err(code::OUT_OF_MEMORY));
        assert!(memory.allocate(1024, 1024, 0, Origin::Allocated).is_ok());
    }
}
