//! The rounds of a soak: what is done with the devices, in an order that the seed decides.

use std::sync::Arc;
use std::time::Instant;

use vram_residency::device::fault::FaultDevice;
use vram_residency::{
    ByteLen, CancelToken, DeviceOffset, Protection, SealRequest, SealedShard, Verify, VramError,
    VramManager,
};

use super::found::{content, timed};
use super::live::Live;
use super::tally::{Alteration, Step, Tallies};
use crate::failure::{Failure, Kind};
use crate::steps::Dice;

/// The longest shard. The program holds one at a time.
const LEN_MAX: u64 = 256 << 20;
/// The shortest shard that a device is filled with.
const LEN_MIN: u64 = 4 << 10;
/// After so many alterations a device is known to be bad, and the soak ends.
pub(super) const ALTERATIONS_MAX: usize = 100;

/// A shard in device memory, and the number that its content follows from.
pub(super) struct Resident {
    pub(super) shard: SealedShard,
    seed: u64,
}

/// A soak under way.
pub(super) struct Rounds<'a> {
    pub(super) manager: &'a VramManager,
    /// For each device, the way to change its memory unseen; `None` where there is none.
    pub(super) flips: &'a [Option<Arc<FaultDevice>>],
    pub(super) token: &'a CancelToken,
    pub(super) until: Instant,
    pub(super) live: Live,
    pub(super) dice: Dice,
    pub(super) residents: Vec<Resident>,
    contents: u64,
    /// Whole rounds.
    pub(super) whole: u64,
    pub(super) tallies: Tallies,
    pub(super) alterations: Vec<Alteration>,
    pub(super) flips_found: u64,
    /// The most bytes of each device that shards took at one time, in whole granules.
    pub(super) filled: Vec<ByteLen>,
}

impl<'a> Rounds<'a> {
    pub(super) fn new(
        manager: &'a VramManager,
        flips: &'a [Option<Arc<FaultDevice>>],
        token: &'a CancelToken,
        (until, live): (Instant, Live),
        seed: u64,
    ) -> Self {
        let count = usize::try_from(manager.gpu_count()).unwrap_or_default();
        Self {
            manager,
            flips,
            token,
            until,
            live,
            dice: Dice::new(seed),
            residents: Vec::new(),
            contents: seed,
            whole: 0,
            tallies: Tallies::new(),
            alterations: Vec::new(),
            flips_found: 0,
            filled: vec![ByteLen::ZERO; count],
        }
    }

    /// Rounds until the time is over, the user stops it, or too much is altered; then a last look at all
    /// that lies there, and everything is freed.
    ///
    /// # Errors
    ///
    /// What ends a soak early: a device that fails.
    pub(super) fn run(&mut self) -> Result<(), Failure> {
        while self.goes_on() {
            self.round()?;
            if self.goes_on() {
                self.whole = self.whole.saturating_add(1);
            }
            for device in self.flips.iter().flatten() {
                // It keeps each call, which would grow for days.
                device.clear_log();
            }
        }
        if !self.token.is_cancelled() {
            self.check_all(Step::Verify, Verify::Full, true)?;
        }
        self.free(1)
    }

    fn round(&mut self) -> Result<(), Failure> {
        self.fill()?;
        self.check_all(Step::Verify, Verify::Full, false)?;
        self.check_all(Step::Fingerprint, Verify::Fingerprint, false)?;
        self.read()?;
        self.flip()?;
        self.free(3)?;
        self.migrate()?;
        self.park_and_wake()?;
        self.check_all(Step::Verify, Verify::Segments, false)?;
        self.free(2)
    }

    fn goes_on(&self) -> bool {
        !self.token.is_cancelled()
            && Instant::now() < self.until
            && self.alterations.len() < ALTERATIONS_MAX
    }

    pub(super) fn show(&self, step: Step) {
        self.live.show(step, self.whole, &self.tallies, self.alterations.len());
    }

    /// Fills every device until not even a small shard fits: every byte is tested, also the last.
    fn fill(&mut self) -> Result<(), Failure> {
        for gpu in 0..self.manager.gpu_count() {
            let total = self.manager.capacity(gpu)?.total.get();
            let mut most = (total / 16).clamp(LEN_MIN, LEN_MAX);
            while most >= LEN_MIN && self.goes_on() {
                self.show(Step::Fill);
                let len = self.dice.below(most).saturating_add(1);
                self.contents = self.contents.wrapping_add(1);
                let seed = self.contents;
                let data = content(seed, len)?;
                let protection = match self.dice.below(2) {
                    0 => Protection::Encrypted,
                    _ => Protection::Authenticated,
                };
                let request = SealRequest::new("soak", gpu).protection(protection);
                let (sealed, took) = timed(|| self.manager.seal(request, &data));
                match sealed {
                    Ok(shard) => {
                        self.tallies.add(Step::Fill, ByteLen::new(len), took);
                        self.residents.push(Resident { shard, seed });
                    }
                    Err(error) if error.is_capacity() => most /= 2,
                    Err(error) => self.failed(Step::Fill, gpu, None, error)?,
                }
            }
            let used = self.manager.capacity(gpu)?.used;
            let index = usize::try_from(gpu).unwrap_or(usize::MAX);
            if let Some(filled) = self.filled.get_mut(index) {
                *filled = used.max(*filled);
            }
        }
        Ok(())
    }

    /// Checks everything that lies in device memory.
    ///
    /// # Arguments
    ///
    /// * `to_the_end`: also after the time is over, but not after the user stopped it.
    fn check_all(&mut self, step: Step, level: Verify, to_the_end: bool) -> Result<(), Failure> {
        let mut kept = Vec::new();
        for resident in core::mem::take(&mut self.residents) {
            let goes_on = if to_the_end { !self.token.is_cancelled() } else { self.goes_on() };
            if !goes_on {
                kept.push(resident);
                continue;
            }
            self.show(step);
            if self.is_sound(step, &resident.shard, level)? {
                kept.push(resident);
            }
        }
        self.residents = kept;
        Ok(())
    }

    /// Checks one shard. What is altered is noted, and freed: the next round tests its memory again.
    fn is_sound(
        &mut self,
        step: Step,
        shard: &SealedShard,
        level: Verify,
    ) -> Result<bool, Failure> {
        let (verdict, took) = timed(|| self.manager.verify(shard, level));
        match verdict {
            Ok(verdict) if verdict.sound => {
                self.tallies.add(step, verdict.checked_bytes, took);
                Ok(true)
            }
            Ok(verdict) => {
                let altered: Vec<String> =
                    verdict.altered.iter().take(8).map(ToString::to_string).collect();
                let what = if altered.is_empty() {
                    "its content as a whole".to_owned()
                } else {
                    altered.join(", ")
                };
                self.note(step, shard.gpu_index, Some(shard), what);
                self.drop_shard(shard)?;
                Ok(false)
            }
            Err(error) => {
                self.failed(step, shard.gpu_index, Some(shard), error)?;
                self.drop_shard(shard)?;
                Ok(false)
            }
        }
    }

    /// Opens a third of the shards, and compares them with what was put there.
    fn read(&mut self) -> Result<(), Failure> {
        let mut kept = Vec::new();
        for resident in core::mem::take(&mut self.residents) {
            if !self.goes_on() || self.dice.below(3) > 0 {
                kept.push(resident);
                continue;
            }
            self.show(Step::Read);
            let shard = &resident.shard;
            let (opened, took) = timed(|| self.manager.unseal_model(shard));
            match opened {
                Ok(found) if found == content(resident.seed, shard.plaintext_len)? => {
                    self.tallies.add(Step::Read, ByteLen::new(shard.plaintext_len), took);
                    kept.push(resident);
                }
                Ok(_) => {
                    let what = "what was read differs from what was put there".to_owned();
                    self.note(Step::Read, shard.gpu_index, Some(shard), what);
                    self.drop_shard(shard)?;
                }
                Err(error) => {
                    self.failed(Step::Read, shard.gpu_index, Some(shard), error)?;
                    self.drop_shard(shard)?;
                }
            }
        }
        self.residents = kept;
        Ok(())
    }

    /// Flips one bit of a shard, where that was asked for, and expects that the check finds it.
    fn flip(&mut self) -> Result<(), Failure> {
        let can = |gpu: u32| {
            let index = usize::try_from(gpu).ok()?;
            self.flips.get(index)?.clone()
        };
        let fit: Vec<usize> = (0..self.residents.len())
            .filter(|&at| {
                self.residents.get(at).is_some_and(|one| can(one.shard.gpu_index).is_some())
            })
            .collect();
        let Some(&at) = fit.get(self.pick(fit.len())) else { return Ok(()) };
        if !self.goes_on() {
            return Ok(());
        }
        self.show(Step::Flip);
        let Resident { shard, .. } = self.residents.swap_remove(at);
        let place = self.place(&shard);
        let (Some(device), Some(place)) = (can(shard.gpu_index), place) else { return Ok(()) };
        let byte = place.saturating_add(self.dice.below(shard.plaintext_len));
        let bit = u8::try_from(self.dice.below(8)).unwrap_or_default();
        device
            .flip_bit_at(None, DeviceOffset::new(byte), bit)
            .map_err(|error| Failure::new(Kind::Device, format!("cannot flip a bit: {error}")))?;
        let (verdict, took) = timed(|| self.manager.verify(&shard, Verify::Fingerprint));
        self.tallies.add(Step::Flip, ByteLen::ZERO, took);
        if verdict?.sound {
            let what = format!("bit {bit} of byte {byte} was flipped here, and no check found it");
            self.note(Step::Flip, shard.gpu_index, Some(&shard), what);
        } else {
            self.flips_found = self.flips_found.saturating_add(1);
        }
        self.drop_shard(&shard)
    }

    /// Moves a third of the shards to another device.
    fn migrate(&mut self) -> Result<(), Failure> {
        let count = self.manager.gpu_count();
        if count < 2 {
            return Ok(());
        }
        let mut kept = Vec::new();
        for resident in core::mem::take(&mut self.residents) {
            if !self.goes_on() || self.dice.below(3) > 0 {
                kept.push(resident);
                continue;
            }
            self.show(Step::Move);
            let shard = &resident.shard;
            let other = u32::try_from(self.dice.below(u64::from(count).saturating_sub(1)));
            let source = shard.gpu_index;
            let step = other.unwrap_or_default().saturating_add(1);
            let target = source.wrapping_add(step).checked_rem(count).unwrap_or_default();
            let (moved, took) = timed(|| self.manager.migrate_shard(shard, target));
            match moved {
                Ok(shard) => {
                    self.tallies.add(Step::Move, ByteLen::new(shard.plaintext_len), took);
                    kept.push(Resident { shard, ..resident });
                }
                Err(error) if error.is_capacity() => kept.push(resident),
                Err(error) => {
                    self.failed(Step::Move, source, Some(shard), error)?;
                    self.drop_shard(shard)?;
                }
            }
        }
        self.residents = kept;
        Ok(())
    }

    /// Parks a few shards in host memory, and wakes each on a device.
    fn park_and_wake(&mut self) -> Result<(), Failure> {
        let mut kept = Vec::new();
        for resident in core::mem::take(&mut self.residents) {
            if !self.goes_on() || self.dice.below(4) > 0 {
                kept.push(resident);
                continue;
            }
            self.show(Step::Park);
            let shard = &resident.shard;
            let (gpu, len) = (shard.gpu_index, ByteLen::new(shard.plaintext_len));
            let (parked, took) = timed(|| self.manager.park(shard));
            let parked = match parked {
                Ok(parked) => parked,
                // The host has no room for it: it stays.
                Err(VramError::ParkLimit { .. } | VramError::HostMemory { .. }) => {
                    kept.push(resident);
                    continue;
                }
                Err(error) => {
                    self.failed(Step::Park, gpu, Some(shard), error)?;
                    self.drop_shard(shard)?;
                    continue;
                }
            };
            self.tallies.add(Step::Park, len, took);
            self.show(Step::Wake);
            let count = u64::from(self.manager.gpu_count());
            let target = u32::try_from(self.dice.below(count)).unwrap_or_default();
            let (woken, took) = timed(|| match self.manager.wake(parked, target) {
                // No room there: back to where it was.
                Err(error) if error.error().is_capacity() => {
                    self.manager.wake(error.into_parked(), gpu)
                }
                woken => woken,
            });
            match woken {
                Ok(shard) => {
                    self.tallies.add(Step::Wake, len, took);
                    kept.push(Resident { shard, ..resident });
                }
                Err(error) => {
                    let (parked, error) = error.into_parts();
                    let ((), took) = timed(|| drop(parked));
                    self.tallies.add(Step::Free, len, took);
                    if !error.is_capacity() {
                        self.failed(Step::Wake, target, None, error)?;
                    }
                }
            }
        }
        self.residents = kept;
        Ok(())
    }
}
