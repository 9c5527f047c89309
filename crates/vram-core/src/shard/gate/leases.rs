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

/// All leases of one shard. Most shards have none, which takes one word.
#[derive(Debug, Default)]
pub(crate) struct Leases(Option<Box<Held>>);

#[derive(Debug)]
enum Held {
    One(Leased),
    /// Two or more.
    Many(BTreeSet<Leased>),
}

impl Leases {
    pub(crate) fn count(&self) -> usize {
        match self.0.as_deref() {
            None => 0,
            Some(Held::One(_)) => 1,
            Some(Held::Many(all)) => all.len(),
        }
    }

    pub(crate) fn oldest(&self) -> Option<&Leased> {
        self.iter().next()
    }

    /// All leases, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Leased> {
        let (one, many) = match self.0.as_deref() {
            None => (None, None),
            Some(Held::One(one)) => (Some(one), None),
            Some(Held::Many(all)) => (None, Some(all)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    pub(crate) fn add(&mut self, leased: Leased) {
        let Some(held) = self.0.as_deref_mut() else {
            self.0 = Some(Box::new(Held::One(leased)));
            return;
        };
        match held {
            Held::One(one) => *held = Held::Many([core::mem::take(one), leased].into()),
            Held::Many(all) => {
                all.insert(leased);
            }
        }
    }

    pub(crate) fn remove(&mut self, leased: &Leased) {
        let Some(held) = self.0.as_deref_mut() else { return };
        match held {
            Held::One(one) if *one == *leased => self.0 = None,
            Held::One(_) => {}
            Held::Many(all) => {
                all.remove(leased);
                let last = if all.len() == 1 { all.pop_first() } else { None };
                if let Some(last) = last {
                    *held = Held::One(last);
                }
            }
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
