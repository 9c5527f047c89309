//! Text fragments of errors: paths, counts.

use core::fmt;

use vram_events::EvictedFor;

use crate::error::OldestLease;

pub(super) struct Place<'a>(pub(super) Option<&'a std::path::Path>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(path) => write!(f, " {}", path.display()),
            None => Ok(()),
        }
    }
}

pub(super) struct Leases<'a>(pub(super) usize, pub(super) Option<&'a OldestLease>);

impl fmt::Display for Leases<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str(" by this very thread"),
            1 => f.write_str(": one lease is out"),
            leases => write!(f, ": {leases} leases are out"),
        }?;
        match (self.0, self.1) {
            (0, _) | (_, None) => Ok(()),
            (1, Some(only)) => write!(f, " {only}"),
            (_, Some(oldest)) => write!(f, ", the oldest {oldest}"),
        }
    }
}

/// Prints whom a shard made room for.
pub(super) struct MadeRoom<'a>(pub(super) Option<&'a EvictedFor>);

impl fmt::Display for MadeRoom<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |asker| write!(f, ", to make room for {asker}"))
    }
}
