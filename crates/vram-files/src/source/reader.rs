//! A reader as a source: read once, in order, to a declared length.

use core::fmt;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use super::{Access, Source, SourceError, no_such_bytes, wide};

/// Any value that implements [`Read`], with a length declared in advance.
///
/// The call reads it once, in order. A reader that ends early or goes on after its declared length
/// is refused. Interrupted reads are repeated.
pub struct ReaderSource<R> {
    len: u64,
    state: Mutex<ReaderState<R>>,
}

struct ReaderState<R> {
    reader: R,
    position: u64,
}

impl<R: Read + Send> ReaderSource<R> {
    /// A source of exactly `len` bytes, read from `reader`.
    #[must_use]
    pub const fn new(reader: R, len: u64) -> Self {
        Self { len, state: Mutex::new(ReaderState { reader, position: 0 }) }
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

    fn finish(&self) -> Result<(), SourceError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut one_more = [0_u8; 1];
        loop {
            match state.reader.read(&mut one_more) {
                Ok(0) => return Ok(()),
                Ok(_) => {
                    let name = "the reader".to_owned();
                    return Err(SourceError::Long { name, declared: self.len });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SourceError::io("the reader", error)),
            }
        }
    }
}
