//! Shards in host memory, and how much of it they may take.

pub(crate) mod model;

use core::fmt;
use core::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use vram_alloc::ByteLen;
use vram_events::{EventKind, EvictedFor};
use vram_id::{ShardId, Timestamp};
use vram_seal::{Protection, SealRecord};

use crate::shard::{Backup, Entry, Parked, Place, ShardCause, Shards};

/// A shard that was taken off its GPU and waits in host memory, encrypted.
///
/// The program that holds this value owns the shard. It may be sent to any thread, and outlives the
/// loss of a GPU. `VramManager::wake` makes the shard resident again under its old id, with its old
/// seal: handles that were made before are valid again. Until then they answer
/// [`VramError::Parked`](crate::error::VramError::Parked). Dropping this value frees the shard and
/// its host memory.
///
/// It contains no plaintext: an Authenticated shard is encrypted while it is parked.
pub struct ParkedShard {
    // On the heap, so that moving a parked shard, also inside an error, moves only a pointer.
    pub(crate) copy: Box<HostCopy>,
    // Dropped after the copy: when the handle answers `ShardFreed`, the host bytes are gone.
    pub(crate) listed: Listed,
}

/// A shard in host memory: a [`Backup`], which does not refer to its entry, and that entry.
pub(crate) struct HostCopy {
    pub(crate) entry: Arc<Entry>,
    pub(crate) backup: Box<Backup>,
}

/// Keeps a parked shard in the registry; when it is dropped, the shard is removed. It does not keep
/// the registry: the other shards of a manager that was dropped are none of its concern.
#[derive(Debug)]
pub(crate) struct Listed {
    shards: Weak<Shards>,
    parked: Arc<Parked>,
    entry: Arc<Entry>,
    /// The number of this parking. A shard that was woken may be parked again before this value is
    /// dropped: then it is another value's.
    number: u64,
}

impl Listed {
    pub(crate) fn new(
        shards: Weak<Shards>,
        parked: Arc<Parked>,
        entry: Arc<Entry>,
        number: u64,
    ) -> Self {
        parked.count.fetch_add(1, Ordering::AcqRel);
        Self { shards, parked, entry, number }
    }

    /// Whether the shard was parked by the manager that owns `parked`.
    pub(crate) fn is_in(&self, parked: &Arc<Parked>) -> bool {
        Arc::ptr_eq(&self.parked, parked)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.parked.count.fetch_sub(1, Ordering::AcqRel);
        // A shard that was woken is not parked any more, and stays.
        if !self.entry.is_dropped(self.number) {
            return;
        }
        // Others may hold the entry for a while: its slot goes now.
        drop(self.entry.take_seat());
        if let Some(shards) = self.shards.upgrade() {
            // The entry is dropped after the map's guard.
            let removed = shards.remove_if(&self.entry.id.as_bytes()[..], |found, ()| {
                Arc::ptr_eq(&found.0, &self.entry)
            });
            drop(removed);
        }
    }
}

impl Entry {
    /// Ends a parked shard whose host copy the program dropped. Returns false if it is not parked, or
    /// was parked again in another copy.
    fn is_dropped(&self, parking: u64) -> bool {
        let at = self.listeners.events.now();
        self.change(|state, told| {
            let this = matches!(state.place(), Place::Parked { number, .. } if *number == parking);
            let dropped = this && state.go(&self.id, ShardCause::Drop, Place::Gone).is_ok();
            if dropped {
                told.tell(at, EventKind::Dropped { shard: self.id.clone() });
            }
            dropped
        })
    }
}

impl ParkedShard {
    /// The id of the shard, which stays the same.
    #[must_use]
    pub fn shard_id(&self) -> &ShardId {
        &self.copy.entry.id
    }

    /// The model that the shard was sealed as.
    #[must_use]
    pub fn model_id(&self) -> &str {
        &self.copy.entry.sealed_as.model_id
    }

    /// Bytes of plaintext.
    #[must_use]
    pub fn plaintext_len(&self) -> ByteLen {
        self.copy.entry.plaintext_len
    }

    /// Host bytes that the shard takes from the limit for parked shards.
    #[must_use]
    pub fn host_len(&self) -> ByteLen {
        self.copy.backup.host_len()
    }

    /// What lies in device memory after the shard is woken.
    #[must_use]
    pub fn protection(&self) -> Protection {
        self.copy.backup.resident.protection()
    }

    /// The seal record of the shard while it is resident.
    #[must_use]
    pub fn sealed_data(&self) -> SealRecord {
        self.copy.backup.resident.record()
    }

    /// The request that the shard was evicted for; `None` if the program parked it.
    #[must_use]
    pub fn evicted_for(&self) -> Option<Arc<EvictedFor>> {
        self.copy.entry.state().place().evicted_for().cloned()
    }

    /// When the shard was parked.
    #[must_use]
    pub fn parked_at(&self) -> Timestamp {
        self.copy.backup.at
    }
}

impl fmt::Debug for ParkedShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParkedShard")
            .field("shard_id", self.shard_id())
            .field("model_id", &self.model_id())
            .field("plaintext_len", &self.plaintext_len())
            .field("host_len", &self.host_len())
            .field("protection", &self.protection())
            .finish_non_exhaustive()
    }
}
