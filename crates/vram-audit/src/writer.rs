//! Writing an audit: an event sink that makes a keyed, chained line of each event.

use core::fmt;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vram_events::{Event, EventSink};
use vram_id::{Clock, SystemClock, Timestamp};
use vram_seal::TicketKey;

use crate::error::AuditError;
use crate::head::AuditHead;
use crate::line::{self, Body, Chain};
use crate::target::Target;
use crate::verify::AuditSummary;

/// Lines that may be written before they are made durable, by default.
const SYNC_EVERY: u64 = 64;

/// Writes events so that every changed, removed, moved or added line is found. An [`EventSink`].
///
/// The writer makes lines durable (`fdatasync`) every 64 lines, on a flush, and when the manager is
/// dropped. **A sync that fails ends the audit**: the system may have dropped the lines and report
/// the next sync as done, so no line follows in that file, each further event counts as failed, and
/// [`AuditStatus::ended`] says so. Begin a new file then.
///
/// Each line names the line before it by its code, and has a code of its own under the
/// key. Events that were dropped on the way, and events that could not be written, have a line that
/// states how many.
///
/// A line is `{"n":…,"prev":"…",…,"code":"…"}`: its number from 0, the code of the line before it
/// (zeros in the first), the content, and HMAC-SHA256 over `vram-audit/line1`, the 32 bytes of
/// `prev`, and the line's bytes up to `,"code"`.
///
/// By itself an audit does not show that lines are missing at the very end, nor that the file is an
/// older copy, or another audit under the same key: keep the [head](AuditStatus::head) elsewhere
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
/// let mut audit = AuditWriter::create(&path, TicketKey::from_bytes([7; 32]))?;
/// let status = audit.status();
/// // A manager does this: it receives the writer as an event sink.
/// audit.dropped(3);
/// audit.flush();
/// let anchor = status.head(); // to be kept somewhere else
///
/// let file = std::fs::File::open(&path)?;
/// let summary = verify_audit_against(file, &TicketKey::from_bytes([7; 32]), &anchor)?;
/// assert_eq!((summary.events, summary.dropped), (0, 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "an audit that is not given to a manager records nothing"]
pub struct AuditWriter {
    target: Target,
    chain: Chain,
    sync_every: u64,
    /// Lines written since the last line that is known to be durable.
    unsynced: u64,
    /// Events that could not be written, and that no line reports yet.
    missing: u64,
    /// The last line that is known to be durable.
    durable: AuditHead,
    status: AuditStatus,
}

/// Shows the head and the failures of an [`AuditWriter`] while a manager owns the writer.
#[derive(Clone, Debug)]
pub struct AuditStatus(Arc<Mutex<Status>>);

#[derive(Clone, Debug)]
struct Status {
    head: AuditHead,
    failed: u64,
    ended: bool,
}

impl AuditStatus {
    /// Takes the lock, also after another holder panicked: each change is one assignment.
    fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of lines, and the last one's code: the anchor to keep. Lines may not be durable
    /// yet: flush first. Of an audit that has [ended](Self::ended), the last line that is durable.
    #[must_use]
    pub fn head(&self) -> AuditHead {
        self.lock().head
    }

    /// Events that could not be written, and lines that could not be made durable.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.lock().failed
    }

    /// Whether lines could not be made durable. The file gets no further line: begin a new one.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.lock().ended
    }
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
        let begun = Self::begin(target, key)
            .and_then(|writer| writer.target.sync_new(path).map(|()| writer));
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
        Self::begin(Target::other(writer), key)
    }

    /// Resumes the audit in a file, after verifying all of it.
    ///
    /// A crash can leave a part of a last line. This call cuts it off; the summary says how many
    /// bytes, and so does the next line of the audit.
    ///
    /// # Errors
    ///
    /// As [`verify_audit`](crate::verify_audit); [`AuditError::InUse`] while another writer holds
    /// the file's lock; [`AuditError::Io`]. The file is as it was. One exception: if the line that
    /// reports the cut cannot be written, the unfinished line is cut off without a report.
    pub fn append(
        path: impl AsRef<Path>,
        key: TicketKey,
    ) -> Result<(Self, AuditSummary), AuditError> {
        let mut target = Target::open(path.as_ref())?;
        let (summary, len) = target.verified(&key)?;
        target.cut_to(len)?;
        let mut writer = Self::with(target, Chain::after(key, summary.head));
        writer.write_first(&Body::Resumed { at: now(), cut: summary.torn })?;
        Ok((writer, summary))
    }

    /// Sets the number of lines after which they are made durable; 0 means only on flushes.
    /// Default: 64.
    pub fn sync_every(mut self, lines: u64) -> Self {
        self.sync_every = lines;
        self
    }

    /// A handle to the head and the failures of this writer, also usable while a manager owns the
    /// writer.
    #[must_use]
    pub fn status(&self) -> AuditStatus {
        self.status.clone()
    }

    fn with(target: Target, chain: Chain) -> Self {
        let durable = chain.head();
        let status = Status { head: durable, failed: 0, ended: false };
        let status = AuditStatus(Arc::new(Mutex::new(status)));
        Self { target, chain, sync_every: SYNC_EVERY, unsynced: 0, missing: 0, durable, status }
    }

    fn begin(target: Target, key: TicketKey) -> Result<Self, AuditError> {
        let chain = Chain::new(key);
        let opened = Body::Opened { format: line::FORMAT, key: chain.key_id(), at: now() };
        let mut writer = Self::with(target, chain);
        writer.write_first(&opened)?;
        Ok(writer)
    }

    fn write_first(&mut self, body: &Body) -> Result<(), AuditError> {
        let written = self.write(body).and_then(|()| self.target.sync());
        self.unsynced = 0;
        self.durable = self.chain.head();
        written.map_err(|error| AuditError::io("write the audit", None, error))
    }

    /// Writes one line, whole or not at all.
    fn write(&mut self, body: &Body) -> std::io::Result<()> {
        let (line, next) = self.chain.line(body)?;
        self.target.write(&line)?;
        self.chain.advance(next);
        self.unsynced = self.unsynced.saturating_add(1);
        self.status.lock().head = next;
        Ok(())
    }

    /// Writes one line, or counts its events as missing.
    fn record(&mut self, body: &Body, events: u64) {
        if self.missing > 0 {
            let count = self.missing;
            match self.write(&Body::Failed { at: now(), count }) {
                Ok(()) => self.missing = 0,
                Err(error) => return self.failed(events, &error),
            }
        }
        if let Err(error) = self.write(body) {
            return self.failed(events, &error);
        }
        if self.sync_every > 0 && self.unsynced >= self.sync_every {
            self.sync();
        }
    }

    fn failed(&mut self, events: u64, error: &std::io::Error) {
        tracing::error!(%error, "an event could not be written to the audit");
        self.missing = self.missing.saturating_add(events);
        let mut status = self.status.lock();
        status.failed = status.failed.saturating_add(events);
    }

    fn sync(&mut self) {
        if self.target.is_unsynced() {
            return;
        }
        let lines = core::mem::take(&mut self.unsynced);
        match self.target.sync() {
            Ok(()) => self.durable = self.chain.head(),
            Err(error) => {
                tracing::error!(%error, lines, "the audit could not be made durable, and has ended");
                let mut status = self.status.lock();
                status.failed = status.failed.saturating_add(lines);
                (status.head, status.ended) = (self.durable, true);
            }
        }
    }
}

impl EventSink for AuditWriter {
    fn event(&mut self, event: &Event) {
        self.record(&Body::Event { event: event.clone() }, 1);
    }

    fn dropped(&mut self, count: u64) {
        self.record(&Body::Dropped { at: now(), count }, count);
    }

    fn flush(&mut self) {
        self.sync();
    }

    fn failed(&self) -> u64 {
        self.status.failed()
    }
}

impl fmt::Debug for AuditWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditWriter").field("head", &self.chain.head()).finish_non_exhaustive()
    }
}

fn now() -> Timestamp {
    SystemClock.now()
}
