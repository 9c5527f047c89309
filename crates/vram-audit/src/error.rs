//! What is wrong with an audit, and where.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::file_id::AuditFileId;
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
    /// The first line is of a format that this version does not read.
    #[error("the audit has format {found}, and this version reads format {}", crate::line::FORMAT)]
    Format {
        /// The format that the first line names.
        found: u32,
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
    /// The anchored line lies in an earlier file: this one cannot be compared with the anchor. A
    /// crash between a rotation and the storing of the next head leaves this behind. It says nothing
    /// against the file.
    #[error(
        "line {} was anchored, and lies before this file, which goes on after line {}: verify the \
         file before this one against the anchor, and use the head of that file here",
        anchor.lines, begins.lines
    )]
    AnchorInEarlierFile {
        /// The anchor.
        anchor: AuditHead,
        /// The head that the file goes on from.
        begins: AuditHead,
    },
    /// An anchor without a line, which any audit would pass.
    #[error(
        "an anchor of no lines compares nothing: verify without an anchor, or resume with \
         append_trusting_the_file, which says so in the audit"
    )]
    EmptyAnchor,
    /// A genuine file, but not the one that belongs here.
    #[error(
        "a file that begins with number {} stands where number {} belongs: {}",
        found.lines, expected.lines, misplaced(expected, found)
    )]
    NotTheNext {
        /// The head that the file has to go on from.
        expected: AuditHead,
        /// The head that it goes on from.
        found: AuditHead,
    },
    /// The last file was closed for another one, which was not given.
    #[error("the last file is closed, and file {next}, which goes on from it, is missing")]
    NextMissing {
        /// The id of the missing file.
        next: AuditFileId,
    },
    /// A line stands after the line that closed its file.
    #[error("line {line} stands after the line that closed the file")]
    AfterClosed {
        /// The line.
        line: u64,
    },
    /// One of several files fails. Files are numbered from 1, in the order given.
    #[error("file {file}: {error}")]
    File {
        /// The file.
        file: u64,
        /// What is wrong with it.
        #[source]
        error: Box<AuditError>,
    },
    /// The file was closed: nothing follows in it.
    #[error("the audit in this file was closed{}", Next(*next))]
    Closed {
        /// The file that goes on, if one does.
        next: Option<AuditFileId>,
    },
    /// The writer of this handle was dropped.
    #[error("the writer of this audit was dropped")]
    WriterGone,
}

/// Why a genuine file is not the next one.
fn misplaced(expected: &AuditHead, found: &AuditHead) -> &'static str {
    match found.lines.cmp(&expected.lines) {
        core::cmp::Ordering::Greater => "a file, or the end of one, is missing",
        core::cmp::Ordering::Less => "files are repeated or in another order",
        core::cmp::Ordering::Equal => "it is a file of another audit",
    }
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
        match self {
            Self::File { error, .. } => error.is_integrity(),
            Self::Io { .. }
            | Self::InUse { .. }
            | Self::BadKey
            | Self::Format { .. }
            | Self::AnchorInEarlierFile { .. }
            | Self::EmptyAnchor
            | Self::Closed { .. }
            | Self::WriterGone => false,
            _ => true,
        }
    }
}

struct Next(Option<AuditFileId>);

impl core::fmt::Display for Next {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(next) => write!(f, ", and goes on in file {next}"),
            None => Ok(()),
        }
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
