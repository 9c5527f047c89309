//! A reader as a source: read once, in order, to a declared length.

use core::fmt;
use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::sync::{Mutex, PoisonError};

use super::{Access, FileState, Source, SourceError, no_such_bytes, wide};

/// Any value that implements [`Read`], with a length declared in advance.
///
/// The call reads it once, in order. A reader that ends early or goes on after its declared length
/// is refused. Interrupted reads are repeated.
///
/// A call cannot see which file a reader reads. If it reads one, name that file with
/// [`ImageOptions::input`](crate::ImageOptions::input): then no output replaces it. Nor can it see
/// whether that file changes meanwhile, unless the source was made by [`ReaderSource::of_file`].
pub struct ReaderSource<R> {
    len: u64,
    file: Option<OfFile<R>>,
    state: Mutex<ReaderState<R>>,
}

/// What a source knows of the file that is its reader.
struct OfFile<R> {
    name: String,
    /// Before the first byte was read.
    state: FileState,
    now: fn(&R) -> io::Result<FileState>,
}

impl ReaderSource<File> {
    /// The rest of an open file, from its position on, read in order. As
    /// [`FileSource`](super::FileSource), it is refused if it is written meanwhile.
    ///
    /// # Errors
    ///
    /// [`SourceError::Io`] if its position or its state is not to be had, as of a pipe.
    pub fn of_file(mut file: File, name: &str) -> Result<Self, SourceError> {
        let failed = |error| SourceError::io(name, error);
        let state = FileState::of(&file).map_err(failed)?;
        let len = state.len().saturating_sub(file.stream_position().map_err(failed)?);
        let of_file = OfFile { name: name.to_owned(), state, now: FileState::of };
        Ok(Self { file: Some(of_file), ..Self::new(file, len) })
    }
}

struct ReaderState<R> {
    reader: R,
    position: u64,
}

impl<R: Read + Send> ReaderSource<R> {
    /// A source of exactly `len` bytes, read from `reader`.
    #[must_use]
    pub const fn new(reader: R, len: u64) -> Self {
        Self { len, file: None, state: Mutex::new(ReaderState { reader, position: 0 }) }
    }

    /// Returns the reader, at its present position.
    #[must_use]
    pub fn into_inner(self) -> R {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).reader
    }
}

impl<R> fmt::Debug for ReaderSource<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReaderSource").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<R: Read + Send> Source for ReaderSource<R> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        // Usable after a panic of the reader: the position says how far it came.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let inside = offset.checked_add(wide(target.len())).is_some_and(|end| end <= self.len);
        if !inside || state.position != offset {
            return Err(no_such_bytes("the reader", offset, target.len(), self.len));
        }
        let mut rest = target;
        while !rest.is_empty() {
            match state.reader.read(rest) {
                Ok(0) => {
                    let found = state.position;
                    let name = "the reader".to_owned();
                    return Err(SourceError::Short { name, declared: self.len, found });
                }
                Ok(count) => {
                    let Some(left) = core::mem::take(&mut rest).get_mut(count..) else {
                        let lie = io::Error::other("it reports more bytes than it was asked for");
                        return Err(SourceError::io("the reader", lie));
                    };
                    rest = left;
                    state.position = state.position.saturating_add(wide(count));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SourceError::io("the reader", error)),
            }
        }
        Ok(())
    }

    fn access(&self) -> Access {
        Access::Sequential
    }

    fn file_state(&self) -> Option<FileState> {
        self.file.as_ref().map(|file| file.state)
    }

    fn finish(&self) -> Result<(), SourceError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut one_more = [0_u8; 1];
        loop {
            match state.reader.read(&mut one_more) {
                Ok(0) => break,
                Ok(_) => {
                    let name = "the reader".to_owned();
                    return Err(SourceError::Long { name, declared: self.len });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SourceError::io("the reader", error)),
            }
        }
        let Some(OfFile { name, state: before, now }) = &self.file else { return Ok(()) };
        let now = now(&state.reader).map_err(|error| SourceError::io(name, error))?;
        before.check_state(&now, name)
    }
}
