//! Figures, snapshots, tickets and event counts of a manager.

use core::time::Duration;

use vram_core::error::VramError;
use vram_core::parts::call::Call;
use vram_core::reports::{
    Metrics, Reconciliation, Report, Snapshot, metrics, reconcile, report, snapshot, ticket,
};
use vram_core::shard::SealedShard;
use vram_events::SinkCounts;
use vram_gpu::DeviceInfo;
use vram_ticket::{ShardTicket, TicketOptions};

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

    /// What is resident where, and how much room is left. The report prints as a table.
    #[must_use]
    pub fn report(&self) -> Report {
        report::report(&self.core)
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

    /// Identity and attributes of all GPUs, in order of their index in this manager.
    #[must_use]
    pub fn gpus(&self) -> Vec<DeviceInfo> {
        self.core.gpus().iter().map(|gpu| gpu.device.info().clone()).collect()
    }
}
