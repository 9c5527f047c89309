//! PTX, parsed strictly and run on the device's memory.
//!
//! A warp runs in lockstep: an instruction is decoded once for its 32 lanes. Lanes that part at a branch
//! run in groups, the one that is furthest behind first, until they meet again. Every access is checked:
//! global memory to the byte, shared memory also for races between barriers.

#![expect(
    clippy::indexing_slicing,
    reason = "registers and targets were numbered by the decoder; lanes are below 32"
)]
#![expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "machine words of a machine with wrapping arithmetic"
)]
#![expect(
    clippy::arithmetic_side_effects,
    reason = "positions in tables; what PTX computes is computed with wrapping operations"
)]

mod alu;
mod block;
mod compact;
mod decode;
mod global;
mod image;
mod instruction;
mod matrix;
mod names;
mod operand;
mod shared;
mod warp;

use crate::report::MisuseKind;

pub(crate) use self::block::{Rules, run};
pub(crate) use self::global::{Damage, Global};
pub(crate) use self::image::{Image, read_image};
pub(crate) use self::instruction::Kernel;

/// The most instructions of one warp in a block, if a test sets no other limit. Far more than
/// any kernel needs: what runs on is an endless loop.
pub(crate) const MOST_STEPS: u64 = 1 << 26;

/// Lanes of a warp.
const LANES: usize = 32;

/// Why a launch ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trap {
    /// The driver's code.
    pub(crate) code: u32,
    pub(crate) kind: MisuseKind,
    pub(crate) detail: String,
}
