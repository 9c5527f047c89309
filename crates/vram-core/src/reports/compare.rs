//! Decides which accounts of a GPU agree.

use vram_alloc::ByteLen;
use vram_space::Figures;

use crate::reports::{Account, Difference, Owned};

/// The bytes that running calls hold, and the accounts that do not agree.
pub(crate) fn compare(figures: &Figures, owned: &Owned) -> (ByteLen, Vec<Difference>) {
    let mut differences = Vec::new();
    let mut check = |account, agrees: bool, expected, found| {
        if !agrees {
            differences.push(Difference { account, expected, found });
        }
    };
    let whole = figures.live.saturating_add(figures.holes);
    let capacity = figures.arena_capacity;
    check(Account::ArenaCapacity, whole == capacity, capacity, whole);
    check(
        Account::ArenaPlaced,
        figures.live == figures.arena_used,
        figures.live,
        figures.arena_used,
    );
    let kept = figures.books.kept;
    check(Account::Unreturned, kept == figures.unreturned, figures.unreturned, kept);

    let (taken, used) = (figures.books.taken(), figures.books.used);
    let in_use = owned.resident.saturating_add(figures.unreturned);
    let known = in_use.saturating_add(owned.promised);
    check(Account::BooksTaken, taken >= known, known, taken);
    check(Account::BooksUsed, used >= in_use, in_use, used);
    let known_places = in_use.saturating_add(owned.places);
    check(Account::Placed, figures.live >= known_places, known_places, figures.live);
    let in_flight = taken.saturating_sub(known);
    let placed = figures.live.saturating_sub(known_places);
    check(Account::InFlight, in_flight == placed, in_flight, placed);

    if let Some(held) = figures.held {
        // A block that was set aside is still held. Of the bytes in flight, any part may be in
        // blocks already.
        let least = owned.in_blocks.saturating_add(figures.unreturned);
        let most = least.saturating_add(in_flight);
        let nearest = if held < least { least } else { most };
        check(Account::Blocks, least <= held && held <= most, nearest, held);
    }
    (in_flight, differences)
}

#[cfg(test)]
mod tests {
    use vram_alloc::Capacity;

    use super::*;

    /// Accounts that agree: a shard of 100 bytes, a reservation of 20 of which 5 are a placement,
    /// 10 set aside, and a seal of 7 in flight.
    fn accounts() -> (Figures, Owned) {
        let bytes = ByteLen::new;
        let mut books = Capacity::default();
        (books.total, books.used, books.reserved) = (bytes(1000), bytes(110), bytes(27));
        books.kept = bytes(10);
        let figures = Figures {
            books,
            arena_capacity: bytes(1000),
            arena_used: bytes(122),
            live: bytes(122),
            holes: bytes(878),
            unreturned: bytes(10),
            held: Some(bytes(117)),
            taken_count: 0,
        };
        let owned = Owned {
            shard_count: 1,
            resident: bytes(100),
            promised: bytes(20),
            places: bytes(5),
            in_blocks: bytes(105),
        };
        (figures, owned)
    }

    fn differing(change: impl FnOnce(&mut Figures, &mut Owned)) -> Vec<Account> {
        let (mut figures, mut owned) = accounts();
        change(&mut figures, &mut owned);
        let (_, differences) = compare(&figures, &owned);
        differences.into_iter().map(|difference| difference.account).collect()
    }

    #[test]
    fn what_agrees_agrees_and_what_is_in_flight_is_told() {
        let (figures, owned) = accounts();
        assert_eq!(compare(&figures, &owned), (ByteLen::new(7), Vec::new()));
    }

    #[test]
    fn each_account_that_is_off_by_a_byte_is_named() {
        let more = |len: &mut ByteLen| *len = len.saturating_add(ByteLen::new(1));
        let less = |len: &mut ByteLen| *len = len.saturating_sub(ByteLen::new(1));
        assert_eq!(differing(|figures, _| more(&mut figures.holes)), [Account::ArenaCapacity]);
        assert_eq!(differing(|figures, _| more(&mut figures.arena_used)), [Account::ArenaPlaced]);
        assert_eq!(differing(|figures, _| more(&mut figures.books.kept)), [Account::Unreturned]);
        // A leak in one account only: running calls hold the same bytes in both.
        assert_eq!(differing(|figures, _| more(&mut figures.books.reserved)), [Account::InFlight]);
        assert_eq!(
            differing(|figures, _| less(&mut figures.books.used)),
            [Account::BooksUsed, Account::InFlight]
        );
        assert_eq!(
            differing(|figures, _| {
                less(&mut figures.live);
                less(&mut figures.arena_used);
                more(&mut figures.holes);
            }),
            [Account::InFlight]
        );
        // Of the 7 bytes in flight, all may be in blocks already, or none.
        for held in 115..=122 {
            let held = Some(ByteLen::new(held));
            assert_eq!(differing(|figures, _| figures.held = held), []);
        }
        for held in [114, 123] {
            let held = Some(ByteLen::new(held));
            assert_eq!(differing(|figures, _| figures.held = held), [Account::Blocks]);
        }
        let shard_counted_twice = |_: &mut Figures, owned: &mut Owned| {
            (owned.resident, owned.in_blocks) = (ByteLen::new(200), ByteLen::new(107));
        };
        assert_eq!(
            differing(shard_counted_twice),
            [Account::BooksTaken, Account::BooksUsed, Account::Placed]
        );
    }
}
