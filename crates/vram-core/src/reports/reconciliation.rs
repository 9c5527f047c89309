//! What the accounts of a GPU say, compared.

use core::fmt;
use vram_alloc::ByteLen;
use vram_id::Timestamp;
use vram_space::{Figures, MemoryMode};

use crate::reports::DriverMemory;

/// Two accounts that should agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Account {
    /// Bytes of live placements and of holes together, against the arena's capacity.
    ArenaCapacity,
    /// Bytes of live placements, one by one, against the arena's own count of them.
    ArenaPlaced,
    /// Bytes taken in the books, against what shards, promises and places set aside account for.
    BooksTaken,
    /// Bytes used in the books, against what shards and places set aside account for.
    BooksUsed,
    /// Bytes of placements, against what shards, promised places and places set aside account for.
    Placed,
    /// Bytes that calls in flight hold in the arena, against those that they hold in the books. With
    /// less in the arena, a reservation may be just beginning or ending: ask again before it counts
    /// as a leak.
    InFlight,
    /// Bytes that stay counted in the books, against the places set aside.
    Unreturned,
    /// Bytes that are held of the device, against what is placed: in blocks.
    Blocks,
    /// Bytes that the driver says are in use, against what is held of it.
    Driver,
}

/// Two accounts that do not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Difference {
    /// Which.
    pub account: Account,
    /// What the others account for.
    pub expected: ByteLen,
    /// What this one has.
    pub found: ByteLen,
}

/// All accounts of one GPU, side by side. `Display` prints a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct Reconciliation {
    /// The GPU, as the manager counts them.
    pub gpu: u32,
    pub at: Timestamp,
    pub mode: MemoryMode,
    /// Whether all accounts agree: there is no difference.
    pub agrees: bool,
    /// Whether books and arena stood still during the last look. If not, calls came and went all
    /// the time, and only differences that stayed the same are told.
    pub steady: bool,
    pub differences: Vec<Difference>,
    /// The budget.
    pub total: ByteLen,
    /// Books: bytes in use, those that could not be returned included.
    pub used: ByteLen,
    /// Books: bytes promised and not in use.
    pub reserved: ByteLen,
    /// Arena: bytes of live placements.
    pub placed: ByteLen,
    /// Arena: bytes of holes.
    pub holes: ByteLen,
    /// Registry: shards that are resident here.
    pub shard_count: u64,
    /// Registry: bytes that they take, in whole granules.
    pub resident: ByteLen,
    /// Reservations: bytes that are still held for their holders.
    pub promised: ByteLen,
    /// Bytes that could not be wiped or given back, and are never handed out again.
    pub unreturned: ByteLen,
    /// Bytes that calls under way hold: seals, moves, frees. None while the manager is quiet; what
    /// stays here then was leaked.
    pub in_flight: ByteLen,
    pub driver: DriverMemory,
}

/// What the shards and the promises of one GPU account for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) shard_count: u64,
    pub(crate) resident: ByteLen,
    pub(crate) promised: ByteLen,
    /// Of `promised`: places, not bytes alone.
    pub(crate) places: ByteLen,
    /// Bytes in blocks of their own.
    pub(crate) in_blocks: ByteLen,
}

/// One look at everything.
pub(crate) struct Look {
    pub(crate) figures: Figures,
    pub(crate) owned: Owned,
    pub(crate) in_flight: ByteLen,
    pub(crate) steady: bool,
    pub(crate) differences: Vec<Difference>,
}

impl Account {
    /// What the account counts, in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ArenaCapacity => "placements and holes",
            Self::ArenaPlaced => "the arena's own count",
            Self::BooksTaken => "taken in the books",
            Self::BooksUsed => "used in the books",
            Self::Placed => "placed in the arena",
            Self::InFlight => "in flight, in the arena",
            Self::Unreturned => "unreturned in the books",
            Self::Blocks => "held in blocks",
            Self::Driver => "in use by the driver's word",
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (expected, found) = (self.expected.get(), self.found.get());
        write!(f, "{}: {found} bytes, and {expected} are accounted for", self.account)
    }
}

impl fmt::Display for Reconciliation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.agrees, self.steady) {
            (true, true) => "all accounts agree",
            (true, false) => "all accounts agree, as far as calls under way let it be seen",
            (false, _) => "THE ACCOUNTS DIFFER",
        };
        writeln!(f, "gpu {}: {verdict}", self.gpu)?;
        let driver = &self.driver;
        let rows: [(&str, &str, ByteLen); 15] = [
            ("books", "budget", self.total),
            ("", "used", self.used),
            ("", "reserved", self.reserved),
            ("arena", "placed", self.placed),
            ("", "holes", self.holes),
            ("registry", "resident", self.resident),
            ("promises", "promised", self.promised),
            ("set aside", "unreturned", self.unreturned),
            ("calls", "in flight", self.in_flight),
            ("driver", "total", driver.total),
            ("", "free", driver.free),
            ("", "held by us", driver.ours),
            ("", "held by others", driver.others),
            ("", "of the budget", driver.foreign),
            ("", "in use", driver.total.saturating_sub(driver.free)),
        ];
        for (account, what, bytes) in rows {
            writeln!(f, "  {account:<10} {what:<15} {:>20}", bytes.get())?;
        }
        for difference in &self.differences {
            writeln!(f, "  {difference}")?;
        }
        Ok(())
    }
}
