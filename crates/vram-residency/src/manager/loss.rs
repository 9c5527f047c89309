//! Losing a GPU, and links between GPUs.

use vram_core::error::VramError;
use vram_core::moves::{LinkReport, links};
use vram_core::parts::call::Call;
use vram_core::reset;
use vram_core::reset::{ResetOptions, ResetReport};
use vram_core::room::{BackupReport, host_copy};
use vram_core::shard::SealedShard;

use crate::manager::VramManager;

impl VramManager {
    /// Empties a GPU that was lost to a sticky error and takes it into use again, then brings back
    /// what there are copies of: under the same ids, verified like everything that arrives, with
    /// the owners, priorities and pins that they had. Other GPUs go on meanwhile.
    ///
    /// Handles from before answer [`VramError::StaleHandle`] if their shard came back (ask for a
    /// fresh one: [`shard`](Self::shard), [`refresh_model`](Self::refresh_model)), and
    /// [`VramError::ShardFreed`] if it did not. So does a lease of such a shard: its memory is gone
    /// whoever holds on to it. Reservations on the GPU stay promised; blocks behind reserved places
    /// are taken again when they are used. Parked shards are not concerned.
    ///
    /// A GPU that is not lost is reset as well if it holds no shard, or if [forced](ResetOptions::force).
    /// The device is emptied as a whole: whatever else this process has there, through another
    /// manager or its own calls, is gone too.
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`]; [`VramError::Closed`]; [`VramError::NotLost`];
    /// [`VramError::GpuInUse`] if another reset of it is under way, or if calls on it did not end in
    /// time (also those that this one is called from inside of); [`VramError::InUse`] if a shard of
    /// a GPU that works is leased. Everything is as it was then. [`VramError::Device`],
    /// [`VramError::DeviceLost`] or [`VramError::HostMemory`] if the device refuses the reset or the
    /// memory after it: it is lost then, its shards are as lost as before, and the reset can be
    /// tried again.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use vram_residency::device::fault::{Action, FaultDevice, FaultPlan, Op};
    /// use vram_residency::{ByteLen, GpuIndex, HostDevice, ResetOptions, VramManager};
    ///
    /// let host = HostDevice::new(GpuIndex::new(0), ByteLen::MIB)?;
    /// let device = FaultDevice::new(Arc::new(host), FaultPlan::new(1));
    /// let manager = VramManager::builder().device(device.clone()).build()?;
    /// let shard = manager.seal_model("llama-3-8b", 0, b"weights")?;
    /// manager.back_up(&shard)?;
    ///
    /// device.next(Op::Read, Action::Driver(214))?; // an uncorrectable memory error
    /// assert_eq!(manager.unseal_model(&shard).unwrap_err().code(), "device-lost");
    ///
    /// let report = manager.reset_gpu(0, ResetOptions::new())?;
    /// assert_eq!(report.restored[0].shard_id, shard.shard_id);
    /// assert_eq!(manager.unseal_model(&report.restored[0])?, b"weights");
    /// assert_eq!(manager.unseal_model(&shard).unwrap_err().code(), "stale-handle");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[tracing::instrument(level = "info", skip_all, fields(gpu))]
    pub fn reset_gpu(&self, gpu: u32, options: ResetOptions) -> Result<ResetReport, VramError> {
        let work = || reset::reset(&self.core, gpu, options);
        self.core.watched(Call::Reset, None, Some(gpu), 0, work)
    }

    /// Sends a pattern over every link between two GPUs, in both directions, and looks whether it
    /// arrived. A link that lies is staged through the host from then on, as is one that a
    /// migration caught lying; a later probe does not bring it back.
    ///
    /// Takes up to 1 MiB of each GPU meanwhile. A link that cannot be probed, for lack of room or
    /// because a device fails, is reported as [`LinkState::Unknown`](crate::LinkState::Unknown) with the reason.
    #[must_use]
    #[tracing::instrument(level = "info", skip_all)]
    pub fn probe_links(&self) -> Vec<LinkReport> {
        let mut reports = Vec::new();
        let probed = self.core.watched(Call::ProbeLinks, None, None, 0, || {
            reports = links::probe_all(&self.core);
            Ok::<_, VramError>(())
        });
        debug_assert!(probed.is_ok(), "what went wrong is in the reports");
        reports
    }

    /// Keeps a copy of a shard in host memory, encrypted, while the shard stays resident. Every
    /// segment is verified on the way. [`reset_gpu`](Self::reset_gpu) brings the shard back from it
    /// after its device was lost, and [`park`](Self::park) takes it where the device is gone for
    /// good.
    ///
    /// It is the copy of one seal: opening, closing and resealing the shard drop it, as freeing
    /// does. A shard that moves, is parked or woken keeps it. Asking again makes it anew.
    ///
    /// # Errors
    ///
    /// Those of a bad handle; [`VramError::Quarantined`]; [`VramError::ParkLimit`], also where there
    /// is no room for the new copy beside the old one; [`VramError::ShardAltered`] if the device
    /// bytes are not those that were sealed (the shard is in quarantine then); [`VramError::Seal`]
    /// if the key of an Authenticated shard is no longer in the ring; [`VramError::HostMemory`],
    /// [`VramError::Device`], [`VramError::DeviceLost`]. An older backup stays as it was.
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::VramManager;
    ///
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let shard = manager.seal_model("llama-3-8b", 0, b"weights")?;
    /// let backup = manager.back_up(&shard)?;
    /// assert_eq!(manager.park_capacity().used, backup.host_len);
    /// assert!(manager.report().shards[0].backed_up);
    ///
    /// manager.free_shard(&shard)?;
    /// assert!(manager.park_capacity().used.is_zero());
    /// # Ok::<(), vram_residency::VramError>(())
    /// ```
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn back_up(&self, shard: &SealedShard) -> Result<BackupReport, VramError> {
        let (id, gpu) = (Some(&shard.shard_id), Some(shard.gpu_index));
        let work = || host_copy::back_up(&self.core, shard);
        self.core.watched(Call::BackUp, id, gpu, shard.plaintext_len, work)
    }

    /// Drops the backup of a shard, and gives its host memory back. Says whether there was one.
    ///
    /// # Errors
    ///
    /// Those of a bad handle.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id))]
    pub fn drop_backup(&self, shard: &SealedShard) -> Result<bool, VramError> {
        let (id, gpu) = (Some(&shard.shard_id), Some(shard.gpu_index));
        let work = || host_copy::drop_backup(&self.core, shard);
        self.core.watched(Call::BackUp, id, gpu, 0, work)
    }
}
