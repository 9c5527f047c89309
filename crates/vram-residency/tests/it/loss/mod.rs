//! Losing a device and resetting it: shards that are lost, shards that are restored from copies,
//! and other GPUs, which are not affected.

mod backups;
mod empty;
mod images;
mod listed;
mod lives;
mod models;
mod races;
mod refused;
mod reset;
mod restored;
mod winding_up;

use vram_residency::{MemoryMode, Protection, SealedShard, VramError, VramManagerBuilder};
use vram_test_rigs::{Rig, SEGMENT, content};

pub(crate) const MODES: [MemoryMode; 2] = [MemoryMode::Region, MemoryMode::Blocks];
pub(crate) const KINDS: [Protection; 2] = [Protection::Encrypted, Protection::Authenticated];
const TOTAL: usize = 32 * SEGMENT;
pub(crate) const LEN: usize = 5 * SEGMENT + 9;
/// Bytes that a shard of this length occupies.
const TAKEN: u64 = 20_736;

/// Uncorrectable ECC.
const ECC: u32 = 214;

/// Two GPUs, each behind a fault device, in either memory mode.
pub(crate) fn two_gpus(mode: MemoryMode) -> Rig {
    two_gpus_with(mode, |builder| builder)
}

fn two_gpus_with(
    mode: MemoryMode,
    also: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder,
) -> Rig {
    Rig::in_mode(mode, &[TOTAL; 2], also)
}

pub(crate) fn seal(rig: &Rig, gpu: u32, protection: Protection, seed: u64) -> SealedShard {
    rig.seal(gpu, protection, &content(LEN, seed))
}

#[expect(clippy::needless_pass_by_value, reason = "an answer is looked at once")]
pub(crate) fn is_lost<T>(result: Result<T, VramError>) -> bool {
    matches!(result, Err(VramError::DeviceLost { gpu: 0, .. }))
}

#[expect(clippy::needless_pass_by_value, reason = "an answer is looked at once")]
pub(crate) fn is_stale<T>(result: Result<T, VramError>) -> bool {
    matches!(result, Err(VramError::StaleHandle { .. }))
}

#[expect(clippy::needless_pass_by_value, reason = "an answer is looked at once")]
pub(crate) fn is_freed<T>(result: Result<T, VramError>) -> bool {
    matches!(result, Err(VramError::ShardFreed { .. }))
}
