//! What can go wrong with a store: which source, which object, which part, and what would help.

use core::fmt;
use core::time::Duration;
use std::path::PathBuf;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_files::FileError;
use vram_seal::SealError;

use crate::manifest::{ManifestError, short};
use crate::naming::id::{ImageId, ManifestId};

/// The part of an object that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The length of the object.
    Length {
        /// Bytes that it should have.
        expected: u64,
        /// Bytes that the source says or sent.
        found: u64,
    },
    /// The record at the start of an image.
    Record,
    /// The zeros between table and data.
    Padding,
    /// The table of segments.
    Table,
    /// A segment of the content, numbered from 0.
    Segment(u64),
    /// The content as a whole, though each of its segments has a good code.
    Content,
    /// A part of 8 MiB of the image file, numbered from 0: found without the key.
    FilePart(u64),
    /// The digests of the parts.
    Parts,
    /// The bytes of a manifest.
    Manifest,
}

impl Part {
    /// The part that an error of the seal is about; `None` if it is no altered part.
    #[must_use]
    pub const fn altered(error: &SealError) -> Option<Self> {
        match error {
            SealError::SegmentMismatch { segment } => Some(Self::Segment(*segment)),
            SealError::TableMismatch => Some(Self::Table),
            SealError::RecordMismatch => Some(Self::Record),
            SealError::Padding { .. } => Some(Self::Padding),
            SealError::DigestMismatch => Some(Self::Content),
            SealError::WrongLength { expected, found, .. } => {
                Some(Self::Length { expected: *expected, found: *found })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { expected, found } => {
                write!(f, "the length is {found} bytes and not {expected}")
            }
            Self::Record => f.write_str("the record is not the one that the manifest names"),
            Self::Padding => f.write_str("the padding is not zeros"),
            Self::Table => f.write_str("the table is not the one of the record"),
            Self::Segment(segment) => write!(f, "segment {segment} was altered"),
            Self::Content => f.write_str("the content is not the one of the record"),
            Self::FilePart(part) => {
                let at = part.saturating_mul(crate::naming::parts::PART_LEN);
                write!(f, "part {part} was altered (8 MiB at {at})")
            }
            Self::Parts => f.write_str("the digests of the parts are not those of the image"),
            Self::Manifest => f.write_str("the manifest is not the one of its name"),
        }
    }
}

/// A source that gave other bytes than those that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lie {
    /// The source.
    pub source: Arc<str>,
    /// The model whose manifest names the image.
    pub model: Arc<str>,
    /// The image.
    pub image: ImageId,
    /// What is wrong.
    pub part: Part,
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: image {}: {}", self.source, short(self.image.as_bytes()), self.part)
    }
}

/// What has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Room {
    /// The limit of a cache.
    Limit,
    /// The disk.
    Disk,
}

/// Why one source did not give an image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// It gave wrong bytes.
    Lied(Lie),
    /// It has no such object.
    Absent {
        /// The source.
        source: Arc<str>,
    },
    /// It could not be read.
    Failed {
        /// The source.
        source: Arc<str>,
        /// Why, without credentials.
        why: String,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lied(lie) => lie.fmt(f),
            Self::Absent { source } => write!(f, "{source}: it is not there"),
            Self::Failed { source, why } => write!(f, "{source}: {why}"),
        }
    }
}

/// Why a call on a store was refused or failed. No variant carries a credential, a key or content.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The address of a store cannot be used.
    #[error("the store {address}: {why}")]
    Address {
        /// The address, without credentials.
        address: String,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// The store has no such object.
    #[error("{store} has no {what}")]
    NotFound {
        /// The store.
        store: Arc<str>,
        /// What was looked for.
        what: String,
    },
    /// Several manifests of one revision and one key: only a pin can choose.
    #[error(
        "revision {revision} of {model} has several manifests under this key: {}; name one by its \
         digest",
        List(manifests)
    )]
    Ambiguous {
        /// The model.
        model: String,
        /// The revision.
        revision: u64,
        /// The manifests.
        manifests: Vec<ManifestId>,
    },
    /// The revision was pushed before, with other content.
    #[error("revision {revision} of {model} is there with other content (manifest {manifest})")]
    Taken {
        /// The model.
        model: String,
        /// The revision.
        revision: u64,
        /// The manifest that is there.
        manifest: Box<ManifestId>,
    },
    /// Two pushes wrote other content of one revision at the same time. Both manifests are there.
    #[error(
        "revision {revision} of {model} was pushed with other content at the same time, and readers without \
         a pin take neither: {}",
        List(keys)
    )]
    Rivals {
        /// The model.
        model: String,
        /// The revision.
        revision: u64,
        /// The keys of the manifests, this push's first.
        keys: Vec<String>,
    },
    /// A manifest was refused.
    #[error("{store}: manifest {id}: {source}")]
    Manifest {
        /// The store.
        store: Arc<str>,
        /// The manifest.
        id: Box<ManifestId>,
        /// What is wrong with it.
        source: Box<ManifestError>,
    },
    /// No source gave the image: each one with its reason.
    #[error("no source has {what}: {}", List(causes))]
    NoSource {
        /// What was to be read.
        what: String,
        /// One reason or more for each source.
        causes: Vec<Cause>,
    },
    /// What was read back is not what was written.
    #[error("{store} did not keep {what}; nothing names it")]
    NotKept {
        /// The store.
        store: Arc<str>,
        /// What was written.
        what: String,
    },
    /// A push waited for a collection that did not end. The manifest is written; images may be missing.
    #[error("{store}: a collection deletes there still after {waited:?}, by its mark {mark}")]
    Collecting {
        /// The store.
        store: Arc<str>,
        /// The key of the mark.
        mark: String,
        /// How long the push waited.
        waited: Duration,
    },
    /// A request failed for good.
    #[error("{store}: {action}: {why}")]
    Failed {
        /// The store.
        store: Arc<str>,
        /// What was to be done.
        action: String,
        /// Why, without credentials.
        why: String,
    },
    /// The time for the whole call is over.
    #[error(
        "not finished within {within:?}{}{}; what was fetched into a folder is kept for the next try",
        if sources.is_empty() { "" } else { ": " },
        List(sources)
    )]
    Deadline {
        /// The time that the call had.
        within: Duration,
        /// What came of each source until then, in the order in which they are asked.
        sources: Vec<Cause>,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The cache folder, or the disk under the target, has no room.
    #[error("{} has room for {room}, and {needed} are needed", folder.display())]
    NoRoom {
        /// What has no room.
        of: Room,
        /// The folder.
        folder: PathBuf,
        /// Bytes that were needed.
        needed: ByteLen,
        /// Bytes that can be had.
        room: ByteLen,
    },
    /// A file lies where an image is to be written, and is not that image. Nothing was changed.
    #[error("{} is there, and is not image {}", path.display(), short(image.as_bytes()))]
    InTheWay {
        /// The file.
        path: PathBuf,
        /// The image that it would have to be.
        image: ImageId,
    },
    /// A file on this machine.
    #[error(transparent)]
    File(#[from] FileError),
    /// The seal refused its input.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The caller's arguments do not fit together.
    #[error("{what}")]
    Config {
        /// What is wrong, and what would be right.
        what: String,
    },
}

impl StoreError {
    /// Returns true if bytes are not what was sealed, pushed or pinned.
    #[must_use]
    pub fn is_integrity(&self) -> bool {
        match self {
            Self::NoSource { causes, .. } => {
                causes.iter().any(|cause| matches!(cause, Cause::Lied(_)))
            }
            Self::Manifest { source, .. } => source.is_wrong(),
            Self::NotKept { .. } => true,
            Self::File(error) => error.is_integrity(),
            Self::Seal(error) => error.is_integrity(),
            _ => false,
        }
    }

    pub(crate) fn config(what: impl Into<String>) -> Self {
        Self::Config { what: what.into() }
    }

    /// An error of the operating system on a local file.
    pub(crate) fn io(action: &'static str, path: &std::path::Path, error: std::io::Error) -> Self {
        let path = Some(path.to_path_buf());
        Self::File(FileError::Io { action, path, source: Arc::new(error) })
    }
}

struct List<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, one) in self.0.iter().enumerate() {
            let between = if at == 0 { "" } else { "; " };
            write!(f, "{between}{one}")?;
        }
        Ok(())
    }
}
