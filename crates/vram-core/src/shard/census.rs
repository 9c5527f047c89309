//! What lies on each GPU, kept as sums: which shards, whose, how much of it, and the oldest check.
//!
//! Reading a sum costs the same with ten shards and with a million.

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use vram_alloc::ByteLen;
use vram_id::ShardId;

use crate::sync::{Mutex, lock};

/// The sums of all GPUs of a manager. Its locks are innermost: nothing is called under them.
#[derive(Debug, Default)]
pub(crate) struct Census {
    gpus: OnceLock<Vec<Mutex<Here>>>,
}

/// What is counted of one resident shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) gpu: u32,
    pub(crate) holder: HeldBy,
    pub(crate) bytes: ByteLen,
    /// The time from which the age of its last check counts; `None` in quarantine.
    pub(crate) unverified_since: Option<Duration>,
}

/// Whose shards they are: an owner and a model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HeldBy {
    pub(crate) owner: Option<Arc<str>>,
    pub(crate) model_id: Arc<str>,
}

/// What one holder has on a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) bytes: ByteLen,
    pub(crate) shard_count: u64,
    pub(crate) leased_count: u64,
}

#[derive(Debug, Default)]
struct Here {
    shards: BTreeSet<ShardId>,
    holders: BTreeMap<HeldBy, Sum>,
    /// The holders, those with the most bytes first.
    largest: BTreeSet<(Reverse<ByteLen>, HeldBy)>,
    /// The shards that are not in quarantine, the longest unverified first.
    ages: BTreeSet<(Duration, ShardId)>,
}

impl Here {
    fn sum(&mut self, holder: &HeldBy, change: impl FnOnce(&mut Sum)) {
        let mut sum = self.holders.remove(holder).unwrap_or_default();
        self.largest.remove(&(Reverse(sum.bytes), holder.clone()));
        change(&mut sum);
        if sum.shard_count > 0 {
            self.largest.insert((Reverse(sum.bytes), holder.clone()));
        }
        if sum != Sum::default() {
            self.holders.insert(holder.clone(), sum);
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

    /// Counts a shard as `after` says, and no longer as `before` said.
    pub(crate) fn change(&self, shard: &ShardId, before: Option<&Row>, after: Option<&Row>) {
        if before == after {
            return;
        }
        if let Some(row) = before
            && let Some(here) = self.here(row.gpu)
        {
            let mut here = lock(here);
            here.shards.remove(shard);
            if let Some(since) = row.unverified_since {
                here.ages.remove(&(since, shard.clone()));
            }
            here.sum(&row.holder, |sum| {
                sum.bytes = sum.bytes.saturating_sub(row.bytes);
                sum.shard_count = sum.shard_count.saturating_sub(1);
            });
        }
        if let Some(row) = after
            && let Some(here) = self.here(row.gpu)
        {
            let mut here = lock(here);
            here.shards.insert(shard.clone());
            if let Some(since) = row.unverified_since {
                here.ages.insert((since, shard.clone()));
            }
            here.sum(&row.holder, |sum| {
                sum.bytes = sum.bytes.saturating_add(row.bytes);
                sum.shard_count = sum.shard_count.saturating_add(1);
            });
        }
    }

    /// Counts a shard as leased, or no longer.
    pub(crate) fn leased(&self, gpu: u32, holder: &HeldBy, leased: bool) {
        let Some(here) = self.here(gpu) else { return };
        lock(here).sum(holder, |sum| {
            let count = sum.leased_count;
            sum.leased_count =
                if leased { count.saturating_add(1) } else { count.saturating_sub(1) };
        });
    }

    /// The shards on a GPU, in ascending order of their ids.
    pub(crate) fn shards(&self, gpu: u32) -> Vec<ShardId> {
        self.here(gpu).map_or_else(Vec::new, |here| lock(here).shards.iter().cloned().collect())
    }

    /// The number of shards on a GPU, and of those in quarantine.
    pub(crate) fn counts(&self, gpu: u32) -> (usize, usize) {
        self.here(gpu).map_or((0, 0), |here| {
            let here = lock(here);
            (here.shards.len(), here.shards.len().saturating_sub(here.ages.len()))
        })
    }

    /// The shard of a GPU that no check has found sound for the longest time, and since when. Of
    /// equals the one with the lowest id.
    pub(crate) fn oldest(&self, gpu: u32) -> Option<(Duration, ShardId)> {
        self.here(gpu).and_then(|here| lock(here).ages.first().cloned())
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
                sum.bytes = sum.bytes.saturating_add(more.bytes);
                sum.shard_count = sum.shard_count.saturating_add(more.shard_count);
                sum.leased_count = sum.leased_count.saturating_add(more.leased_count);
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

    fn row(gpu: u32, model_id: &str, bytes: u64, since: Option<u64>) -> Row {
        let holder = HeldBy { owner: None, model_id: model_id.into() };
        let unverified_since = since.map(Duration::from_secs);
        Row { gpu, holder, bytes: ByteLen::new(bytes), unverified_since }
    }

    #[test]
    fn sums_follow_every_change_and_return_to_nothing() {
        let census = Census::default();
        census.begin(2);
        let ids: Vec<_> = (0..3).map(|_| IdSource::Process.next(&SystemClock)).collect();
        let rows = [row(0, "a", 512, Some(3)), row(0, "b", 256, Some(1)), row(1, "b", 1024, None)];
        for (id, row) in ids.iter().zip(&rows) {
            census.change(id, None, Some(row));
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

        let moved = row(1, "a", 512, Some(9));
        census.change(&ids[0], Some(&rows[0]), Some(&moved));
        assert_eq!((census.shards(0), census.shards(1).len()), (vec![ids[1].clone()], 2));
        census.leased(1, &moved.holder, true);
        census.change(&ids[0], Some(&moved), None);
        assert_eq!(census.largest(&[1], 9).len(), 1, "a lease alone is no shard");
        census.leased(1, &moved.holder, false);
        census.change(&ids[1], Some(&rows[1]), None);
        census.change(&ids[2], Some(&rows[2]), None);
        for here in census.gpus.get().unwrap() {
            let here = lock(here);
            assert!(here.shards.is_empty() && here.holders.is_empty());
            assert!(here.largest.is_empty() && here.ages.is_empty());
        }
    }
}
