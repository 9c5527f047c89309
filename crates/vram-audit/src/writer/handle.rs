//! A handle to a writer that a manager owns: its figures, rotation, the end.

use core::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::error::AuditError;
use crate::head::AuditHead;
use crate::writer::figures::Figures;
use crate::writer::lines::Lines;

/// Shows the head and the failures of an [`AuditWriter`](crate::AuditWriter), rotates its file and
/// closes it, while a manager owns the writer. It does not keep the file open.
#[derive(Clone)]
pub struct AuditHandle {
    pub(crate) lines: Weak<Mutex<Lines>>,
    pub(crate) figures: Arc<Figures>,
}

impl AuditHandle {
    /// The number of lines, and the last one's code: the anchor to keep. Lines may not be durable
    /// yet: flush first. Of an audit that has [ended](Self::ended), the last line that is durable.
    #[must_use]
    pub fn head(&self) -> AuditHead {
        self.figures.lock().head
    }

    /// Events that could not be written, and lines that could not be made durable.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.figures.lock().failed
    }

    /// Whether lines could not be made durable. The file gets no further line: begin a new audit.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.figures.lock().ended
    }

    /// Closes the file and goes on in a new one, readable by its owner alone (mode 0600). Returns
    /// the head of the closed file, all of it durable. Waits for a line that is being written.
    ///
    /// The line that closes the file names the id of the new one, and the new one opens with that
    /// id, the next number and the code of the closing line: [`AuditCheck`](crate::AuditCheck)
    /// finds a file that is missing. Events that the manager has not handed over yet go into the
    /// new file.
    ///
    /// # Errors
    ///
    /// [`AuditError::Io`], also if the new file exists already: it is removed if this call created
    /// it. If the old file is closed by then, events count as failed until another call succeeds.
    /// [`AuditError::Closed`]; [`AuditError::WriterGone`].
    pub fn rotate(&self, path: impl AsRef<Path>) -> Result<AuditHead, AuditError> {
        self.with(|lines| lines.rotate(path.as_ref()))
    }

    /// Ends the audit: the last line of the file says so. Returns the head, all of it durable. Later
    /// events count as failed.
    ///
    /// # Errors
    ///
    /// [`AuditError::Closed`] if it was closed before, also if a [rotation](Self::rotate) failed
    /// after it had closed the file; [`AuditError::Io`]; [`AuditError::WriterGone`].
    pub fn close(&self) -> Result<AuditHead, AuditError> {
        self.with(|lines| lines.close(None))
    }

    fn with<R>(
        &self,
        work: impl FnOnce(&mut Lines) -> Result<R, AuditError>,
    ) -> Result<R, AuditError> {
        let lines = self.lines.upgrade().ok_or(AuditError::WriterGone)?;
        // After a panic, the target knows whether a line was left unfinished.
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut lines)
    }
}

impl fmt::Debug for AuditHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditHandle").field("head", &self.head()).finish_non_exhaustive()
    }
}
