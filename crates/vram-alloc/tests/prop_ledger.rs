//! Property: the ledger agrees with plain sums over any run of calls (P1, P4, P5, P8).
//!
//! Method: the reference keeps the lengths of live reservations and charges in lists and adds
//! them up anew after each call. Limits are set below the bytes taken as often as above them.

#![expect(clippy::arithmetic_side_effects, reason = "figures are far below 2^63")]

#[macro_use]
extern crate vram_testkit;

use proptest::collection::vec;
use proptest::prelude::*;
use vram_alloc::{ByteLen, Capacity, Charge, Kept, Ledger, LedgerError, MAX_TOTAL, Reservation};

#[derive(Clone, Debug)]
enum Call {
    Reserve(u64),
    Split(usize, u64),
    Join(usize, usize),
    Commit(usize),
    Revoke(usize),
    DropReservation(usize),
    Release(usize),
    Keep(usize),
    ReleaseKept(usize),
    SetTotal(u64),
    SetHeadroom(u64),
    SetForeign(u64),
}

fn call() -> impl Strategy<Value = Call> {
    let len = prop_oneof![1 => Just(0), 6 => 0..400_u64, 1 => Just(u64::MAX)];
    let limit = prop_oneof![8 => 0..1500_u64, 1 => Just(MAX_TOTAL.get()), 1 => any::<u64>()];
    prop_oneof![
        8 => len.clone().prop_map(Call::Reserve),
        2 => (any::<usize>(), len).prop_map(|(which, len)| Call::Split(which, len)),
        1 => any::<(usize, usize)>().prop_map(|(which, other)| Call::Join(which, other)),
        4 => any::<usize>().prop_map(Call::Commit),
        1 => any::<usize>().prop_map(Call::Revoke),
        2 => any::<usize>().prop_map(Call::DropReservation),
        4 => any::<usize>().prop_map(Call::Release),
        2 => any::<usize>().prop_map(Call::Keep),
        1 => any::<usize>().prop_map(Call::ReleaseKept),
        1 => limit.clone().prop_map(Call::SetTotal),
        1 => limit.clone().prop_map(Call::SetHeadroom),
        1 => limit.prop_map(Call::SetForeign),
    ]
}

/// Takes a random element out, if there is one.
fn pick<T>(items: &mut Vec<T>, which: usize) -> Option<T> {
    (!items.is_empty()).then(|| items.swap_remove(which % items.len()))
}

fn sum(lens: impl Iterator<Item = ByteLen>) -> u64 {
    lens.map(ByteLen::get).sum()
}

proptest! {
    #[test]
    fn the_ledger_agrees_with_plain_sums(total in 0..1200_u64, calls in vec(call(), 0..150)) {
        let ledger = Ledger::new(ByteLen::new(total)).unwrap();
        let (mut total, mut headroom, mut foreign, mut kept) = (total, 0, 0, 0);
        let mut set_aside: Vec<Kept> = Vec::new();
        let mut reserved: Vec<Reservation> = Vec::new();
        let mut used: Vec<Charge> = Vec::new();

        for call in calls {
            let before = ledger.capacity();
            match call {
                Call::Reserve(len) => {
                    let taken = u128::from(before.taken().get());
                    // P1 and P8 in one line, in numbers that cannot wrap.
                    let fits = len == 0
                        || taken + u128::from(len) + u128::from(headroom) + u128::from(foreign)
                            <= u128::from(total);
                    match ledger.reserve(ByteLen::new(len)) {
                        Ok(reservation) => {
                            prop_assert!(fits);
                            prop_assert_eq!(reservation.len().get(), len);
                            reserved.push(reservation);
                        }
                        Err(LedgerError::Insufficient { needed, room, capacity }) => {
                            prop_assert!(!fits);
                            prop_assert_eq!(needed.get(), len);
                            prop_assert_eq!(room, before.room());
                            prop_assert_eq!(capacity, before);
                            prop_assert_eq!(ledger.capacity(), before);
                        }
                        Err(other) => prop_assert!(false, "unexpected refusal: {other}"),
                    }
                }
                Call::Split(which, len) => {
                    if let Some(mut whole) = pick(&mut reserved, which) {
                        let before_len = whole.len();
                        match whole.split(ByteLen::new(len)) {
                            Ok(part) => {
                                prop_assert_eq!(part.len().get() + whole.len().get(), before_len.get());
                                prop_assert_eq!(part.len().get(), len);
                                reserved.push(part);
                            }
                            Err(error) => {
                                let (wanted, len) = (ByteLen::new(len), before_len);
                                prop_assert_eq!(error, LedgerError::SplitTooLarge { wanted, len });
                                prop_assert!(wanted > len);
                                prop_assert_eq!(whole.len(), len);
                            }
                        }
                        reserved.push(whole);
                    }
                    prop_assert_eq!(ledger.capacity(), before);
                }
                Call::Join(which, other) => {
                    if let Some(mut whole) = pick(&mut reserved, which) {
                        if let Some(part) = pick(&mut reserved, other) {
                            let both = whole.len().get() + part.len().get();
                            prop_assert!(whole.join(part).is_ok());
                            prop_assert_eq!(whole.len().get(), both);
                        }
                        reserved.push(whole);
                    }
                    prop_assert_eq!(ledger.capacity(), before);
                }
                Call::Revoke(which) => reserved.extend(pick(&mut used, which).map(Charge::revoke)),
                Call::Commit(which) => used.extend(pick(&mut reserved, which).map(Reservation::commit)),
                Call::DropReservation(which) => drop(pick(&mut reserved, which)),
                Call::Release(which) => {
                    if let Some(charge) = pick(&mut used, which) {
                        charge.release();
                    }
                }
                Call::Keep(which) => {
                    if let Some(charge) = pick(&mut used, which) {
                        kept += charge.len().get();
                        let charge = charge.keep();
                        // Every other one is forgotten, and stays counted all the same.
                        if which % 2 == 0 {
                            set_aside.push(charge);
                        }
                    }
                }
                Call::ReleaseKept(which) => {
                    if let Some(back) = pick(&mut set_aside, which) {
                        kept -= back.len().get();
                        back.release();
                    }
                }
                Call::SetTotal(limit) => {
                    if ledger.set_total(ByteLen::new(limit)).is_ok() {
                        total = limit;
                    } else {
                        prop_assert!(limit > MAX_TOTAL.get());
                        prop_assert_eq!(ledger.capacity(), before);
                    }
                }
                Call::SetHeadroom(limit) => {
                    ledger.set_headroom(ByteLen::new(limit));
                    headroom = limit;
                }
                Call::SetForeign(limit) => {
                    ledger.set_foreign(ByteLen::new(limit));
                    foreign = limit;
                }
            }

            let now = ledger.capacity();
            prop_assert_eq!(now.reserved.get(), sum(reserved.iter().map(Reservation::len)));
            prop_assert_eq!(now.used.get(), sum(used.iter().map(Charge::len)) + kept);
            prop_assert_eq!(now.kept.get(), kept);
            prop_assert_eq!(
                (now.total.get(), now.headroom.get(), now.foreign.get()),
                (total, headroom, foreign)
            );
            let taken = now.taken().get();
            prop_assert_eq!(now.free().get(), total.saturating_sub(taken));
            if taken <= total {
                prop_assert_eq!(now.used.get() + now.reserved.get() + now.free().get(), total);
            }
        }

        // P5: once everything is dropped, only the bytes that the device refused to take back are
        // left.
        drop((reserved, used, set_aside));
        let end = ledger.capacity();
        prop_assert_eq!((end.used.get(), end.kept.get(), end.reserved.get()), (kept, kept, 0));
    }

    /// P5: a panic or an early return while holding reservations and charges releases all of them.
    #[test]
    fn a_panic_at_any_point_restores_the_ledger(lens in vec(0..100_u64, 1..20), at in 0..20_usize) {
        let ledger = Ledger::new(ByteLen::new(1000)).unwrap();
        let base = ledger.reserve(ByteLen::new(10)).unwrap().commit();
        let before = ledger.capacity();
        let shared = ledger.clone();
        let outcome = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
            let mut held = Vec::new();
            let mut charged = Vec::new();
            for (step, &len) in lens.iter().enumerate() {
                if step == at {
                    // Not `panic!`: that would print a message for each case.
                    std::panic::resume_unwind(Box::new("halfway"));
                }
                let mut reservation = shared.reserve(ByteLen::new(len))?;
                charged.push(reservation.split(ByteLen::new(len / 2))?.commit());
                held.push(reservation);
            }
            Err::<(), _>(LedgerError::SplitTooLarge { wanted: ByteLen::ZERO, len: ByteLen::ZERO })
        }));
        prop_assert_eq!(outcome.is_err(), at < lens.len() && sum_before(&lens, at) <= 990);
        prop_assert_eq!(ledger.capacity(), before);
        base.release();
        prop_assert_eq!(ledger.capacity().free().get(), 1000);
    }
}

fn sum_before(lens: &[u64], at: usize) -> u64 {
    lens.iter().take(at).sum()
}

/// P8: with a budget below the bytes taken, the ledger grants nothing, and grants again once it
/// fits.
#[test]
fn a_budget_shrunk_below_what_is_taken_grants_nothing_until_it_fits() {
    let ledger = Ledger::new(ByteLen::new(1000)).unwrap();
    let first = ledger.reserve(ByteLen::new(600)).unwrap().commit();
    let second = ledger.reserve(ByteLen::new(300)).unwrap();
    ledger.set_total(ByteLen::new(500)).unwrap();

    let now = ledger.capacity();
    assert_eq!((now.used.get(), now.reserved.get()), (600, 300));
    assert_eq!((now.free(), now.room()), (ByteLen::ZERO, ByteLen::ZERO));
    assert!(ledger.reserve(ByteLen::new(1)).is_err());
    assert!(ledger.reserve(ByteLen::ZERO).is_ok(), "nothing is always granted");

    first.release();
    assert!(ledger.reserve(ByteLen::new(201)).is_err());
    assert!(ledger.reserve(ByteLen::new(200)).is_ok());
    drop(second);
    assert_eq!(ledger.capacity().free().get(), 500);
}

#[test]
fn a_reservation_of_another_ledger_is_not_joined() {
    let [ours, theirs] = [100, 100].map(|total| Ledger::new(ByteLen::new(total)).unwrap());
    let mut reservation = ours.reserve(ByteLen::new(10)).unwrap();
    let foreign = theirs.reserve(ByteLen::new(20)).unwrap();
    let refused = reservation.join(foreign).unwrap_err();
    assert_eq!((reservation.len().get(), refused.len().get()), (10, 20));
    drop((reservation, refused));
    assert!(ours.capacity().taken().is_zero() && theirs.capacity().taken().is_zero());
}

#[test]
fn a_refusal_says_what_was_needed_and_what_there_was() {
    let ledger = Ledger::new(ByteLen::new(4 << 20)).unwrap();
    ledger.set_headroom(ByteLen::MIB);
    ledger.set_foreign(ByteLen::MIB);
    let error = ledger.reserve(ByteLen::new(3 << 20)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "3.0 MiB (3145728 bytes) needed, room for 2.0 MiB (2097152 bytes) (total 4.0 MiB (4194304 \
         bytes), used 0 bytes, reserved 0 bytes, room 2.0 MiB (2097152 bytes))"
    );
}

#[test]
fn the_largest_budget_is_counted_to_the_byte_and_a_larger_one_is_refused() {
    let ledger = Ledger::new(MAX_TOTAL).unwrap();
    let all = ledger.reserve(MAX_TOTAL).unwrap();
    ledger.set_headroom(ByteLen::MAX);
    ledger.set_foreign(ByteLen::MAX);
    let now = ledger.capacity();
    assert_eq!(now.reserved, MAX_TOTAL);
    assert_eq!((now.free(), now.room()), (ByteLen::ZERO, ByteLen::ZERO));
    // 65 536 changes of a limit carry the epoch once around; the bytes taken stay.
    for _ in 0..=u16::MAX {
        ledger.set_headroom(ByteLen::ZERO);
    }
    assert_eq!(ledger.capacity().reserved, MAX_TOTAL);
    drop(all.commit());
    assert_eq!(ledger.capacity().taken(), ByteLen::ZERO);

    let too_large = ByteLen::new(MAX_TOTAL.get() + 1);
    let refused = LedgerError::TotalTooLarge { total: too_large, max: MAX_TOTAL };
    assert_eq!(Ledger::new(too_large).unwrap_err(), refused);
    assert_eq!(ledger.set_total(too_large).unwrap_err(), refused);
}

#[test]
fn handles_are_sent_between_threads() {
    fn holds<T: Send + Sync + 'static>() {}
    holds::<Ledger>();
    holds::<Reservation>();
    holds::<Charge>();
    holds::<Kept>();
    holds::<Capacity>();
    holds::<LedgerError>();
}
