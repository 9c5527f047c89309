//! Operations on all shards of a model.

mod admission;

use core::time::Duration;

use vram_core::error::VramError;
use vram_core::models::moves::refreshed;
use vram_core::models::{
    CallOptions, ModelHandle, ModelVerdict, ParkedModel, WakeModelError, WakeModelRequest, free,
    moves, parked,
};
use vram_core::parts::GpuChoice;
use vram_core::parts::call::Call;
use vram_core::resident::{Lease, Verify, lease};
use vram_core::room::FreedReceipt;
use vram_files::CancelToken;

use crate::manager::VramManager;

impl VramManager {
    /// Returns the same model with fresh handles, after shards of it were moved, opened or closed.
    ///
    /// # Errors
    ///
    /// [`VramError::ForeignHandle`] or [`VramError::HandleAltered`] for a bad handle,
    /// [`VramError::Parked`] for a shard in host memory, [`VramError::ShardFreed`] if a shard of the
    /// model is gone.
    pub fn refresh_model(&self, model: &ModelHandle) -> Result<ModelHandle, VramError> {
        moves::refresh(&self.core, model)
    }

    /// Frees every shard of a model, or none. The call skips shards that are gone already.
    ///
    /// # Errors
    ///
    /// Those of a bad handle, [`VramError::Parked`], [`VramError::InUse`] and
    /// [`VramError::DeviceLost`] of any shard, with nothing freed. [`VramError::NotReturned`] for
    /// the first shard whose bytes stay counted, after all shards are gone. Only if a device is
    /// lost while the call frees its shards, some of them stay behind on it.
    #[tracing::instrument(level = "info", skip_all, fields(pieces = model.pieces.len()))]
    pub fn free_model(&self, model: &ModelHandle) -> Result<Vec<FreedReceipt>, VramError> {
        let work = || free::free_model(&self.core, model, None);
        self.core.watched_for(Call::FreeModel, None, None, work, |freed| free::freed_bytes(freed))
    }

    /// As [`free_model`](Self::free_model), but waits until all calls and leases on the shards have
    /// ended, at most `timeout`.
    ///
    /// # Errors
    ///
    /// As [`free_model`](Self::free_model), naming the shard that was waited for:
    /// [`VramError::InUse`] if it is still leased after the timeout, [`VramError::TimedOut`] if
    /// other calls still use it.
    #[tracing::instrument(level = "info", skip_all, fields(pieces = model.pieces.len()))]
    pub fn free_model_within(
        &self,
        model: &ModelHandle,
        timeout: Duration,
    ) -> Result<Vec<FreedReceipt>, VramError> {
        let work = || free::free_model(&self.core, model, Some(timeout));
        self.core.watched_for(Call::FreeModel, None, None, work, |freed| free::freed_bytes(freed))
    }

    /// Parks every shard of a model, or none: see [`park`](Self::park). Readers of any of them wait
    /// until the last one is in host memory.
    ///
    /// # Errors
    ///
    /// As [`park`](Self::park), for the first shard that cannot be parked. Every shard is then
    /// where it was.
    pub fn park_model(&self, model: &ModelHandle) -> Result<ParkedModel, VramError> {
        self.park_model_with(model, CallOptions::new())
    }

    /// As [`park_model`](Self::park_model), but waits for other users as
    /// [`free_model_within`](Self::free_model_within) does.
    ///
    /// # Errors
    ///
    /// As [`park_model`](Self::park_model) and [`free_model_within`](Self::free_model_within).
    pub fn park_model_within(
        &self,
        model: &ModelHandle,
        timeout: Duration,
    ) -> Result<ParkedModel, VramError> {
        self.park_model_with(model, CallOptions::new().within(timeout))
    }

    /// As [`park_model`](Self::park_model), with how long it waits, and what cancels it.
    ///
    /// # Errors
    ///
    /// As [`park_model_within`](Self::park_model_within); [`VramError::Cancelled`], with every shard
    /// where it was.
    #[tracing::instrument(level = "info", skip_all, fields(pieces = model.pieces.len()))]
    pub fn park_model_with(
        &self,
        model: &ModelHandle,
        options: CallOptions<'_>,
    ) -> Result<ParkedModel, VramError> {
        let work = || moves::park(&self.core, model, options);
        self.core.watched(Call::ParkModel, None, None, model.total().get(), work)
    }

    /// Makes every shard of a parked model resident again, or none: see [`wake`](Self::wake), also
    /// for the addresses, which change. The call places all shards before it writes the first.
    ///
    /// # Errors
    ///
    /// [`WakeModelError`] with the parked model, as it was, and the reason: as
    /// [`wake`](Self::wake), for the first shard that cannot be woken.
    pub fn wake_model(
        &self,
        parked: ParkedModel,
        gpus: GpuChoice,
    ) -> Result<ModelHandle, WakeModelError> {
        self.wake_model_with(parked, WakeModelRequest::new(gpus))
    }

    /// As [`wake_model`](Self::wake_model), and may evict others to make room.
    ///
    /// # Errors
    ///
    /// As [`wake_model`](Self::wake_model).
    #[tracing::instrument(level = "info", skip_all, fields(pieces = parked.pieces.len()))]
    pub fn wake_model_with(
        &self,
        parked: ParkedModel,
        request: WakeModelRequest<'_>,
    ) -> Result<ModelHandle, WakeModelError> {
        let gpu = parked::gpu_of(&request);
        let work = || moves::wake(&self.core, parked, request);
        let bytes = |model: &ModelHandle| model.total().get();
        self.core.watched_for(Call::WakeModel, None, gpu, work, bytes)
    }

    /// As [`wake_model_with`](Self::wake_model_with), with a lease of every shard, in the order of
    /// the plan: no other request evicts one of them between waking and use.
    ///
    /// # Errors
    ///
    /// As [`wake_model`](Self::wake_model).
    #[tracing::instrument(level = "info", skip_all, fields(pieces = parked.pieces.len()))]
    pub fn wake_model_leased(
        &self,
        parked: ParkedModel,
        request: WakeModelRequest<'_>,
    ) -> Result<(ModelHandle, Vec<Lease>), WakeModelError> {
        let gpu = parked::gpu_of(&request);
        let work = || moves::wake_leased(&self.core, parked, request);
        let bytes = |(model, _): &(ModelHandle, Vec<Lease>)| model.total().get();
        self.core.watched_for(Call::WakeModel, None, gpu, work, bytes)
    }

    /// Protects every shard of a model from eviction until it is unpinned: see [`pin`](Self::pin).
    /// To admit a model pinned, see [`AdmitRequest::pinned`](crate::AdmitRequest::pinned).
    ///
    /// # Errors
    ///
    /// Those of a bad handle, for the first shard that refuses. No shard is pinned by this call
    /// then.
    pub fn pin_model(&self, model: &ModelHandle) -> Result<(), VramError> {
        let work = || moves::set_pinned(&self.core, model, true);
        self.core.watched(Call::Pin, None, None, 0, work)
    }

    /// Lets every shard of a model be evicted again.
    ///
    /// # Errors
    ///
    /// As [`pin_model`](Self::pin_model), with every shard as it was.
    pub fn unpin_model(&self, model: &ModelHandle) -> Result<(), VramError> {
        let work = || moves::set_pinned(&self.core, model, false);
        self.core.watched(Call::Pin, None, None, 0, work)
    }

    /// Moves every shard of a model to one GPU, or none: see
    /// [`migrate_shard`](Self::migrate_shard). The target needs room for all shards that are not on
    /// it yet; the call frees the old places once every shard has arrived.
    ///
    /// # Errors
    ///
    /// As [`migrate_shard`](Self::migrate_shard), for the first shard that cannot be moved. Every
    /// shard is then where it was.
    pub fn migrate_model(&self, model: &ModelHandle, gpu: u32) -> Result<ModelHandle, VramError> {
        self.migrate_model_with(model, gpu, CallOptions::new())
    }

    /// As [`migrate_model`](Self::migrate_model), but waits for other users as
    /// [`free_model_within`](Self::free_model_within) does.
    ///
    /// # Errors
    ///
    /// As [`migrate_model`](Self::migrate_model) and
    /// [`free_model_within`](Self::free_model_within).
    pub fn migrate_model_within(
        &self,
        model: &ModelHandle,
        gpu: u32,
        timeout: Duration,
    ) -> Result<ModelHandle, VramError> {
        self.migrate_model_with(model, gpu, CallOptions::new().within(timeout))
    }

    /// As [`migrate_model`](Self::migrate_model), with how long it waits, and what cancels it.
    ///
    /// # Errors
    ///
    /// As [`migrate_model_within`](Self::migrate_model_within); [`VramError::Cancelled`], with every
    /// shard where it was.
    #[tracing::instrument(level = "info", skip_all, fields(pieces = model.pieces.len(), gpu))]
    pub fn migrate_model_with(
        &self,
        model: &ModelHandle,
        gpu: u32,
        options: CallOptions<'_>,
    ) -> Result<ModelHandle, VramError> {
        let work = || moves::migrate_model(&self.core, model, gpu, options);
        let bytes = model.total().get();
        let shards = self.core.watched(Call::MigrateModel, None, Some(gpu), bytes, work)?;
        Ok(refreshed(model, shards))
    }

    /// Verifies every shard of a model as thoroughly as asked: see [`verify`](Self::verify).
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify), for the first shard that cannot be verified. An altered shard
    /// is a verdict, not an error.
    pub fn verify_model(
        &self,
        model: &ModelHandle,
        level: Verify,
    ) -> Result<ModelVerdict, VramError> {
        let work = || moves::verify(&self.core, model, level, None);
        self.core.watched_for(Call::VerifyModel, None, None, work, moves::checked_bytes)
    }

    /// As [`verify_model`](Self::verify_model), until the token is cancelled: it is looked at before
    /// each shard.
    ///
    /// # Errors
    ///
    /// As [`verify_model`](Self::verify_model); [`VramError::Cancelled`], and what was found until
    /// then stays known.
    #[tracing::instrument(level = "info", skip_all, fields(pieces = model.pieces.len()))]
    pub fn verify_model_until(
        &self,
        model: &ModelHandle,
        level: Verify,
        cancel: &CancelToken,
    ) -> Result<ModelVerdict, VramError> {
        let work = || moves::verify(&self.core, model, level, Some(cancel));
        self.core.watched_for(Call::VerifyModel, None, None, work, moves::checked_bytes)
    }

    /// Takes a lease of every shard of a model, in the order of its plan, or of none.
    ///
    /// # Errors
    ///
    /// As [`lease`](Self::lease), for the first shard that refuses.
    #[tracing::instrument(level = "info", skip_all, fields(pieces = model.pieces.len()))]
    pub fn lease_model(&self, model: &ModelHandle) -> Result<Vec<Lease>, VramError> {
        let leased = |shard| lease::lease(&self.core, shard, None);
        let work = || model.shards().map(leased).collect();
        self.core.watched(Call::LeaseModel, None, None, model.total().get(), work)
    }

    /// As [`lease_model`](Self::lease_model), for a named holder: see [`lease_as`](Self::lease_as).
    ///
    /// # Errors
    ///
    /// As [`lease_as`](Self::lease_as), for the first shard that refuses.
    #[tracing::instrument(level = "info", skip_all, fields(pieces = model.pieces.len()))]
    pub fn lease_model_as(
        &self,
        model: &ModelHandle,
        holder: &str,
    ) -> Result<Vec<Lease>, VramError> {
        let work = || {
            let holder = lease::holder(holder)?;
            let leased = |shard| lease::lease_as(&self.core, shard, holder.clone(), None);
            model.shards().map(leased).collect()
        };
        self.core.watched(Call::LeaseModel, None, None, model.total().get(), work)
    }
}
