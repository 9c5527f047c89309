//! The mark of a collection that deletes: what pushes look for, after their manifest is written.

use core::hash::BuildHasher as _;
use core::time::Duration;
use std::hash::RandomState;
use std::time::{Instant, SystemTime};

use crate::error::StoreError;
use crate::naming::layout::COLLECTING;
use crate::options::StoreOptions;
use crate::store::Store;

/// A mark is written anew before a deletion, when it is as old as this.
const RENEW: Duration = Duration::from_secs(10);
/// Nothing is deleted under a mark that was written longer ago.
const FRESH: Duration = Duration::from_mins(1);
/// A mark that did not change for as long is of a collection that ended without removing it.
const DEAD: Duration = Duration::from_mins(2);
/// A mark of this age is removed by the next collection.
const OLD: Duration = Duration::from_hours(24);
/// How long one push waits for collections.
const PATIENCE: Duration = Duration::from_mins(10);
/// How often it looks.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The mark of this collection, until it is dropped.
pub(super) struct Mark<'a> {
    store: &'a Store,
    key: String,
    written: Instant,
}

impl<'a> Mark<'a> {
    /// Puts a mark, and removes those that dead processes left.
    pub(super) fn put(store: &'a Store, options: &StoreOptions<'_>) -> Result<Self, StoreError> {
        let now = SystemTime::now();
        for other in store.list(COLLECTING, options)? {
            if now.duration_since(other.modified).is_ok_and(|age| age > OLD) {
                store.delete(&other.key, options)?;
            }
        }
        let random = RandomState::new().hash_one(std::process::id());
        let key = format!("{COLLECTING}/{random:016x}");
        // The moment before it is written: what is compared with it is later.
        let mark = Self { store, key, written: Instant::now() };
        store.put(&mark.key, b"collecting".to_vec(), options)?;
        Ok(mark)
    }

    /// Writes the mark anew when it is due. A deletion may follow.
    pub(super) fn renew(&mut self, options: &StoreOptions<'_>) -> Result<(), StoreError> {
        if self.written.elapsed() >= RENEW {
            let began = Instant::now();
            // Nobody may have taken it for a dead one.
            let lost =
                self.written.elapsed() >= DEAD || self.store.len(&self.key, options)?.is_none();
            if lost {
                let why = "it is gone, or was not renewed in time; nothing more was deleted";
                return Err(self.store.failed(format!("keep {}", self.key), &why));
            }
            self.store.put(&self.key, b"collecting".to_vec(), options)?;
            self.written = began;
        }
        if self.written.elapsed() < FRESH {
            return Ok(());
        }
        let why = "the store takes too long; nothing more was deleted";
        Err(self.store.failed(format!("renew {}", self.key), &why))
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        // Not within the deadline of the call, which may be over. A mark that stays delays a push.
        let patient = StoreOptions::new().deadline(Duration::from_secs(10));
        let _stays_for_a_while = self.store.delete(&self.key, &patient);
    }
}

/// Waits until no collection that has begun is deleting.
///
/// # Errors
///
/// [`StoreError::Failed`] if one is still under way after ten minutes; those of the store.
pub(crate) fn wait_for_collections(
    store: &Store,
    options: &StoreOptions<'_>,
) -> Result<(), StoreError> {
    let began = Instant::now();
    let mut seen: Vec<(String, SystemTime, Instant)> = Vec::new();
    // Those that begin later find the manifest.
    let first = store.list(COLLECTING, options)?;
    let mut waited_for: Vec<String> = first.into_iter().map(|mark| mark.key).collect();
    while !waited_for.is_empty() {
        options.go_on()?;
        let there = store.list(COLLECTING, options)?;
        waited_for.retain(|key| there.iter().any(|mark| mark.key == *key));
        let mut dead = Vec::new();
        for mark in there.iter().filter(|mark| waited_for.contains(&mark.key)) {
            match seen.iter_mut().find(|(key, _, _)| *key == mark.key) {
                Some((_, modified, since)) if *modified == mark.modified => {
                    if since.elapsed() > DEAD {
                        dead.push(mark.key.clone());
                    }
                }
                Some((_, modified, since)) => (*modified, *since) = (mark.modified, Instant::now()),
                None => seen.push((mark.key.clone(), mark.modified, Instant::now())),
            }
        }
        for key in dead {
            // The next push need not wait for it.
            let _may_not_delete = store.delete(&key, options);
            waited_for.retain(|other| *other != key);
        }
        let Some(key) = waited_for.first() else { break };
        if began.elapsed() > PATIENCE {
            let why = "a collection deletes there still; the manifest is written: push again when it has \
                       ended";
            return Err(store.failed(format!("wait for {key}"), &why));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}
