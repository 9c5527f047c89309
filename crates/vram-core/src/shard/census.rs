//! What lies on each GPU, kept as sums: which shards, whose, how much of it, and the oldest check.
//!
//! Reading a sum costs the same with ten shards and with a million.

mod lease;
mod models;
mod oldest;

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use vram_alloc::ByteLen;
use vram_id::ShardId;

pub(crate) use self::lease::CountedLease;
pub use self::models::ModelCounts;
pub(crate) use self::models::{Lies, Models};
use self::oldest::Oldest;
use crate::shard::HeldBy;
use crate::shard::ages::Nanos;
use crate::sync::{Mutex, lock};

/// The sums of all GPUs of a manager. Its locks are innermost: nothing is called under them.
#[derive(Debug, Default)]
pub(crate) struct Census {
    gpus: OnceLock<Vec<Mutex<Here>>>,
    pub(crate) models: Models,
}

/// What is counted of one resident shard, besides whose it is, which never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) gpu: u32,
    pub(crate) bytes: ByteLen,
    /// The time from which the age of its last check counts; `None` in quarantine.
    pub(crate) unverified_since: Option<Duration>,
}

/// What one holder has on a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) bytes: ByteLen,
    pub(crate) shard_count: u64,
    pub(crate) leased_count: u64,
}

/// What one holder has, and what of it is the oldest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holding {
    pub(crate) sum: Sum,
    /// The time from which the age counts of the check that is longest ago.
    pub(crate) unverified_since: Option<Duration>,
    /// The lease that began first.
    pub(crate) oldest_lease: Option<CountedLease>,
}

/// A bounded number of holders, and all others together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holdings {
    pub(crate) listed: BTreeMap<HeldBy, Holding>,
    pub(crate) others: Holding,
}

#[derive(Debug, Default)]
struct Here {
    /// The shards in quarantine. All others are in `ages`.
    quarantined: BTreeSet<ShardId>,
    holders: BTreeMap<HeldBy, Sum>,
    /// What all holders have together.
    total: Sum,
    /// The holders, those with the most bytes first.
    largest: BTreeSet<(Reverse<ByteLen>, HeldBy)>,
    /// The shards that are not in quarantine, the longest unverified first.
    ages: Oldest<(Nanos, ShardId)>,
    leases: Oldest<CountedLease>,
}

impl Sum {
    const fn plus(self, more: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(more.bytes),
            shard_count: self.shard_count.saturating_add(more.shard_count),
            leased_count: self.leased_count.saturating_add(more.leased_count),
        }
    }

    const fn less(self, fewer: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(fewer.bytes),
            shard_count: self.shard_count.saturating_sub(fewer.shard_count),
            leased_count: self.leased_count.saturating_sub(fewer.leased_count),
        }
    }
}

impl Holding {
    fn add(&mut self, sum: Sum, since: Option<Duration>, lease: Option<&CountedLease>) {
        self.sum = self.sum.plus(sum);
        self.unverified_since = [self.unverified_since, since].into_iter().flatten().min();
        if let Some(lease) = lease
            && self.oldest_lease.as_ref().is_none_or(|oldest| lease < oldest)
        {
            self.oldest_lease = Some(lease.clone());
        }
    }
}

impl Here {
    fn sum(&mut self, holder: &HeldBy, change: impl FnOnce(&mut Sum)) {
        let before = self.holders.get(holder).copied().unwrap_or_default();
        let mut sum = before;
        change(&mut sum);
        self.total = self.total.less(before).plus(sum);
        let ranks = |sum: Sum| (sum.shard_count > 0).then_some(Reverse(sum.bytes));
        if ranks(before) != ranks(sum) {
            let mut ranked = (Reverse(before.bytes), holder.clone());
            self.largest.remove(&ranked);
            if sum.shard_count > 0 {
                ranked.0 = Reverse(sum.bytes);
                self.largest.insert(ranked);
            }
        }
        if sum == Sum::default() {
            self.holders.remove(holder);
        } else if let Some(known) = self.holders.get_mut(holder) {
            *known = sum;
        } else {
            self.holders.insert(holder.clone(), sum);
        }
    }

    /// The change of a shard that lay here and lies here still: most often it was found sound.
    fn stays(&mut self, shard: &ShardId, holder: &HeldBy, before: Row, after: Row) {
        if before.unverified_since != after.unverified_since {
            let aged = |since: Duration| (since.into(), shard.clone());
            match (before.unverified_since, after.unverified_since) {
                (Some(was), Some(since)) => self.ages.replace(holder, &aged(was), aged(since)),
                (Some(was), None) => {
                    self.ages.remove(holder, &aged(was));
                    self.quarantined.insert(shard.clone());
                }
                (None, Some(since)) => {
                    self.quarantined.remove(shard);
                    self.ages.add(holder, aged(since));
                }
                (None, None) => {}
            }
        }
        if before.bytes != after.bytes {
            self.sum(holder, |sum| {
                sum.bytes = sum.bytes.saturating_sub(before.bytes).saturating_add(after.bytes);
            });
        }
    }
}

impl Census {
    /// Counts on this many GPUs from now on.
    pub(crate) fn begin(&self, gpus: usize) {
        let _once = self.gpus.set((0..gpus).map(|_| Mutex::default()).collect());
    }

    fn here(&self, gpu: u32) -> Option<&Mutex<Here>> {
        usize::try_from(gpu).ok().and_then(|gpu| self.gpus.get()?.get(gpu))
    }

    /// Counts a shard of this holder as `after` says, and no longer as `before` said.
    pub(crate) fn change(
        &self,
        (shard, holder): (&ShardId, &HeldBy),
        before: Option<Row>,
        after: Option<Row>,
    ) {
        if before == after {
            return;
        }
        if let (Some(before), Some(after)) = (before, after)
            && before.gpu == after.gpu
            && let Some(here) = self.here(after.gpu)
        {
            return lock(here).stays(shard, holder, before, after);
        }
        if let Some(row) = before
            && let Some(here) = self.here(row.gpu)
        {
            let mut here = lock(here);
            if let Some(since) = row.unverified_since {
                here.ages.remove(holder, &(since.into(), shard.clone()));
            } else {
                here.quarantined.remove(shard);
            }
            here.sum(holder, |sum| {
                sum.bytes = sum.bytes.saturating_sub(row.bytes);
                sum.shard_count = sum.shard_count.saturating_sub(1);
            });
        }
        if let Some(row) = after
            && let Some(here) = self.here(row.gpu)
        {
            let mut here = lock(here);
            if let Some(since) = row.unverified_since {
                here.ages.add(holder, (since.into(), shard.clone()));
            } else {
                here.quarantined.insert(shard.clone());
            }
            here.sum(holder, |sum| {
                sum.bytes = sum.bytes.saturating_add(row.bytes);
                sum.shard_count = sum.shard_count.saturating_add(1);
            });
        }
    }

    /// Counts one more lease. `first`: the shard had none before.
    pub(crate) fn leased(&self, gpu: u32, holder: &HeldBy, lease: CountedLease, first: bool) {
        let Some(here) = self.here(gpu) else { return };
        let mut here = lock(here);
        here.leases.add(holder, lease);
        if first {
            here.sum(holder, |sum| sum.leased_count = sum.leased_count.saturating_add(1));
        }
    }

    /// Counts one lease less. `last`: the shard has none any more.
    pub(crate) fn lease_ended(&self, gpu: u32, holder: &HeldBy, lease: &CountedLease, last: bool) {
        let Some(here) = self.here(gpu) else { return };
        let mut here = lock(here);
        here.leases.remove(holder, lease);
        if last {
            here.sum(holder, |sum| sum.leased_count = sum.leased_count.saturating_sub(1));
        }
    }

    /// The shards on a GPU, in ascending order of their ids.
    pub(crate) fn shards(&self, gpu: u32) -> Vec<ShardId> {
        let Some(here) = self.here(gpu) else { return Vec::new() };
        let here = lock(here);
        let sound = here.ages.iter().map(|(_since, shard)| shard);
        let mut shards: Vec<_> = here.quarantined.iter().chain(sound).cloned().collect();
        drop(here);
        shards.sort_unstable();
        shards
    }

    /// The number of shards on a GPU, and of those in quarantine.
    pub(crate) fn counts(&self, gpu: u32) -> (usize, usize) {
        self.here(gpu).map_or((0, 0), |here| {
            let here = lock(here);
            let quarantined = here.quarantined.len();
            (here.ages.count().saturating_add(quarantined), quarantined)
        })
    }

    /// The shard of a GPU that no check has found sound for the longest time, and since when. Of
    /// equals the one with the lowest id.
    pub(crate) fn oldest(&self, gpu: u32) -> Option<(Duration, ShardId)> {
        let (since, shard) = self.here(gpu).and_then(|here| lock(here).ages.first().cloned())?;
        Some((since.into(), shard))
    }

    /// The number of leases, and the one of them that began first.
    pub(crate) fn leases(&self) -> (usize, Option<CountedLease>) {
        let heres = self.gpus.get().into_iter().flatten();
        heres.fold((0, None), |(count, oldest), here| {
            let here = lock(here);
            let first = here.leases.first().cloned();
            let oldest = [oldest, first].into_iter().flatten().min();
            (here.leases.count().saturating_add(count), oldest)
        })
    }

    /// What the holders have that are among the `count` with the most bytes on some GPU, and what
    /// all others have together. The cost depends on `count` and the number of GPUs alone. Of a GPU
    /// that is not `readable`, no age counts.
    pub(crate) fn holdings(&self, count: usize, readable: &[bool]) -> Holdings {
        let heres = || self.gpus.get().into_iter().flatten();
        let largest = heres().flat_map(|here| {
            let here = lock(here);
            here.largest.iter().take(count).map(|(_, holder)| holder.clone()).collect::<Vec<_>>()
        });
        let listed: BTreeSet<HeldBy> = largest.collect();
        let mut all = Holdings::default();
        for (here, readable) in heres().zip(readable) {
            let here = lock(here);
            let since = |age: Option<&(Nanos, ShardId)>| {
                age.filter(|_| *readable).map(|(since, _)| (*since).into())
            };
            let mut others = here.total;
            for holder in &listed {
                let sum = here.holders.get(holder).copied().unwrap_or_default();
                others = others.less(sum);
                let (age, lease) = (here.ages.first_of(holder), here.leases.first_of(holder));
                all.listed.entry(holder.clone()).or_default().add(sum, since(age), lease);
            }
            let (age, lease) = (here.ages.first_beside(&listed), here.leases.first_beside(&listed));
            all.others.add(others, since(age), lease);
        }
        all
    }

    /// The `count` holders with the most bytes on these GPUs.
    pub(crate) fn largest(&self, gpus: &[u32], count: usize) -> Vec<(HeldBy, Sum)> {
        let heres = gpus.iter().filter_map(|gpu| self.here(*gpu));
        let mut all: BTreeMap<HeldBy, Sum> = BTreeMap::new();
        // Of one GPU only the largest are read; of several, a holder may be large by all of them
        // together.
        let most = if gpus.len() == 1 { count } else { usize::MAX };
        for here in heres {
            let here = lock(here);
            for (_, holder) in here.largest.iter().take(most) {
                let more = here.holders.get(holder).copied().unwrap_or_default();
                let sum = all.entry(holder.clone()).or_default();
                *sum = sum.plus(more);
            }
        }
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_by_key(|(_, sum)| Reverse(sum.bytes));
        all.truncate(count);
        all
    }
}

#[cfg(test)]
mod tests {
    use vram_id::{IdSource, SystemClock};

    use super::*;

    fn holder(model_id: &str) -> HeldBy {
        HeldBy { owner: None, model_id: model_id.into() }
    }

    fn row(gpu: u32, bytes: u64, since: Option<u64>) -> Row {
        let unverified_since = since.map(Duration::from_secs);
        Row { gpu, bytes: ByteLen::new(bytes), unverified_since }
    }

    #[test]
    fn sums_follow_every_change_and_return_to_nothing() {
        let census = Census::default();
        census.begin(2);
        let ids: Vec<_> = (0..3).map(|_| IdSource::Process.next(&SystemClock)).collect();
        let holders = ["a", "b", "b"].map(holder);
        let rows = [row(0, 512, Some(3)), row(0, 256, Some(1)), row(1, 1024, None)];
        let change = |at: usize, before, after| {
            census.change((&ids[at], &holders[at]), before, after);
        };
        for (at, row) in rows.iter().enumerate() {
            change(at, None, Some(*row));
        }
        assert_eq!(census.counts(0), (2, 0));
        assert_eq!(census.counts(1), (1, 1), "what has no age is in quarantine");
        assert_eq!(census.oldest(0).unwrap().1, ids[1]);
        let names = |gpus: &[u32], count| {
            let largest = census.largest(gpus, count).into_iter();
            largest.map(|(holder, sum)| (holder.model_id.to_string(), sum.bytes.get()))
        };
        assert_eq!(names(&[0], 1).collect::<Vec<_>>(), [("a".to_owned(), 512)]);
        assert_eq!(names(&[0, 1], 1).collect::<Vec<_>>(), [("b".to_owned(), 1280)]);

        let sound = row(0, 300, Some(8));
        change(1, Some(rows[1]), Some(sound));
        assert_eq!(census.oldest(0).unwrap(), (Duration::from_secs(3), ids[0].clone()));
        assert_eq!(names(&[0], 2).map(|(_, bytes)| bytes).collect::<Vec<_>>(), [512, 300]);
        let altered = row(0, 300, None);
        change(1, Some(sound), Some(altered));
        assert_eq!(census.counts(0), (2, 1), "in quarantine");
        change(1, Some(altered), Some(rows[1]));
        assert_eq!((census.counts(0), census.oldest(0).unwrap().1), ((2, 0), ids[1].clone()));

        let moved = row(1, 512, Some(9));
        change(0, Some(rows[0]), Some(moved));
        assert_eq!((census.shards(0), census.shards(1).len()), (vec![ids[1].clone()], 2));
        let leased = crate::shard::Leased::default();
        let of = crate::shard::Of::Alone(holders[0].clone().into());
        let lease = CountedLease { leased, shard: ids[0].clone(), of };
        census.leased(1, &holders[0], lease.clone(), true);
        assert_eq!(census.leases(), (1, Some(lease.clone())));
        change(0, Some(moved), None);
        assert_eq!(census.largest(&[1], 9).len(), 1, "a lease alone is no shard");
        census.lease_ended(1, &holders[0], &lease, true);
        assert_eq!(census.leases(), (0, None));
        change(1, Some(rows[1]), None);
        change(2, Some(rows[2]), None);
        for here in census.gpus.get().unwrap() {
            let here = lock(here);
            assert!(here.quarantined.is_empty() && here.holders.is_empty());
            assert!(here.largest.is_empty() && here.ages.is_empty());
            assert!(here.leases.is_empty() && here.total == Sum::default());
        }
    }
}
