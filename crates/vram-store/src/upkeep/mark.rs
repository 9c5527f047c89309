//! The mark of a collection that deletes: what pushes look for, after their manifest is written.

use core::hash::BuildHasher as _;
use core::time::Duration;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::error::StoreError;
use crate::naming::layout::{COLLECTING, is_mark, mark_key};
use crate::options::{StoreEvent, StoreOptions};
use crate::store::{Object, Store};

/// A mark is written anew before a deletion, when it is as old as this.
const RENEW: Duration = Duration::from_secs(5);
/// Nothing is deleted under a mark that was written longer ago.
const FRESH: Duration = Duration::from_secs(15);
/// A mark that did not change for as long is of a collection that ended without removing it. What lies between
/// this and [`FRESH`] is the time that one deletion may take.
const DEAD: Duration = Duration::from_secs(45);
/// A mark that is so much older than one that was just written is removed by the next collection. Both times
/// are the store's own.
const OLD: Duration = Duration::from_mins(5);
/// How long one push waits for collections.
const PATIENCE: Duration = Duration::from_mins(10);
/// How often it looks, and how often it tells that it waits.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
const TELL_AGAIN: Duration = Duration::from_mins(1);

/// What lies where marks belong.
pub(super) struct Marks {
    /// The marks.
    pub(super) marks: Vec<Object>,
    /// The keys of everything else: nobody waits for it, and nobody deletes it.
    pub(super) strange: Vec<String>,
}

impl Marks {
    pub(super) fn find(store: &Store, options: &StoreOptions<'_>) -> Result<Self, StoreError> {
        let found = store.list_here(COLLECTING, options)?;
        let (marks, others): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|one| is_mark(&one.key) && one.odd.is_none());
        Ok(Self { marks, strange: others.into_iter().map(|one| one.key).collect() })
    }
}

/// The mark of this collection, until it is dropped.
pub(super) struct Mark<'a> {
    store: &'a Store,
    key: String,
    written: Instant,
    stays: bool,
}

impl<'a> Mark<'a> {
    /// Puts a mark, and removes those that dead processes left: their keys are returned.
    pub(super) fn put(
        store: &'a Store,
        options: &StoreOptions<'_>,
    ) -> Result<(Self, Vec<String>), StoreError> {
        let key = mark_key(RandomState::new().hash_one(std::process::id()));
        // The moment before it is written: what is compared with it is later.
        let mark = Self { store, key, written: Instant::now(), stays: false };
        store.put(&mark.key, b"collecting".to_vec(), options)?;
        let marks = Marks::find(store, options)?.marks;
        let Some(now) = marks.iter().find(|one| one.key == mark.key).map(|one| one.modified) else {
            return Ok((mark, Vec::new()));
        };
        let is_old = |one: &&Object| now.duration_since(one.modified).is_ok_and(|age| age > OLD);
        let mut removed = Vec::new();
        for old in marks.iter().filter(is_old) {
            store.delete(&old.key, options)?;
            removed.push(old.key.clone());
        }
        Ok((mark, removed))
    }

    /// Writes the mark anew when it is due. What takes long, and a deletion, may follow.
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
        self.is_fresh()
    }

    /// Refuses a deletion under a mark that may be taken for a dead one before it is done.
    pub(super) fn is_fresh(&self) -> Result<(), StoreError> {
        if self.written.elapsed() < FRESH {
            return Ok(());
        }
        let why = "the store takes too long; nothing more was deleted";
        Err(self.store.failed(format!("renew {}", self.key), &why))
    }

    /// Leaves the mark to be found dead: a deletion has no answer, and may be done later.
    pub(super) const fn leave(&mut self) {
        self.stays = true;
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        // Not within the deadline of the call, which may be over. A mark that stays delays a push.
        let patient = StoreOptions::new().deadline(Duration::from_secs(10));
        let _stays_for_a_while = self.store.delete(&self.key, &patient);
    }
}

/// A mark that a push waits for: when it was seen to change, by the push's own clock.
struct Seen {
    key: String,
    modified: SystemTime,
    since: Instant,
}

/// Waits until no collection that has begun is deleting.
///
/// # Errors
///
/// [`StoreError::Collecting`] if one is still under way after ten minutes; those of the store.
pub(crate) fn wait_for_collections(
    store: &Store,
    options: &StoreOptions<'_>,
) -> Result<(), StoreError> {
    let began = Instant::now();
    let mut told: Option<Instant> = None;
    let see = |mark: Object| {
        let (key, modified, since) = (mark.key, mark.modified, Instant::now());
        Seen { key, modified, since }
    };
    // Those that begin later find the manifest.
    let mut waited_for: Vec<_> = Marks::find(store, options)?.marks.into_iter().map(see).collect();
    while !waited_for.is_empty() {
        options.go_on()?;
        let there = Marks::find(store, options)?.marks;
        waited_for.retain_mut(|seen| {
            let Some(now) = there.iter().find(|mark| mark.key == seen.key) else { return false };
            if now.modified != seen.modified {
                (seen.modified, seen.since) = (now.modified, Instant::now());
            }
            if seen.since.elapsed() <= DEAD {
                return true;
            }
            // The next push need not wait for it.
            let _may_not_delete = store.delete(&seen.key, options);
            let (store, mark) = (Arc::clone(store.name()), Arc::from(&*seen.key));
            options.tell(&StoreEvent::DeadMark { store, mark });
            false
        });
        let Some(Seen { key, .. }) = waited_for.first() else { break };
        if began.elapsed() > PATIENCE {
            let (store, mark) = (Arc::clone(store.name()), key.clone());
            return Err(StoreError::Collecting { store, mark, waited: PATIENCE });
        }
        if told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
            let (store, mark) = (Arc::clone(store.name()), Arc::from(&**key));
            options.tell(&StoreEvent::WaitsForCollection { store, mark, dead_after: DEAD });
            told = Some(Instant::now());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}
