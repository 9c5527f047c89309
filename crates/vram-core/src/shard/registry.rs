//! All shards of a manager, by id.

use core::borrow::Borrow;
use core::hash::{Hash, Hasher};
use core::sync::atomic::Ordering;
use std::sync::Arc;

use dashmap::{DashMap, Entry as Slot};
use vram_id::ShardId;

use crate::error::VramError;
use crate::shard::{Census, Entry, Listed, Parked, ShardState};
use crate::sync::AtomicU64;

/// All resident shards, by id. Callers clone an entry out of the map, so that no guard of the map
/// is held across any other call.
#[derive(Debug)]
pub(crate) struct Registry {
    shards: Arc<Shards>,
    /// The number of shards that are resident or becoming resident.
    count: Arc<AtomicU64>,
    count_max: u64,
    /// Shards that are parked in host memory.
    pub(crate) parked: Arc<Parked>,
    /// What lies on each GPU.
    pub(crate) census: Arc<Census>,
}

/// A slot in the count of resident shards; released when dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    count: Arc<AtomicU64>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All shards, by id. A shard stays in the map until it is gone, so that a call that looks for it
/// finds it at any moment.
pub(crate) type Shards = DashMap<ById, ()>;

/// A shard in the map, which finds it by the id in its entry. The map keeps no id of its own.
#[derive(Debug)]
pub(crate) struct ById(pub(crate) Arc<Entry>);

impl Borrow<[u8]> for ById {
    fn borrow(&self) -> &[u8] {
        self.0.id.as_bytes()
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.as_bytes()[..].hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

impl Registry {
    pub(crate) fn new(count_max: u64, parked: Parked) -> Self {
        Self {
            shards: Arc::default(),
            count: Arc::default(),
            count_max,
            parked: Arc::new(parked),
            census: Arc::default(),
        }
    }

    /// Takes a slot for one more shard.
    ///
    /// # Errors
    ///
    /// [`VramError::LimitExceeded`] if the limit of resident shards is reached.
    pub(crate) fn count_one(&self) -> Result<Counted, VramError> {
        let taken = self.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
            if count < self.count_max { count.checked_add(1) } else { None }
        });
        match taken {
            Ok(_before) => Ok(Counted { count: Arc::clone(&self.count) }),
            Err(count) => Err(VramError::LimitExceeded {
                what: "the number of resident shards",
                limit: self.count_max,
                wanted: count.saturating_add(1),
            }),
        }
    }

    /// The shards that lie on a GPU, in ascending order of their ids.
    pub(crate) fn on(&self, gpu: u32) -> Vec<Arc<Entry>> {
        let here = self.census.shards(gpu).into_iter();
        here.filter_map(|id| self.find(&id)).collect()
    }

    /// Adds a shard, in the place of its last generation if it has one here.
    pub(crate) fn insert(&self, entry: Arc<Entry>) {
        let before = match self.shards.entry(ById(entry)) {
            Slot::Occupied(slot) => Some(slot.replace_entry(())),
            Slot::Vacant(slot) => {
                slot.insert(());
                None
            }
        };
        // After the map's guard.
        drop(before);
    }

    /// The entry of a shard, if it is resident.
    pub(crate) fn get(&self, id: &ShardId) -> Option<Arc<Entry>> {
        self.find(id).filter(|entry| entry.state().space().is_some())
    }

    /// The entry of a shard in any state.
    pub(crate) fn find(&self, id: &ShardId) -> Option<Arc<Entry>> {
        self.shards.get(&id.as_bytes()[..]).map(|found| Arc::clone(&found.key().0))
    }

    /// Keeps a shard in the map while it is parked.
    pub(crate) fn list(&self, entry: &Arc<Entry>, number: u64) -> Listed {
        let (shards, parked) = (Arc::downgrade(&self.shards), Arc::clone(&self.parked));
        Listed::new(shards, parked, Arc::clone(entry), number)
    }

    pub(crate) fn remove(&self, id: &ShardId) {
        // The entry is dropped after the map's guard: dropping it may call the device.
        let removed = self.shards.remove(&id.as_bytes()[..]);
        drop(removed);
    }

    /// The number of shards in any state.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.shards.len()
    }

    /// The number of slots that are taken.
    #[cfg(all(test, shuttle))]
    pub(crate) fn seats(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// All resident shards, in ascending order of their ids.
    pub(crate) fn sorted(&self) -> Vec<Arc<Entry>> {
        let mut entries = self.all();
        entries.retain(|entry| entry.state().place().state() == ShardState::Resident);
        entries
    }

    /// All shards in any state, in ascending order of their ids.
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        let mut entries: Vec<_> =
            self.shards.iter().map(|found| Arc::clone(&found.key().0)).collect();
        entries.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        entries
    }
}
