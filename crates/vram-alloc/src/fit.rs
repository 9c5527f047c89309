//! Computes whether a model would fit, before a byte of it is loaded.

use alloc::string::String;
use core::fmt;

use crate::arena::Arena;
use crate::plan::ModelPlan;
use crate::units::{Alignment, ByteLen};

/// Whether a model fits one GPU, and what is short if it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fit {
    /// Every piece finds a hole, and there is room for all of them together.
    Fits {
        /// Bytes that placing the model would take, to the byte.
        footprint: ByteLen,
    },
    /// The model does not fit.
    ShortOf {
        /// Bytes that are needed in one piece, or by the whole model if `piece` is `None`.
        needed: ByteLen,
        /// Bytes that the ledger would grant now.
        room: ByteLen,
        /// The largest hole left for the piece, or the largest one now if `piece` is `None`.
        largest_hole: ByteLen,
        /// The first piece that finds no hole: its position in the plan.
        piece: Option<usize>,
        /// Name of that piece's tensor; empty if `piece` is `None`.
        name: String,
    },
}

impl Fit {
    /// Returns true if the model fits.
    #[must_use]
    pub fn is_yes(&self) -> bool {
        matches!(self, Self::Fits { .. })
    }
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fits { footprint } => write!(f, "it fits and takes {footprint}"),
            Self::ShortOf { needed, room, largest_hole, piece: Some(_), name } => write!(
                f,
                "tensor {name:?} needs {needed} in one piece, the largest hole left is \
                 {largest_hole} (room {room})"
            ),
            Self::ShortOf { needed, room, .. } => {
                write!(f, "the model needs {needed}, there is room for {room}")
            }
        }
    }
}

/// Places the whole plan in a dry run, in order, and compares the sum with `room`.
///
/// # Arguments
///
/// * `plan`: the model.
/// * `arena`: the arena of the region; it does not change.
/// * `room`: bytes that the ledger would grant, [`Capacity::room`](crate::Capacity::room).
/// * `align`: alignment of every piece.
///
/// # Returns
///
/// [`Fit::Fits`] exactly if placing the pieces next, in this order, and reserving what they take
/// would succeed. If the model is too large as a whole, the answer says so, and names no piece.
#[must_use]
pub fn fits(plan: &ModelPlan, arena: &Arena, room: ByteLen, align: Alignment) -> Fit {
    let whole = |needed| Fit::ShortOf {
        needed,
        room,
        largest_hole: arena.report().largest_hole,
        piece: None,
        name: String::new(),
    };
    // The end of the region can cut only one footprint, by less than a granule.
    let slack = ByteLen::new(Alignment::GRANULE.get().saturating_sub(1));
    if plan.footprint().saturating_sub(slack) > room {
        return whole(plan.footprint());
    }
    let mut dry_run = arena.clone();
    for (index, piece) in plan.pieces().iter().enumerate() {
        if dry_run.place(piece.len, align).is_err() {
            return Fit::ShortOf {
                needed: piece.len,
                room,
                largest_hole: dry_run.report().largest_hole,
                piece: Some(index),
                name: piece.name.clone(),
            };
        }
    }
    let footprint = dry_run.report().used.saturating_sub(arena.report().used);
    if footprint > room { whole(footprint) } else { Fit::Fits { footprint } }
}
