//! Where bytes to be sealed come from: slices, files, readers.
//!
//! Nothing here maps a file into memory: a mapped file that is truncated meanwhile kills the
//! process, and its pages change under the reader. Files are read by position, so that several
//! threads read one file without sharing a cursor.

pub(crate) mod file;
mod reader;

use core::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;

use vram_alloc::ByteLen;

pub use file::FileSource;
pub use reader::ReaderSource;

use crate::error::FileError;

/// Why a source did not give the bytes it promised.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The source ended before its declared length.
    #[error("{name} ended after {found} of {declared} bytes")]
    Short {
        /// What was read.
        name: String,
        /// Bytes the source had declared.
        declared: u64,
        /// Bytes it had: at most this many, when it was shortened while being read.
        found: u64,
    },
    /// The source has bytes left after its declared length.
    #[error("{name} goes on after its declared length of {declared} bytes")]
    Long {
        /// What was read.
        name: String,
        /// Bytes the source had declared.
        declared: u64,
    },
    /// A read that does not lie inside the source, or that a sequential source cannot go back to.
    #[error("{name} cannot give {len} bytes at offset {offset} of {declared}")]
    NoSuchBytes {
        /// What was read.
        name: String,
        /// Offset asked for, in bytes from the start of the source.
        offset: u64,
        /// Bytes asked for.
        len: u64,
        /// Bytes the source declared.
        declared: u64,
    },
    /// Not something that can be read by position.
    #[error("{name} is {found}, not a regular file")]
    NotAFile {
        /// What was opened.
        name: String,
        /// What it is.
        found: &'static str,
    },
    /// The operating system, or the reader, refused.
    #[error("{name}: {error}")]
    Io {
        /// What was read.
        name: String,
        /// The refusal.
        #[source]
        error: Arc<io::Error>,
    },
}

impl SourceError {
    /// Wraps an error of the operating system with what was being read.
    #[must_use]
    pub fn io(name: impl Into<String>, error: io::Error) -> Self {
        Self::Io { name: name.into(), error: Arc::new(error) }
    }
}

impl SourceError {
    /// As a call that seals answers it, with what was being sealed.
    #[must_use]
    pub fn while_sealing(self, model_id: &str) -> FileError {
        let (source_name, declared, found) = match self {
            Self::Short { name, declared, found } => (name, declared, found),
            // One byte more is all that was looked at.
            Self::Long { name, declared } => (name, declared, declared.saturating_add(1)),
            other => return FileError::Source(other),
        };
        FileError::SourceLength {
            model_id: Arc::from(model_id),
            source_name,
            declared: ByteLen::new(declared),
            found: ByteLen::new(found),
        }
    }
}

impl From<io::Error> for SourceError {
    fn from(error: io::Error) -> Self {
        Self::io("source", error)
    }
}

/// In which order a source can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Any offset at any time, from several threads at once.
    Positional,
    /// Once, from the start to the end.
    Sequential,
}

/// A fixed number of bytes to seal.
///
/// A source need not be trusted to stay the same while it is read: what is sealed is what was
/// hashed, whatever the source does meanwhile.
pub trait Source: Sync {
    /// Bytes there are. Asked once, before the first read.
    fn len(&self) -> u64;

    /// Fills `target` with the bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if the bytes cannot be had; what `target` holds then does not matter.
    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), SourceError>;

    /// Whether there is nothing to read.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In which order the bytes can be read; positional unless said otherwise.
    fn access(&self) -> Access {
        Access::Positional
    }

    /// All the bytes, if they lie in memory that nobody can change while it is borrowed.
    fn as_slice(&self) -> Option<&[u8]> {
        None
    }

    /// The file that the bytes come from, if there is one: what is written is never put in its
    /// place.
    fn as_file(&self) -> Option<&File> {
        None
    }

    /// Called once after the last byte was read: the place to notice that the source has changed
    /// its length, or has more bytes than it declared.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if the source is not what it declared to be; nothing is sealed then.
    fn finish(&self) -> Result<(), SourceError> {
        Ok(())
    }
}

impl<S: Source + Send + ?Sized> Source for Arc<S> {
    fn len(&self) -> u64 {
        S::len(self)
    }
    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        S::read_at(self, offset, target)
    }
    fn access(&self) -> Access {
        S::access(self)
    }
    fn as_slice(&self) -> Option<&[u8]> {
        S::as_slice(self)
    }
    fn as_file(&self) -> Option<&File> {
        S::as_file(self)
    }
    fn finish(&self) -> Result<(), SourceError> {
        S::finish(self)
    }
}

impl<S: Source + ?Sized> Source for &S {
    fn len(&self) -> u64 {
        S::len(self)
    }
    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        S::read_at(self, offset, target)
    }
    fn access(&self) -> Access {
        S::access(self)
    }
    fn as_slice(&self) -> Option<&[u8]> {
        S::as_slice(self)
    }
    fn as_file(&self) -> Option<&File> {
        S::as_file(self)
    }
    fn finish(&self) -> Result<(), SourceError> {
        S::finish(self)
    }
}

/// Bytes in memory.
#[derive(Clone, Copy)]
pub struct SliceSource<'a> {
    bytes: &'a [u8],
}

impl<'a> SliceSource<'a> {
    /// The bytes of `bytes`. They must not lie in a memory map: whoever writes the file would
    /// change them under Rust's feet.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }
}

impl fmt::Debug for SliceSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Content is never printed.
        f.debug_struct("SliceSource").field("len", &self.bytes.len()).finish()
    }
}

impl Source for SliceSource<'_> {
    fn len(&self) -> u64 {
        wide(self.bytes.len())
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        let wanted = usize::try_from(offset)
            .ok()
            .and_then(|start| start.checked_add(target.len()).map(|end| start..end))
            .and_then(|range| self.bytes.get(range));
        let Some(bytes) = wanted else {
            return Err(no_such_bytes("the slice", offset, target.len(), self.len()));
        };
        target.copy_from_slice(bytes);
        Ok(())
    }

    fn as_slice(&self) -> Option<&[u8]> {
        Some(self.bytes)
    }
}

pub(crate) fn no_such_bytes(
    name: impl Into<String>,
    offset: u64,
    len: usize,
    declared: u64,
) -> SourceError {
    SourceError::NoSuchBytes { name: name.into(), offset, len: wide(len), declared }
}

/// A length in memory as a 64-bit figure.
pub(crate) fn wide(len: usize) -> u64 {
    // No platform of Rust has a `usize` wider than 64 bits.
    u64::try_from(len).unwrap_or(u64::MAX)
}
