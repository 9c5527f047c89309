//! The lease that keeps a shard in use for the longest time.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

/// The lease of a shard that began first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct OldestLease {
    /// The name that the program gave for its holder; `None` if it gave none.
    pub holder: Option<Arc<str>>,
    /// Time since it began, by the manager's monotonic clock.
    pub age: Duration,
}

impl OldestLease {
    pub(crate) const fn new(holder: Option<Arc<str>>, age: Duration) -> Self {
        Self { holder, age }
    }
}

impl fmt::Display for OldestLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of the age, a reader needs no more than milliseconds.
        let millis = u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX);
        write!(f, "for {:?}", Duration::from_millis(millis))?;
        match &self.holder {
            // A name of the program may contain anything, and an error is one line.
            Some(holder) => write!(f, ", by {holder:?}"),
            None => f.write_str(", by a holder without a name"),
        }
    }
}
