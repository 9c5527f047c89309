//! What can go wrong with a file, where, how much the caller asked for, and what would help.

use core::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_seal::{ContentDigest, KeyError, SealError};

use crate::source::SourceError;

/// Why a call on files was refused or failed.
///
/// A failed call leaves no file behind and replaces none. No variant carries content, keys or tags,
/// so every error can be logged as it is.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The call would exceed a configured limit.
    #[error("{what} is limited to {limit}, and {wanted} was asked for")]
    LimitExceeded {
        /// What is limited, with its unit.
        what: &'static str,
        /// The limit, inclusive.
        limit: u64,
        /// What the caller asked for.
        wanted: u64,
    },
    /// The source changed: a segment no longer has the bytes that were hashed before.
    #[error("the source of {model_id} changed in segment {segment} while it was being sealed")]
    SourceChanged {
        /// What was being sealed.
        model_id: Arc<str>,
        /// The segment that differs.
        segment: u64,
    },
    /// The source has another length than it declared.
    #[error("{source_name} declared {declared} and has {found}, while {model_id} was being sealed")]
    SourceLength {
        /// What was being sealed.
        model_id: Arc<str>,
        /// The name of the source.
        source_name: String,
        /// The length it declared.
        declared: ByteLen,
        /// The length at which it ended, or the length it has at least.
        found: ByteLen,
    },
    /// The source could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The content is not the one that the caller expected. A digest confirms guesses of the content
    /// to a reader of the log, even its beginning, so neither message nor `Debug` shows any of it.
    #[error("the content of {model_id} has another digest than expected")]
    DigestMismatch {
        /// What was being sealed or opened.
        model_id: Arc<str>,
        /// The digest that the caller named.
        expected: Box<ContentDigest>,
        /// The digest of the content found.
        found: Box<ContentDigest>,
    },
    /// The caller asked to stop.
    #[error("cancelled after {done} of {total}")]
    Cancelled {
        /// Bytes that the call had handled.
        done: ByteLen,
        /// Bytes that the call was to handle.
        total: ByteLen,
    },
    /// A file, a source or a target failed.
    #[error("{action}{}: {source}", Place(path.as_deref()))]
    Io {
        /// What the call was doing.
        action: &'static str,
        /// The file, if there is one.
        path: Option<PathBuf>,
        /// The error of the operating system.
        source: Arc<std::io::Error>,
    },
    /// A key could not be read, made or found.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A sealed image was refused.
    #[error("sealed image {}: {source}", path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<SealError>,
    },
    /// The seal refused its input.
    #[error(transparent)]
    Seal(SealError),
    /// The host has no memory for the answer or for a buffer.
    #[error("the host has no memory for {wanted}")]
    HostMemory {
        /// Bytes that the call asked for.
        wanted: ByteLen,
    },
    /// The call's arguments or options do not fit together.
    #[error("configuration: {what}")]
    Config {
        /// What is wrong, and what would be right.
        what: String,
    },
}

impl FileError {
    /// Returns true if bytes or a record are not what was sealed or expected.
    #[must_use]
    pub const fn is_integrity(&self) -> bool {
        match self {
            Self::SourceChanged { .. } | Self::DigestMismatch { .. } => true,
            Self::Source(error) => error.is_change(),
            Self::Seal(error) => error.is_integrity(),
            Self::Image { source, .. } => source.is_integrity(),
            _ => false,
        }
    }

    pub(crate) fn config(what: impl Into<String>) -> Self {
        Self::Config { what: what.into() }
    }
}

impl From<SealError> for FileError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Key(error) => Self::Key(error),
            SealError::HostMemory { wanted } => Self::HostMemory { wanted },
            other => Self::Seal(other),
        }
    }
}

struct Place<'a>(Option<&'a Path>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(path) => write!(f, " {}", path.display()),
            None => Ok(()),
        }
    }
}
