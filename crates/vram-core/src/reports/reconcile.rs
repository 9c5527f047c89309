//! Compares all accounts of a GPU: ledger, arena, registry, promises, and the driver's own figures.
//!
//! ```text
//!   used + reserved (ledger)  =  resident (registry) + promised + unreturned + in flight
//!   placed + holes  (arena)   =  its capacity
//!   placed          (arena)   =  resident + promised placements + unreturned + in flight
//!   kept            (ledger)  =  unreturned (the list of placements set aside)
//!   held            (driver)  =  the region; of blocks, those of shards, placements and set aside
//!   total − free    (driver)  ≥  held: the rest belongs to other processes
//! ```
//!
//! The accounts are read one after the other while other calls run. A read therefore counts only if
//! ledger and arena did not change around it, and a difference only if a second read finds the
//! same.

use vram_alloc::ByteLen;
use vram_space::Gpu;

use crate::error::VramError;
use crate::parts::{Contents, Core};
use crate::reports::compare::compare;
use crate::reports::{Account, Difference, DriverMemory, Look, Owned, Reconciliation, budget};

/// How often the accounts are read while they change.
const LOOKS: u32 = 16;

/// Compares all accounts of one GPU.
pub fn reconcile(core: &Core, gpu: u32) -> Result<Reconciliation, VramError> {
    let (driver, of_one_moment) = budget::driver_memory(core, gpu)?;
    let gpu = core.gpu(gpu)?;
    // A reset replaces one account after the other; it waits until this call has read all of them.
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

/// A read of accounts that did not change; if they keep changing, the differences that several
/// reads have in common.
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
        // Let a thread that has changed one account and not yet the other continue.
        std::thread::yield_now();
    }
    let other = look(core, gpu);
    last.differences.retain(|difference| other.differences.contains(difference));
    last
}

pub(crate) fn look(core: &Core, gpu: &Gpu) -> Look {
    let before = gpu.accounts();
    let owned = owned(core, gpu);
    let figures = gpu.accounts();
    let (in_flight, differences) = compare(&figures, &owned);
    Look { figures, owned, in_flight, steady: before == figures, differences }
}

pub(crate) fn owned(core: &Core, gpu: &Gpu) -> Owned {
    let mut owned = Owned::default();
    for entry in core.registry.on(gpu.index) {
        let state = entry.state();
        if let Some(space) = state.space().filter(|space| space.gpu().index == gpu.index) {
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

/// Bytes in use according to the driver.
const fn in_use(driver: &DriverMemory) -> ByteLen {
    driver.total.saturating_sub(driver.free)
}
