//! Building a manager: devices, budgets, ledgers.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_core::error::VramError;
use vram_core::parts::{Core, Settings};
use vram_core::reports::ticket::check_node;
use vram_core::scrub::Scrubbing;
use vram_gpu::Device;
use vram_id::IdSource;
use vram_seal::{KeyRing, SealKey};
use vram_space::{Gpu, GpuOptions, Means, StagingBound, Tenants};

use crate::builder::{Keys, VramManagerBuilder, host_memory};
use crate::manager::VramManager;

impl VramManagerBuilder {
    /// Builds the manager. It takes one region of every device, except those used block by block.
    ///
    /// # Errors
    ///
    /// [`VramError::Config`] without a device, with more than `u32::MAX` devices, with the same
    /// device twice, with a budget that is not a fraction or is larger than the device, for a GPU
    /// index without a device, or with limits that allow nothing; [`VramError::Key`] or
    /// [`VramError::KeySource`]; [`VramError::Device`], [`VramError::DeviceLost`] and
    /// [`VramError::HostMemory`] if the manager cannot take a region. Regions already taken of
    /// other devices are released.
    pub fn build(mut self) -> Result<VramManager, VramError> {
        self.check_devices()?;
        check_node(self.node.as_deref())?;
        let segment = self.defaults.segment().bytes();
        if self.limits.staging_bytes < segment {
            return Err(config(format!(
                "staging of {} holds not even one segment of {segment}",
                self.limits.staging_bytes
            )));
        }

        if self.limits.staging_total < self.limits.staging_bytes {
            return Err(config(format!(
                "staging of {} for all calls is less than the {} of one call",
                self.limits.staging_total, self.limits.staging_bytes
            )));
        }

        // Read the key before touching any device: if the key is missing, no device work is undone.
        let keys = match self.keys.take() {
            Some(Keys::Ring(keys)) => keys,
            Some(Keys::Source(source)) => KeyRing::new(source.load()?),
            None => KeyRing::new(SealKey::random()?),
        };
        let settings = Settings {
            keys,
            ticket_key: self.ticket_key.take(),
            node: self.node.clone(),
            ids: self.id_seed.map_or(IdSource::Process, IdSource::seeded),
            clock: Arc::clone(&self.clock),
            sinks: core::mem::take(&mut self.sinks),
            limits: self.limits,
            defaults: self.defaults,
            read_back: self.read_back,
            threads: self.threads,
            eviction: self.eviction.clone(),
            on_eviction: self.on_eviction,
            eviction_unit: self.eviction_unit,
            park_limit: self.park_limit.unwrap_or_else(host_memory::park_limit),
        };
        let staging = StagingBound::new(self.limits.staging_total, self.limits.staging_wait);
        let core = Core::new(settings, |tenants| self.gpus(tenants, &staging))?;
        let cards = self.cards.take();
        Ok(VramManager { core: Arc::new(core), scrubbing: Scrubbing::default(), cards })
    }

    fn gpus(
        &self,
        tenants: &Arc<dyn Tenants>,
        staging: &StagingBound,
    ) -> Result<Vec<Arc<Gpu>>, VramError> {
        let mut gpus: Vec<Arc<Gpu>> = Vec::new();
        for (index, device) in (0_u32..).zip(self.opened()?) {
            gpus.push(Arc::new(self.gpu(index, device, Arc::clone(tenants), staging.clone())?));
        }
        Ok(gpus)
    }

    fn gpu(
        &self,
        index: u32,
        device: Arc<dyn Device>,
        tenants: Arc<dyn Tenants>,
        staging: StagingBound,
    ) -> Result<Gpu, VramError> {
        let share = self.share(index, &*device)?;
        let options = GpuOptions {
            index,
            budget: share.budget,
            headroom: share.headroom,
            mode: share.mode,
            wipe: self.wipe,
            means: Means {
                workers: self.threads.for_jobs(u64::MAX),
                staging_bytes: self.limits.staging_bytes,
                staging,
            },
            compute: self.compute,
        };
        Ok(Gpu::open(device, share.memory, tenants, options)?)
    }
}

/// A fraction of a length, rounded down to whole granules.
pub(super) fn part_of(len: ByteLen, fraction: f64) -> Result<ByteLen, VramError> {
    const STEPS: f64 = 1_000_000.0;
    if !(fraction > 0.0 && fraction <= 1.0) {
        return Err(config(format!(
            "a budget is a fraction above 0 and at most 1 of what is free, not {fraction}"
        )));
    }
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to a million, checked above"
    )]
    let millionths = (fraction * STEPS) as u64;
    let wide = u128::from(len.get()).saturating_mul(u128::from(millionths)) / 1_000_000;
    let bytes = u64::try_from(wide).unwrap_or(u64::MAX);
    Ok(ByteLen::new(bytes & !255))
}

/// The error for a configuration that cannot be built.
pub(super) fn config(what: impl Into<String>) -> VramError {
    VramError::Config { what: what.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_is_of_what_is_free_and_in_whole_granules() {
        let part = |bytes, fraction| part_of(ByteLen::new(bytes), fraction).map(ByteLen::get);
        assert_eq!(part(10_000, 1.0).unwrap(), 9984);
        assert_eq!(part(10_000, 0.5).unwrap(), 4864);
        assert_eq!(part(u64::MAX, 1.0).unwrap(), !255);
        for wrong in [0.0, -0.1, 1.000_001, f64::NAN, f64::INFINITY] {
            assert!(part(10_000, wrong).is_err(), "{wrong}");
        }
    }
}
