//! Shard ids: `orch-shard-` and a ULID, unique and strictly rising.

use core::borrow::Borrow;
use core::fmt;
use core::ops::Deref;
use core::str::FromStr;
use std::sync::Arc;

use ulid::Ulid;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::sync::{Mutex, lock};

/// The name of one resident shard: [`ShardId::PREFIX`] and a ULID of 26 characters.
///
/// Derefs to `str`. Ids made by one process rise strictly in byte order, whatever the clock does,
/// and differ across processes by 80 random bits a millisecond.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(Arc<str>);

impl ShardId {
    /// What every shard id begins with.
    pub const PREFIX: &'static str = "orch-shard-";

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn from_ulid(ulid: Ulid) -> Self {
        let mut digits = [0; ulid::ULID_LEN];
        let mut text = String::with_capacity(37);
        text.push_str(Self::PREFIX);
        text.push_str(ulid.array_to_str(&mut digits));
        Self(text.into())
    }
}

impl Deref for ShardId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for ShardId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ShardId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for ShardId {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for ShardId {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl PartialEq<String> for ShardId {
    fn eq(&self, other: &String) -> bool {
        *self.0 == **other
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A text is not a shard id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a shard id: `orch-shard-` and 26 characters of a ULID, in upper case, are needed")]
pub struct ParseShardIdError;

impl FromStr for ShardId {
    type Err = ParseShardIdError;

    /// Reads exactly what `Display` writes.
    fn from_str(text: &str) -> Result<Self, ParseShardIdError> {
        let digits = text.strip_prefix(Self::PREFIX).ok_or(ParseShardIdError)?;
        let ulid = Ulid::from_string(digits).map_err(|_not_a_ulid| ParseShardIdError)?;
        let id = Self::from_ulid(ulid);
        // The ULID alphabet folds case and look-alikes; one shard has one spelling.
        if id == text { Ok(id) } else { Err(ParseShardIdError) }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for ShardId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for ShardId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Where a manager's ids come from.
#[derive(Debug)]
pub(crate) enum IdSource {
    /// The process's one generator, on the system clock: no two managers can collide.
    Process,
    /// A generator of its own, for runs that can be repeated from a seed. Two managers with one
    /// seed make the same ids; their handles still tell the managers apart.
    Seeded { rising: Mutex<Rising>, entropy: Mutex<SplitMix> },
}

impl IdSource {
    pub(crate) const fn seeded(seed: u64) -> Self {
        Self::Seeded { rising: Mutex::new(Rising::new()), entropy: Mutex::new(SplitMix::new(seed)) }
    }

    /// The next id. `clock` counts only for a seeded source.
    pub(crate) fn next(&self, clock: &dyn Clock) -> ShardId {
        static PROCESS: Mutex<Rising> = Mutex::new(Rising::new());

        let ulid = match self {
            Self::Process => {
                // Both are asked before the lock: they are foreign code.
                let (now, fresh) = (SystemClock.now(), Ulid::generate().random());
                lock(&PROCESS).next(now, fresh)
            }
            Self::Seeded { rising, entropy } => {
                let now = clock.now();
                let fresh = lock(entropy).next_u128();
                lock(rising).next(now, fresh)
            }
        };
        ShardId::from_ulid(ulid)
    }
}

/// Largest millisecond a ULID can hold: 48 bits, in the year 10889.
const LAST_MILLI: u64 = (1 << 48) - 1;
/// Bits of a ULID that are not time.
const RANDOM_MASK: u128 = (1 << 80) - 1;

/// Makes ULIDs that rise strictly, whatever the clock does.
#[derive(Debug)]
pub(crate) struct Rising {
    last: Option<(u64, u128)>,
}

impl Rising {
    pub(crate) const fn new() -> Self {
        Self { last: None }
    }

    /// The next ULID: of the moment `now` with the bits of `fresh` if that is later than the last
    /// one's, else one above the last.
    fn next(&mut self, now: Timestamp, fresh: u128) -> Ulid {
        // The top bit stays clear, so that a millisecond has room for 2^79 ids above its first.
        let fresh = fresh & (RANDOM_MASK >> 1);
        let now = now.unix_millis().min(LAST_MILLI);
        let next = match self.last {
            Some((millis, random)) if now <= millis => match random.checked_add(1) {
                Some(random) if random <= RANDOM_MASK => (millis, random),
                // 2^79 ids were made in one millisecond: go on in the next. Past the last
                // millisecond there is no next, but nobody makes 2^79 ids.
                _ => (millis.saturating_add(1).min(LAST_MILLI), fresh),
            },
            _ => (now, fresh),
        };
        self.last = Some(next);
        Ulid::from_parts(next.0, next.1)
    }
}

/// `SplitMix64`: a seed gives the same numbers everywhere. Not for secrets.
///
/// # Source
///
/// Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014.
#[derive(Clone, Debug)]
pub(crate) struct SplitMix(u64);

impl SplitMix {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn next_u128(&mut self) -> u128 {
        (u128::from(self.next_u64()) << 64) | u128::from(self.next_u64())
    }

    /// A number below `bound`, or 0 if `bound` is 0. Its bias is below `bound / 2^64`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next_u64()).saturating_mul(u128::from(bound)) >> 64;
        u64::try_from(wide).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Stuck(u64);

    impl Clock for Stuck {
        fn now(&self) -> Timestamp {
            Timestamp::from_unix_millis(self.0)
        }

        fn monotonic(&self) -> core::time::Duration {
            core::time::Duration::ZERO
        }
    }

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
        let mut rising = Rising { last: Some((9, RANDOM_MASK)) };
        let next = rising.next(Timestamp::from_unix_millis(9), 3);
        assert_eq!((next.timestamp_ms(), next.random()), (10, 3));
    }

    #[test]
    fn the_same_seed_and_clock_give_the_same_ids() {
        let ids = |seed| -> Vec<_> {
            let source = IdSource::seeded(seed);
            (0..50).map(|_| source.next(&Stuck(1_000_000))).collect()
        };
        assert_eq!(ids(7), ids(7));
        assert_ne!(ids(7), ids(8));
    }

    #[test]
    fn ids_of_many_threads_are_unique_and_each_thread_sees_them_rise() {
        let all: Vec<Vec<ShardId>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..2000).map(|_| IdSource::Process.next(&SystemClock)).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for ids in &all {
            assert!(ids.is_sorted_by(|a, b| a < b));
        }
        let distinct: std::collections::HashSet<_> = all.iter().flatten().collect();
        assert_eq!(distinct.len(), 8000);
    }

    #[test]
    fn an_id_reads_back_and_nothing_else_is_one() {
        let id = IdSource::Process.next(&SystemClock);
        assert!(id.starts_with("orch-shard-") && id.len() == 37);
        assert_eq!(id.parse::<ShardId>(), Ok(id.clone()));
        for bad in ["", "orch-shard-", &id.to_lowercase(), &id[1..], &format!("{id} ")] {
            assert_eq!(bad.parse::<ShardId>(), Err(ParseShardIdError), "{bad}");
        }
        let last_digit_ambiguous = format!("{}O", &id[..36]);
        assert_eq!(last_digit_ambiguous.parse::<ShardId>(), Err(ParseShardIdError));
    }

    #[test]
    fn below_stays_below_and_reaches_both_ends() {
        let mut random = SplitMix::new(1);
        assert_eq!(random.below(0), 0);
        let drawn: std::collections::BTreeSet<_> = (0..200).map(|_| random.below(4)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
}
