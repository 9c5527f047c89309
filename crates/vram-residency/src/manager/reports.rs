//! Figures, snapshots, tickets and event counts of a manager.

use core::time::Duration;

use vram_core::error::VramError;
use vram_core::models::ModelHandle;
use vram_core::parts::call::Call;
use vram_core::reports::{
    Metrics, ModelReport, Reconciliation, Report, Snapshot, metrics, models, reconcile, report,
    snapshot, ticket,
};
use vram_core::shard::SealedShard;
use vram_events::SinkCounts;
use vram_gpu::DeviceInfo;
use vram_nvml::Answer;
use vram_ticket::{ModelTicket, ShardTicket, TicketOptions};

use crate::cards;
use crate::manager::VramManager;

impl VramManager {
    /// What this manager holds and what its calls cost. Other calls run meanwhile; they wait only
    /// while this call counts the holes of a GPU under its arena's lock.
    ///
    /// ```
    /// use vram_residency::{Call, VramManager};
    ///
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let _shard = manager.seal_model("llama-3-8b", 0, &[0; 1000])?;
    /// let metrics = manager.metrics();
    /// assert_eq!(metrics.call(Call::Seal).map(|seal| seal.bytes.get()), Some(1000));
    /// assert!(metrics.to_prometheus().contains("vram_call_bytes_total{call=\"seal\"} 1000\n"));
    /// # Ok::<(), vram_residency::VramError>(())
    /// ```
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        metrics::metrics(&self.core, &self.scrubbing)
    }

    /// Everything this manager holds. Other calls run meanwhile: each shard and each GPU is shown
    /// as it was at one moment, and under load not all of them at the same moment.
    ///
    /// ```
    /// use vram_residency::VramManager;
    ///
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let before = manager.snapshot();
    /// assert!(manager.seal_model("too-large", 0, &[0; 2 << 20]).is_err());
    /// assert_eq!(manager.snapshot().state, before.state); // a failed call changed nothing
    /// # Ok::<(), vram_residency::VramError>(())
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        snapshot::snapshot(&self.core)
    }

    /// What is resident where, and how much room is left. The report prints as a table with a line
    /// for each model, and with [`with_shards`](Report::with_shards) also for each shard.
    #[must_use]
    pub fn report(&self) -> Report {
        report::report(&self.core)
    }

    /// All models that this manager holds, in ascending order of model id, owner and admission: how
    /// many pieces of each are resident or parked, and who leases it since when. Shards that were
    /// sealed by themselves are listed together by model id and owner.
    ///
    /// Other calls run meanwhile. A model that a call on the whole of it brings, moves or takes away
    /// is shown as [`UnderWay`](crate::ModelState::UnderWay), so that
    /// [`Partial`](crate::ModelState::Partial) says that pieces are missing.
    ///
    /// ```
    /// use vram_residency::{
    ///     AdmitRequest, ByteLen, GpuChoice, ModelPlan, ModelState, Piece, SliceSource, VramManager,
    /// };
    ///
    /// let plan = ModelPlan::new([
    ///     Piece::new("embeddings", 0, 0, ByteLen::new(10)),
    ///     Piece::new("head", 0, 10, ByteLen::new(4)),
    /// ])?;
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let request = AdmitRequest::new("tiny", GpuChoice::One(0));
    /// let model = manager.admit(request, &plan, &vec![SliceSource::new(&[7; 14])])?;
    /// assert_eq!(manager.models()[0].state, ModelState::Whole);
    ///
    /// manager.free_shard(&model.pieces[1].shard)?;
    /// let [tiny] = manager.models().try_into().expect("one model");
    /// assert_eq!((tiny.state, tiny.resident, tiny.pieces), (ModelState::Partial, 1, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn models(&self) -> Vec<ModelReport> {
        models::models(&self.core)
    }

    /// Compares all accounts of a GPU: the ledger, the arena, the resident shards, the reserved
    /// bytes, the bytes that could not be returned, and the driver's own figures, which the call
    /// reads as [`refresh`](Self::refresh) does. Bytes held by running calls are listed separately
    /// and are no disagreement. The call changes only the figure for bytes held by others.
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`]; [`VramError::Device`], [`VramError::DeviceLost`] if the driver
    /// gives no figures. Accounts that differ are an answer, not an error.
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::VramManager;
    ///
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let _shard = manager.seal_model("llama-3-8b", 0, b"weights")?;
    /// let accounts = manager.reconcile(0)?;
    /// assert!(accounts.agrees, "{accounts}");
    /// assert_eq!(accounts.resident.get(), 256);
    /// # Ok::<(), vram_residency::VramError>(())
    /// ```
    #[tracing::instrument(level = "info", skip_all, fields(gpu))]
    pub fn reconcile(&self, gpu: u32) -> Result<Reconciliation, VramError> {
        self.core
            .watched(Call::Reconcile, None, Some(gpu), 0, || reconcile::reconcile(&self.core, gpu))
    }

    /// As [`reconcile`](Self::reconcile), for every GPU, in order of their index. A lost GPU does
    /// not stop the call from checking the others.
    #[tracing::instrument(level = "info", skip_all)]
    pub fn reconcile_all(&self) -> Vec<Result<Reconciliation, VramError>> {
        (0..self.core.gpu_count()).map(|gpu| self.reconcile(gpu)).collect()
    }

    /// A signed statement that a shard is resident here, for the party that chose `nonce`: 32 fresh
    /// random bytes. The call waits for no other call and reads no device byte: the statement says
    /// how old its last verification is.
    ///
    /// The signing key is the one that the manager was built with, or one derived from the active
    /// seal key: with another active key, the ticket key is another too.
    ///
    /// # Errors
    ///
    /// Those of a bad handle; [`VramError::DeviceLost`], since a shard that cannot be reached is
    /// not resident; [`VramError::LimitExceeded`] for an owner of more than
    /// [`TICKET_NAME_LEN_MAX`](crate::TICKET_NAME_LEN_MAX) bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::{TicketExpectation, TicketKey, TicketVerifier, Timestamp, VramManager};
    ///
    /// let manager = VramManager::builder()
    ///     .host_device(vram_residency::ByteLen::MIB)
    ///     .ticket_key(TicketKey::from_bytes(&[7; 32]))
    ///     .build()?;
    /// let shard = manager.seal_model("llama-3-8b", 0, b"weights")?;
    ///
    /// // The orchestrator, which holds the ticket key and no seal key.
    /// let nonce = [42; 32]; // 32 fresh random bytes
    /// let ticket = manager.ticket(&shard, nonce)?;
    /// let now = ticket.issued_at; // its own clock
    /// let verifier = TicketVerifier::new(TicketKey::from_bytes(&[7; 32]));
    /// let expected = TicketExpectation::new(nonce, now).model_id("llama-3-8b");
    /// verifier.verify(&ticket, &expected)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id))]
    pub fn ticket(&self, shard: &SealedShard, nonce: [u8; 32]) -> Result<ShardTicket, VramError> {
        self.ticket_with(shard, TicketOptions::new(nonce))
    }

    /// As [`ticket`](Self::ticket), with options.
    ///
    /// # Errors
    ///
    /// As [`ticket`](Self::ticket).
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id))]
    pub fn ticket_with(
        &self,
        shard: &SealedShard,
        options: TicketOptions,
    ) -> Result<ShardTicket, VramError> {
        let (id, gpu) = (&shard.shard_id, shard.gpu_index);
        let work = || ticket::ticket(&self.core, shard, options);
        self.core.watched(Call::Ticket, Some(id), Some(gpu), 0, work)
    }

    /// A signed statement that all shards of a model are resident here, for the party that chose
    /// `nonce`: see [`ticket`](Self::ticket). It names all their seal records by one root, which a party
    /// that has the records computes by itself ([`model_root`](crate::model_root)).
    ///
    /// # Errors
    ///
    /// Those of a bad handle, [`VramError::Parked`], [`VramError::ShardFreed`] and
    /// [`VramError::DeviceLost`] of any shard; [`VramError::HandleAltered`] if the handle does not name
    /// each shard of the model once, in the order of the plan; [`VramError::TimedOut`] if other calls
    /// move its shards all the while; [`VramError::LimitExceeded`] for more than
    /// [`TICKET_GPUS_MAX`](crate::TICKET_GPUS_MAX) GPUs.
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::{
    ///     AdmitRequest, ByteLen, GpuChoice, ModelPlan, ModelTicketExpectation, Piece, SliceSource,
    ///     TicketKey, TicketVerifier, VramManager, model_root,
    /// };
    ///
    /// let manager = VramManager::builder()
    ///     .host_device(ByteLen::MIB)
    ///     .ticket_key(TicketKey::from_bytes(&[7; 32]))
    ///     .build()?;
    /// let plan = ModelPlan::new([
    ///     Piece::new("embeddings", 0, 0, ByteLen::new(10)),
    ///     Piece::new("head", 0, 10, ByteLen::new(4)),
    /// ])?;
    /// let request = AdmitRequest::new("tiny", GpuChoice::One(0));
    /// let model = manager.admit(request, &plan, &vec![SliceSource::new(&[7; 14])])?;
    ///
    /// // The auditor kept ids and records of the model when it was admitted.
    /// let records = model.pieces.iter().map(|piece| (&piece.shard.shard_id, &piece.shard.sealed_data));
    /// let root = model_root(records);
    ///
    /// let nonce = [42; 32]; // 32 fresh random bytes
    /// let ticket = manager.ticket_model(&model, nonce)?;
    /// let now = ticket.issued_at; // its own clock
    /// let expected = ModelTicketExpectation::new(nonce, now).model_id("tiny").root(root);
    /// let verifier = TicketVerifier::new(TicketKey::from_bytes(&[7; 32]));
    /// verifier.verify_model(&ticket, &expected)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[tracing::instrument(level = "info", skip_all, fields(pieces = model.pieces.len()))]
    pub fn ticket_model(
        &self,
        model: &ModelHandle,
        nonce: [u8; 32],
    ) -> Result<ModelTicket, VramError> {
        let work = || models::ticket::ticket_model(&self.core, model, nonce);
        self.core.watched(Call::Ticket, None, None, 0, work)
    }

    /// Waits until every sink in service has received all events emitted before this call, and has
    /// flushed. Returns false if the time is over first, or if a sink's own thread calls this.
    /// Whether a sink kept the events, [`event_counts`](Self::event_counts) says.
    #[must_use]
    pub fn flush_events(&self, timeout: Duration) -> bool {
        self.core.flush_events(timeout)
    }

    /// How many events each sink received or missed, for each sink in the order in which it was
    /// added.
    #[must_use]
    pub fn event_counts(&self) -> Vec<SinkCounts> {
        self.core.event_counts()
    }

    /// How many GPUs there are.
    #[must_use]
    pub fn gpu_count(&self) -> u32 {
        self.core.gpu_count()
    }

    /// What NVIDIA's management library said of a GPU last: ECC errors, rows to remap, who holds its
    /// memory. Makes no call of the library and waits for nothing. [`Answer::NotWatched`] for a device
    /// that is no card, and for a manager without a
    /// [`card_monitor`](crate::VramManagerBuilder::card_monitor).
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`].
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::VramManager;
    /// use vram_residency::nvml::Answer;
    ///
    /// let manager = VramManager::new_mock(1 << 20)?; // host memory
    /// assert_eq!(manager.card(0)?, Answer::NotWatched);
    /// # Ok::<(), vram_residency::VramError>(())
    /// ```
    pub fn card(&self, gpu: u32) -> Result<Answer, VramError> {
        cards::answer(self, gpu)
    }

    /// What NVIDIA's management library adds to an error: who holds the card that has no room, which
    /// XID a lost card reported and what helps. Asks the library anew, and waits for at most `most`.
    /// `None` where it adds nothing.
    #[must_use]
    pub fn card_words(&self, error: &VramError, most: Duration) -> Option<String> {
        cards::words(self, error, most)
    }

    /// What NVIDIA's management library said of all GPUs last, in Prometheus's text format, to follow
    /// that of [`metrics`](Self::metrics). Empty without a
    /// [`card_monitor`](crate::VramManagerBuilder::card_monitor).
    #[must_use]
    pub fn card_metrics(&self) -> String {
        cards::metrics(self)
    }

    /// Identity and attributes of all GPUs, in order of their index in this manager.
    #[must_use]
    pub fn gpus(&self) -> Vec<DeviceInfo> {
        self.core.gpus().iter().map(|gpu| gpu.device.info().clone()).collect()
    }
}
