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
//! ledger and arena did not change around it, not even there and back; and a difference only if a
//! second such read finds the same. Where the accounts never hold still, only a difference that
//! every read found is told.

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
    let mut last = settled_look(|| look(core, gpu));
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

/// A read of accounts that did not change; if they keep changing, the differences that all reads
/// have in common.
fn settled_look(mut look: impl FnMut() -> Look) -> Look {
    let mut last = look();
    let mut always = last.differences.clone();
    for _ in 1..LOOKS {
        if last.steady && last.differences.is_empty() {
            return last;
        }
        // Let a thread that has changed one account and not yet the other continue.
        std::thread::yield_now();
        let next = look();
        if last.steady && next.steady && last.differences == next.differences {
            return next;
        }
        always.retain(|difference| next.differences.contains(difference));
        last = next;
    }
    last.differences = always;
    last
}

pub(crate) fn look(core: &Core, gpu: &Gpu) -> Look {
    look_around(gpu, || owned(core, gpu))
}

fn look_around(gpu: &Gpu, owned: impl FnOnce() -> Owned) -> Look {
    let before = gpu.accounts();
    let owned = owned();
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vram_id::SystemClock;

    use super::*;
    use crate::parts::core::testing;

    fn a_look(steady: bool, found: &[u64]) -> Look {
        let core = testing::core(Arc::new(SystemClock));
        let mut look = look(&core, core.gpu(0).unwrap());
        look.steady = steady;
        look.differences.extend(found.iter().map(|found| Difference {
            account: Account::InFlight,
            expected: ByteLen::ZERO,
            found: ByteLen::new(*found),
        }));
        look
    }

    #[test]
    fn bytes_given_back_and_taken_again_during_a_look_make_it_an_unsteady_one() {
        let core = testing::core(Arc::new(SystemClock));
        let gpu = core.gpu(0).unwrap();
        let mut held = gpu.place(ByteLen::new(300));
        let still = look_around(gpu, Owned::default);
        assert!(still.steady, "{:?}", still.differences);
        let replaced = look_around(gpu, || {
            drop(core::mem::replace(&mut held, Err(vram_space::SpaceError::Closed)));
            held = gpu.place(ByteLen::new(300));
            Owned::default()
        });
        assert!(!replaced.steady);
        // The same with bytes alone.
        let promised = |bytes| gpu.promise(ByteLen::new(bytes), |take| take()).unwrap();
        let mut bytes = Some(promised(512));
        let replaced = look_around(gpu, || {
            drop(bytes.take());
            bytes = Some(promised(512));
            Owned::default()
        });
        assert!(!replaced.steady && bytes.is_some() && held.is_ok());
    }

    #[test]
    fn a_difference_is_told_if_two_steady_looks_or_all_looks_show_it() {
        let told = |first: (bool, &[u64]), then: (bool, &[u64])| {
            let mut next = first;
            let look = || {
                let (steady, found) = core::mem::replace(&mut next, then);
                a_look(steady, found)
            };
            let last = settled_look(look);
            (last.steady, last.differences.iter().map(|one| one.found.get()).collect::<Vec<_>>())
        };
        assert_eq!(told((true, &[7]), (true, &[])), (true, vec![]));
        assert_eq!(told((true, &[7]), (true, &[7])), (true, vec![7]));
        // Never still: what two looks in a row show by chance is no difference.
        assert_eq!(told((false, &[8]), (false, &[7])), (false, vec![]));
        assert_eq!(told((false, &[8, 7]), (false, &[7, 9])), (false, vec![7]));
    }
}
