//! The promises that a manager has made and not yet fulfilled, and their expiry.

mod slot;

pub(crate) use self::slot::Slot;

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use vram_alloc::{ByteLen, Reservation};
use vram_id::Clock;
use vram_space::Space;

use crate::error::{ReservationId, VramError};
use crate::parts::limits::check_label;
use crate::shard::Counted;
use crate::sync::{Condvar, Deadline, Mutex, lock, wait_until};

/// The terms that the holder of a reservation sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) owner: Option<Arc<str>>,
    pub(crate) purpose: Option<Arc<str>>,
    pub(crate) expires_in: Option<Duration>,
}

impl Terms {
    /// # Errors
    ///
    /// [`VramError::LimitExceeded`] for an owner or a purpose that is too long.
    pub(crate) fn check(&self) -> Result<(), VramError> {
        check_label("bytes of an owner", self.owner.as_ref())?;
        check_label("bytes of a purpose", self.purpose.as_ref())
    }
}

/// All open promises of one manager.
///
/// Expiry is lazy: every access to the ledger first reclaims expired promises. There is no timer
/// thread.
#[derive(Debug)]
pub struct Promises {
    clock: Arc<dyn Clock>,
    last_id: AtomicU64,
    /// The earliest expiry, in nanoseconds of monotonic time; [`NEVER`] if no promise expires.
    /// Changed under the lock of `held`.
    earliest: AtomicU64,
    held: Mutex<BTreeMap<ReservationId, Arc<Promise>>>,
    /// Notified when a promise ends.
    ended: Condvar,
}

const NEVER: u64 = u64::MAX;

/// One promise.
#[derive(Debug)]
pub(crate) struct Promise {
    pub(crate) id: ReservationId,
    pub(crate) owner: Option<Arc<str>>,
    pub(crate) purpose: Option<Arc<str>>,
    /// Bytes promised when the promise was made.
    pub(crate) len: ByteLen,
    expires_at: AtomicU64,
    contents: Mutex<Contents>,
}

/// What a promise still holds.
#[derive(Debug)]
pub(crate) enum Contents {
    /// Bytes anywhere on one GPU.
    Bytes { gpu: u32, bytes: Reservation },
    /// A placement for every piece of a plan that is not resident yet, and slots in the count of
    /// shards.
    Places { spaces: Vec<Option<Space>>, seats: Vec<Counted> },
    /// Nothing: the promise has expired.
    Expired,
    /// Nothing: its holder released it.
    Released,
}

impl Promises {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let (last_id, earliest) = (AtomicU64::new(0), AtomicU64::new(NEVER));
        Self { clock, last_id, earliest, held: Mutex::default(), ended: Condvar::new() }
    }

    /// Records a promise of placements, which are taken already.
    pub(crate) fn open(&self, terms: Terms, len: ByteLen, contents: Contents) -> Arc<Promise> {
        let expires_at = self.deadline(terms.expires_in);
        let promise = self.promise(terms, len, contents, expires_at);
        self.record(&mut lock(&self.held), &promise);
        promise
    }

    /// Takes bytes from the ledger, and records the promise of them. Another thread that compares
    /// the ledger with the list of promises sees both or neither.
    ///
    /// # Errors
    ///
    /// The error of `take`, which is called under a lock and takes none.
    pub(crate) fn open_bytes<E>(
        &self,
        terms: &Terms,
        gpu: u32,
        take: impl FnOnce() -> Result<Reservation, E>,
    ) -> Result<Arc<Promise>, E> {
        // The clock is foreign code: it is asked before the lock.
        let expires_at = self.deadline(terms.expires_in);
        let mut held = lock(&self.held);
        let bytes = take()?;
        let (len, contents) = (bytes.len(), Contents::Bytes { gpu, bytes });
        let promise = self.promise(terms.clone(), len, contents, expires_at);
        self.record(&mut held, &promise);
        Ok(promise)
    }

    fn promise(
        &self,
        terms: Terms,
        len: ByteLen,
        contents: Contents,
        expires_at: u64,
    ) -> Arc<Promise> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        Arc::new(Promise {
            id: ReservationId(id),
            owner: terms.owner,
            purpose: terms.purpose,
            len,
            expires_at: AtomicU64::new(expires_at),
            contents: Mutex::new(contents),
        })
    }

    fn record(&self, held: &mut BTreeMap<ReservationId, Arc<Promise>>, promise: &Arc<Promise>) {
        held.insert(promise.id, Arc::clone(promise));
        self.earliest.fetch_min(promise.expires_at.load(Ordering::Acquire), Ordering::AcqRel);
    }

    fn deadline(&self, expires_in: Option<Duration>) -> u64 {
        let end = expires_in.and_then(|time| self.clock.monotonic().checked_add(time));
        end.map_or(NEVER, nanos)
    }

    /// Reclaims every promise that has expired. The caller holds no lock.
    pub(crate) fn sweep(&self) {
        if self.earliest.load(Ordering::Acquire) == NEVER {
            return;
        }
        let now = nanos(self.clock.monotonic());
        if now < self.earliest.load(Ordering::Acquire) {
            return;
        }
        let mut expired = Vec::new();
        let mut held = lock(&self.held);
        held.retain(|_, promise| {
            let over = promise.is_over(now);
            if over {
                // Bytes return before the promise leaves the list.
                let bytes = promise.remaining().get();
                expired.push((promise.id, bytes, promise.close(Contents::Expired)));
            }
            !over
        });
        let next = held.values().map(|promise| promise.expires_at.load(Ordering::Acquire)).min();
        self.earliest.store(next.unwrap_or(NEVER), Ordering::Release);
        drop(held);
        if !expired.is_empty() {
            self.ended.notify_all();
        }
        for (id, bytes, rest) in expired {
            // Outside the lock: spaces take the arena's lock, and blocks go back to the driver.
            drop(rest);
            tracing::warn!(reservation = id.0, bytes, "a reservation ran out");
        }
    }

    /// Releases a promise for its holder.
    pub(crate) fn release(&self, promise: &Promise) {
        let rest = promise.close(Contents::Released);
        lock(&self.held).remove(&promise.id);
        drop(rest);
        self.ended.notify_all();
    }

    /// Waits until no promise is open.
    ///
    /// # Errors
    ///
    /// The number of promises that are open at the deadline.
    pub(crate) fn ended_until(&self, deadline: Deadline) -> Result<(), usize> {
        loop {
            self.sweep();
            let now = nanos(self.clock.monotonic());
            let held = lock(&self.held);
            if held.is_empty() {
                return Ok(());
            }
            // No notification comes when a promise expires: wake at the next expiry and look again.
            let next = self.earliest.load(Ordering::Acquire);
            let expiry = (next != NEVER).then(|| Duration::from_nanos(next.saturating_sub(now)));
            let until = expiry.map_or(deadline, |left| deadline.or_within(left));
            if let Err(held) = wait_until(&self.ended, held, until)
                && deadline.has_passed()
            {
                return Err(held.len());
            }
        }
    }

    /// Sets the time from now until a promise expires.
    ///
    /// # Errors
    ///
    /// [`VramError::ReservationExpired`].
    pub(crate) fn renew(
        &self,
        promise: &Promise,
        expires_in: Option<Duration>,
    ) -> Result<(), VramError> {
        let expires_at = self.deadline(expires_in);
        self.sweep();
        let held = lock(&self.held);
        if !held.contains_key(&promise.id) {
            return Err(promise.expired());
        }
        promise.expires_at.store(expires_at, Ordering::Release);
        self.earliest.fetch_min(expires_at, Ordering::AcqRel);
        drop(held);
        Ok(())
    }

    /// The time until a promise expires; `None` if it does not expire.
    pub(crate) fn time_left(&self, promise: &Promise) -> Option<Duration> {
        let end = promise.expires_at.load(Ordering::Acquire);
        let left = || Duration::from_nanos(end).saturating_sub(self.clock.monotonic());
        (end != NEVER).then(left)
    }

    /// The number of promised placements on a GPU.
    pub(crate) fn places_on(&self, gpu: u32) -> usize {
        let here = |contents: &Contents| match contents {
            Contents::Places { spaces, .. } => {
                spaces.iter().flatten().filter(|space| space.gpu().index == gpu).count()
            }
            _ => 0,
        };
        let counts = self.list().into_iter().map(|promise| promise.look(here));
        counts.fold(0, usize::saturating_add)
    }

    /// All open promises, in ascending order of their ids.
    pub(crate) fn list(&self) -> Vec<Arc<Promise>> {
        self.sweep();
        lock(&self.held).values().map(Arc::clone).collect()
    }
}

impl Promise {
    fn is_over(&self, now: u64) -> bool {
        let end = self.expires_at.load(Ordering::Acquire);
        end != NEVER && end <= now
    }

    /// Ends the promise. Promised bytes return to the ledger inside the lock, so that no other
    /// thread sees them in the ledger and in no promise. What else it held is returned: the caller
    /// drops it outside of all locks.
    #[must_use = "dropped outside of all locks"]
    fn close(&self, why: Contents) -> Option<Contents> {
        let mut contents = lock(&self.contents);
        let before = core::mem::replace(&mut *contents, why);
        match before {
            Contents::Bytes { bytes, .. } => {
                drop(bytes);
                None
            }
            other => Some(other),
        }
    }

    pub(crate) fn expired(&self) -> VramError {
        VramError::ReservationExpired { reservation: self.id }
    }

    /// Reads what the promise holds, under its lock.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&Contents) -> T) -> T {
        at(&lock(&self.contents))
    }

    /// Bytes that are still held.
    pub(crate) fn remaining(&self) -> ByteLen {
        self.look(Contents::len)
    }

    /// Bytes that are still held on one GPU.
    pub(crate) fn remaining_on(&self, gpu: u32) -> ByteLen {
        self.look(|contents| contents.len_where(|index| index == gpu))
    }

    /// Marks placing as finished for every space of the promise.
    pub(crate) fn rest(&self) {
        if let Contents::Places { spaces, .. } = &mut *lock(&self.contents) {
            spaces.iter_mut().flatten().for_each(Space::finish_placing);
        }
    }

    /// Drops blocks of an earlier life of their devices. The placements stay.
    pub(crate) fn forget_stale(&self) {
        let mut stale = Vec::new();
        if let Contents::Places { spaces, .. } = &mut *lock(&self.contents) {
            stale.extend(spaces.iter_mut().flatten().filter_map(Space::take_stale));
        }
        // Dropped outside the lock.
        drop(stale);
    }

    /// Takes bytes out of the promise.
    ///
    /// # Errors
    ///
    /// [`VramError::ReservationExpired`], [`VramError::ReservationTooSmall`]; nothing changed.
    pub(crate) fn take_bytes(&self, needed: ByteLen) -> Result<Reservation, VramError> {
        match &mut *lock(&self.contents) {
            Contents::Bytes { bytes, .. } => {
                let remaining = bytes.len();
                bytes.split(needed).map_err(|_too_large| VramError::ReservationTooSmall {
                    reservation: self.id,
                    needed,
                    remaining,
                })
            }
            _ => Err(self.expired()),
        }
    }

    /// Takes all placements and slots out of a promise of placements.
    ///
    /// # Errors
    ///
    /// [`VramError::ReservationExpired`]; nothing changed.
    pub(crate) fn take_places(self: &Arc<Self>) -> Result<(Vec<Space>, Vec<Counted>), VramError> {
        let mut contents = lock(&self.contents);
        let Contents::Places { spaces, seats } = &mut *contents else {
            return Err(self.expired());
        };
        let seats = core::mem::take(seats);
        let taken = spaces.iter_mut().enumerate().filter_map(|(slot, space)| {
            let mut space = space.take()?;
            space.set_origin(Box::new(Slot::new(self, slot)));
            Some(space)
        });
        Ok((taken.collect(), seats))
    }

    /// Takes slots until there is one for each placement.
    pub(crate) fn refill(&self, mut seat: impl FnMut() -> Option<Counted>) {
        if let Contents::Places { spaces, seats } = &mut *lock(&self.contents) {
            let missing = spaces.iter().flatten().count().saturating_sub(seats.len());
            seats.extend(core::iter::from_fn(&mut seat).take(missing));
        }
    }
}

impl Contents {
    fn len(&self) -> ByteLen {
        self.len_where(|_gpu| true)
    }

    fn len_where(&self, counts: impl Fn(u32) -> bool) -> ByteLen {
        match self {
            Self::Bytes { gpu, bytes } if counts(*gpu) => bytes.len(),
            Self::Places { spaces, .. } => spaces
                .iter()
                .flatten()
                .filter(|space| counts(space.gpu().index))
                .fold(ByteLen::ZERO, |sum, space| sum.saturating_add(space.footprint())),
            _ => ByteLen::ZERO,
        }
    }
}

fn nanos(time: Duration) -> u64 {
    // 2^64 nanoseconds are more than 500 years of uptime; the largest value stands for `NEVER`.
    u64::try_from(time.as_nanos()).unwrap_or(NEVER).min(NEVER.saturating_sub(1))
}
