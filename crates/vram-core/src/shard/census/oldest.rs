//! What began first, over all holders and for each of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::shard::HeldBy;

/// Items of many holders, ordered by their beginning. No two items are equal.
#[derive(Debug)]
pub(crate) struct Oldest<T> {
    of: BTreeMap<HeldBy, BTreeSet<T>>,
    /// The first item of each holder.
    firsts: BTreeMap<T, HeldBy>,
    count: usize,
}

impl<T> Default for Oldest<T> {
    fn default() -> Self {
        Self { of: BTreeMap::new(), firsts: BTreeMap::new(), count: 0 }
    }
}

impl<T: Ord + Clone> Oldest<T> {
    pub(crate) fn add(&mut self, holder: &HeldBy, item: T) {
        if !self.of.contains_key(holder) {
            self.of.insert(holder.clone(), BTreeSet::new());
        }
        let Some(of) = self.of.get_mut(holder) else { return };
        let first = of.first();
        if first.is_none_or(|first| item < *first) {
            if let Some(first) = first {
                self.firsts.remove(first);
            }
            self.firsts.insert(item.clone(), holder.clone());
        }
        if of.insert(item) {
            self.count = self.count.saturating_add(1);
        }
    }

    pub(crate) fn remove(&mut self, holder: &HeldBy, item: &T) {
        let Some(of) = self.of.get_mut(holder) else { return };
        if of.remove(item) {
            self.count = self.count.saturating_sub(1);
        }
        let next = of.first();
        if let Some(holder) = self.firsts.remove(item)
            && let Some(next) = next
        {
            self.firsts.insert(next.clone(), holder);
        }
        if next.is_none() {
            self.of.remove(holder);
        }
    }

    /// Replaces an item of the holder by another of it.
    pub(crate) fn replace(&mut self, holder: &HeldBy, item: &T, by: T) {
        let Some(of) = self.of.get_mut(holder) else { return self.add(holder, by) };
        let first = of.first();
        // Most often the item that is replaced is the first, and by one that is the last.
        let leads = first.is_some_and(|first| item <= first || by < *first);
        let before = if leads { first.cloned() } else { None };
        let known = of.remove(item);
        let new = of.insert(by);
        self.count = match (known, new) {
            (false, true) => self.count.saturating_add(1),
            (true, false) => self.count.saturating_sub(1),
            _ => self.count,
        };
        if let (Some(before), Some(first)) = (before, of.first())
            && before != *first
            && let Some(holder) = self.firsts.remove(&before)
        {
            self.firsts.insert(first.clone(), holder);
        }
    }

    /// The first item of all.
    pub(crate) fn first(&self) -> Option<&T> {
        self.firsts.first_key_value().map(|(item, _)| item)
    }

    /// The first item of one holder.
    pub(crate) fn first_of(&self, holder: &HeldBy) -> Option<&T> {
        self.of.get(holder)?.first()
    }

    /// The first item of all other holders; it takes a step for each of `listed`.
    pub(crate) fn first_beside(&self, listed: &BTreeSet<HeldBy>) -> Option<&T> {
        let mut firsts = self.firsts.iter();
        firsts.find(|(_, holder)| !listed.contains(holder)).map(|(item, _)| item)
    }

    /// All items, holder by holder.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.of.values().flatten()
    }

    /// The number of items.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.of.is_empty() && self.firsts.is_empty() && self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holder(number: u8) -> HeldBy {
        HeldBy { owner: None, model_id: number.to_string().into() }
    }

    proptest! {
        /// The reference looks through a plain set of all items.
        #[test]
        fn the_first_is_known_after_any_changes(
            changes in proptest::collection::vec((0..4_u8, 0..20_u32, 0..20_u32, 0..3_u8), 0..60),
        ) {
            let (mut oldest, mut all) = (Oldest::default(), BTreeSet::new());
            for (number, age, other, step) in changes {
                // Items of two holders are never equal.
                let item = (age, number);
                match step {
                    0 => {
                        oldest.remove(&holder(number), &item);
                        all.remove(&item);
                    }
                    1 => {
                        oldest.replace(&holder(number), &item, (other, number));
                        all.remove(&item);
                        all.insert((other, number));
                    }
                    _ => {
                        oldest.add(&holder(number), item);
                        all.insert(item);
                    }
                }
                prop_assert_eq!(oldest.first(), all.first());
                prop_assert_eq!(oldest.count(), all.len());
                for of in 0..4 {
                    let first = all.iter().find(|(_, number)| *number == of);
                    prop_assert_eq!(oldest.first_of(&holder(of)), first);
                    let beside = all.iter().find(|(_, number)| *number != of);
                    prop_assert_eq!(oldest.first_beside(&BTreeSet::from([holder(of)])), beside);
                }
            }
            for (age, number) in all {
                oldest.remove(&holder(number), &(age, number));
            }
            prop_assert!(oldest.is_empty());
        }
    }
}
