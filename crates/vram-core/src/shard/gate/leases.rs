//! The leases of one shard: how many, whose, and since when.

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One lease. Ordered by its beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Leased {
    /// Monotonic time of its beginning.
    pub(crate) since: Duration,
    /// Unique among the leases of a manager.
    pub(crate) number: u64,
    /// The name that the program gave for its holder.
    pub(crate) holder: Option<Arc<str>>,
}

/// All leases of one shard. Most shards have one lease or none, which takes little memory.
#[derive(Debug, Default)]
pub(crate) enum Leases {
    #[default]
    None,
    One(Box<Leased>),
    /// Two or more.
    #[expect(clippy::box_collection, reason = "one word of every shard, not three")]
    Many(Box<BTreeSet<Leased>>),
}

impl Leases {
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::Many(all) => all.len(),
        }
    }

    pub(crate) fn oldest(&self) -> Option<&Leased> {
        self.iter().next()
    }

    /// All leases, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Leased> {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(one) => (Some(&**one), None),
            Self::Many(all) => (None, Some(&**all)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    pub(crate) fn add(&mut self, leased: Leased) {
        *self = match core::mem::take(self) {
            Self::None => Self::One(Box::new(leased)),
            Self::One(one) => Self::Many(Box::new([*one, leased].into())),
            Self::Many(mut all) => {
                all.insert(leased);
                Self::Many(all)
            }
        };
    }

    pub(crate) fn remove(&mut self, leased: &Leased) {
        *self = match core::mem::take(self) {
            Self::One(one) if *one == *leased => Self::None,
            Self::Many(mut all) => {
                all.remove(leased);
                let last = if all.len() == 1 { all.pop_first() } else { None };
                last.map_or(Self::Many(all), |last| Self::One(Box::new(last)))
            }
            same => same,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leased(since: u64, number: u64) -> Leased {
        Leased { since: Duration::from_secs(since), number, holder: None }
    }

    #[test]
    fn the_oldest_lease_is_known_in_whatever_order_they_begin_and_end() {
        let all = [leased(2, 0), leased(1, 1), leased(3, 2), leased(1, 3)];
        let sorted = [1, 3, 0, 2].map(|index: usize| all[index].clone());
        let mut leases = Leases::default();
        for (count, one) in all.iter().enumerate() {
            assert_eq!(leases.count(), count);
            leases.add(one.clone());
        }
        assert!(leases.iter().eq(&sorted));
        for gone in [&all[0], &all[1], &all[1], &all[2]] {
            leases.remove(gone);
            assert_eq!(leases.oldest(), leases.iter().min());
            assert!(leases.iter().all(|one| one != gone));
        }
        assert_eq!((leases.oldest(), leases.count()), (Some(&all[3]), 1));
        leases.remove(&all[3]);
        assert_eq!((leases.oldest(), leases.count()), (None, 0));
    }
}
