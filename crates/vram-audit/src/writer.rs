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

/// Lines that may be written before they are made durable, where nobody said otherwise.
const SYNC_EVERY: u64 = 64;

/// Writes events down so that no line can be changed, removed, moved or added unseen. An
/// [`EventSink`].
///
/// Lines are made durable (`fdatasync`) every 64 lines, on a flush, and when the manager goes. Each
/// line says what came before it by its code, and has a code of its own by the key. Events that were
/// dropped on the way, and events that could not be written, have a line that says how many.
///
/// A line is `{"n":…,"prev":"…",…,"code":"…"}`: its number from 0, the code of the line before it
/// (zeros in the first), what happened, and HMAC-SHA256 over `vram-audit/line1`, the 32 bytes of
/// `prev`, and the line's bytes up to `,"code"`.
///
/// By itself it does not show that lines are missing at the very end, nor that all of it is an older
/// copy, or another audit under the same key: keep the [head](AuditStatus::head) somewhere else and
/// compare with it. The key is for the pair of who writes and who verifies: either can forge. Do not
/// use the ticket key of an orchestrator that is not to be trusted with that.
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
/// // A manager does this: it is given the audit as an event sink.
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
    /// Lines since the last that is known to be durable.
    unsynced: u64,
    /// Events that could not be written down, and are not yet said to be missing.
    missing: u64,
    status: AuditStatus,
}

/// Shows how far an [`AuditWriter`] has come, while a manager has it.
#[derive(Clone, Debug)]
pub struct AuditStatus(Arc<Mutex<Status>>);

#[derive(Clone, Debug)]
struct Status {
    head: AuditHead,
    failed: u64,
}

impl AuditStatus {
    /// Locks, also after a panic in another holder: each change is one assignment.
    fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many lines there are, and the last one's code: what an anchor is made of. Lines may not
    /// be durable yet: flush first.
    #[must_use]
    pub fn head(&self) -> AuditHead {
        self.lock().head
    }

    /// Events that could not be written, and lines that could not be made durable.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.lock().failed
    }
}

impl AuditWriter {
    /// Begins an audit in a new file, for its owner alone (mode 0600).
    ///
    /// # Errors
    ///
    /// [`AuditError::Io`]: also if there is such a file already.
    pub fn create(path: impl AsRef<Path>, key: TicketKey) -> Result<Self, AuditError> {
        let path = path.as_ref();
        let target = Target::create(path)?;
        let begun = Self::begin(target, key)
            .and_then(|writer| writer.target.sync_new(path).map(|()| writer));
        if begun.is_err() {
            // It was made a moment ago, and holds nothing.
            let _best_effort = std::fs::remove_file(path);
        }
        begun
    }

    /// Begins an audit on anything that can be written to. Nothing is written behind an error of
    /// the writer's, for a part of a line may stand there.
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

    /// Goes on with the audit in a file, after all of it was verified.
    ///
    /// A crash can leave a part of a last line. It is cut off; the summary says how many bytes, and
    /// so does the next line of the audit.
    ///
    /// # Errors
    ///
    /// As [`verify_audit`](crate::verify_audit); [`AuditError::InUse`] while another writer has the file;
    /// [`AuditError::Io`]. The file is as it was; only if its own line cannot be written is the
    /// unfinished one cut off without a word.
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

    /// Sets after how many lines they are made durable; 0 for on flushes alone. Default: 64.
    pub fn sync_every(mut self, lines: u64) -> Self {
        self.sync_every = lines;
        self
    }

    /// Shows how far it has come, also once a manager has it.
    #[must_use]
    pub fn status(&self) -> AuditStatus {
        self.status.clone()
    }

    fn with(target: Target, chain: Chain) -> Self {
        let status = Status { head: chain.head(), failed: 0 };
        let status = AuditStatus(Arc::new(Mutex::new(status)));
        Self { target, chain, sync_every: SYNC_EVERY, unsynced: 0, missing: 0, status }
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
        written.map_err(|error| AuditError::io("write the audit", None, error))
    }

    /// Writes one line, all of it or nothing.
    fn write(&mut self, body: &Body) -> std::io::Result<()> {
        let (line, next) = self.chain.line(body)?;
        self.target.write(&line)?;
        self.chain.advance(next);
        self.unsynced = self.unsynced.saturating_add(1);
        self.status.lock().head = next;
        Ok(())
    }

    /// Writes what happened, or counts it as missing.
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
        let lines = core::mem::take(&mut self.unsynced);
        if let Err(error) = self.target.sync() {
            tracing::error!(%error, lines, "the audit could not be made durable");
            let mut status = self.status.lock();
            status.failed = status.failed.saturating_add(lines);
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
