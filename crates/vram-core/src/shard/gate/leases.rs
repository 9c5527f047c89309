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

/// All leases of one shard. Most shards have one lease or none, which takes no memory of its own.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    oldest: Option<Leased>,
    /// Those that are not the oldest.
    others: BTreeSet<Leased>,
}

impl Leases {
    pub(crate) fn count(&self) -> usize {
        self.others.len().saturating_add(usize::from(self.oldest.is_some()))
    }

    pub(crate) const fn oldest(&self) -> Option<&Leased> {
        self.oldest.as_ref()
    }

    /// All leases, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Leased> {
        self.oldest.iter().chain(&self.others)
    }

    pub(crate) fn add(&mut self, leased: Leased) {
        match &mut self.oldest {
            Some(oldest) if *oldest < leased => {
                self.others.insert(leased);
            }
            // A thread that read the clock earlier may come later.
            oldest => self.others.extend(oldest.replace(leased)),
        }
    }

    pub(crate) fn remove(&mut self, leased: &Leased) {
        if self.oldest.as_ref() == Some(leased) {
            self.oldest = self.others.pop_first();
        } else {
            self.others.remove(leased);
        }
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
