//! Text fragments of errors: lists, paths, counts.

use core::fmt;

/// Prints the first few segments of a list.
pub(super) struct Segments<'a>(pub(super) &'a [u64]);

impl fmt::Display for Segments<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        match self.0 {
            [] => f.write_str("its content as a whole"),
            [one] => write!(f, "segment {one}"),
            [first, rest @ ..] => {
                write!(f, "segments {first}")?;
                for segment in rest.iter().take(SHOWN) {
                    write!(f, ", {segment}")?;
                }
                match rest.len().saturating_sub(SHOWN) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}

pub(super) struct Place<'a>(pub(super) Option<&'a std::path::Path>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(path) => write!(f, " {}", path.display()),
            None => Ok(()),
        }
    }
}

pub(super) struct Leases(pub(super) usize);

impl fmt::Display for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str(" by this very thread"),
            1 => f.write_str(": one lease is out"),
            leases => write!(f, ": {leases} leases are out"),
        }
    }
}
