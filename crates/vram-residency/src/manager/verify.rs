//! Verifying, scrubbing and repairing shards.

use core::time::Duration;
use std::path::Path;

use vram_alloc::ByteLen;
use vram_core::error::VramError;
use vram_core::parts::call::Call;
use vram_core::repair::{RepairOptions, RepairReport};
use vram_core::reports::ages;
use vram_core::resident::{Verdict, Verify, verify};
use vram_core::scrub::{ScrubCursor, ScrubOptions, ScrubStep, Scrubber, cursor, step};
use vram_core::shard::SealedShard;
use vram_core::{repair, scrub};
use vram_files::Source;
use vram_id::ShardId;
use vram_space::Compute;

use crate::manager::VramManager;

impl VramManager {
    /// Waits until a device has loaded its kernels, at most this long, and returns whether checks are
    /// computed by the device from now on. A driver that sees the kernels first compiles them for
    /// a second or two; until then the host computes what they would.
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`].
    pub fn wait_for_kernels(&self, gpu: u32, most: Duration) -> Result<bool, VramError> {
        let gpu = self.core.gpu(gpu)?;
        if gpu.compute == Compute::Host {
            // A device that is asked loads them, and takes memory for them beside the budget.
            return Ok(false);
        }
        // Why there are none is told, and in the metrics.
        let _why = gpu.device.wait_for_kernels(most);
        Ok(gpu.kernels().is_some())
    }

    /// Whether a shard is *sound*: `Ok(false)` if its device bytes or its handle were altered. The
    /// call checks the tag of every segment, which no party without the key can forge; against a
    /// holder of the key use [`verify`](Self::verify) at level [`Verify::Full`], which compares the
    /// *content*. Altered device bytes put the shard into quarantine; an altered handle changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// If the check was not possible: [`VramError::ForeignHandle`], [`VramError::ShardFreed`],
    /// [`VramError::StaleHandle`], [`VramError::HostMemory`], [`VramError::Device`],
    /// [`VramError::DeviceLost`].
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn verify_shard_integrity(&self, shard: &SealedShard) -> Result<bool, VramError> {
        let work = || match verify::verify(&self.core, shard, Verify::Segments) {
            Ok(verdict) => Ok((verdict.sound, verdict.checked_bytes)),
            Err(VramError::HandleAltered { .. }) => Ok((false, ByteLen::ZERO)),
            Err(error) => Err(error),
        };
        let bytes = |(_sound, checked): &(bool, ByteLen)| checked.get();
        let (sound, _) =
            self.core.watched_for(Call::Verify, Some(&shard.shard_id), None, work, bytes)?;
        Ok(sound)
    }

    /// As [`verify_shard_integrity`](Self::verify_shard_integrity), in a form that cannot be
    /// ignored by accident. It proves *sound*, not *content*.
    ///
    /// # Errors
    ///
    /// [`VramError::ShardAltered`] naming the altered segments, [`VramError::HandleAltered`], and
    /// those of [`verify_shard_integrity`](Self::verify_shard_integrity).
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn ensure_intact(&self, shard: &SealedShard) -> Result<(), VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        self.core.watched(Call::Verify, id, None, len, || {
            let verdict = verify::verify(&self.core, shard, Verify::Segments)?;
            if verdict.sound {
                return Ok(());
            }
            Err(VramError::ShardAltered {
                shard: verdict.shard_id,
                segments: verdict.altered.iter().map(|span| span.segment).collect(),
            })
        })
    }

    /// Verifies a shard as thoroughly as `level` asks, and returns the findings. Altered device
    /// bytes put it into quarantine. A shard in quarantine can be verified, and is never sound.
    ///
    /// # Errors
    ///
    /// Those of a bad handle; [`VramError::OutOfBounds`] for a range that is not inside the shard;
    /// [`VramError::HostMemory`], [`VramError::Device`], [`VramError::DeviceLost`].
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn verify(&self, shard: &SealedShard, level: Verify) -> Result<Verdict, VramError> {
        let (id, work) = (Some(&shard.shard_id), || verify::verify(&self.core, shard, level));
        let bytes = |verdict: &Verdict| verdict.checked_bytes.get();
        self.core.watched_for(Call::Verify, id, None, work, bytes)
    }

    /// Starts a thread for each GPU that verifies all shards that are resident there, over and over:
    /// those verified longest ago first, in small steps, at the rate that the options set. A shard
    /// found altered goes into quarantine. The threads leave alone shards that are parked, in
    /// quarantine or on a lost GPU. They skip a shard that is being moved, and return to it later.
    /// A device that hangs holds up its own thread alone; the status names it
    /// ([`GpuScrub::stuck`](crate::GpuScrub::stuck)).
    ///
    /// The scrubber ends when it is stopped or dropped, and when the manager is dropped. Each waits
    /// for the steps that run, for at most five seconds. The scrubber does not keep the manager
    /// alive, except for a thread whose device hangs: there the manager ends when the device lets
    /// go.
    ///
    /// # Errors
    ///
    /// [`VramError::Config`] for a rate of zero, for a share that is not above 0 and at most 1, and
    /// if a scrubber is running already; [`VramError::Io`] if no thread can be started.
    ///
    /// # Examples
    ///
    /// ```
    /// use core::time::Duration;
    /// use vram_residency::{ScrubOptions, ScrubRate, VramManager};
    ///
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let _shard = manager.seal_model("llama-3-8b", 0, b"weights")?;
    /// let hourly = ScrubOptions::new(ScrubRate::Within(Duration::from_secs(3600)));
    /// let scrubber = manager.start_scrubber(hourly)?;
    /// assert_eq!(scrubber.status().altered, 0);
    /// scrubber.stop();
    /// # Ok::<(), vram_residency::VramError>(())
    /// ```
    #[tracing::instrument(level = "info", skip_all)]
    pub fn start_scrubber(&self, options: ScrubOptions) -> Result<Scrubber, VramError> {
        scrub::thread::start(&self.core, &self.scrubbing, options)
    }

    /// Runs one step of scrubbing on the calling thread: verifies about `budget` bytes (at least
    /// one segment) from the cursor's position. The scrubber's threads run the same step; this call
    /// is for callers with a schedule of their own.
    ///
    /// Errors are part of the answer: a shard that cannot be read is left for the next pass. On a
    /// closed manager the step checks nothing, and its error is [`VramError::Closed`].
    #[tracing::instrument(level = "debug", skip_all, fields(bytes = budget.get()))]
    pub fn scrub_step(&self, cursor: &mut ScrubCursor, budget: ByteLen) -> ScrubStep {
        step::scrub_step(&self.core, self.scrubbing.totals(), cursor, budget)
    }

    /// The longest time for which an alteration of any byte that is resident now can go unnoticed,
    /// if the cursor goes on at this rate: a pass over everything, and the longest shard once more.
    /// The length of one step comes on top. More resident bytes raise it.
    ///
    /// # Arguments
    ///
    /// * `bytes_per_second`: of the bytes that steps [charge](ScrubStep::charged); 0 means never.
    #[must_use]
    pub fn scrub_bound(&self, cursor: &ScrubCursor, bytes_per_second: u64) -> Duration {
        cursor::scrub_bound(&self.core, cursor, bytes_per_second)
    }

    /// Restores an altered shard from its plaintext, and lifts its quarantine. The call writes only
    /// altered segments, and none before it has found the whole source to be exactly the content of
    /// the shard's record. All handles stay valid. A sound shard stays as it is, and its source is
    /// not read.
    ///
    /// The call reads the source once, in order if the source can only be read in order. Up to
    /// [`Limits::staging_bytes`](crate::Limits) of altered segments wait in host memory meanwhile.
    /// If there are more, the call reads those of a source with random access again (also after its
    /// [`finish`](Source::finish)), and refuses any other source.
    ///
    /// The source is read beside other readers of the shard, and may itself read any shard. Only to
    /// write does the call wait, as other calls on one shard do, until it is alone with the shard.
    /// If the shard changed meanwhile (more of it was altered, or another call repaired it), the
    /// call begins again, a few times at most.
    ///
    /// A leased shard is refused, because kernels may be reading the bytes that a repair would
    /// overwrite.
    ///
    /// # Errors
    ///
    /// [`VramError::DigestMismatch`] if the source is not what was sealed; [`VramError::Seal`] if
    /// it has another length, or the shard's key is no longer in the ring;
    /// [`VramError::SourceLength`], [`VramError::SourceChanged`] or [`VramError::Source`];
    /// [`VramError::Cancelled`]; [`VramError::LimitExceeded`] as above; those of a bad handle;
    /// [`VramError::InUse`], also if the shard changed each time while the source was read, or once
    /// and the source cannot be read again. Nothing was written then, unless the source changed or
    /// failed when it was read again.
    ///
    /// [`VramError::WriteNotKept`] if the device does not keep the bytes: see
    /// [`RepairOptions::relocate`]; [`VramError::InsufficientVram`] for relocating;
    /// [`VramError::ShardAltered`] if more of the shard was altered meanwhile;
    /// [`VramError::HostMemory`], [`VramError::Device`], [`VramError::DeviceLost`].
    ///
    /// After any error an altered shard is in quarantine, and can be repaired again.
    ///
    /// # Panics
    ///
    /// If the source or the progress callback panics. The shard stays in quarantine, the manager
    /// usable.
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::{RepairOptions, SliceSource, VramManager};
    ///
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let shard = manager.seal_model("llama-3-8b", 0, b"weights")?;
    /// let source = SliceSource::new(b"weights");
    /// let report = manager.repair_from(&shard, source, RepairOptions::new())?;
    /// assert!(!report.was_altered);
    /// # Ok::<(), vram_residency::VramError>(())
    /// ```
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn repair_from(
        &self,
        shard: &SealedShard,
        source: impl Source,
        options: RepairOptions<'_>,
    ) -> Result<RepairReport, VramError> {
        let (id, gpu) = (Some(&shard.shard_id), Some(shard.gpu_index));
        let work = || repair::repair_from(&self.core, shard, &source, options);
        self.core.watched(Call::Repair, id, gpu, shard.plaintext_len, work)
    }

    /// As [`repair_from`](Self::repair_from), from a sealed image of the same content: of the same
    /// model, context, metadata, index and revision, with segments of the same size, under any key
    /// of the ring.
    ///
    /// # Errors
    ///
    /// As [`repair_from`](Self::repair_from), with [`VramError::Image`] and [`VramError::Io`] in
    /// place of those of a source; [`VramError::Config`] for segments of another size.
    ///
    /// # Panics
    ///
    /// If the progress callback panics. The shard stays in quarantine, the manager usable.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn repair_from_image(
        &self,
        shard: &SealedShard,
        image: impl AsRef<Path>,
        options: RepairOptions<'_>,
    ) -> Result<RepairReport, VramError> {
        let (id, gpu) = (Some(&shard.shard_id), Some(shard.gpu_index));
        let work = || repair::repair_from_image(&self.core, shard, image.as_ref(), options);
        self.core.watched(Call::Repair, id, gpu, shard.plaintext_len, work)
    }

    /// The time since all of a shard was last found sound, counted from the beginning of that
    /// check; if it never was, the time since its bytes lie at their present place. Uses the
    /// monotonic clock: setting the wall clock changes nothing.
    ///
    /// # Errors
    ///
    /// Those of a bad handle.
    pub fn unverified_age(&self, shard: &SealedShard) -> Result<Duration, VramError> {
        ages::unverified_age(&self.core, shard)
    }

    /// The shard whose last sound check is the oldest, and its age. Only shards that are served
    /// count: not those in quarantine, nor those on a lost GPU. `None` if there are none.
    #[must_use]
    pub fn oldest_unverified(&self) -> Option<(ShardId, Duration)> {
        ages::oldest_unverified(&self.core)
    }
}
