//! How much of a GPU is taken: one budget, counted once, that no interleaving of callers can
//! overdraw.

use core::fmt;

use crate::report::Capacity;
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::units::ByteLen;

/// The largest budget of one ledger and the largest region of one arena: 2⁴⁸ − 1 bytes.
pub const MAX_TOTAL: ByteLen = ByteLen::new(TAKEN_MASK);

/// Low 48 bits of the state word: bytes taken. The 16 bits above: how often a limit was set.
const TAKEN_MASK: u64 = (1 << 48) - 1;
const EPOCH_ONE: u64 = 1 << 48;

/// How often a snapshot is retried while other threads change the ledger.
const SNAPSHOT_TRIES: u32 = 64;

/// The account of one GPU's budget. A cheap handle: clones share the account.
///
/// A grant is one compare-and-swap on the bytes taken. There is no add-and-undo, so the account
/// never shows more than the budget for an instant, and never refuses a request because another
/// request is being undone.
///
/// A limit may be set below the bytes taken. Then the ledger grants nothing until enough bytes were
/// released. Once a `set_*` has returned, no grant uses the old limit.
///
/// # Source
///
/// The state word carries a count of limit changes, so that a compare-and-swap based on an outdated
/// limit fails (an optimistic lock with 16 bits of version). It would wrongly succeed only for a
/// thread that sleeps between two adjacent instructions while a multiple of 65 536 limit changes
/// happens and the bytes taken return to the same figure.
#[derive(Clone)]
pub struct Ledger {
    account: Arc<Account>,
}

struct Account {
    /// Bytes taken, and the count of limit changes.
    state: AtomicU64,
    /// The part of the bytes taken that is in use. Raised after the state and lowered before it, so
    /// that it never exceeds the bytes taken.
    used: AtomicU64,
    /// The part of the bytes in use that the device did not take back.
    kept: AtomicU64,
    /// How often bytes were promised or put in use.
    grants: AtomicU64,
    total: AtomicU64,
    headroom: AtomicU64,
    foreign: AtomicU64,
}

/// Why the ledger refused a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The budget is larger than the ledger can count.
    #[error("a budget of {} bytes is more than {} bytes", total.get(), max.get())]
    TotalTooLarge {
        /// The budget asked for.
        total: ByteLen,
        /// [`MAX_TOTAL`].
        max: ByteLen,
    },
    /// There is not enough room now.
    #[error("{needed} needed, room for {room} ({capacity})")]
    Insufficient {
        /// Bytes asked for.
        needed: ByteLen,
        /// The largest reservation that would have been granted.
        room: ByteLen,
        /// The figures on which the refusal rests.
        capacity: Capacity,
    },
    /// The caller asked to split off more than the reservation holds.
    #[error("{} bytes cannot be split off a reservation of {} bytes", wanted.get(), len.get())]
    SplitTooLarge {
        /// Bytes to be split off.
        wanted: ByteLen,
        /// Bytes in the reservation.
        len: ByteLen,
    },
}

/// Bytes promised to the holder of this value. Dropping it releases them.
#[must_use = "dropping a reservation gives its bytes back"]
pub struct Reservation {
    ledger: Ledger,
    len: ByteLen,
}

/// Bytes in use. Dropping it releases them.
#[must_use = "dropping a charge gives its bytes back"]
pub struct Charge {
    ledger: Ledger,
    len: ByteLen,
}

/// Bytes that stay counted though no shard uses them, because the device did not take them back. If
/// this is dropped, they stay counted for as long as the ledger lives.
pub struct Kept {
    ledger: Ledger,
    len: ByteLen,
}

impl Ledger {
    /// An account of `total` bytes with nothing taken, no headroom and nothing foreign.
    ///
    /// # Errors
    ///
    /// [`LedgerError::TotalTooLarge`] above [`MAX_TOTAL`]. A budget of zero is valid: only empty
    /// requests fit.
    pub fn new(total: ByteLen) -> Result<Self, LedgerError> {
        check_total(total)?;
        let account = Account {
            state: AtomicU64::new(0),
            used: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            grants: AtomicU64::new(0),
            total: AtomicU64::new(total.get()),
            headroom: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
        };
        Ok(Self { account: Arc::new(account) })
    }

    /// Promises `len` bytes to the caller, all of them or none.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Insufficient`] if `len` exceeds the room. An empty request always fits.
    pub fn reserve(&self, len: ByteLen) -> Result<Reservation, LedgerError> {
        let account = &*self.account;
        while !len.is_zero() {
            let state = account.state.load(Ordering::Acquire);
            let capacity = account.figures(state);
            if len <= capacity.room() {
                // room <= total <= MAX_TOTAL, so the sum cannot reach the epoch.
                let next = state.wrapping_add(len.get());
                let swap = (Ordering::AcqRel, Ordering::Relaxed);
                if account.state.compare_exchange_weak(state, next, swap.0, swap.1).is_ok() {
                    account.count_grant();
                    break;
                }
            } else if account.state.load(Ordering::Acquire) == state {
                // All figures belong to one state: at that instant there really was no room.
                let room = capacity.room();
                return Err(LedgerError::Insufficient { needed: len, room, capacity });
            }
        }
        Ok(Reservation { ledger: self.clone(), len })
    }

    /// The figures at one instant.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        let account = &*self.account;
        let mut state = account.state.load(Ordering::Acquire);
        let mut figures = account.figures(state);
        for _ in 0..SNAPSHOT_TRIES {
            let now = account.state.load(Ordering::Acquire);
            if now == state {
                break;
            }
            state = now;
            figures = account.figures(state);
        }
        figures
    }

    /// How often bytes were promised or put in use so far. Where this and the figures are the same as
    /// before, no bytes were taken or given back in between: changes that cancel each other out in
    /// the figures show here.
    #[must_use]
    pub fn grants(&self) -> u64 {
        self.account.grants.load(Ordering::Acquire)
    }

    /// Replaces the budget. It may be less than the bytes taken.
    ///
    /// # Errors
    ///
    /// [`LedgerError::TotalTooLarge`] above [`MAX_TOTAL`]; the old budget stays.
    pub fn set_total(&self, total: ByteLen) -> Result<(), LedgerError> {
        check_total(total)?;
        self.set(&self.account.total, total);
        Ok(())
    }

    /// Replaces the headroom: bytes of the budget that are not granted. Any length is accepted.
    pub fn set_headroom(&self, headroom: ByteLen) {
        self.set(&self.account.headroom, headroom);
    }

    /// Replaces the bytes of the budget that other processes took, as the driver reports them. Any
    /// length is accepted.
    pub fn set_foreign(&self, foreign: ByteLen) {
        self.set(&self.account.foreign, foreign);
    }

    /// Stores the limit first, then raises the epoch: a thread that sees the new epoch sees the new
    /// limit, and the swap of a thread that read the old limit fails.
    fn set(&self, limit: &AtomicU64, len: ByteLen) {
        limit.store(len.get(), Ordering::Release);
        // The epoch wraps out of the top of the word and leaves the bytes taken unchanged.
        self.account.state.fetch_add(EPOCH_ONE, Ordering::AcqRel);
    }
}

impl Account {
    /// The figures for `state`. They are consistent if `state` is still the state afterwards.
    fn figures(&self, state: u64) -> Capacity {
        let taken = state & TAKEN_MASK;
        let used = self.used.load(Ordering::Acquire).min(taken);
        Capacity {
            total: ByteLen::new(self.total.load(Ordering::Acquire)),
            used: ByteLen::new(used),
            kept: ByteLen::new(self.kept.load(Ordering::Acquire).min(used)),
            reserved: ByteLen::new(taken.saturating_sub(used)),
            headroom: ByteLen::new(self.headroom.load(Ordering::Acquire)),
            foreign: ByteLen::new(self.foreign.load(Ordering::Acquire)),
        }
    }

    /// Called before any other account can show the bytes.
    fn count_grant(&self) {
        self.grants.fetch_add(1, Ordering::AcqRel);
    }

    /// Subtracts the bytes of a grant; the bytes taken are never less than `len`.
    fn give_back(&self, len: ByteLen) {
        if !len.is_zero() {
            self.state.fetch_sub(len.get(), Ordering::AcqRel);
        }
    }
}

impl Reservation {
    /// Bytes promised.
    #[must_use]
    pub fn len(&self) -> ByteLen {
        self.len
    }

    /// Returns true if no byte is promised.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len.is_zero()
    }

    /// Splits `len` bytes off into a reservation of their own. The ledger's figures do not change.
    ///
    /// # Errors
    ///
    /// [`LedgerError::SplitTooLarge`] if this reservation holds less; it stays whole.
    pub fn split(&mut self, len: ByteLen) -> Result<Self, LedgerError> {
        let rest = self.len.checked_sub(len);
        self.len = rest.ok_or(LedgerError::SplitTooLarge { wanted: len, len: self.len })?;
        Ok(Self { ledger: self.ledger.clone(), len })
    }

    /// Joins another reservation of the same ledger to this one. The ledger's figures do not
    /// change.
    ///
    /// # Errors
    ///
    /// `other`, as it was, if it belongs to another ledger.
    pub fn join(&mut self, mut other: Self) -> Result<(), Self> {
        if !Arc::ptr_eq(&self.ledger.account, &other.ledger.account) {
            return Err(other);
        }
        self.len = self.len.saturating_add(core::mem::take(&mut other.len));
        Ok(())
    }

    /// Turns the promised bytes into bytes in use.
    pub fn commit(mut self) -> Charge {
        self.ledger.account.used.fetch_add(self.len.get(), Ordering::AcqRel);
        self.ledger.account.count_grant();
        let len = core::mem::take(&mut self.len);
        Charge { ledger: self.ledger.clone(), len }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.ledger.account.give_back(self.len);
    }
}

impl Charge {
    /// Bytes in use.
    #[must_use]
    pub fn len(&self) -> ByteLen {
        self.len
    }

    /// Returns true if no byte is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len.is_zero()
    }

    /// Releases the bytes. The same as dropping, but explicit.
    pub fn release(self) {
        drop(self);
    }

    /// Turns bytes in use back into a promise, for example after the operation that was to use them
    /// failed. No other caller can take them in between.
    pub fn revoke(mut self) -> Reservation {
        self.ledger.account.used.fetch_sub(self.len.get(), Ordering::AcqRel);
        let len = core::mem::take(&mut self.len);
        Reservation { ledger: self.ledger.clone(), len }
    }

    /// Leaves the bytes counted: the device did not take them back, so the ledger must not promise
    /// them to another caller. [`Kept::release`] releases them; without it they stay counted.
    #[expect(clippy::must_use_candidate, reason = "to forget about them is the usual case")]
    pub fn keep(mut self) -> Kept {
        let len = core::mem::take(&mut self.len);
        self.ledger.account.kept.fetch_add(len.get(), Ordering::AcqRel);
        Kept { ledger: self.ledger.clone(), len }
    }
}

impl Kept {
    /// Bytes that stay counted.
    #[must_use]
    pub fn len(&self) -> ByteLen {
        self.len
    }

    /// Returns true if no byte stays counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len.is_zero()
    }

    /// Releases the bytes: the device has taken them back after all, or was emptied as a whole.
    pub fn release(self) {
        // Lower `kept` first, so that no figure shows more bytes kept than used.
        self.ledger.account.kept.fetch_sub(self.len.get(), Ordering::AcqRel);
        drop(Charge { ledger: self.ledger, len: self.len });
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.ledger.account.used.fetch_sub(self.len.get(), Ordering::AcqRel);
        self.ledger.account.give_back(self.len);
    }
}

fn check_total(total: ByteLen) -> Result<(), LedgerError> {
    if total <= MAX_TOTAL {
        Ok(())
    } else {
        Err(LedgerError::TotalTooLarge { total, max: MAX_TOTAL })
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ledger").field(&self.capacity()).finish()
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("len", &self.len).finish_non_exhaustive()
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("len", &self.len).finish_non_exhaustive()
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charge").field("len", &self.len).finish_non_exhaustive()
    }
}
