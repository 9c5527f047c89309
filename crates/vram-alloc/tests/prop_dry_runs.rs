//! Property: a clone that releases copies answers as the original does after releasing the
//! placements themselves. In the ledger, bytes that change from one holder to another are never
//! free in between.

#[macro_use]
extern crate vram_testkit;

use proptest::prelude::*;
use vram_alloc::{Alignment, Arena, ByteLen, Ledger, ReleaseReason};

proptest! {
    #[test]
    fn a_clone_that_gives_back_copies_foretells_the_original(
        lens in prop::collection::vec(0_u64..5000, 1..40),
        gone in prop::collection::vec(any::<bool>(), 40),
        capacity in 1_u64..100_000,
        wanted in 0_u64..20_000,
    ) {
        let mut arena = Arena::new(ByteLen::new(capacity)).unwrap();
        let placed: Vec<_> = lens
            .iter()
            .filter_map(|len| arena.place(ByteLen::new(*len), Alignment::GRANULE).ok())
            .collect();
        // The clone of a clone knows the same placements.
        let mut dry_run = arena.clone().clone();
        let (gone, kept): (Vec<_>, Vec<_>) =
            placed.into_iter().zip(gone).partition(|(_, gone)| *gone);
        for (placement, _) in gone {
            prop_assert_eq!(dry_run.release_copy(&placement), Ok(()));
            prop_assert_eq!(dry_run.release_copy(&placement), Err(ReleaseReason::Stale));
            arena.release(placement).unwrap();
        }
        prop_assert_eq!(dry_run.report(), arena.report());
        prop_assert!(dry_run.holes().eq(arena.holes()));

        let wanted = ByteLen::new(wanted);
        let foretold = dry_run.place(wanted, Alignment::GRANULE).map(|placed| placed.range());
        let real = arena.place(wanted, Alignment::GRANULE);
        prop_assert_eq!(foretold.ok(), real.as_ref().ok().map(vram_alloc::Placement::range));
        if let Ok(younger) = real {
            // Refused also if the clone's own placement has the same serial.
            prop_assert_eq!(dry_run.release_copy(&younger), Err(ReleaseReason::Stale));
        }
        for (placement, _) in kept {
            prop_assert_eq!(dry_run.release_copy(&placement), Ok(()));
        }
    }

    #[test]
    fn bytes_that_change_hands_stay_taken(total in 1_u64..1_000, parts in prop::collection::vec(0_u64..300, 0..12)) {
        let ledger = Ledger::new(ByteLen::new(total)).unwrap();
        let mut whole = ledger.reserve(ByteLen::new(total)).unwrap();
        for part in parts {
            let Ok(part) = whole.split(ByteLen::new(part)) else { continue };
            let charge = part.commit();
            prop_assert_eq!(ledger.capacity().used, charge.len());
            let part = charge.revoke();
            prop_assert_eq!(ledger.capacity().used, ByteLen::ZERO);
            prop_assert_eq!(ledger.capacity().reserved.get(), total);
            prop_assert!(whole.join(part).is_ok());
            prop_assert_eq!(whole.len().get(), total);
        }
        drop(whole);
        prop_assert_eq!(ledger.capacity().free().get(), total);
    }
}

#[test]
fn a_clone_of_another_arena_and_the_original_itself_release_no_copies() {
    let mut arena = Arena::new(ByteLen::KIB).unwrap();
    let placement = arena.place(ByteLen::new(1), Alignment::GRANULE).unwrap();
    let mut other = Arena::new(ByteLen::KIB).unwrap();
    let before = arena.report();
    assert_eq!(other.release_copy(&placement), Err(ReleaseReason::Foreign));
    assert_eq!(other.clone().release_copy(&placement), Err(ReleaseReason::Foreign));
    assert_eq!(arena.release_copy(&placement), Err(ReleaseReason::Foreign));
    assert_eq!(arena.report(), before);
}

#[test]
fn reservations_of_two_ledgers_do_not_join() {
    let ledgers = [1000, 1000].map(|total| Ledger::new(ByteLen::new(total)).unwrap());
    let [mut left, right] = ledgers.each_ref().map(|one| one.reserve(ByteLen::new(10)).unwrap());
    let back = left.join(right).unwrap_err();
    assert_eq!((left.len().get(), back.len().get()), (10, 10));
    drop(back);
    assert_eq!(ledgers.map(|one| one.capacity().free().get()), [990, 1000]);
}
