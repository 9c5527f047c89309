//! Whose leases keep a manager from being closed.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::shard::Leased;

/// The most holders that a report lists.
const HOLDERS_MAX: usize = 32;

/// Leases of one holder that still exist.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct HeldLeases {
    /// The name that the program gave for the holder; `None` stands for all holders without one.
    pub holder: Option<Arc<str>>,
    /// How many leases it has.
    pub count: u64,
    /// Time since the first of them began, by the manager's monotonic clock.
    pub oldest: Duration,
}

/// The number of leases of each holder, and when the first of them began.
#[derive(Debug, Default)]
pub(crate) struct Holders(BTreeMap<Option<Arc<str>>, (u64, Duration)>);

impl Holders {
    pub(crate) fn add(&mut self, leases: Vec<Leased>) {
        for leased in leases {
            let (count, first) = self.0.entry(leased.holder).or_insert((0, leased.since));
            *count = count.saturating_add(1);
            *first = leased.since.min(*first);
        }
    }

    /// The number of all leases, and their holders, the one with the oldest lease first.
    pub(crate) fn end(self, now: Duration) -> (u64, Vec<HeldLeases>) {
        let mut all: Vec<_> = self.0.into_iter().collect();
        let count = all.iter().fold(0_u64, |sum, (_, (count, _))| sum.saturating_add(*count));
        all.sort_by_key(|(_, (_, first))| *first);
        all.truncate(HOLDERS_MAX);
        let held = all.into_iter().map(|(holder, (count, first))| HeldLeases {
            holder,
            count,
            oldest: now.saturating_sub(first),
        });
        (count, held.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_listed_by_their_oldest_lease_and_no_more_than_a_report_bears() {
        let leased = |second: u64, holder: Option<&str>| Leased {
            since: Duration::from_secs(second),
            number: second,
            holder: holder.map(Arc::from),
        };
        let mut holders = Holders::default();
        holders.add(vec![leased(3, Some("late")), leased(4, None), leased(1, Some("early"))]);
        holders.add(vec![leased(2, None), leased(9, Some("early"))]);
        let (count, held) = holders.end(Duration::from_secs(10));
        let shown = |one: &HeldLeases| (one.holder.clone(), one.count, one.oldest.as_secs());
        let shown: Vec<_> = held.iter().map(shown).collect();
        assert_eq!(count, 5);
        assert_eq!(
            shown,
            [(Some("early".into()), 2, 9), (None, 2, 8), (Some("late".into()), 1, 7)]
        );

        let mut many = Holders::default();
        many.add((0..1000).map(|n| leased(n, Some(&n.to_string()))).collect());
        let (count, held) = many.end(Duration::ZERO);
        assert_eq!((count, held.len()), (1000, HOLDERS_MAX));
        assert_eq!(held[0].holder.as_deref(), Some("0"));
    }
}
