//! Clocks that panic.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;

use vram_residency::{ByteLen, ExportOptions, MemoryMode, ResetOptions, ScrubCursor};

use super::operations::OPERATIONS;
use super::{Bomb, Operation, Setup};

/// Operations that call no code of the caller except the clock.
const TIMED: &[Operation] = &[
    ("seal", |setup, _| setup.manager.seal_model("new", 1, &setup.content).map(drop)),
    ("unseal", |setup, _| setup.manager.unseal_model(&setup.encrypted).map(drop)),
    ("unseal and free", |setup, _| setup.manager.unseal_and_free(&setup.encrypted).map(drop)),
    ("free", |setup, _| setup.manager.free_shard(&setup.plain).map(drop)),
    ("verify", |setup, _| setup.manager.verify_shard_integrity(&setup.plain).map(drop)),
    ("migrate", |setup, _| setup.manager.migrate_shard(&setup.encrypted, 1).map(drop)),
    ("open", |setup, _| setup.manager.open_resident(&setup.encrypted).map(drop)),
    ("close", |setup, _| setup.manager.close_resident(&setup.plain).map(drop)),
    ("lease", |setup, _| setup.manager.lease(&setup.plain).map(drop)),
    ("reserve", |setup, _| setup.manager.reserve(1, ByteLen::new(300)).map(drop)),
    ("park and wake", |setup, _| {
        let parked = setup.manager.park(&setup.plain)?;
        setup.manager.wake(parked, 1).map(drop).map_err(|failed| failed.error().clone())
    }),
    ("evict", |setup, _| {
        let plan = setup.manager.plan_eviction(0, ByteLen::new(100_000))?;
        setup.manager.evict(&plan).map(drop)
    }),
    ("back up", |setup, _| setup.manager.back_up(&setup.plain).map(drop)),
    ("ticket", |setup, _| setup.manager.ticket(&setup.plain, [1; 32]).map(drop)),
    ("reconcile", |setup, _| setup.manager.reconcile(0).map(drop)),
    ("scrub", |setup, _| {
        let step = setup.manager.scrub_step(&mut ScrubCursor::new(), ByteLen::MIB);
        step.error.map_or(Ok(()), Err)
    }),
    ("reset with a backup", |setup, _| {
        setup.manager.back_up(&setup.plain)?;
        setup.manager.reset_gpu(0, ResetOptions::new().force()).map(drop)
    }),
    ("reset with an image", |setup, _| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        setup.manager.export_to(&setup.encrypted, path, ExportOptions::new())?;
        setup.manager.reset_gpu(0, ResetOptions::new().force()).map(drop)
    }),
    ("compact", |setup, _| {
        setup.manager.compact(0, vram_residency::CompactBudget::new()).map(drop)
    }),
];

#[test]
fn a_clock_that_panics_leaves_the_books_exact_and_the_manager_usable() {
    let mut explosions = 0;
    for (name, run) in TIMED.iter().chain(OPERATIONS) {
        for tick in 1.. {
            let clock: Arc<Bomb> = Arc::default();
            let setup = Setup::new(MemoryMode::Region, &Arc::default(), &clock);
            clock.arm(tick);
            // Turning the panic into an error is allowed too.
            let outcome = catch_unwind(AssertUnwindSafe(|| run(&setup, &Bomb::default())));
            let what = format!("{name}, tick {tick}");
            if clock.disarm() {
                outcome.unwrap().unwrap_or_else(|error| panic!("{what}: {error}"));
                break;
            }
            explosions += 1;
            setup.books_are_exact(&what);
            setup.still_works(&what);
        }
    }
    assert!(explosions >= TIMED.len(), "{explosions} explosions");
}
