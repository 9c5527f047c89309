//! What the rounds of a soak share: freeing, noting what was found, contents.

use core::time::Duration;
use std::time::Instant;

use vram_residency::{ByteLen, SealedShard, VramError};

use super::rounds::Rounds;
use super::tally::{Alteration, Step};
use crate::failure::{Failure, Kind};

impl Rounds<'_> {
    /// Frees one shard in `share`, drawn at random; all of them for 1.
    pub(super) fn free(&mut self, share: u64) -> Result<(), Failure> {
        let mut kept = Vec::new();
        for resident in core::mem::take(&mut self.residents) {
            if share > 1 && self.dice.below(share) > 0 {
                kept.push(resident);
                continue;
            }
            self.show(Step::Free);
            self.drop_shard(&resident.shard)?;
        }
        self.residents = kept;
        Ok(())
    }

    /// A number below `count`; 0 if there is none.
    pub(super) fn pick(&mut self, count: usize) -> usize {
        let below = self.dice.below(u64::try_from(count).unwrap_or(u64::MAX));
        usize::try_from(below).unwrap_or_default()
    }

    /// Where a shard lies on its device.
    pub(super) fn place(&self, shard: &SealedShard) -> Option<u64> {
        let shards = self.manager.report().shards;
        let report = shards.into_iter().find(|report| report.shard_id == shard.shard_id)?;
        report.offset.map(vram_residency::DeviceOffset::get)
    }

    /// Notes an error that says that bytes are altered; any other one ends the soak.
    pub(super) fn failed(
        &mut self,
        step: Step,
        gpu: u32,
        shard: Option<&SealedShard>,
        error: VramError,
    ) -> Result<(), Failure> {
        if error.is_integrity() {
            self.note(step, gpu, shard, error.to_string());
            return Ok(());
        }
        Err(error.into())
    }

    /// Notes bytes that are altered.
    pub(super) fn note(&mut self, step: Step, gpu: u32, shard: Option<&SealedShard>, what: String) {
        let offset = shard.and_then(|shard| self.place(shard));
        self.alterations.push(Alteration {
            round: self.whole.saturating_add(1),
            step: step.name(),
            gpu,
            shard: shard.map_or_else(String::new, |shard| shard.shard_id.to_string()),
            offset,
            len: shard.map_or(0, |shard| shard.plaintext_len),
            what,
        });
    }

    /// Frees a shard that is not used any more. All that was filled goes this way, or is lost while it is
    /// parked, so that the bytes of both steps are the same in the end.
    pub(super) fn drop_shard(&mut self, shard: &SealedShard) -> Result<(), Failure> {
        let (freed, took) = timed(|| self.manager.free_shard(shard));
        match freed {
            Ok(_) | Err(VramError::ShardFreed { .. }) => {
                // As of every step: the content, and not what it takes of the device.
                self.tallies.add(Step::Free, ByteLen::new(shard.plaintext_len), took);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Does something, and says how long it took.
pub(super) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let value = work();
    (value, began.elapsed())
}

/// The content that follows from a number: no two are alike, and none is a pattern that memory likes.
pub(in crate::commands::operator) fn content(seed: u64, len: u64) -> Result<Vec<u8>, Failure> {
    let no_room = || {
        Failure::new(Kind::NoRoom, format!("no host memory for {} at a time", ByteLen::new(len)))
            .hint("give a smaller --size")
    };
    let count = usize::try_from(len).map_err(|_too_long| no_room())?;
    let mut data = Vec::new();
    data.try_reserve_exact(count).map_err(|_no_room| no_room())?;
    data.resize(count, 0);
    // SplitMix64: each word follows from its number alone.
    let mut state = seed.wrapping_mul(0xd134_2543_de82_ef95);
    for chunk in data.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        for (target, byte) in chunk.iter_mut().zip(word.to_le_bytes()) {
            *target = byte;
        }
    }
    Ok(data)
}
