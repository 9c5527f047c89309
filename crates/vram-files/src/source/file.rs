//! A file as a source: read by position, never mapped.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::direct::Direct;
use super::{FilePool, FileState, Source, SourceError, no_such_bytes, wide};
use crate::regular_file;

/// A regular file, or a part of one, read by position.
///
/// Its length is that which the file reports when it is opened. A file that has bytes after it is
/// refused when the call has read it: it grew, or it is a file of the kernel that reports a length
/// of 0. Read those through a [`ReaderSource`](super::ReaderSource).
///
/// A file that was written between its opening and the end of the call is refused as well, though its
/// length is the same ([`SourceError::Changed`]; [`FileState`] says what can be seen). So is a range,
/// wherever in the file the write was. A file that is replaced by a rename is not: the call reads the
/// one that it opened. A call that was given the digest of the content accepts what has that digest.
///
/// Ranges of one file share its descriptor, and clones are cheap.
#[derive(Clone, Debug)]
pub struct FileSource {
    handle: Handle,
    /// The state of the file before its first byte was read.
    state: FileState,
    path: Arc<Path>,
    start: u64,
    len: u64,
    /// True if this covers the whole file, from its first to its last byte.
    whole: bool,
    /// How it is read past the page cache, if it is.
    direct: Option<Direct>,
}

/// How a source reaches its file.
#[derive(Clone, Debug)]
enum Handle {
    Open(Arc<File>),
    Pooled(FilePool, u64),
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
        let found = file.metadata().map_err(|error| SourceError::io(name(), error))?;
        let state = FileState::of(&file).map_err(|error| SourceError::io(name(), error))?;
        Self::in_state(file, path, &found, state)
    }

    /// As [`FileSource::from_file`], for a file of which bytes were read already.
    ///
    /// # Arguments
    ///
    /// * `found`: the metadata of `file`, taken before those bytes were read. A file that changed
    ///   since then is refused like one that changes later.
    ///
    /// # Errors
    ///
    /// [`SourceError::NotAFile`].
    pub fn from_file_since(
        file: File,
        path: impl Into<PathBuf>,
        found: &Metadata,
    ) -> Result<Self, SourceError> {
        Self::in_state(file, path.into(), found, FileState::from(found))
    }

    fn in_state(
        file: File,
        path: PathBuf,
        found: &Metadata,
        state: FileState,
    ) -> Result<Self, SourceError> {
        if !found.is_file() {
            let (name, found) = (path.display().to_string(), regular_file::kind_of(found));
            return Err(SourceError::NotAFile { name, found });
        }
        let handle = Handle::Open(Arc::new(file));
        let len = state.len();
        Ok(Self { handle, state, path: path.into(), start: 0, len, whole: true, direct: None })
    }

    /// Lets a pool keep the file open, or close it and open its path again. A file that is opened
    /// again must be in the state of the first opening, or the read is refused.
    #[must_use]
    pub fn in_pool(self, pool: &FilePool) -> Self {
        let handle = match self.handle {
            Handle::Open(file) => Handle::Pooled(pool.clone(), pool.add(file)),
            pooled @ Handle::Pooled(..) => pooled,
        };
        Self { handle, ..self }
    }

    /// Reads the file past the page cache of the kernel (`O_DIRECT`): for a file larger than memory, or
    /// one that is read once and must not push out what others use. It is opened again by its path, for
    /// this source and those that are made of it. Each read is one of the drive, in parts of 1 MiB: what
    /// is read twice costs twice. A file system without such reads is read as ever
    /// ([`is_past_page_cache`](Self::is_past_page_cache)).
    ///
    /// # Errors
    ///
    /// As [`FileSource::open`]; [`SourceError::Changed`] if the path leads to another file now.
    pub fn direct(self) -> Result<Self, SourceError> {
        let direct = Self { direct: Some(Direct::default()), ..self };
        let file = Arc::new(direct.reopen()?);
        let handle = match &direct.handle {
            Handle::Open(_) => Handle::Open(file),
            Handle::Pooled(pool, _) => Handle::Pooled(pool.clone(), pool.add(file)),
        };
        Ok(Self { handle, ..direct })
    }

    /// Whether the file is read past the page cache: asked for, and not refused by the file system so
    /// far, which may refuse at the first read only.
    #[must_use]
    pub fn is_past_page_cache(&self) -> bool {
        self.direct.as_ref().is_some_and(|direct| !direct.is_refused())
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

    /// The file, opened again if its pool has closed it.
    fn file(&self) -> Result<Arc<File>, SourceError> {
        match &self.handle {
            Handle::Open(file) => Ok(Arc::clone(file)),
            Handle::Pooled(pool, number) => pool.get(*number, || self.reopen()),
        }
    }

    fn reopen(&self) -> Result<File, SourceError> {
        let opened = regular_file::open(&self.path);
        let file = opened.map_err(|error| SourceError::io(self.name(), error))?;
        self.state.check(&file, &self.name())?;
        if let Some(direct) = &self.direct {
            direct.begin(&file);
        }
        Ok(file)
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
        let file = self.file()?;
        let read = match &self.direct {
            Some(direct) => direct.read_exact_at(&file, target, position),
            None => file.read_exact_at(target, position),
        };
        read.map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                let now = file.metadata().map_or(position, |metadata| metadata.len());
                let found = now.saturating_sub(self.start).min(self.len);
                SourceError::Short { name: self.name(), declared: self.len, found }
            } else {
                SourceError::io(self.name(), error)
            }
        })
    }

    fn as_file(&self) -> Option<&File> {
        match &self.handle {
            Handle::Open(file) => Some(file),
            Handle::Pooled(..) => None,
        }
    }

    fn file_state(&self) -> Option<FileState> {
        Some(self.state)
    }

    fn finish(&self) -> Result<(), SourceError> {
        let file = self.file()?;
        let now = FileState::of(&file).map_err(|error| SourceError::io(self.name(), error))?;
        // The length first: its error has the figures.
        let found = now.len().saturating_sub(self.start);
        if found < self.len {
            return Err(SourceError::Short { name: self.name(), declared: self.len, found });
        }
        // The bytes after a range do not belong to this source.
        if self.whole && (found > self.len || self.goes_on(&file)?) {
            return Err(SourceError::Long { name: self.name(), declared: self.len });
        }
        self.state.check_state(&now, &self.name())
    }
}

impl FileSource {
    /// Returns true if there is a byte after the reported length. Files of the kernel (`/proc`,
    /// `/sys`) report a length of 0, or of a page, and yield something else.
    fn goes_on(&self, file: &File) -> Result<bool, SourceError> {
        let Some(end) = self.start.checked_add(self.len) else { return Ok(false) };
        loop {
            let read = match &self.direct {
                Some(direct) => direct.read_at(file, &mut [0], end),
                None => file.read_at(&mut [0], end),
            };
            match read {
                Ok(count) => return Ok(count > 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SourceError::io(self.name(), error)),
            }
        }
    }
}
