//! Loss of a GPU, backups, and links between GPUs.

use vram_core::error::VramError;
use vram_core::moves::{LinkReport, links};
use vram_core::parts::call::Call;
use vram_core::reset;
use vram_core::reset::{ResetOptions, ResetReport};
use vram_core::room::{BackupReport, host_copy};
use vram_core::shard::SealedShard;

use crate::manager::VramManager;

impl VramManager {
    /// Empties a GPU that was lost to a sticky error and takes it into use again. Then restores the
    /// shards of which there are copies, verified like everything that arrives, under the same ids
    /// and with the same owners, priorities and pins. Other GPUs work on meanwhile.
    ///
    /// Older handles answer [`VramError::StaleHandle`] if their shard was restored (ask for a fresh
    /// one: [`shard`](Self::shard), [`refresh_model`](Self::refresh_model)), and
    /// [`VramError::ShardFreed`] if it was not; [`VramError::Restoring`] while it is being restored.
    /// A lease from before answers [`VramError::StaleHandle`]: its memory is gone, though the lease
    /// still exists. Reservations on the GPU stay valid; the
    /// blocks behind reserved places are taken again at their next use. Parked shards are not
    /// affected.
    ///
    /// A GPU that is not lost is reset as well if it holds no shard, or if
    /// [forced](ResetOptions::force). The reset empties the whole device: all other memory of this
    /// process on it, taken through another manager or by direct calls, is gone too.
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`]; [`VramError::Closed`]; [`VramError::NotLost`];
    /// [`VramError::GpuInUse`] if another reset of the GPU is running, or if calls on it did not
    /// end in time (also the calls from inside which this one is made); [`VramError::InUse`] if a
    /// shard of a working GPU is leased. Everything is as it was then. [`VramError::Device`],
    /// [`VramError::DeviceLost`] or [`VramError::HostMemory`] if the device refuses the reset or
    /// the memory after it: the GPU is lost then, its shards are as lost as before, and the caller
    /// can try the reset again.
    ///
    /// A CUDA device is reset only if the program said that nothing else in the process uses it:
    /// `device.shared(Sharing::Alone)`. Otherwise the answer is [`VramError::Device`], of class
    /// `Caller`, and nothing has happened.
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

    /// Sends a pattern over every link between two GPUs, in both directions, and checks whether it
    /// arrived. From then on, copies over a link that delivers wrong bytes are staged through the
    /// host; so are those over a link on which a migration found wrong bytes. A later probe does
    /// not undo that.
    ///
    /// Takes up to 1 MiB of each GPU meanwhile. A link that cannot be probed, for lack of room or
    /// because a device fails, is reported as [`LinkState::Unknown`](crate::LinkState::Unknown)
    /// with the reason.
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

    /// Keeps a copy of a shard in host memory, encrypted, while the shard stays resident. The call
    /// verifies every segment on the way. [`reset_gpu`](Self::reset_gpu) restores the shard from
    /// the backup after its device was lost. If the device is gone for good, [`park`](Self::park)
    /// takes the backup.
    ///
    /// A backup belongs to one seal: opening, closing, resealing or freeing the shard drops it.
    /// Moving, parking or waking the shard keeps it. Calling `back_up` again replaces it.
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

    /// Drops the backup of a shard and frees its host memory. Returns true if there was one.
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
