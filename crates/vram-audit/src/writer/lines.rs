//! The lines of one audit as they are written: into one file, and after a rotation into the next.

use std::io;
use std::path::Path;
use std::sync::Arc;

use vram_id::{Clock, SystemClock, Timestamp};
use vram_seal::TicketKey;

use crate::error::AuditError;
use crate::file_id::AuditFileId;
use crate::head::AuditHead;
use crate::line::{Body, Chain};
use crate::summary::AuditSummary;
use crate::target::Target;
use crate::verify::{Begins, Reading};
use crate::writer::figures::Figures;

/// Lines that may be written before they are made durable, by default.
const SYNC_EVERY: u64 = 64;

/// The file, the chain, and what is not written or not durable yet.
pub(crate) struct Lines {
    target: Target,
    chain: Chain,
    pub(crate) sync_every: u64,
    /// Lines written since the last line that is known to be durable.
    unsynced: u64,
    /// Events that could not be written, and that no line reports yet.
    missing: u64,
    /// The last line that is known to be durable.
    durable: AuditHead,
    file: FileState,
    figures: Arc<Figures>,
}

/// Whether lines may follow in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileState {
    Open,
    /// Closed by this writer for the file of this id, which is not opened yet.
    ClosedFor(AuditFileId),
    /// Closed by another writer for the file of this id, which may hold events. Another file is to
    /// take its place.
    Replacing(AuditFileId),
    /// Closed as the last file.
    Last,
}

impl FileState {
    const fn closed_for(next: Option<AuditFileId>) -> Self {
        match next {
            Some(next) => Self::ClosedFor(next),
            None => Self::Last,
        }
    }

    /// # Errors
    ///
    /// [`AuditError::Closed`] if no line may follow.
    const fn open(self) -> Result<(), AuditError> {
        match self {
            Self::Open => Ok(()),
            Self::ClosedFor(next) | Self::Replacing(next) => {
                Err(AuditError::Closed { next: Some(next) })
            }
            Self::Last => Err(AuditError::Closed { next: None }),
        }
    }
}

impl Lines {
    /// Begins an audit in an empty target.
    pub(crate) fn begin(target: Target, key: TicketKey) -> Result<Self, AuditError> {
        let chain = Chain::new(key);
        let opened = chain.opened(AuditFileId::random().map_err(not_written)?, None, now());
        let mut lines = Self::with(target, chain);
        lines.write_first(&opened)?;
        Ok(lines)
    }

    fn with(target: Target, chain: Chain) -> Self {
        let durable = chain.head();
        let figures = Arc::new(Figures::new(durable));
        Self {
            target,
            chain,
            sync_every: SYNC_EVERY,
            unsynced: 0,
            missing: 0,
            durable,
            file: FileState::Open,
            figures,
        }
    }

    /// Resumes the audit in a file. If there is an anchor, the file has to contain its line.
    pub(crate) fn resume(
        path: &Path,
        key: TicketKey,
        anchor: Option<&AuditHead>,
    ) -> Result<(Self, AuditSummary), AuditError> {
        let (target, summary) = verified(path, &key, anchor)?;
        if summary.closed {
            return Err(AuditError::Closed { next: summary.next });
        }
        let mut lines = Self::with(target, Chain::after(key, summary.head));
        let resumed = Body::Resumed { at: now(), cut: summary.torn, anchor: anchor.copied() };
        lines.write_first(&resumed)?;
        Ok((lines, summary))
    }

    /// Goes on in a new file from the audit in another one, which this call closes. If that one is
    /// closed already, the file that it names may hold events: `replace` says that it is given up.
    pub(crate) fn follow(
        path: &Path,
        before: &Path,
        key: TicketKey,
        anchor: &AuditHead,
        replace: bool,
    ) -> Result<(Self, AuditSummary), AuditError> {
        let (target, summary) = verified(before, &key, Some(anchor))?;
        let mut lines = Self::with(target, Chain::after(key, summary.head));
        if summary.closed {
            let next = summary.next.filter(|_| replace);
            let next = next.ok_or(AuditError::Closed { next: summary.next })?;
            lines.file = FileState::Replacing(next);
        } else if summary.torn > 0 {
            let resumed = Body::Resumed { at: now(), cut: summary.torn, anchor: Some(*anchor) };
            lines.write_first(&resumed)?;
        }
        lines.rotate(path)?;
        Ok((lines, summary))
    }

    pub(crate) fn figures(&self) -> &Arc<Figures> {
        &self.figures
    }

    pub(crate) const fn head(&self) -> AuditHead {
        self.chain.head()
    }

    pub(crate) fn sync_new(&self, path: &Path) -> Result<(), AuditError> {
        self.target.sync_new(path)
    }

    fn write_first(&mut self, body: &Body) -> Result<(), AuditError> {
        let written = self.write(body).and_then(|()| self.target.sync());
        self.unsynced = 0;
        self.durable = self.chain.head();
        written.map_err(not_written)
    }

    /// Writes one line, whole or not at all.
    fn write(&mut self, body: &Body) -> io::Result<()> {
        self.file.open().map_err(io::Error::other)?;
        let (line, next) = self.chain.line(body)?;
        self.target.write(&line)?;
        self.chain.advance(next);
        self.unsynced = self.unsynced.saturating_add(1);
        self.figures.lock().head = next;
        Ok(())
    }

    /// Writes the line that reports the missing events, if there are any.
    fn write_missing(&mut self) -> io::Result<()> {
        if self.missing > 0 {
            self.write(&Body::Failed { at: now(), count: self.missing })?;
            self.missing = 0;
        }
        Ok(())
    }

    /// Writes one line, or counts its events as missing.
    pub(crate) fn record(&mut self, body: &Body, events: u64) {
        if let Err(error) = self.write_missing().and_then(|()| self.write(body)) {
            return self.failed(events, &error);
        }
        if self.sync_every > 0 && self.unsynced >= self.sync_every {
            let _counted = self.sync();
        }
    }

    fn failed(&mut self, events: u64, error: &io::Error) {
        tracing::error!(%error, "an event could not be written to the audit");
        self.missing = self.missing.saturating_add(events);
        let mut figures = self.figures.lock();
        figures.failed = figures.failed.saturating_add(events);
    }

    /// Makes the lines durable. If that fails, the audit has ended.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.target.is_unsynced() {
            return Ok(());
        }
        let lines = core::mem::take(&mut self.unsynced);
        let synced = self.target.sync();
        match &synced {
            Ok(()) => self.durable = self.chain.head(),
            Err(error) => {
                tracing::error!(%error, lines, "the audit could not be made durable, and has ended");
                let mut figures = self.figures.lock();
                figures.failed = figures.failed.saturating_add(lines);
                (figures.head, figures.ended) = (self.durable, true);
            }
        }
        synced
    }

    /// Writes the line that closes the file, and makes it durable.
    pub(crate) fn close(&mut self, next: Option<AuditFileId>) -> Result<AuditHead, AuditError> {
        self.file.open()?;
        self.write_missing()
            .and_then(|()| self.write(&Body::Closed { at: now(), next }))
            .and_then(|()| {
                // Also if the sync fails: nothing may follow this line in its file.
                self.file = FileState::closed_for(next);
                self.sync()
            })
            .map_err(|error| AuditError::io("close the audit", None, error))?;
        Ok(self.head())
    }

    /// Closes the file and goes on in a new one. Returns the head of the closed file.
    ///
    /// If the new file cannot be opened after the old one was closed, no line follows until another
    /// rotation succeeds: it uses the id that the closed file names.
    pub(crate) fn rotate(&mut self, path: &Path) -> Result<AuditHead, AuditError> {
        if self.file == FileState::Last {
            return Err(AuditError::Closed { next: None });
        }
        if self.target.is_unsynced() {
            let error = io::Error::other("earlier lines could not be made durable");
            return Err(AuditError::io("rotate the audit", None, error));
        }
        let target = Target::create(path)?;
        let rotated = self.rotate_into(target, path);
        if rotated.is_err() {
            // This call has just created the file, and it holds no event.
            let _best_effort = std::fs::remove_file(path);
        }
        rotated
    }

    fn rotate_into(&mut self, mut target: Target, path: &Path) -> Result<AuditHead, AuditError> {
        let (id, replaces) = match self.file {
            FileState::ClosedFor(id) => (id, None),
            // An id of its own: if the file that it replaces turns up, the two are told apart.
            FileState::Replacing(lost) => (AuditFileId::random().map_err(not_written)?, Some(lost)),
            FileState::Open | FileState::Last => {
                let id = AuditFileId::random().map_err(not_written)?;
                self.close(Some(id))?;
                (id, None)
            }
        };
        let closed = self.head();
        let opened = self.chain.opened(id, replaces, now());
        let (line, next) = self.chain.line(&opened).map_err(not_written)?;
        target.write(&line).map_err(not_written)?;
        target.sync_new(path)?;
        self.chain.advance(next);
        (self.target, self.file) = (target, FileState::Open);
        (self.unsynced, self.durable) = (0, next);
        self.figures.lock().head = next;
        Ok(closed)
    }
}

/// Opens a file, verifies it, and cuts off an unfinished last line.
fn verified(
    path: &Path,
    key: &TicketKey,
    anchor: Option<&AuditHead>,
) -> Result<(Target, AuditSummary), AuditError> {
    let mut target = Target::open(path)?;
    // The anchor is compared up to its own line: genuine lines after it were written later.
    let mut reading = Reading::new(key, anchor.copied())?;
    let len = target.read(|file| reading.file(file, Begins::Anywhere))?;
    let summary = reading.end()?;
    if !summary.closed {
        target.cut_to(len)?;
    }
    Ok((target, summary))
}

fn not_written(error: io::Error) -> AuditError {
    AuditError::io("write the audit", None, error)
}

fn now() -> Timestamp {
    SystemClock.now()
}

/// A line that says that a sink's queue dropped events.
pub(crate) fn dropped(count: u64) -> Body {
    Body::Dropped { at: now(), count }
}
