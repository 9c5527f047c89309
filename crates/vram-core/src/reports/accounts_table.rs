//! The accounts of a GPU as a table for people.

use core::fmt;

use vram_alloc::ByteLen;

use crate::reports::{Account, Difference, Reconciliation};

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
