//! The accounts of a GPU, compared.

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
    /// Bytes of live placements and of holes together, compared with the arena's capacity.
    ArenaCapacity,
    /// Bytes of live placements, added one by one, compared with the arena's own count of them.
    ArenaPlaced,
    /// Bytes taken in the ledger, compared with those of shards, promises and placements set aside.
    BooksTaken,
    /// Bytes used in the ledger, compared with those of shards and placements set aside.
    BooksUsed,
    /// Bytes of placements, compared with those of shards, promised placements and placements set
    /// aside.
    Placed,
    /// Bytes that calls in flight hold in the arena, compared with those that they hold in the
    /// ledger. If the arena has less, a reservation may be just beginning or ending: reconcile
    /// again before you count it as a leak.
    InFlight,
    /// Bytes that stay counted in the ledger, compared with the placements set aside.
    Unreturned,
    /// Bytes of the device that are held in blocks, compared with what is placed.
    Blocks,
    /// Bytes in use according to the driver, compared with what this manager holds.
    Driver,
}

/// Two accounts that do not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Difference {
    /// The account that differs.
    pub account: Account,
    /// The bytes that the other accounts explain.
    pub expected: ByteLen,
    /// The bytes in this account.
    pub found: ByteLen,
}

/// All accounts of one GPU, side by side. `Display` prints a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct Reconciliation {
    /// The index of the GPU in this manager.
    pub gpu: u32,
    pub at: Timestamp,
    pub mode: MemoryMode,
    /// Whether all accounts agree, which means that there is no difference.
    pub agrees: bool,
    /// Whether ledger and arena did not change during the last read. If not, calls ran all the
    /// time, and only differences that stayed the same are reported.
    pub steady: bool,
    pub differences: Vec<Difference>,
    /// The budget.
    pub total: ByteLen,
    /// Ledger: bytes in use, including those that could not be returned.
    pub used: ByteLen,
    /// Ledger: bytes promised and not in use.
    pub reserved: ByteLen,
    /// Arena: bytes of live placements.
    pub placed: ByteLen,
    /// Arena: bytes of holes.
    pub holes: ByteLen,
    /// Registry: the number of shards that are resident on this GPU.
    pub shard_count: u64,
    /// Registry: bytes that these shards take, in whole granules.
    pub resident: ByteLen,
    /// Reservations: bytes that are still reserved.
    pub promised: ByteLen,
    /// Bytes that could not be wiped or returned so far, and bytes that a repair took out of use.
    pub unreturned: ByteLen,
    /// Bytes that running calls hold: seals, moves, frees. Zero while no call runs; bytes that
    /// remain here then were leaked.
    pub in_flight: ByteLen,
    pub driver: DriverMemory,
}

/// The bytes of one GPU that shards and promises explain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) shard_count: u64,
    pub(crate) resident: ByteLen,
    pub(crate) promised: ByteLen,
    /// The part of `promised` that is placed.
    pub(crate) places: ByteLen,
    /// Bytes in blocks of their own.
    pub(crate) in_blocks: ByteLen,
}

/// One read of all accounts.
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
