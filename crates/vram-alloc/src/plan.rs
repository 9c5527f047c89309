//! The pieces of a model, as its file headers declare them, and their sizes in bytes.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::tensor::{SizeError, TensorFormat, tensor_bytes};
use crate::units::{Alignment, ByteLen};

/// The most pieces in one plan: far more than any model has, far fewer than would exhaust a host.
pub const PIECE_COUNT_MAX: usize = 1 << 20;

/// One run of bytes of a model file that becomes one shard: a tensor, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Piece {
    /// Name of the tensor.
    pub name: String,
    /// The number of the model's file, from 0.
    pub file: u32,
    /// Offset of the bytes in that file.
    pub source_offset: u64,
    /// Number of bytes.
    pub len: ByteLen,
    /// The part of the tensor, from 0.
    pub part: u32,
    /// Number of parts of the tensor, 1 for a whole one.
    pub part_count: u32,
    /// How the tensor is stored, if that is known.
    pub format: Option<TensorFormat>,
    /// Shape of the whole tensor, the last dimension varying fastest; it has no meaning without a
    /// format.
    pub shape: Vec<u64>,
}

impl Piece {
    /// A whole tensor of `len` bytes at `source_offset` of file number `file`.
    #[must_use]
    pub fn new(name: impl Into<String>, file: u32, source_offset: u64, len: ByteLen) -> Self {
        let name = name.into();
        let (part, part_count, format, shape) = (0, 1, None, Vec::new());
        Self { name, file, source_offset, len, part, part_count, format, shape }
    }

    /// Sets how the tensor is stored, so that a plan can check its length.
    #[must_use]
    pub fn stored_as(mut self, format: TensorFormat, shape: impl Into<Vec<u64>>) -> Self {
        self.format = Some(format);
        self.shape = shape.into();
        self
    }

    /// Marks this as part number `part` of `part_count`.
    #[must_use]
    pub fn part_of(mut self, part: u32, part_count: u32) -> Self {
        self.part = part;
        self.part_count = part_count;
        self
    }

    /// Bytes taken from a region: the length in whole granules, or `None` on overflow.
    fn footprint(&self) -> Option<ByteLen> {
        self.len.round_up(Alignment::GRANULE)
    }

    /// Checks a piece on its own.
    fn check(&self) -> Result<(), PlanError> {
        let name = || self.name.clone();
        if self.source_offset.checked_add(self.len.get()).is_none() {
            let (offset, len) = (self.source_offset, self.len);
            return Err(PlanError::SourceOverflow { name: name(), offset, len });
        }
        if self.part >= self.part_count {
            let (part, part_count) = (self.part, self.part_count);
            return Err(PlanError::NoSuchPart { name: name(), part, part_count });
        }
        if let Some(format) = self.format {
            let expected = tensor_bytes(format, &self.shape)
                .map_err(|error| PlanError::Size { name: name(), error })?;
            let agrees =
                if self.part_count == 1 { self.len == expected } else { self.len <= expected };
            if !agrees {
                return Err(PlanError::LengthMismatch { name: name(), len: self.len, expected });
            }
        }
        Ok(())
    }

    /// Cuts the piece into parts of `max` bytes; the last one may be shorter.
    fn cut(self, max: ByteLen, part_count: u32) -> impl Iterator<Item = Self> {
        (0..part_count).map(move |part| {
            // Inside the piece, because of how `part_count` was computed, so nothing saturates.
            let skipped = max.get().saturating_mul(u64::from(part));
            Self {
                source_offset: self.source_offset.saturating_add(skipped),
                len: self.len.saturating_sub(ByteLen::new(skipped)).min(max),
                part,
                part_count,
                ..self.clone()
            }
        })
    }
}

/// Why pieces do not make a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Two pieces have the same name and part.
    #[error("part {part} of tensor {name:?} is there twice")]
    Duplicate {
        /// Name of the tensor.
        name: String,
        /// The part, from 0.
        part: u32,
    },
    /// A part's number is not below the number of parts.
    #[error("tensor {name:?} has {part_count} parts and none with number {part}")]
    NoSuchPart {
        /// Name of the tensor.
        name: String,
        /// The part, from 0.
        part: u32,
        /// Number of parts that the piece states.
        part_count: u32,
    },
    /// Format and shape have no size.
    #[error("tensor {name:?}: {error}")]
    Size {
        /// Name of the tensor.
        name: String,
        /// What is wrong with its shape.
        error: SizeError,
    },
    /// The length differs from that of format and shape.
    #[error("tensor {name:?} has {} bytes, its format and shape say {}", len.get(), expected.get())]
    LengthMismatch {
        /// Name of the tensor.
        name: String,
        /// The piece's length.
        len: ByteLen,
        /// The size of the whole tensor.
        expected: ByteLen,
    },
    /// The piece ends after byte 2⁶⁴ − 1 of its file.
    #[error("tensor {name:?}: {} bytes at offset {offset} end beyond 2^64 - 1", len.get())]
    SourceOverflow {
        /// Name of the tensor.
        name: String,
        /// Offset of the piece in its file.
        offset: u64,
        /// The piece's length.
        len: ByteLen,
    },
    /// The pieces together are more than 2⁶⁴ − 1 bytes.
    #[error("the pieces up to tensor {name:?} are more than 2^64 - 1 bytes")]
    TooLarge {
        /// The tensor at which the sum overflowed.
        name: String,
    },
    /// The plan would have more pieces than [`PIECE_COUNT_MAX`].
    #[error("{count} pieces are more than {max}", max = PIECE_COUNT_MAX)]
    TooManyPieces {
        /// The number of pieces, at least.
        count: u64,
    },
    /// The caller asked for pieces below one granule.
    #[error("pieces of at most {} bytes are smaller than 256 bytes", max.get())]
    MaxTooSmall {
        /// The largest piece that the caller asked for.
        max: ByteLen,
    },
    /// A part of a tensor cannot be cut again; cut the whole tensor instead.
    #[error("part {part} of tensor {name:?} has {} bytes and cannot be cut again", len.get())]
    AlreadyCut {
        /// Name of the tensor.
        name: String,
        /// The part, from 0.
        part: u32,
        /// The part's length.
        len: ByteLen,
    },
}

/// All pieces of a model, checked as a whole, with their sums. May be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Vec<Piece>", into = "Vec<Piece>")
)]
pub struct ModelPlan {
    // Shared: a clone of a plan of a million pieces costs no copy of them.
    pieces: Arc<[Piece]>,
    total: ByteLen,
    footprint: ByteLen,
    largest: ByteLen,
}

impl ModelPlan {
    /// Checks the pieces and adds them up. Their order stays: it is the order of placement.
    ///
    /// # Errors
    ///
    /// A [`PlanError`] for the first piece that is wrong by itself, occurs twice, or makes the sum
    /// overflow; [`PlanError::TooManyPieces`] above [`PIECE_COUNT_MAX`].
    pub fn new(pieces: impl IntoIterator<Item = Piece>) -> Result<Self, PlanError> {
        // Take one piece more than allowed and no further: the iterator may be endless.
        let pieces: Vec<_> = pieces.into_iter().take(PIECE_COUNT_MAX.saturating_add(1)).collect();
        if pieces.len() > PIECE_COUNT_MAX {
            return Err(too_many(ByteLen::from_usize(pieces.len()).get()));
        }
        let mut plan = Self::default();
        let mut seen = BTreeSet::new();
        for piece in &pieces {
            piece.check()?;
            if !seen.insert((piece.name.as_str(), piece.part)) {
                return Err(PlanError::Duplicate { name: piece.name.clone(), part: piece.part });
            }
            let too_large = || PlanError::TooLarge { name: piece.name.clone() };
            let footprint = piece.footprint().ok_or_else(too_large)?;
            plan.footprint = plan.footprint.checked_add(footprint).ok_or_else(too_large)?;
            plan.total = plan.total.checked_add(piece.len).ok_or_else(too_large)?;
            plan.largest = plan.largest.max(piece.len);
        }
        drop(seen);
        plan.pieces = pieces.into();
        Ok(plan)
    }

    /// The pieces, in the order in which they are placed.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Bytes of content.
    #[must_use]
    pub fn total(&self) -> ByteLen {
        self.total
    }

    /// Bytes taken from a region: every piece in whole granules of 256 bytes. At most 255 bytes
    /// more than the pieces really take, since a region's last granule may be short.
    #[must_use]
    pub fn footprint(&self) -> ByteLen {
        self.footprint
    }

    /// Length of the largest piece; zero for an empty plan.
    #[must_use]
    pub fn largest(&self) -> ByteLen {
        self.largest
    }

    /// Returns true if the plan has no pieces.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The same model in pieces of at most `max_piece` bytes: smaller pieces find room in a
    /// fragmented region where large ones do not. Parts of a tensor follow one another; the cuts
    /// lie at multiples of `max_piece` rounded down to the granule, so that none is wasted.
    ///
    /// # Arguments
    ///
    /// * `max_piece`: 256 bytes or more; 64 MiB is a good choice.
    ///
    /// # Errors
    ///
    /// [`PlanError::MaxTooSmall`] below 256 bytes, [`PlanError::AlreadyCut`] if a part would have
    /// to be cut again, [`PlanError::TooManyPieces`] above [`PIECE_COUNT_MAX`].
    pub fn split(&self, max_piece: ByteLen) -> Result<Self, PlanError> {
        let granule = Alignment::GRANULE.get();
        let max = ByteLen::new(max_piece.get() & !granule.wrapping_sub(1));
        if max.is_zero() {
            return Err(PlanError::MaxTooSmall { max: max_piece });
        }
        // Count before cutting: a hostile length must not use up host memory.
        let mut counts = Vec::with_capacity(self.pieces.len());
        let mut piece_count = 0_u64;
        for piece in &*self.pieces {
            let count =
                if piece.len <= max_piece { 1 } else { piece.len.get().div_ceil(max.get()) };
            if count > 1 && piece.part_count > 1 {
                let (name, part, len) = (piece.name.clone(), piece.part, piece.len);
                return Err(PlanError::AlreadyCut { name, part, len });
            }
            piece_count = piece_count.saturating_add(count);
            if piece_count > ByteLen::from_usize(PIECE_COUNT_MAX).get() {
                return Err(too_many(piece_count));
            }
            counts.push(u32::try_from(count).map_err(|_too_large| too_many(count))?);
        }
        let mut pieces = Vec::new();
        for (piece, count) in self.pieces.iter().zip(counts) {
            if count == 1 {
                pieces.push(piece.clone());
            } else {
                pieces.extend(piece.clone().cut(max, count));
            }
        }
        Self::new(pieces)
    }

    /// Numbers of all files that the plan reads from, ascending.
    #[must_use]
    pub fn files(&self) -> Vec<u32> {
        let files: BTreeSet<_> = self.pieces.iter().map(|piece| piece.file).collect();
        files.into_iter().collect()
    }
}

fn too_many(count: u64) -> PlanError {
    PlanError::TooManyPieces { count }
}

impl TryFrom<Vec<Piece>> for ModelPlan {
    type Error = PlanError;

    fn try_from(pieces: Vec<Piece>) -> Result<Self, Self::Error> {
        Self::new(pieces)
    }
}

impl From<ModelPlan> for Vec<Piece> {
    fn from(plan: ModelPlan) -> Self {
        plan.pieces.to_vec()
    }
}
