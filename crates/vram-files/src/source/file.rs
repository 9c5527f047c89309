//! A file as a source: read by position, never mapped.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Source, SourceError, no_such_bytes, wide};
use crate::regular_file;

/// A regular file, or a part of one, read by position.
///
/// Its length is that which the file reports when it is opened. A file that has bytes after it is
/// refused when the call has read it: it grew, or it is a file of the kernel that reports a length
/// of 0. Read those through a [`ReaderSource`](super::ReaderSource).
///
/// Ranges of one file share its descriptor, and clones are cheap.
#[derive(Clone, Debug)]
pub struct FileSource {
    file: Arc<File>,
    path: Arc<Path>,
    start: u64,
    len: u64,
    /// True if this covers the whole file, from its first to its last byte.
    whole: bool,
}

impl FileSource {
    /// Opens a file for reading, with its present length.
    ///
    /// # Errors
    ///
    /// [`SourceError::Io`] if it cannot be opened, [`SourceError::NotAFile`] for folders, pipes
    /// and devices (read those through a [`ReaderSource`](super::ReaderSource)).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SourceError> {
        let path = path.as_ref();
        let name = || path.display().to_string();
        let file = regular_file::open(path).map_err(|error| SourceError::io(name(), error))?;
        Self::from_file(file, path)
    }

    /// Takes an open file; `path` is only for messages.
    ///
    /// # Errors
    ///
    /// As [`FileSource::open`].
    pub fn from_file(file: File, path: impl Into<PathBuf>) -> Result<Self, SourceError> {
        let path = path.into();
        let name = || path.display().to_string();
        let metadata = file.metadata().map_err(|error| SourceError::io(name(), error))?;
        if !metadata.is_file() {
            let found = regular_file::kind_of(&metadata);
            return Err(SourceError::NotAFile { name: name(), found });
        }
        let len = metadata.len();
        Ok(Self { file: Arc::new(file), path: path.into(), start: 0, len, whole: true })
    }

    /// The `len` bytes that start at `offset`, as a source of their own.
    ///
    /// # Arguments
    ///
    /// * `offset`: bytes from the start of this source; at most its length.
    /// * `len`: bytes wanted; may be 0.
    ///
    /// # Errors
    ///
    /// [`SourceError::NoSuchBytes`] if the range does not lie inside this source.
    pub fn range(&self, offset: u64, len: u64) -> Result<Self, SourceError> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        match self.start.checked_add(offset) {
            Some(start) if inside => Ok(Self { start, len, whole: false, ..self.clone() }),
            _ => {
                Err(SourceError::NoSuchBytes { name: self.name(), offset, len, declared: self.len })
            }
        }
    }

    /// The path that the file was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

impl Source for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        let inside = offset.checked_add(wide(target.len())).is_some_and(|end| end <= self.len);
        let position = match self.start.checked_add(offset) {
            Some(position) if inside => position,
            _ => return Err(no_such_bytes(self.name(), offset, target.len(), self.len)),
        };
        self.file.read_exact_at(target, position).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                let now = self.file.metadata().map_or(position, |metadata| metadata.len());
                let found = now.saturating_sub(self.start).min(self.len);
                SourceError::Short { name: self.name(), declared: self.len, found }
            } else {
                SourceError::io(self.name(), error)
            }
        })
    }

    fn as_file(&self) -> Option<&File> {
        Some(&self.file)
    }

    fn finish(&self) -> Result<(), SourceError> {
        let now = self.file.metadata().map_err(|error| SourceError::io(self.name(), error))?.len();
        let found = now.saturating_sub(self.start);
        if found < self.len {
            return Err(SourceError::Short { name: self.name(), declared: self.len, found });
        }
        // The bytes after a range do not belong to this source.
        if self.whole && (found > self.len || self.goes_on()?) {
            return Err(SourceError::Long { name: self.name(), declared: self.len });
        }
        Ok(())
    }
}

impl FileSource {
    /// Returns true if there is a byte after the reported length. Files of the kernel (`/proc`,
    /// `/sys`) report a length of 0, or of a page, and yield something else.
    fn goes_on(&self) -> Result<bool, SourceError> {
        let Some(end) = self.start.checked_add(self.len) else { return Ok(false) };
        loop {
            match self.file.read_at(&mut [0], end) {
                Ok(count) => return Ok(count > 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SourceError::io(self.name(), error)),
            }
        }
    }
}
