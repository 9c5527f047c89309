//! Where bytes to be sealed come from: slices, files, readers.
//!
//! No source maps a file into memory: a mapped file that is truncated kills the process, and its
//! pages change while they are read. Files are read by position, so that several threads read one
//! file without sharing a cursor.

mod direct;
pub(crate) mod file;
mod hash;
mod pool;
mod reader;
mod state;

use core::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;

use vram_alloc::ByteLen;

pub use file::FileSource;
pub use hash::HashInOrder;
pub use pool::FilePool;
pub use reader::ReaderSource;
pub use state::{FileDifference, FileState};

use crate::error::FileError;

/// Why a source did not return the bytes that it declared.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The source ended before its declared length.
    #[error("{name} ended after {found} of {declared} bytes")]
    Short {
        /// The name of the source.
        name: String,
        /// Bytes the source had declared.
        declared: u64,
        /// Bytes that it had. An upper bound, if it was shortened while being read.
        found: u64,
    },
    /// The source has bytes left after its declared length.
    #[error("{name} goes on after its declared length of {declared} bytes")]
    Long {
        /// The name of the source.
        name: String,
        /// Bytes the source had declared.
        declared: u64,
    },
    /// The file was written while it was read, or its name leads to another file now.
    #[error("{name} changed while it was read: {what}; read it again when nothing writes it")]
    Changed {
        /// The name of the source.
        name: String,
        /// What differs from its state before the first byte was read.
        what: FileDifference,
    },
    /// A read outside the source, or before the position of a sequential source.
    #[error("{name} cannot give {len} bytes at offset {offset} of {declared}")]
    NoSuchBytes {
        /// The name of the source.
        name: String,
        /// Offset of the read, in bytes from the start of the source.
        offset: u64,
        /// Length of the read, in bytes.
        len: u64,
        /// Bytes the source declared.
        declared: u64,
    },
    /// The file cannot be read by position.
    #[error("{name} is {found}, not a regular file")]
    NotAFile {
        /// The name of the source.
        name: String,
        /// The kind of file found.
        found: &'static str,
    },
    /// The operating system or the reader returned an error.
    #[error("{name}: {error}")]
    Io {
        /// The name of the source.
        name: String,
        /// The error.
        #[source]
        error: Arc<io::Error>,
    },
}

impl SourceError {
    /// Wraps an error of the operating system with the name of the source.
    #[must_use]
    pub fn io(name: impl Into<String>, error: io::Error) -> Self {
        Self::Io { name: name.into(), error: Arc::new(error) }
    }

    /// Returns true if the source may have changed, while it still has its length. A caller that
    /// knows the digest of all that it read, and finds it right, need not care.
    #[must_use]
    pub const fn is_change(&self) -> bool {
        matches!(self, Self::Changed { .. })
    }

    /// The error of a sealing call, with the model id of what it was sealing.
    #[must_use]
    pub fn while_sealing(self, model_id: &str) -> FileError {
        let (source_name, declared, found) = match self {
            Self::Short { name, declared, found } => (name, declared, found),
            // The call has looked at one byte beyond the declared length, no further.
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

/// The order in which a source can be read.
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
/// A sealing call does not trust a source to stay the same while it is read: the bytes sealed are
/// the bytes hashed, even if the source changes meanwhile.
pub trait Source: Sync {
    /// The number of bytes. The call asks once, before the first read.
    fn len(&self) -> u64;

    /// Fills `target` with the bytes that start at `offset`.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if the bytes cannot be read; the content of `target` is then unspecified.
    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), SourceError>;

    /// Returns true if the source has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The order in which the bytes can be read. Positional by default.
    fn access(&self) -> Access {
        Access::Positional
    }

    /// All bytes, if they lie in memory. They are not trusted to stay the same either: they are
    /// copied before they are hashed and sealed.
    fn as_slice(&self) -> Option<&[u8]> {
        None
    }

    /// The file that the bytes come from, if there is one: no output of the call replaces this
    /// file.
    fn as_file(&self) -> Option<&File> {
        None
    }

    /// The state in which that file was opened. By default the present state of
    /// [`as_file`](Self::as_file).
    fn file_state(&self) -> Option<FileState> {
        self.as_file().and_then(|file| FileState::of(file).ok())
    }

    /// The sealing call makes this once, after it has read the last byte. The source checks here
    /// whether its length has changed, whether it has more bytes than it declared, and last whether
    /// it changed otherwise ([`SourceError::Changed`]). The call ignores that last answer if it was
    /// given the digest of the content, and what it read has that digest.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if the source is not what it declared to be; the call then seals nothing.
    fn finish(&self) -> Result<(), SourceError> {
        Ok(())
    }
}

/// The methods of a pointer to a source: each is that of the source. A method that was forgotten
/// here would be the default one.
macro_rules! methods_of_what_it_points_to {
    () => {
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
        fn file_state(&self) -> Option<FileState> {
            S::file_state(self)
        }
        fn finish(&self) -> Result<(), SourceError> {
            S::finish(self)
        }
    };
}

impl<S: Source + Send + ?Sized> Source for Arc<S> {
    methods_of_what_it_points_to!();
}

impl<S: Source + ?Sized> Source for &S {
    methods_of_what_it_points_to!();
}

/// Bytes in memory.
#[derive(Clone, Copy)]
pub struct SliceSource<'a> {
    bytes: &'a [u8],
}

impl<'a> SliceSource<'a> {
    /// The bytes of `bytes`. Prefer a [`FileSource`] to a memory map: a process that writes the
    /// mapped file changes them while Rust assumes that they are constant. A seal of bytes that
    /// change meanwhile is refused, or is that of the bytes that were read.
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
