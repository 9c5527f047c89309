//! Stress: many threads on one ledger (P1, P5, P8).
//!
//! Method: while workers reserve, split, commit and drop, a watcher takes snapshots and another
//! thread changes the limits. A second, independent counter also counts every grant. It is raised
//! after the grant and lowered before the release, so that it never exceeds the bytes taken. If it
//! exceeds the largest budget, the ledger was overdrawn. `VRAM_STRESS_SECONDS` sets how long each
//! test runs.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "figures are far below 2^63, and a test fails by panicking"
)]

#[macro_use]
extern crate vram_testkit;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use vram_alloc::{ByteLen, Charge, Ledger, LedgerError, Reservation};
use vram_testkit::{Dice, for_a_while, setting};

/// Rounds of each worker; a longer run multiplies them.
fn rounds() -> u64 {
    setting("PROPTEST_CASES").unwrap_or(256_u64).saturating_mul(40)
}

#[test]
fn no_interleaving_of_grants_overdraws_the_budget() {
    let mut seed = 0;
    for_a_while(|| {
        grants_stay_within_the_budget(seed);
        seed += 4;
    });
}

fn grants_stay_within_the_budget(seed: u64) {
    const TOTAL: u64 = 1000;
    let ledger = Ledger::new(ByteLen::new(TOTAL)).unwrap();
    let (booked, granted, refused) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let done = AtomicBool::new(false);

    thread::scope(|scope| {
        let workers: Vec<_> = (seed + 1..=seed + 4)
            .map(|seed| {
                let (ledger, booked, granted, refused) = (&ledger, &booked, &granted, &refused);
                scope.spawn(move || {
                    let mut random = Dice::new(seed);
                    let release = |held: Option<(u64, Reservation, Charge)>| {
                        let Some((len, reservation, charge)) = held else { return };
                        booked.fetch_sub(len, Ordering::SeqCst);
                        drop(reservation);
                        charge.release();
                    };
                    // Kept over some rounds: so there are refusals also where the threads run one
                    // after the other.
                    let mut held = None;
                    for _ in 0..rounds() {
                        let len = random.below(600);
                        match ledger.reserve(ByteLen::new(len)) {
                            Ok(mut reservation) => {
                                let now = booked.fetch_add(len, Ordering::SeqCst) + len;
                                assert!(now <= TOTAL, "{now} bytes are out of {TOTAL}");
                                granted.fetch_add(1, Ordering::Relaxed);
                                let part = reservation.split(ByteLen::new(len / 3)).unwrap();
                                let got = (len, reservation, part.commit());
                                if random.below(4) == 0 {
                                    thread::yield_now();
                                }
                                release(if random.below(2) == 0 {
                                    held.replace(got)
                                } else {
                                    Some(got)
                                });
                            }
                            Err(LedgerError::Insufficient { needed, room, capacity }) => {
                                // The figures of the refusal leave no room for the request.
                                assert!(needed > room);
                                assert!(capacity.taken().get() + len > TOTAL);
                                refused.fetch_add(1, Ordering::Relaxed);
                                release(held.take());
                            }
                            Err(other) => unreachable!("{other}"),
                        }
                    }
                    release(held);
                })
            })
            .collect();
        let watcher = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let now = ledger.capacity();
                assert_eq!(now.used.get() + now.reserved.get() + now.free().get(), TOTAL);
                thread::yield_now();
            }
        });
        // Join all workers before asserting: a scope that unwinds waits for the watcher, and the
        // watcher waits for `done`.
        let outcomes: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(outcomes.into_iter().all(|outcome| outcome.is_ok()));
        watcher.join().unwrap();
    });

    assert!(granted.load(Ordering::Relaxed) > 0, "the test granted nothing");
    assert!(refused.load(Ordering::Relaxed) > 0, "the test refused nothing");
    let end = ledger.capacity();
    assert_eq!((end.used, end.reserved), (ByteLen::ZERO, ByteLen::ZERO));
}

/// Once `set_total` has returned, no grant uses the old budget, in any interleaving.
#[test]
fn no_grant_goes_by_a_limit_that_was_lowered_before() {
    for_a_while(lowered_limits_hold);
}

fn lowered_limits_hold() {
    let ledger = Ledger::new(ByteLen::new(100)).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        drop(ledger.reserve(ByteLen::new(60)));
                        thread::yield_now();
                    }
                })
            })
            .collect();
        let mut sound = true;
        for round in 0..rounds() {
            match round % 3 {
                0 => ledger.set_total(ByteLen::new(50)).unwrap(),
                1 => ledger.set_headroom(ByteLen::new(50)),
                _ => ledger.set_foreign(ByteLen::new(50)),
            }
            // The bytes taken now were granted before. Workers release them, and no grant follows.
            let mut before = ledger.capacity().taken();
            for _ in 0..20 {
                let now = ledger.capacity().taken();
                sound &= now <= before;
                before = now;
            }
            ledger.set_total(ByteLen::new(100)).unwrap();
            ledger.set_headroom(ByteLen::ZERO);
            ledger.set_foreign(ByteLen::ZERO);
        }
        done.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().unwrap();
        }
        assert!(sound, "bytes were granted under a limit that forbade it");
    });
    assert_eq!(ledger.capacity().taken(), ByteLen::ZERO);
}
