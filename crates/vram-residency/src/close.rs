//! Closing a manager: everything wiped and given back, and an answer about what could not be.
//!
//! ```text
//!  close(timeout)
//!   1 nothing is taken or served any more: every call answers `Closed`
//!   2 calls that were under way end, or the time is up
//!   3 each shard: its users and leases end, or the time is up; wiped and freed
//!   4 reservations end, or the time is up
//!   5 whoever is giving something back does so, or the time is up
//!   6 what could not be given back before is tried again; each region goes back to its driver
//!   7 keys and idle host buffers are wiped
//! ```

mod memory;

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::{Arc, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

use vram_alloc::ByteLen;
use vram_gpu::GpuError;
use vram_seal::{KeyId, KeyRing, SealKey};

use crate::call::Call;
use crate::error::VramError;
use crate::events::EventKind;
use crate::id::ShardId;
use crate::lanes;
use crate::lease::refused;
use crate::manager::{Core, VramManager};
use crate::registry::Entry;
use crate::sync::{Condvar, Deadline, Mutex, lock, read, wait_until};

/// What closing a manager gave back, and what it could not.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
#[must_use = "what could not be given back is in here"]
pub struct CloseReport {
    /// Shards that were freed by this call.
    pub freed: u64,
    /// Device bytes of those that came back.
    pub bytes: ByteLen,
    /// Shards that are still there, in ascending order of their ids, each with the reason.
    pub left: Vec<(ShardId, VramError)>,
    /// Memory that did not go back to its driver, for each GPU that has any.
    pub unreturned: Vec<UnreturnedMemory>,
    /// Reservations that are still open.
    pub reservations: u64,
    /// Calls that are still under way.
    pub under_way: u64,
    /// Whether every event sink that is in service was given all events of before, and flushed.
    pub events_flushed: bool,
    /// Whether nothing is left of anything but of events.
    pub complete: bool,
}

/// Memory of one GPU that a closed manager still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnreturnedMemory {
    /// The GPU.
    pub gpu: u32,
    /// Bytes that this manager holds of it.
    pub bytes: ByteLen,
    /// Why they could not be given back; none where something is still in them.
    pub error: Option<GpuError>,
}

/// Whether a manager is closed, and by whom it is being closed.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    closed: AtomicBool,
    /// Whether anybody was told.
    told: AtomicBool,
    last_key: OnceLock<KeyId>,
    closer: Mutex<Option<ThreadId>>,
    ended: Condvar,
}

/// The right to close, until dropped. One thread at a time has it.
struct Turn<'a>(&'a Closing);

impl Closing {
    /// The key that sealed last, once the keys are gone.
    pub(crate) fn last_key(&self) -> Option<KeyId> {
        self.last_key.get().copied()
    }

    /// None if others had it until the deadline, or if this thread is in its own way.
    fn turn(&self, deadline: Deadline) -> Option<Turn<'_>> {
        let own = thread::current().id();
        let mut closer = lock(&self.closer);
        while let Some(other) = *closer {
            if other == own || lanes::on_a_worker() {
                return None;
            }
            closer = wait_until(&self.ended, closer, deadline).ok()?;
        }
        *closer = Some(own);
        Some(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.closer) = None;
        self.0.ended.notify_all();
    }
}

impl VramManager {
    /// Closes the manager: frees every shard, wiped, also those in quarantine, drops their backups,
    /// gives all device memory back to the drivers and wipes the keys. From now on every call that
    /// would take or use anything answers [`VramError::Closed`]; figures can still be listed.
    ///
    /// Calls that are under way, leases and reservations are waited for until the time is up;
    /// what is in use then is left as it is, in the report and in the books. Close again to finish:
    /// that is always allowed, from any thread, and changes nothing once all is done. What parked
    /// shards hold is their holders'; they can be looked at and dropped, and not be woken.
    ///
    /// Called from inside a call of this manager (a source, a sink, a callback), it does not wait
    /// for that call, which could not end before: what it uses is left.
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
            report = self.core.close(timeout);
            Ok::<_, VramError>(())
        });
        debug_assert!(closed.is_ok(), "what went wrong is in the report");
        report
    }
}

impl Core {
    /// # Errors
    ///
    /// [`VramError::Closed`].
    pub(crate) fn check_open(&self) -> Result<(), VramError> {
        if self.closing.closed.load(Ordering::Acquire) { Err(VramError::Closed) } else { Ok(()) }
    }

    fn close(&self, timeout: Duration) -> CloseReport {
        let deadline = Deadline::within(timeout);
        self.closing.closed.store(true, Ordering::Release);
        for gpu in &self.gpus {
            gpu.health.close();
        }
        self.scrubbing.stop();
        let mut report = CloseReport::default();
        let Some(turn) = self.closing.turn(deadline) else {
            // Somebody else is at it, and says what becomes of it.
            self.count_left(timeout, &mut report);
            return report;
        };
        for gpu in &self.gpus {
            // Whoever is left is counted at the end.
            let _left = gpu.health.quiet_until(deadline);
        }
        for entry in self.registry.sorted() {
            match self.close_entry(&entry, deadline, timeout) {
                Ok(bytes) => {
                    report.freed = report.freed.saturating_add(1);
                    report.bytes = report.bytes.saturating_add(bytes);
                }
                // Somebody else was quicker.
                Err(VramError::ShardFreed { .. } | VramError::Parked { .. }) => {}
                Err(error) => report.left.push((entry.id.clone(), error)),
            }
        }
        // Nobody can wake them, and nobody asked for them.
        drop(self.take_evicted());
        report.reservations = count(self.promises.ended_until(deadline).err().unwrap_or(0));
        for gpu in &self.gpus {
            // All that is known to be there; what else there is is on its way back.
            let places =
                self.registry.on(gpu).len().saturating_add(self.promises.places_on(gpu.index));
            let left = gpu.health.settled_until(deadline, places).err().unwrap_or(0);
            report.under_way = report.under_way.saturating_add(count(left));
            // Whoever is still under way finds it as it was, until they are refused.
            let given_up = left == 0;
            report.unreturned.extend(if given_up {
                gpu.give_up_memory()
            } else {
                gpu.still_held()
            });
            gpu.pool.clear();
        }
        self.forget_keys();
        report.finish();
        // Of those who close at once, the first that comes to an end.
        let first = !self.closing.told.swap(true, Ordering::AcqRel);
        drop(turn);

        let left = count(report.left.len());
        tracing::info!(freed = report.freed, left, complete = report.complete, "closed");
        if first || report.freed > 0 {
            self.events.emit(EventKind::Closed { left });
        }
        // So that an audit has all of it.
        report.events_flushed = self.events.flush(deadline.instant());
        report
    }

    /// Frees one shard, once its users and leases have ended.
    fn close_entry(
        &self,
        entry: &Arc<Entry>,
        deadline: Deadline,
        timeout: Duration,
    ) -> Result<ByteLen, VramError> {
        let pass = entry.gate.exclusive_until(deadline);
        let _pass = pass.map_err(|refusal| refused(entry, refusal, timeout))?;
        match self.free_entry(entry) {
            Ok(receipt) => Ok(receipt.bytes),
            // The shard is gone; its bytes are among what was not returned.
            Err(VramError::NotReturned { .. }) => Ok(ByteLen::ZERO),
            Err(error) => Err(error),
        }
    }

    /// What is there while somebody else closes.
    fn count_left(&self, waited: Duration, report: &mut CloseReport) {
        for entry in self.registry.sorted() {
            let shard = entry.id.clone();
            report.left.push((entry.id.clone(), VramError::TimedOut { shard, waited }));
        }
        report.reservations = count(self.promises.list().len());
        // The one that closes.
        report.under_way = 1;
        for gpu in &self.gpus {
            report.unreturned.extend(gpu.still_held());
        }
    }

    /// Wipes the keys. What was sealed under them is gone, or will be freed unread.
    fn forget_keys(&self) {
        let active = read(&self.keys).active().id();
        if self.closing.last_key.set(active).is_err() {
            return;
        }
        // A ring has a key; of a closed manager nothing is sealed under it.
        let nothing = SealKey::random().unwrap_or_else(|_no_entropy| SealKey::from_bytes([0; 32]));
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        *keys = KeyRing::new(nothing);
    }
}

impl CloseReport {
    fn finish(&mut self) {
        self.complete = self.left.is_empty()
            && self.unreturned.is_empty()
            && self.reservations == 0
            && self.under_way == 0;
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_closed_manager_are_gone() {
        let manager = VramManager::new_mock(1 << 20).unwrap();
        let before = manager.active_key();
        assert!(manager.close(Duration::ZERO).complete);
        let keys = read(&manager.core.keys);
        assert!(keys.get(&before).is_none());
        assert_eq!(keys.ids().len(), 1);
        assert_eq!(manager.active_key(), before, "that it was is no secret");
    }
}
