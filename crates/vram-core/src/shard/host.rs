//! The host memory of parked shards and of backups.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::path::PathBuf;
use std::sync::Arc;

use vram_alloc::{ByteLen, Charge, Ledger, LedgerError, MAX_TOTAL};
use vram_id::Timestamp;
use vram_seal::SealRecord;

use crate::error::VramError;
use crate::shard::Seal;

/// The copies of a shard elsewhere. They are copies under its present seal: sealing the shard anew
/// discards them.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// Not in place, since few shards have one; nor has the other.
    pub(crate) backup: Option<Box<Backup>>,
    pub(crate) exported: Option<Arc<Exported>>,
}

/// The sealed bytes of a shard in host memory.
pub(crate) struct Backup {
    pub(crate) bytes: Vec<u8>,
    /// The seal of `bytes`. It is the shard's own seal, unless the shard is Authenticated: its
    /// backup is encrypted under a seal of its own.
    pub(crate) seal: Arc<Seal>,
    /// The seal of the shard while it is resident.
    pub(crate) resident: Arc<Seal>,
    pub(crate) at: Timestamp,
    pub(crate) charge: Charge,
}

/// A sealed image that the shard was written to.
#[derive(Clone, Debug)]
pub(crate) struct Exported {
    pub(crate) path: PathBuf,
    pub(crate) record: SealRecord,
}

impl Backup {
    pub(crate) fn host_len(&self) -> ByteLen {
        self.charge.len()
    }
}

impl fmt::Debug for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backup").field("host_len", &self.charge.len()).finish_non_exhaustive()
    }
}

/// Counts the host memory that parked shards of one manager take against its limit, and their
/// number.
#[derive(Debug)]
pub struct Parked {
    books: Ledger,
    pub(crate) count: AtomicU64,
    /// How often a shard was parked.
    parkings: AtomicU64,
}

/// The host memory that parked shards may take, and how much of it they take now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ParkCapacity {
    /// Host bytes that may be taken: what the builder set, or a share of the host's memory.
    pub limit: ByteLen,
    /// Host bytes that are taken: sealed bytes, and segment tables made for parking. Backups of
    /// resident shards are included.
    pub used: ByteLen,
    /// Shards that are parked.
    pub shard_count: u64,
}

impl Parked {
    /// # Errors
    ///
    /// None in practice: the limit is reduced to the largest value that a ledger can count.
    pub(crate) fn new(limit: ByteLen) -> Result<Self, VramError> {
        let books = Ledger::new(limit.min(MAX_TOTAL));
        let books = books.map_err(|error| VramError::config(error.to_string()))?;
        Ok(Self { books, count: AtomicU64::new(0), parkings: AtomicU64::new(0) })
    }

    /// The number of the next parking.
    pub(crate) fn next_number(&self) -> u64 {
        self.parkings.fetch_add(1, Ordering::Relaxed)
    }

    /// Reserves host memory in the ledger of parked shards.
    ///
    /// # Errors
    ///
    /// [`VramError::ParkLimit`].
    pub(crate) fn charge(&self, needed: ByteLen) -> Result<Charge, VramError> {
        match self.books.reserve(needed) {
            Ok(reservation) => Ok(reservation.commit()),
            Err(LedgerError::Insufficient { capacity, room, .. }) => {
                Err(VramError::ParkLimit { needed, room, limit: capacity.total })
            }
            Err(error) => Err(VramError::config(error.to_string())),
        }
    }

    pub(crate) fn capacity(&self) -> ParkCapacity {
        let books = self.books.capacity();
        ParkCapacity {
            limit: books.total,
            used: books.taken(),
            shard_count: self.count.load(Ordering::Acquire),
        }
    }
}
