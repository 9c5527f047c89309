//! Writing an audit: an event sink that makes a keyed, chained line of each event.

mod figures;
mod handle;
mod lines;

use core::fmt;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vram_events::{Event, EventSink};
use vram_seal::TicketKey;

use crate::error::AuditError;
use crate::head::AuditHead;
use crate::line::Body;
use crate::summary::AuditSummary;
use crate::target::Target;
use crate::writer::figures::Figures;
use crate::writer::lines::Lines;

pub use handle::AuditHandle;

/// Writes events so that every changed, removed, moved or added line is found. An [`EventSink`].
///
/// The writer makes lines durable (`fdatasync`) every 64 lines, on a flush, and when the manager is
/// dropped. **A sync that fails ends the audit**: the system may have dropped the lines and report
/// the next sync as done, so no line follows in that file, each further event counts as failed, and
/// [`AuditHandle::ended`] says so. Begin a new audit then.
///
/// Each line names the line before it by its code, and has a code of its own under the
/// key. Events that were dropped on the way, and events that could not be written, have a line that
/// states how many.
///
/// A line is `{"n":…,"prev":"…",…,"code":"…"}`: its number from 0, the code of the line before it
/// (zeros in the first), the content, and HMAC-SHA256 over `vram-audit/line1`, the 32 bytes of
/// `prev`, and the line's bytes up to `,"code"`.
///
/// An audit is one file or several. The first line of a file has a random id of the file.
/// [`AuditHandle::rotate`] closes a file with a line that names the next one's id, and the next file
/// goes on from that line, in number and code.
///
/// By itself an audit does not show that lines are missing at the very end, nor that the file is an
/// older copy, or another audit under the same key: keep the [head](AuditHandle::head) elsewhere
/// and compare with it. Writer and verifier share the key, and either of them can forge. Do not use
/// the ticket key of an orchestrator that you do not trust with that.
///
/// ```
/// use vram_audit::{AuditWriter, verify_audit_against};
/// use vram_events::EventSink;
/// use vram_seal::TicketKey;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("audit");
/// let mut audit = AuditWriter::create(&path, TicketKey::from_bytes(&[7; 32]))?;
/// let handle = audit.handle();
/// // A manager does this: it receives the writer as an event sink.
/// audit.dropped(3);
/// audit.flush();
/// let anchor = handle.head(); // to be kept somewhere else
///
/// let file = std::fs::File::open(&path)?;
/// let summary = verify_audit_against(file, &TicketKey::from_bytes(&[7; 32]), &anchor)?;
/// assert_eq!((summary.events, summary.dropped), (0, 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "an audit that is not given to a manager records nothing"]
pub struct AuditWriter {
    /// Handles hold weak references: the file closes, and its lock ends, with the writer.
    lines: Arc<Mutex<Lines>>,
    figures: Arc<Figures>,
}

impl AuditWriter {
    /// Begins an audit in a new file, readable by its owner alone (mode 0600).
    ///
    /// # Errors
    ///
    /// [`AuditError::Io`], also if the file exists already.
    pub fn create(path: impl AsRef<Path>, key: TicketKey) -> Result<Self, AuditError> {
        let path = path.as_ref();
        let target = Target::create(path)?;
        let begun = Lines::begin(target, key)
            .and_then(|lines| lines.sync_new(path).map(|()| Self::of(lines)));
        if begun.is_err() {
            // This call has just created the file, and it holds no event.
            let _best_effort = std::fs::remove_file(path);
        }
        begun
    }

    /// Begins an audit on any writer. If that writer fails in the middle of a line, no further line
    /// is written.
    ///
    /// # Errors
    ///
    /// [`AuditError::Io`] if the first line cannot be written.
    pub fn to_writer(
        writer: impl Write + Send + 'static,
        key: TicketKey,
    ) -> Result<Self, AuditError> {
        Lines::begin(Target::other(writer), key).map(Self::of)
    }

    /// Resumes the audit in a file, after verifying all of it against an anchor that was kept
    /// elsewhere: the head that the last writer showed.
    ///
    /// The file must contain the line of the anchor. Lines after it are accepted if they are
    /// genuine, since lines are written between the moment in which a head is stored and a crash;
    /// that such lines were cut off is not found, so store the head after each flush. The next line
    /// names the anchor, its own number and the code before it name the line that it goes on from.
    ///
    /// A crash can leave a part of a last line. This call cuts it off; the summary says how many
    /// bytes, and so does the next line of the audit.
    ///
    /// # Errors
    ///
    /// As [`verify_audit_against`](crate::verify_audit_against): [`AuditError::CutShort`] if lines
    /// up to the anchor are missing, [`AuditError::NotAnchored`] for another audit,
    /// [`AuditError::EmptyAnchor`] for an anchor of no lines. [`AuditError::AnchorInEarlierFile`] if
    /// the audit was rotated after the head was stored: verify the file before this one against the
    /// anchor ([`AuditCheck::part`](crate::AuditCheck::part)), and resume after its head.
    /// [`AuditError::Closed`] if the file was closed; [`AuditError::InUse`] while another writer
    /// holds the file's lock; [`AuditError::Io`]. The file is as it was. One exception: if the line
    /// that reports the cut cannot be written, the unfinished line is cut off without a report.
    pub fn append_after(
        path: impl AsRef<Path>,
        key: TicketKey,
        anchor: &AuditHead,
    ) -> Result<(Self, AuditSummary), AuditError> {
        let (lines, summary) = Lines::resume(path.as_ref(), key, Some(anchor))?;
        Ok((Self::of(lines), summary))
    }

    /// As [`append_after`](Self::append_after), without an anchor. **It builds on a file whose last
    /// lines were cut off, and on an older copy**: each head from now on vouches for what is left.
    /// The line that resumes the audit says that there was no anchor, and
    /// [`AuditSummary::trusted`] counts such lines.
    ///
    /// # Errors
    ///
    /// As [`verify_audit`](crate::verify_audit); otherwise as `append_after`.
    pub fn append_trusting_the_file(
        path: impl AsRef<Path>,
        key: TicketKey,
    ) -> Result<(Self, AuditSummary), AuditError> {
        let (lines, summary) = Lines::resume(path.as_ref(), key, None)?;
        Ok((Self::of(lines), summary))
    }

    /// Goes on in a new file at `path` from the audit in the file `before`, as a
    /// [rotation](AuditHandle::rotate) does. The file `before` is verified against the anchor as in
    /// [`append_after`](Self::append_after), and closed. The summary is that of the file `before`.
    ///
    /// # Errors
    ///
    /// As `append_after`; [`AuditError::Io`], also if the new file exists already.
    /// [`AuditError::Closed`] if the file `before` is closed: the audit goes on in the file that the
    /// error names, which may hold events. Resume that one.
    pub fn create_after(
        path: impl AsRef<Path>,
        before: impl AsRef<Path>,
        key: TicketKey,
        anchor: &AuditHead,
    ) -> Result<(Self, AuditSummary), AuditError> {
        let (path, before) = (path.as_ref(), before.as_ref());
        let (lines, summary) = Lines::follow(path, before, key, anchor, false)?;
        Ok((Self::of(lines), summary))
    }

    /// As [`create_after`](Self::create_after), also if the file `before` was closed for a next file
    /// that is missing or empty: a crash interrupted the rotation, or that file is lost. **Whatever
    /// that file held is given up.** The new file has an id of its own, and its first line names the
    /// file that it replaces; [`AuditSummary::replaced`] counts such files. Should the other file
    /// turn up, it is still genuine after the file `before`, and the two are told apart.
    ///
    /// # Errors
    ///
    /// As `create_after`, but [`AuditError::Closed`] only if the audit ended with that file.
    pub fn create_replacing_the_next(
        path: impl AsRef<Path>,
        before: impl AsRef<Path>,
        key: TicketKey,
        anchor: &AuditHead,
    ) -> Result<(Self, AuditSummary), AuditError> {
        let (path, before) = (path.as_ref(), before.as_ref());
        let (lines, summary) = Lines::follow(path, before, key, anchor, true)?;
        Ok((Self::of(lines), summary))
    }

    /// Sets the number of lines after which they are made durable; 0 means only on flushes.
    /// Default: 64.
    pub fn sync_every(self, lines: u64) -> Self {
        self.lock().sync_every = lines;
        self
    }

    /// A handle to the head and the failures of this writer, also usable while a manager owns the
    /// writer. It rotates and closes the audit.
    #[must_use]
    pub fn handle(&self) -> AuditHandle {
        AuditHandle { lines: Arc::downgrade(&self.lines), figures: Arc::clone(&self.figures) }
    }

    fn of(lines: Lines) -> Self {
        let figures = Arc::clone(lines.figures());
        Self { lines: Arc::new(Mutex::new(lines)), figures }
    }

    /// Takes the lock, also after another holder panicked: the target knows whether a line was left
    /// unfinished.
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventSink for AuditWriter {
    fn event(&mut self, event: &Event) {
        self.lock().record(&Body::Event { event: event.clone() }, 1);
    }

    fn dropped(&mut self, count: u64) {
        self.lock().record(&lines::dropped(count), count);
    }

    fn flush(&mut self) {
        let _counted = self.lock().sync();
    }

    fn failed(&self) -> u64 {
        self.figures.lock().failed
    }
}

impl fmt::Debug for AuditWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditWriter").field("head", &self.lock().head()).finish_non_exhaustive()
    }
}
