//! Device memory as a launch sees it, in place: each access is looked up once in a small table.

use super::Trap;
use crate::code;
use crate::memory::{Memory, Outside};
use crate::report::MisuseKind;

/// Entries of the table.
const ENTRIES: usize = 64;

/// What is wrong with the stores of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// One bit of all that is stored, counted in the order of the stores, modulo their number.
    FlipBit(u64),
    /// Only so many bytes are stored.
    StopAfter(u64),
    /// Every byte that is stored is another one.
    Garbage,
}

/// A chunk of memory, and the part of it that lies in one live allocation.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    start: u64,
    end: u64,
    chunk: u64,
    slab: usize,
    /// The address of the first byte of the slab.
    first: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Global<'m> {
    memory: &'m mut Memory,
    table: [Entry; ENTRIES],
    damage: Option<Damage>,
    /// Bytes stored so far; and each store, if a bit is to be flipped at the end.
    stored: u64,
    stores: Vec<(u64, u8)>,
}

impl<'m> Global<'m> {
    pub(crate) fn new(memory: &'m mut Memory, damage: Option<Damage>) -> Self {
        let table = [Entry::default(); ENTRIES];
        Self { memory, table, damage, stored: 0, stores: Vec::new() }
    }

    /// The bytes of an access.
    pub(super) fn load(&mut self, address: u64, len: usize) -> Result<&[u8], Trap> {
        let (slab, within) = self.find(address, len)?;
        Ok(self.memory.slab(slab).get(within..within + len).unwrap_or(&[]))
    }

    /// Stores bytes.
    pub(super) fn store(&mut self, address: u64, bytes: &[u8]) -> Result<(), Trap> {
        let (slab, within) = self.find(address, bytes.len())?;
        let target = self.memory.slab(slab).get_mut(within..within + bytes.len());
        let Some(target) = target else { return Ok(()) };
        let before = self.stored;
        self.stored = before.saturating_add(bytes.len() as u64);
        match self.damage {
            None => target.copy_from_slice(bytes),
            Some(Damage::FlipBit(_)) => {
                target.copy_from_slice(bytes);
                self.stores.push((address, bytes.len() as u8));
            }
            Some(Damage::StopAfter(most)) => {
                let left = usize::try_from(most.saturating_sub(before)).unwrap_or(usize::MAX);
                let kept = left.min(bytes.len());
                target[..kept].copy_from_slice(&bytes[..kept]);
            }
            Some(Damage::Garbage) => {
                for (at, (target, byte)) in target.iter_mut().zip(bytes).enumerate() {
                    *target = byte ^ (0xA5_u8.rotate_left(at as u32) | 1);
                }
            }
        }
        Ok(())
    }

    /// Ends the launch: flips the bit that a fault asks for.
    pub(crate) fn finish(self) {
        let Some(Damage::FlipBit(bit)) = self.damage else { return };
        let Some(bit) = bit.checked_rem(self.stored.saturating_mul(8)) else { return };
        let mut left = bit / 8;
        for (address, len) in self.stores {
            if left < u64::from(len) {
                let mut byte = [0];
                self.memory.read(address + left, &mut byte);
                self.memory.write(address + left, &byte.map(|byte| byte ^ 1 << (bit % 8)));
                return;
            }
            left -= u64::from(len);
        }
    }

    /// Where the bytes of an access lie: they are aligned, so they lie in one chunk.
    fn find(&mut self, address: u64, len: usize) -> Result<(usize, usize), Trap> {
        let chunk = address / Memory::CHUNK;
        let entry = &mut self.table[chunk as usize % ENTRIES];
        let end = address.saturating_add(len as u64);
        if !(entry.chunk == chunk && entry.start <= address && end <= entry.end) {
            let inside = self.memory.within(address, len as u64);
            let inside = inside.map_err(|outside| Trap::illegal(address, len, outside))?;
            let (slab, first) = self.memory.slab_of(address);
            let (start, end) = (inside.address, inside.address + inside.len);
            *entry = Entry { start, end, chunk, slab, first };
        }
        Ok((entry.slab, (address - entry.first) as usize))
    }
}

impl Trap {
    fn illegal(address: u64, len: usize, outside: Outside) -> Self {
        let (kind, how) = match outside {
            Outside::Beyond { inside } => (
                MisuseKind::OutOfBounds,
                format!("run out of {} bytes at {:#x}", inside.len, inside.address),
            ),
            Outside::Freed { address, len } => {
                (MisuseKind::UseAfterFree, format!("are in {len} bytes at {address:#x}, freed"))
            }
            Outside::Nowhere => {
                (MisuseKind::UnknownAddress, "are in no allocation of this device".to_owned())
            }
        };
        let detail = format!("{len} bytes at {address:#x} {how}");
        Self { code: code::ILLEGAL_ADDRESS, kind, detail }
    }
}
