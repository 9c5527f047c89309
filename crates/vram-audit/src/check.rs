//! The check of an audit: which files, what they must begin with, what must be among their lines.

use std::io::Read;

use vram_seal::TicketKey;

use crate::error::AuditError;
use crate::head::AuditHead;
use crate::summary::AuditSummary;
use crate::verify::{Begins, Reading};

/// Verifies an audit of one file or of several, in the order in which they were written.
///
/// The first file must begin the audit, each further file must go on from the one before it, and
/// the last one must not be closed for a file that was not given. [`part`](Self::part) lifts the
/// first and the last of these.
///
/// ```
/// use vram_audit::{AuditCheck, AuditWriter, EventSink, TicketKey};
///
/// # let folder = tempfile::tempdir()?;
/// # let [first, second] = ["audit.0", "audit.1"].map(|name| folder.path().join(name));
/// let key = || TicketKey::from_bytes(&[7; 32]);
/// let mut audit = AuditWriter::create(&first, key())?;
/// audit.dropped(3);
/// audit.handle().rotate(&second)?;
/// audit.dropped(4);
/// let anchor = audit.handle().head();
///
/// let open = std::fs::File::open::<&std::path::Path>;
/// let key = key();
/// let check = AuditCheck::new(&key).anchor(&anchor);
/// let summary = check.files([open(&first)?, open(&second)?])?;
/// assert_eq!((summary.files, summary.dropped), (2, 7));
/// // Without its first file, or without its last, it is not whole.
/// assert!(check.files([open(&second)?]).is_err());
/// assert!(AuditCheck::new(&key).files([open(&first)?]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct AuditCheck<'a> {
    key: &'a TicketKey,
    after: Option<AuditHead>,
    anchor: Option<AuditHead>,
    part: bool,
}

impl<'a> AuditCheck<'a> {
    /// A check under the key of the writer.
    pub const fn new(key: &'a TicketKey) -> Self {
        Self { key, after: None, anchor: None, part: false }
    }

    /// Compares with an anchor that was kept elsewhere: every line up to the anchor must be as it
    /// was when the anchor was taken. An anchor of no lines is refused.
    pub const fn anchor(mut self, head: &AuditHead) -> Self {
        self.anchor = Some(*head);
        self
    }

    /// The first file must go on from this head: the head of the files before it, which were
    /// verified at another time.
    pub const fn after(mut self, head: &AuditHead) -> Self {
        self.after = Some(*head);
        self
    }

    /// Accepts files that are a part of an audit, also without those before and after them. The
    /// summary says from where they go on ([`AuditSummary::begins`]), and which file is to follow
    /// ([`AuditSummary::next`]).
    pub const fn part(mut self) -> Self {
        self.part = true;
        self
    }

    /// Reads all files and verifies every line. Host memory stays bounded for files of any length.
    ///
    /// By itself, this call does not find that lines are missing at the very end, or that a file is
    /// an older copy, or another audit under the same key: give it an [`anchor`](Self::anchor).
    ///
    /// # Errors
    ///
    /// [`AuditError::File`] with the first file and line that fail, and why;
    /// [`AuditError::NextMissing`], [`AuditError::CutShort`]; [`AuditError::Empty`] without a file;
    /// [`AuditError::EmptyAnchor`]. With a [part](Self::part) of an audit,
    /// [`AuditError::AnchorInEarlierFile`].
    pub fn files<R: Read>(
        &self,
        files: impl IntoIterator<Item = R>,
    ) -> Result<AuditSummary, AuditError> {
        let mut reading = self.reading()?;
        for file in files {
            let number = reading.summary.files.saturating_add(1);
            self.read(&mut reading, file)
                .map_err(|error| AuditError::File { file: number, error: Box::new(error) })?;
        }
        self.end(reading)
    }

    /// As [`files`](Self::files), for an audit of one file; its error is not wrapped.
    pub(crate) fn file(&self, file: impl Read) -> Result<AuditSummary, AuditError> {
        let mut reading = self.reading()?;
        self.read(&mut reading, file)?;
        self.end(reading)
    }

    fn reading(&self) -> Result<Reading<'a>, AuditError> {
        Reading::new(self.key, self.anchor)
    }

    fn read(&self, reading: &mut Reading<'a>, file: impl Read) -> Result<(), AuditError> {
        let begins = match (reading.summary.files, self.after) {
            (0, None) if self.part => Begins::Anywhere,
            (0, after) => Begins::After(after.unwrap_or(AuditHead::NONE)),
            _ => Begins::After(reading.summary.head),
        };
        reading.file(file, begins)?;
        let torn = reading.summary.torn;
        if torn > 0 {
            return Err(AuditError::Torn { line: reading.line().saturating_add(1), bytes: torn });
        }
        Ok(())
    }

    fn end(&self, reading: Reading<'a>) -> Result<AuditSummary, AuditError> {
        if reading.summary.files == 0 {
            return Err(AuditError::Empty { bytes: 0 });
        }
        let summary = reading.end()?;
        match summary.next {
            Some(next) if !self.part => Err(AuditError::NextMissing { next }),
            _ => Ok(summary),
        }
    }
}

/// Verifies an audit of one file: [`AuditCheck::new`] for this file alone.
///
/// By itself, this call does not find that lines are missing at the very end, or that the file is
/// an older copy, or another audit under the same key: see [`verify_audit_against`].
///
/// # Errors
///
/// The first line that fails, and why: [`AuditError::BadKey`], [`AuditError::NotALine`],
/// [`AuditError::Altered`], [`AuditError::Missing`], [`AuditError::Reordered`],
/// [`AuditError::OtherAudit`], [`AuditError::Torn`], [`AuditError::TooLong`],
/// [`AuditError::Empty`], [`AuditError::AfterClosed`]; [`AuditError::NotTheNext`] or
/// [`AuditError::NextMissing`] for one file of several; [`AuditError::Format`];
/// [`AuditError::Io`].
pub fn verify_audit(audit: impl Read, key: &TicketKey) -> Result<AuditSummary, AuditError> {
    AuditCheck::new(key).file(audit)
}

/// As [`verify_audit`], and compares with an anchor that was kept elsewhere: every line up to the
/// anchor must be as it was when the anchor was taken.
///
/// # Errors
///
/// As [`verify_audit`]; [`AuditError::CutShort`], [`AuditError::NotAnchored`],
/// [`AuditError::EmptyAnchor`].
pub fn verify_audit_against(
    audit: impl Read,
    key: &TicketKey,
    anchor: &AuditHead,
) -> Result<AuditSummary, AuditError> {
    AuditCheck::new(key).anchor(anchor).file(audit)
}
