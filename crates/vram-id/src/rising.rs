//! ULIDs that rise strictly for any clock.

use core::convert::Infallible;
use core::time::Duration;
use std::time::UNIX_EPOCH;

use rand_core::TryRng;
use ulid::{Generator, Ulid};

use crate::clock::Timestamp;

/// The last millisecond of a ULID: 48 bits, in the year 10889. The generator would map a later one
/// to an earlier one.
const LAST_MILLI: u64 = (1 << 48) - 1;
/// The bits of a ULID that do not belong to the time.
const RANDOM_MASK: u128 = (1 << 80) - 1;

/// Creates ULIDs that rise strictly.
#[derive(Debug)]
pub(crate) struct Rising(Generator);

impl Rising {
    pub(crate) const fn new() -> Self {
        Self(Generator::new())
    }

    /// The next ULID: with the time `now` and the bits of `fresh` if that is above the last ULID,
    /// otherwise the last ULID plus one.
    pub(crate) fn next(&mut self, now: Timestamp, fresh: u128) -> Ulid {
        // The top bit stays clear, so that a millisecond has room for 2^79 ids above its first.
        self.next_of(now, fresh & (RANDOM_MASK >> 1))
    }

    fn next_of(&mut self, now: Timestamp, random: u128) -> Ulid {
        // Never the first millisecond of 1970: a new generator treats it as already used, and would
        // start with the same id in every process whose clock shows that time.
        let millis = Duration::from_millis(now.unix_millis().clamp(1, LAST_MILLI));
        let moment = UNIX_EPOCH.checked_add(millis).unwrap_or(UNIX_EPOCH);
        self.0.generate_from_datetime_with_source(moment, &mut Drawn(random)).unwrap_or_else(
            // The millisecond is used up: continue in the next.
            |overflow| overflow.commit_overflow_random_with_source(&mut Drawn(random)),
        )
    }
}

/// Random bits drawn before, so that no foreign source is called under a lock. A ULID takes its
/// upper 16 bits as a small number, then its lower 64.
struct Drawn(u128);

impl TryRng for Drawn {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::try_from((self.0 & RANDOM_MASK) >> 64).unwrap_or(0))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::try_from(self.0 & u128::from(u64::MAX)).unwrap_or(0))
    }

    fn try_fill_bytes(&mut self, target: &mut [u8]) -> Result<(), Infallible> {
        rand_core::utils::fill_bytes_via_next_word(target, || self.try_next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_though_the_clock_goes_back_stands_still_or_overflows() {
        let mut rising = Rising::new();
        let mut last = None;
        let moments = [5, 5, 4, 0, 1000, 999, u64::MAX, u64::MAX, 0, LAST_MILLI, 7];
        for (step, now) in moments.into_iter().cycle().take(5000).enumerate() {
            let fresh = if step % 3 == 0 { u128::MAX } else { 0 };
            let next = rising.next(Timestamp::from_unix_millis(now), fresh);
            assert!(last < Some(next), "step {step}: {last:?} then {next}");
            last = Some(next);
        }
    }

    #[test]
    fn a_millisecond_that_is_used_up_goes_on_in_the_next() {
        let mut rising = Rising::new();
        let now = Timestamp::from_unix_millis(9);
        let last = rising.next_of(now, RANDOM_MASK);
        assert_eq!((last.timestamp_ms(), last.random()), (9, RANDOM_MASK));
        let next = rising.next(now, 3);
        assert_eq!((next.timestamp_ms(), next.random()), (10, 3));
    }

    #[test]
    fn a_millisecond_has_room_above_its_first_id_and_takes_all_other_bits() {
        let mut rising = Rising::new();
        let first = rising.next(Timestamp::from_unix_millis(9), u128::MAX);
        assert_eq!((first.timestamp_ms(), first.random()), (9, RANDOM_MASK >> 1));
        let bits = 0x1234_5678_9abc_def0_1122;
        let next = rising.next(Timestamp::from_unix_millis(10), bits);
        assert_eq!((next.timestamp_ms(), next.random()), (10, bits));
    }

    #[test]
    fn ids_are_random_though_the_clock_stands_at_its_start() {
        let first = |fresh| Rising::new().next(Timestamp::default(), fresh);
        assert_ne!(first(1), first(2));
        assert_eq!(first(7).random(), 7);
    }
}
