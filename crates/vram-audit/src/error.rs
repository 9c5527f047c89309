//! What is wrong with an audit, and where.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::head::AuditHead;

/// Why an audit fails verification, or cannot be written. Lines are numbered from 1, as in an
/// editor.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A file, a reader or a writer failed.
    #[error("{action}{}: {source}", Place(path.as_deref()))]
    Io {
        /// What the call was doing.
        action: &'static str,
        /// The file, if there is one.
        path: Option<PathBuf>,
        /// The error of the operating system.
        source: Arc<std::io::Error>,
    },
    /// Another writer holds the lock of the file.
    #[error("another writer has {} open", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The audit was written under another key.
    #[error("the audit was written under another key")]
    BadKey,
    /// The audit has not one whole line.
    #[error("there is not one whole line in the {bytes} bytes of the audit")]
    Empty {
        /// Bytes in the audit.
        bytes: u64,
    },
    /// A line is longer than any line that a writer makes.
    #[error("line {line} is longer than any line of an audit")]
    TooLong {
        /// The line.
        line: u64,
    },
    /// A line does not have the form of a line: altered, or cut short in the middle.
    #[error("line {line} is no line of an audit: it was altered or cut short")]
    NotALine {
        /// The line.
        line: u64,
    },
    /// The code of a line is not the code of its bytes.
    #[error("line {line} was altered")]
    Altered {
        /// The line.
        line: u64,
    },
    /// Lines before this one were removed.
    #[error("before line {line}, numbers {expected} to {} are missing", found.saturating_sub(1))]
    Missing {
        /// The line.
        line: u64,
        /// The expected number.
        expected: u64,
        /// The number of the line found.
        found: u64,
    },
    /// A line was moved from its place, or repeated.
    #[error(
        "line {line} has number {found} where {expected} belongs: lines were moved or repeated"
    )]
    Reordered {
        /// The line.
        line: u64,
        /// The expected number.
        expected: u64,
        /// The number of the line found.
        found: u64,
    },
    /// A line is genuine, but belongs to another audit under the same key.
    #[error("line {line} does not follow the line before it: it is from another audit")]
    OtherAudit {
        /// The line.
        line: u64,
    },
    /// The last line is not complete.
    #[error("the audit ends within line {line}, {bytes} bytes into it")]
    Torn {
        /// The line.
        line: u64,
        /// Bytes of that line.
        bytes: u64,
    },
    /// Lines that the anchor counts are missing at the end.
    #[error("the audit has {found} lines, and {} were anchored", anchor.lines)]
    CutShort {
        /// Lines in the audit.
        found: u64,
        /// The anchor.
        anchor: AuditHead,
    },
    /// The audit is not the one that the anchor was taken from.
    #[error("line {} is not the one that was anchored", anchor.lines)]
    NotAnchored {
        /// The anchor.
        anchor: AuditHead,
    },
}

impl AuditError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<Option<PathBuf>>,
        error: std::io::Error,
    ) -> Self {
        Self::Io { action, path: path.into(), source: Arc::new(error) }
    }

    /// Returns true if the audit itself is not as it was written.
    #[must_use]
    pub const fn is_integrity(&self) -> bool {
        !matches!(self, Self::Io { .. } | Self::InUse { .. } | Self::BadKey)
    }
}

struct Place<'a>(Option<&'a Path>);

impl core::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(path) => write!(f, " {}", path.display()),
            None => Ok(()),
        }
    }
}
