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

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::sync::{Arc, PoisonError};

use vram_alloc::ByteLen;
use vram_events::EventKind;
use vram_id::ShardId;
use vram_seal::{KeyRing, SealKey};
use vram_space::UnreturnedMemory;

use crate::error::VramError;
use crate::parts::Core;
use crate::resident::lease::refused;
use crate::room::{free, make_room};
use crate::scrub::Scrubbing;
use crate::shard::{Entry, gate};
use crate::sync::{Deadline, read};

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

/// Frees, wipes and gives back everything, and says what could not be.
pub fn close(core: &Core, scrubbing: &Scrubbing, timeout: Duration) -> CloseReport {
    let deadline = Deadline::within(timeout);
    core.closing.closed.store(true, Ordering::Release);
    for gpu in &core.gpus {
        gpu.health.close();
    }
    scrubbing.stop();
    let mut report = CloseReport::default();
    let Some(turn) = core.closing.turn(deadline) else {
        // Somebody else is at it, and says what becomes of it.
        count_left(core, timeout, &mut report);
        return report;
    };
    for gpu in &core.gpus {
        // Whoever is left is counted at the end.
        let _left = gpu.health.quiet_until(deadline.instant(), gate::is_inside_any());
    }
    for entry in core.registry.sorted() {
        match close_entry(core, &entry, deadline, timeout) {
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
    drop(make_room::take_evicted(core));
    report.reservations = count(core.promises.ended_until(deadline).err().unwrap_or(0));
    for gpu in &core.gpus {
        // All that is known to be there; what else there is is on its way back.
        let places =
            core.registry.on(gpu.index).len().saturating_add(core.promises.places_on(gpu.index));
        let left = gpu.health.settled_until(deadline.instant(), gate::is_inside_any(), places);
        let left = left.err().unwrap_or(0);
        report.under_way = report.under_way.saturating_add(count(left));
        // Whoever is still under way finds it as it was, until they are refused.
        let given_up = left == 0;
        report.unreturned.extend(if given_up { gpu.give_up_memory() } else { gpu.still_held() });
        gpu.pool.clear();
    }
    forget_keys(core);
    report.finish();
    // Of those who close at once, the first that comes to an end.
    let first = !core.closing.told.swap(true, Ordering::AcqRel);
    drop(turn);

    let left = count(report.left.len());
    tracing::info!(freed = report.freed, left, complete = report.complete, "closed");
    if first || report.freed > 0 {
        core.events.emit(EventKind::Closed { left });
    }
    // So that an audit has all of it.
    report.events_flushed = core.events.flush(deadline.instant());
    report
}

/// Frees one shard, once its users and leases have ended.
fn close_entry(
    core: &Core,
    entry: &Arc<Entry>,
    deadline: Deadline,
    timeout: Duration,
) -> Result<ByteLen, VramError> {
    let pass = entry.gate.exclusive_until(deadline);
    let _pass = pass.map_err(|refusal| refused(entry, refusal, timeout))?;
    match free::free_entry(core, entry) {
        Ok(receipt) => Ok(receipt.bytes),
        // The shard is gone; its bytes are among what was not returned.
        Err(VramError::NotReturned { .. }) => Ok(ByteLen::ZERO),
        Err(error) => Err(error),
    }
}

/// What is there while somebody else closes.
fn count_left(core: &Core, waited: Duration, report: &mut CloseReport) {
    for entry in core.registry.sorted() {
        let shard = entry.id.clone();
        report.left.push((entry.id.clone(), VramError::TimedOut { shard, waited }));
    }
    report.reservations = count(core.promises.list().len());
    // The one that closes.
    report.under_way = 1;
    for gpu in &core.gpus {
        report.unreturned.extend(gpu.still_held());
    }
}

/// Wipes the keys. What was sealed under them is gone, or will be freed unread.
fn forget_keys(core: &Core) {
    let active = read(&core.keys).active().id();
    if core.closing.last_key.set(active).is_err() {
        return;
    }
    // A ring has a key; of a closed manager nothing is sealed under it.
    let nothing = SealKey::random().unwrap_or_else(|_no_entropy| SealKey::from_bytes([0; 32]));
    let mut keys = core.keys.write().unwrap_or_else(PoisonError::into_inner);
    *keys = KeyRing::new(nothing);
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
    use std::sync::Arc;

    use vram_id::SystemClock;

    use crate::parts::core::testing;
    use crate::parts::keys;

    #[test]
    fn the_keys_of_a_closed_manager_are_gone() {
        let core = testing::core(Arc::new(SystemClock));
        let before = keys::active_key(&core);
        assert!(close(&core, &Scrubbing::default(), Duration::ZERO).complete);
        let ring = read(&core.keys);
        assert!(ring.get(&before).is_none());
        assert_eq!(ring.ids().len(), 1);
        drop(ring);
        assert_eq!(keys::active_key(&core), before, "that it was is no secret");
    }
}
