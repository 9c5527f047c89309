//! Closing a manager.

use core::time::Duration;

use vram_core::close;
use vram_core::close::CloseReport;
use vram_core::error::VramError;
use vram_core::parts::call::Call;

use crate::manager::VramManager;

impl VramManager {
    /// Closes the manager. It wipes and frees every shard, also those in quarantine, drops their
    /// backups, returns all device memory to the drivers and wipes the keys. From now on every call
    /// that would take or use memory, shards or keys answers [`VramError::Closed`]. Calls that list
    /// figures still work.
    ///
    /// The call waits for running calls, leases and reservations until `timeout` is over. What is
    /// still in use then stays as it is, in the report and in the ledgers. Call `close` again to
    /// finish: it is always allowed, from any thread, and changes nothing once all is done. Parked
    /// shards stay with their holders, who can inspect and drop them, but not wake them.
    ///
    /// Called from inside a call of this manager (a source, a sink, a callback), `close` does not
    /// wait for that outer call, which cannot end before `close` returns. What the outer call uses
    /// stays.
    ///
    /// # Examples
    ///
    /// ```
    /// use core::time::Duration;
    /// use vram_residency::VramManager;
    ///
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let shard = manager.seal_model("llama-3-8b", 0, b"weights")?;
    /// let lease = manager.lease(&shard)?;
    ///
    /// let report = manager.close(Duration::ZERO);
    /// assert_eq!(report.left[0].0, shard.shard_id);
    /// assert_eq!(manager.unseal_model(&shard).unwrap_err().code(), "closed");
    ///
    /// drop(lease);
    /// let report = manager.close(Duration::ZERO);
    /// assert!(report.complete && report.freed == 1);
    /// # Ok::<(), vram_residency::VramError>(())
    /// ```
    #[tracing::instrument(level = "info", skip_all)]
    pub fn close(&self, timeout: Duration) -> CloseReport {
        let mut report = CloseReport::default();
        let closed = self.core.watched(Call::Close, None, None, 0, || {
            report = close::close(&self.core, &self.scrubbing, timeout);
            Ok::<_, VramError>(())
        });
        debug_assert!(closed.is_ok(), "what went wrong is in the report");
        report
    }
}
