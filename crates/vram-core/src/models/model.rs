//! A model as many shards: the source of its pieces, and the shards that they became.

use core::fmt;
use std::sync::Arc;

use vram_alloc::{ByteLen, Piece};
use vram_files::{FileSource, Source, SourceError};

use crate::shard::SealedShard;

/// The files of a model, by the numbers that its plan uses.
///
/// Implemented for slices and vectors of any [`Source`] that can be read by position, such as
/// [`FileSource`].
pub trait ModelSource: Sync {
    /// Fills `target` with the bytes of file number `file`, from `offset` on.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if there is no such file, or the bytes cannot be read.
    fn read_at(&self, file: u32, offset: u64, target: &mut [u8]) -> Result<(), SourceError>;

    /// Called once, after the last byte of the last piece was read.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if a file changed; no shard is resident then.
    fn finish(&self) -> Result<(), SourceError> {
        Ok(())
    }
}

impl<S: Source> ModelSource for [S] {
    fn read_at(&self, file: u32, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        let source = usize::try_from(file).ok().and_then(|file| self.get(file));
        match source {
            Some(source) => source.read_at(offset, target),
            None => Err(SourceError::NoSuchBytes {
                name: format!("file {file} of {}", self.len()),
                offset,
                len: ByteLen::from_usize(target.len()).get(),
                declared: 0,
            }),
        }
    }

    fn finish(&self) -> Result<(), SourceError> {
        self.iter().try_for_each(Source::finish)
    }
}

impl<S: Source> ModelSource for Vec<S> {
    fn read_at(&self, file: u32, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        self.as_slice().read_at(file, offset, target)
    }

    fn finish(&self) -> Result<(), SourceError> {
        self.as_slice().finish()
    }
}

/// A model that consists of one file.
impl ModelSource for FileSource {
    fn read_at(&self, file: u32, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        core::slice::from_ref(self).read_at(file, offset, target)
    }

    fn finish(&self) -> Result<(), SourceError> {
        Source::finish(self)
    }
}

/// One piece of a plan, as a source of its own: what repairs the piece's shard.
#[derive(Clone, Copy)]
pub struct PieceSource<'m> {
    model: &'m dyn ModelSource,
    piece: &'m Piece,
}

impl<'m> PieceSource<'m> {
    /// The bytes of `piece` in the files of `model`.
    #[must_use]
    pub const fn new(model: &'m dyn ModelSource, piece: &'m Piece) -> Self {
        Self { model, piece }
    }
}

impl fmt::Debug for PieceSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PieceSource").field("piece", self.piece).finish_non_exhaustive()
    }
}

impl Source for PieceSource<'_> {
    fn len(&self) -> u64 {
        self.piece.len.get()
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        let position = self.piece.source_offset.checked_add(offset);
        let position = position.ok_or_else(|| SourceError::NoSuchBytes {
            name: self.piece.name.clone(),
            offset,
            len: ByteLen::from_usize(target.len()).get(),
            declared: self.piece.len.get(),
        })?;
        self.model.read_at(self.piece.file, position, target)
    }
}

/// A model that is resident: one shard for each piece of its plan, in the plan's order.
///
/// Like the handles in it, it holds no pointer and no secret, and dropping it frees nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ModelHandle {
    /// The model that the shards were sealed as.
    pub model_id: Arc<str>,
    /// Its pieces, in the order of the plan.
    pub pieces: Vec<ModelPiece>,
}

/// A piece of a plan, and the shard that it became.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ModelPiece {
    /// The piece in the plan: its tensor, its position in the file, its length.
    pub piece: Piece,
    /// The handle of its shard.
    pub shard: SealedShard,
}

impl ModelHandle {
    /// The handles of all shards, in the order of the plan.
    pub fn shards(&self) -> impl Iterator<Item = &SealedShard> {
        self.pieces.iter().map(|piece| &piece.shard)
    }

    /// The pieces of one tensor, in the order of the plan; none if the model has no such tensor.
    pub fn tensor(&self, name: &str) -> impl Iterator<Item = &ModelPiece> {
        self.pieces.iter().filter(move |piece| piece.piece.name == name)
    }

    /// The number of bytes of content.
    #[must_use]
    pub fn total(&self) -> ByteLen {
        let add = |sum: ByteLen, piece: &ModelPiece| sum.saturating_add(piece.piece.len);
        self.pieces.iter().fold(ByteLen::ZERO, add)
    }
}
