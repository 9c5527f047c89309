//! Comparing all accounts of a GPU: books, arena, registry, promises, and the driver's own figures.
//!
//! ```text
//!   used + reserved (ledger)  =  resident (registry) + promised + unreturned + in flight
//!   placed + holes  (arena)   =  its capacity
//!   placed          (arena)   =  resident + promised places + unreturned + in flight
//!   kept            (ledger)  =  unreturned (the list of places set aside)
//!   held            (driver)  =  the region; of blocks, those of shards, of places and set aside
//!   total − free    (driver)  ≥  held: the rest are others
//! ```
//!
//! The accounts are looked at one after the other while others work, so a look counts only if books
//! and arena stood still around it, and a difference only if a second look finds the very same.

pub(crate) mod compare;
pub(crate) mod table;

use vram_alloc::{ByteLen, Capacity, DeviceRange};

use crate::block::{Held, MemoryMode};
use crate::budget;
use crate::budget::DriverMemory;
use crate::clock::Timestamp;
use crate::error::VramError;
use crate::gpu::Gpu;
use crate::manager::parts::Core;
use crate::promise::Contents;
use crate::reconcile::compare::compare;
use crate::sync::lock;

/// How often the accounts are looked at while they do not stand still.
const LOOKS: u32 = 16;

/// Two accounts that should agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Account {
    /// Bytes of live placements and of holes together, against the arena's capacity.
    ArenaCapacity,
    /// Bytes of live placements, one by one, against the arena's own count of them.
    ArenaPlaced,
    /// Bytes taken in the books, against what shards, promises and places set aside account for.
    BooksTaken,
    /// Bytes used in the books, against what shards and places set aside account for.
    BooksUsed,
    /// Bytes of placements, against what shards, promised places and places set aside account for.
    Placed,
    /// Bytes that calls in flight hold in the arena, against those that they hold in the books. With
    /// less in the arena, a reservation may be just beginning or ending: ask again before it counts
    /// as a leak.
    InFlight,
    /// Bytes that stay counted in the books, against the places set aside.
    Unreturned,
    /// Bytes that are held of the device, against what is placed: in blocks.
    Blocks,
    /// Bytes that the driver says are in use, against what is held of it.
    Driver,
}

/// Two accounts that do not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Difference {
    /// Which.
    pub account: Account,
    /// What the others account for.
    pub expected: ByteLen,
    /// What this one has.
    pub found: ByteLen,
}

/// All accounts of one GPU, side by side. `Display` prints a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Reconciliation {
    /// The GPU, as the manager counts them.
    pub gpu: u32,
    /// When.
    pub at: Timestamp,
    /// How its memory is taken.
    pub mode: MemoryMode,
    /// Whether all accounts agree: there is no difference.
    pub agrees: bool,
    /// Whether books and arena stood still during the last look. If not, calls came and went all
    /// the time, and only differences that stayed the same are told.
    pub steady: bool,
    /// What does not agree.
    pub differences: Vec<Difference>,
    /// The budget.
    pub total: ByteLen,
    /// Books: bytes in use, those that could not be returned included.
    pub used: ByteLen,
    /// Books: bytes promised and not in use.
    pub reserved: ByteLen,
    /// Arena: bytes of live placements.
    pub placed: ByteLen,
    /// Arena: bytes of holes.
    pub holes: ByteLen,
    /// Registry: shards that are resident here.
    pub shard_count: u64,
    /// Registry: bytes that they take, in whole granules.
    pub resident: ByteLen,
    /// Reservations: bytes that are still held for their holders.
    pub promised: ByteLen,
    /// Bytes that could not be wiped or given back, and are never handed out again.
    pub unreturned: ByteLen,
    /// Bytes that calls under way hold: seals, moves, frees. None while the manager is quiet; what
    /// stays here then was leaked.
    pub in_flight: ByteLen,
    /// The driver's own figures.
    pub driver: DriverMemory,
}

/// Books and arena at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figures {
    books: Capacity,
    arena_capacity: ByteLen,
    arena_used: ByteLen,
    live: ByteLen,
    holes: ByteLen,
    unreturned: ByteLen,
    held: Option<ByteLen>,
}

/// What the shards and the promises of one GPU account for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owned {
    shard_count: u64,
    resident: ByteLen,
    promised: ByteLen,
    /// Of `promised`: places, not bytes alone.
    places: ByteLen,
    /// Bytes in blocks of their own.
    in_blocks: ByteLen,
}

/// One look at everything.
struct Look {
    figures: Figures,
    owned: Owned,
    in_flight: ByteLen,
    steady: bool,
    differences: Vec<Difference>,
}

pub(crate) fn reconcile(core: &Core, gpu: u32) -> Result<Reconciliation, VramError> {
    let (driver, of_one_moment) = budget::driver_memory(core, gpu)?;
    let gpu = core.gpu(gpu)?;
    // A reset renews one account after the other: it waits until all of them were looked at.
    let _under_way = gpu.enter()?;
    core.promises.sweep();
    let mut last = settled_look(core, gpu);
    if of_one_moment && in_use(&driver) < driver.ours {
        let (account, expected, found) = (Account::Driver, driver.ours, in_use(&driver));
        last.differences.push(Difference { account, expected, found });
    }
    let Look { figures, owned, in_flight, steady, differences } = last;
    if !differences.is_empty() {
        tracing::error!(gpu = gpu.index, ?differences, "the accounts do not agree");
    }
    Ok(Reconciliation {
        gpu: gpu.index,
        at: core.clock.now(),
        mode: gpu.backing.mode(),
        agrees: differences.is_empty(),
        steady,
        differences,
        total: figures.books.total,
        used: figures.books.used,
        reserved: figures.books.reserved,
        placed: figures.live,
        holes: figures.holes,
        shard_count: owned.shard_count,
        resident: owned.resident,
        promised: owned.promised,
        unreturned: figures.unreturned,
        in_flight,
        driver,
    })
}

/// A look at accounts that stood still, or what looks at moving ones have in common.
fn settled_look(core: &Core, gpu: &Gpu) -> Look {
    let mut last = look(core, gpu);
    for _ in 1..LOOKS {
        if last.steady && last.differences.is_empty() {
            return last;
        }
        let next = look(core, gpu);
        if last.steady && next.steady && last.differences == next.differences {
            return next;
        }
        last = next;
        // Whoever is between two accounts gets on.
        std::thread::yield_now();
    }
    let other = look(core, gpu);
    last.differences.retain(|difference| other.differences.contains(difference));
    last
}

fn look(core: &Core, gpu: &Gpu) -> Look {
    let before = gpu.accounts();
    let owned = owned(core, gpu);
    let figures = gpu.accounts();
    let (in_flight, differences) = compare(&figures, &owned);
    Look { figures, owned, in_flight, steady: before == figures, differences }
}

fn owned(core: &Core, gpu: &Gpu) -> Owned {
    let mut owned = Owned::default();
    for entry in core.registry.sorted() {
        let state = entry.state();
        let here = state.space.as_ref().filter(|space| space.gpu().index == gpu.index);
        if let Some(space) = here {
            owned.shard_count = owned.shard_count.saturating_add(1);
            owned.resident = owned.resident.saturating_add(space.footprint());
            owned.in_blocks = owned.in_blocks.saturating_add(space.block_len());
        }
    }
    for promise in core.promises.list() {
        promise.look(|contents| match contents {
            Contents::Places { spaces, .. } => {
                let here = spaces.iter().flatten();
                for space in here.filter(|space| space.gpu().index == gpu.index) {
                    owned.promised = owned.promised.saturating_add(space.footprint());
                    owned.places = owned.places.saturating_add(space.footprint());
                    owned.in_blocks = owned.in_blocks.saturating_add(space.block_len());
                }
            }
            Contents::Bytes { gpu: index, bytes } if *index == gpu.index => {
                owned.promised = owned.promised.saturating_add(bytes.len());
            }
            _ => {}
        });
    }
    owned
}

impl Gpu {
    /// Books and arena at one moment, as they are: of blocks too, where the arena is larger than
    /// the device.
    fn accounts(&self) -> Figures {
        let sum = |sum: ByteLen, len: ByteLen| sum.saturating_add(len);
        // Placing, giving back and setting aside change all of them, the first two under this lock.
        let arena = lock(&self.arena);
        let (books, report) = (self.ledger.capacity(), arena.report());
        let live = arena.live().map(DeviceRange::len).fold(ByteLen::ZERO, sum);
        let holes = arena.holes().map(DeviceRange::len).fold(ByteLen::ZERO, sum);
        let unreturned = self.unreturned_bytes();
        let held = self.blocks().map(Held::bytes);
        drop(arena);
        let (arena_capacity, arena_used) = (report.capacity, report.used);
        Figures { books, arena_capacity, arena_used, live, holes, unreturned, held }
    }
}

/// Bytes in use by the driver's word.
const fn in_use(driver: &DriverMemory) -> ByteLen {
    driver.total.saturating_sub(driver.free)
}
