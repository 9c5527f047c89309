//! All shards of a manager, by id.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use vram_id::ShardId;

use crate::error::VramError;
use crate::shard::{Counted, Entry, Listed, Parked};

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
}

/// Resident and parked shards, by id. A parked shard stays in the map, so that a call that looks
/// for it finds it at any moment.
pub(crate) type Shards = DashMap<ShardId, Arc<Entry>>;

impl Registry {
    pub(crate) fn new(count_max: u64, parked: Parked) -> Self {
        Self { shards: Arc::default(), count: Arc::default(), count_max, parked: Arc::new(parked) }
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

    /// The map of shards, for values that outlive the registry.
    #[must_use]
    pub(crate) fn shards(&self) -> Weak<Shards> {
        Arc::downgrade(&self.shards)
    }

    /// The shards that lie on a GPU, in ascending order of their ids.
    pub(crate) fn on(&self, gpu: u32) -> Vec<Arc<Entry>> {
        on(&self.shards, gpu)
    }

    pub(crate) fn insert(&self, entry: Arc<Entry>) {
        self.shards.insert(entry.id.clone(), entry);
    }

    /// The entry of a shard, if it is resident.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Entry>> {
        self.find(id).filter(|entry| !entry.state().parked)
    }

    /// The entry of a shard, if it is resident or parked.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<Entry>> {
        self.shards.get(id).map(|entry| Arc::clone(&entry))
    }

    /// Keeps a shard in the map while it is parked.
    pub(crate) fn list(&self, entry: &Entry) -> Listed {
        Listed::new(entry.id.clone(), Arc::clone(&self.shards), Arc::clone(&self.parked))
    }

    pub(crate) fn remove(&self, id: &str) {
        // The entry is dropped after the map's guard: dropping it may call the device.
        let removed = self.shards.remove(id);
        drop(removed);
    }

    /// The number of resident and parked shards.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.shards.len()
    }

    /// All resident shards, in ascending order of their ids.
    pub(crate) fn sorted(&self) -> Vec<Arc<Entry>> {
        let mut entries = self.all();
        entries.retain(|entry| !entry.state().parked);
        entries
    }

    /// All resident and parked shards, in ascending order of their ids.
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        let mut entries: Vec<_> =
            self.shards.iter().map(|entry| Arc::clone(entry.value())).collect();
        entries.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        entries
    }
}

/// The shards that lie on a GPU, in ascending order of their ids.
pub(crate) fn on(shards: &Shards, gpu: u32) -> Vec<Arc<Entry>> {
    let mut entries: Vec<_> = shards.iter().map(|entry| Arc::clone(entry.value())).collect();
    // Filter after collecting: no guard of the map may be held while an entry's state is locked.
    entries.retain(|entry| entry.state().lies_on(gpu));
    entries.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    entries
}
