//! Where the lines are written: each line whole, or not at all.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use vram_files::{folder, regular_file};

use crate::error::AuditError;

/// A file or a writer that takes lines.
pub(crate) struct Target {
    sink: Sink,
    /// Bytes of whole lines in the file.
    len: u64,
    /// No later line is written.
    broken: Option<Broken>,
}

/// Why no more lines are written to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// A part of a line is in the file and could not be cut off.
    Unfinished,
    /// Lines could not be made durable. The system may have dropped them and report a later sync
    /// as done, so that lines written after them could outlive them.
    Unsynced,
}

enum Sink {
    File(File),
    Other(Box<dyn Write + Send>),
}

impl Target {
    pub(crate) fn other(writer: impl Write + Send + 'static) -> Self {
        Self { sink: Sink::Other(Box::new(writer)), len: 0, broken: None }
    }

    /// Creates a new file, readable by its owner alone.
    pub(crate) fn create(path: &Path) -> Result<Self, AuditError> {
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path);
        let failed = |error| AuditError::io("create the audit", path.to_path_buf(), error);
        let locked = Self::locked(file.map_err(failed)?, path);
        if locked.is_err() {
            // This call has just created the file, and it is empty.
            let _best_effort = std::fs::remove_file(path);
        }
        locked
    }

    /// Opens an existing file, which must be a regular one.
    pub(crate) fn open(path: &Path) -> Result<Self, AuditError> {
        let failed = |error| AuditError::io("open the audit", path.to_path_buf(), error);
        let file = regular_file::open_to_append(path).map_err(failed)?;
        Self::locked(file, path)
    }

    /// Locks the file: two writers would break the chain. The lock ends when the file is closed.
    fn locked(file: File, path: &Path) -> Result<Self, AuditError> {
        match file.try_lock() {
            Ok(()) => Ok(Self { sink: Sink::File(file), len: 0, broken: None }),
            Err(TryLockError::WouldBlock) => Err(AuditError::InUse { path: path.to_path_buf() }),
            Err(TryLockError::Error(error)) => {
                Err(AuditError::io("lock the audit", path.to_path_buf(), error))
            }
        }
    }

    /// Reads the content of the file.
    pub(crate) fn read<R>(
        &self,
        read: impl FnOnce(&File) -> Result<R, AuditError>,
    ) -> Result<R, AuditError> {
        match &self.sink {
            Sink::File(file) => read(file),
            Sink::Other(_) => Err(AuditError::Empty { bytes: 0 }),
        }
    }

    /// Cuts the file down to its whole lines.
    pub(crate) fn cut_to(&mut self, len: u64) -> Result<(), AuditError> {
        self.len = len;
        let failed = |error| AuditError::io("cut off an unfinished line", None, error);
        match &self.sink {
            Sink::File(file) if file.metadata().map_err(failed)?.len() != len => {
                file.set_len(len).map_err(failed)
            }
            _ => Ok(()),
        }
    }

    /// Writes a line, whole or not at all.
    pub(crate) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self.broken {
            None => {}
            Some(Broken::Unfinished) => {
                return Err(io::Error::other("an earlier line was left unfinished"));
            }
            Some(Broken::Unsynced) => {
                return Err(io::Error::other("earlier lines could not be made durable"));
            }
        }
        // Broken until the line is written whole, also if the writer panics.
        self.broken = Some(Broken::Unfinished);
        let (written, outcome) = match &mut self.sink {
            Sink::File(file) => write_all(file, line),
            Sink::Other(writer) => write_all(writer, line),
        };
        let whole = outcome.is_ok() || written == 0 || self.take_back();
        self.broken = (!whole).then_some(Broken::Unfinished);
        if outcome.is_ok() {
            self.len = self.len.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
        }
        outcome
    }

    /// Cuts off the part of a line that was just written.
    fn take_back(&self) -> bool {
        match &self.sink {
            Sink::File(file) => file.set_len(self.len).is_ok(),
            Sink::Other(_) => false,
        }
    }

    /// Makes the written lines durable. If that fails once, no further line is written.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        // Broken until the sync has succeeded, also if the writer panics.
        let before = self.broken.replace(Broken::Unsynced);
        match &mut self.sink {
            Sink::File(file) => file.sync_data(),
            Sink::Other(writer) => writer.flush(),
        }?;
        self.broken = before;
        Ok(())
    }

    /// Whether lines could not be made durable.
    pub(crate) fn is_unsynced(&self) -> bool {
        self.broken == Some(Broken::Unsynced)
    }

    /// Makes a new file durable, its name included.
    pub(crate) fn sync_new(&self, path: &Path) -> Result<(), AuditError> {
        let Sink::File(file) = &self.sink else { return Ok(()) };
        let failed = |error| AuditError::io("sync the audit", path.to_path_buf(), error);
        file.sync_all().map_err(failed)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder::sync_name(file, folder.unwrap_or(Path::new("."))).map_err(failed)
    }
}

/// Writes the whole line. On an error, also returns how many bytes were written.
fn write_all(writer: &mut dyn Write, line: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0_usize;
    while let Some(rest) = line.get(written..).filter(|rest| !rest.is_empty()) {
        match writer.write(rest) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written = written.saturating_add(more.min(rest.len())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_line_is_taken_back_and_whole_lines_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        let mut target = Target::create(&path).unwrap();
        target.write(b"one\n").unwrap();
        // The part of a line that a full disk leaves.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"tw").unwrap();
        assert!(target.take_back());
        target.write(b"two\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn after_a_failed_sync_no_line_is_written_to_that_file() {
        // A pipe takes bytes and cannot be synced.
        let (mut reader, writer) = io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        let mut target = Target { sink: Sink::File(file), len: 0, broken: None };
        target.write(b"one\n").unwrap();
        assert!(target.sync().is_err() && target.is_unsynced());
        let refused = target.write(b"two\n").unwrap_err();
        assert!(refused.to_string().contains("durable"), "{refused}");
        drop(target);
        let mut found = Vec::new();
        io::Read::read_to_end(&mut reader, &mut found).unwrap();
        assert_eq!(found, b"one\n");
    }
}
