//! Closing a manager: wipes and frees everything, and reports what could not be freed.
//!
//! ```text
//!  close(timeout)
//!   1 the manager takes and serves no more calls: every call answers `Closed`
//!   2 wait until calls and resets already running end, or until the time-out
//!   3 each shard: wait until its users and leases end, or until the time-out; wipe and free it
//!     (on a lost GPU its memory went with the device: it is freed without a call)
//!   4 wait until reservations end, or until the time-out
//!   5 wait for calls that are returning memory, or until the time-out
//!   6 retry bytes that could not be returned before; return each region to its driver
//!   7 wipe keys and idle host buffers
//! ```
//!
//! A GPU that a step of the scrubber does not come back from is left out: every call to it could hang
//! as well. Dropping a manager is bounded in the same way, see [`end`].

mod leases;

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::EventKind;
use vram_id::ShardId;
use vram_seal::{KeyRing, SealKey};
use vram_space::UnreturnedMemory;

pub use self::leases::HeldLeases;
use self::leases::Holders;
use crate::error::VramError;
use crate::parts::Core;
use crate::resident::lease::refused;
use crate::room::{free, make_room};
use crate::scrub::Scrubbing;
use crate::shard::{Entry, gate};
use crate::sync::{Deadline, write};

/// What closing a manager freed, and what it could not free.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
#[must_use = "what could not be given back is in here"]
pub struct CloseReport {
    /// Shards that this call freed.
    pub freed: u64,
    /// Device bytes of those shards that were returned.
    pub bytes: ByteLen,
    /// Shards that remain, in ascending order of their ids, each with the reason.
    pub left: Vec<(ShardId, VramError)>,
    /// The number of leases of those shards.
    pub lease_count: u64,
    /// Whose leases they are, the holder with the oldest lease first: at most 32 holders.
    pub leases: Vec<HeldLeases>,
    /// Memory that was not returned to its driver, for each GPU that has any.
    pub unreturned: Vec<UnreturnedMemory>,
    /// Reservations that are still open.
    pub reservations: u64,
    /// Calls that are still running.
    pub under_way: u64,
    /// Whether every event sink in service received all earlier events and was flushed.
    pub events_flushed: bool,
    /// Whether nothing remains: no shard, memory, reservation or call. Events are not counted here.
    pub complete: bool,
}

/// How long a step of the scrubber that still runs at the end of a close has lasted if its device
/// counts as one that hangs: a thousand times what a step takes.
const HANGS_AFTER: Duration = Duration::from_secs(1);

/// How long a manager that is dropped waits for the steps of its scrubber.
const DROP_WAIT: Duration = Duration::from_secs(5);

/// How long it then waits for the sinks, if a step did not end.
const FLUSH_WAIT: Duration = Duration::from_secs(5);

/// The bounds of one call that gives everything back.
struct Reach<'a> {
    deadline: Deadline,
    timeout: Duration,
    /// GPUs that hang. Nothing is sent to them.
    hang: &'a [u32],
}

/// Frees, wipes and returns everything, and reports what could not be returned.
pub fn close(core: &Core, scrubbing: &Scrubbing, timeout: Duration) -> CloseReport {
    let deadline = Deadline::within(timeout);
    refuse_calls(core);
    scrubbing.stop();
    let mut report = CloseReport::default();
    let Some(turn) = core.closing.turn(deadline) else {
        // Another thread is closing the manager; the report of its call states the result.
        count_left(core, timeout, &mut report);
        return report;
    };
    let mut busy = Vec::new();
    for gpu in &core.gpus {
        // Calls and resets that still run at the deadline are counted below. A reset is waited for
        // here: until it ends, the shards that it restores can be neither freed nor said to be gone.
        let inside = gate::is_inside_any();
        if gpu.life.settled_until(deadline.instant(), inside, usize::MAX).is_err() {
            busy.push(gpu.index);
        }
    }
    // A step whose call has ended hangs no more, though its thread may not have noted its end yet.
    let mut hang = scrubbing.steps_of(HANGS_AFTER);
    hang.retain(|gpu| busy.contains(gpu));
    give_back(core, &Reach { deadline, timeout, hang: &hang }, &mut report);
    forget_keys(core);
    report.finish();
    // If several threads close the manager, the first to get here emits the event.
    let first = !core.closing.told.swap(true, Ordering::AcqRel);
    drop(turn);

    let left = count(report.left.len());
    tracing::info!(freed = report.freed, left, complete = report.complete, "closed");
    if first || report.freed > 0 {
        core.events.emit(EventKind::Closed { left });
    }
    // An audit log must hold every event.
    report.events_flushed = core.events.flush(deadline.instant());
    report
}

/// Ends a manager that is dropped: stops its scrubber and waits for the steps that run, for at most
/// five seconds. Then nobody else holds the core, and dropping it frees everything.
///
/// A thread that a device holds for longer keeps the core, which ends on that thread when the device
/// lets go. Until then this call does what it can: it closes the manager, gives back what lies on
/// the other GPUs, and says what is left, in an event and in the log, while the sinks still work.
pub fn end(core: &Core, scrubbing: &Scrubbing) {
    let Err(hang) = scrubbing.end(Deadline::within(DROP_WAIT)) else { return };
    refuse_calls(core);
    let mut report = CloseReport::default();
    let (deadline, timeout) = (Deadline::within(Duration::ZERO), Duration::ZERO);
    give_back(core, &Reach { deadline, timeout, hang: &hang }, &mut report);
    forget_keys(core);
    let left = count(report.left.len());
    tracing::error!(?hang, left, "dropped while a thread of the scrubber holds the manager");
    if !core.closing.told.swap(true, Ordering::AcqRel) {
        core.events.emit(EventKind::Closed { left });
    }
    let _until_the_deadline = core.events.flush(Deadline::within(FLUSH_WAIT).instant());
    // Those in use end with their last use, not with the device that hangs.
    for gpu in core.gpus.iter().filter(|gpu| !hang.contains(&gpu.index)) {
        for entry in core.registry.on(gpu.index) {
            core.registry.remove(&entry.id);
        }
    }
}

/// Takes no more calls.
fn refuse_calls(core: &Core) {
    core.closing.closed.store(true, Ordering::Release);
    for gpu in &core.gpus {
        gpu.life.close();
    }
}

/// Frees all shards within reach, and returns all memory that holds nothing.
fn give_back(core: &Core, reach: &Reach<'_>, report: &mut CloseReport) {
    let mut holders = Holders::default();
    for entry in not_gone(core) {
        match close_entry(core, &entry, reach) {
            Ok(bytes) => {
                report.freed = report.freed.saturating_add(1);
                report.bytes = report.bytes.saturating_add(bytes);
            }
            // Another call freed or parked the shard first.
            Err(VramError::ShardFreed { .. } | VramError::Parked { .. }) => {}
            Err(error) => {
                holders.add(entry.gate.all_leases());
                report.left.push((entry.id.clone(), error));
            }
        }
    }
    report.leases_of(core, holders);
    // A closed manager cannot wake them, and the program did not take them.
    drop(make_room::take_evicted(core));
    report.reservations = count(core.promises.ended_until(reach.deadline).err().unwrap_or(0));
    for gpu in &core.gpus {
        if reach.hang.contains(&gpu.index) {
            report.under_way = report.under_way.saturating_add(1);
            report.unreturned.extend(gpu.still_held());
            continue;
        }
        // Spaces with a known owner. Any other block belongs to a call that is returning it.
        let places =
            core.registry.on(gpu.index).len().saturating_add(core.promises.places_on(gpu.index));
        let left = gpu.life.settled_until(reach.deadline.instant(), gate::is_inside_any(), places);
        let left = left.err().unwrap_or(0);
        report.under_way = report.under_way.saturating_add(count(left));
        // Calls that are still running use the memory until the device refuses them.
        let given_up = left == 0;
        let unreturned = if given_up { gpu.give_up_memory() } else { gpu.still_held() };
        if given_up && unreturned.is_none() && places == 0 {
            let _ended = gpu.life.closed();
        }
        report.unreturned.extend(unreturned);
        gpu.pool.clear();
    }
}

/// The shards that lie on GPUs, and those that a reset restores, in ascending order of their ids.
fn not_gone(core: &Core) -> Vec<Arc<Entry>> {
    let mut entries = core.registry.all();
    entries.retain(|entry| entry.state().place().state().is_on_gpu());
    entries
}

/// Frees one shard once its users and leases have ended.
fn close_entry(core: &Core, entry: &Arc<Entry>, reach: &Reach<'_>) -> Result<ByteLen, VramError> {
    let waited = reach.timeout;
    if reach.hang.contains(&entry.state().gpu_index()) {
        return Err(VramError::TimedOut { shard: entry.id.clone(), waited });
    }
    let pass = entry.gate.exclusive_until(reach.deadline);
    let _pass = pass.map_err(|refusal| refused(entry, refusal, waited))?;
    match free::free_entry(core, entry) {
        Ok(receipt) => Ok(receipt.bytes),
        // The shard is freed; its bytes are listed as not returned.
        Err(VramError::NotReturned { .. }) => Ok(ByteLen::ZERO),
        Err(error) => Err(error),
    }
}

/// Reports what remains while another thread closes the manager.
fn count_left(core: &Core, waited: Duration, report: &mut CloseReport) {
    let mut holders = Holders::default();
    for entry in not_gone(core) {
        holders.add(entry.gate.all_leases());
        let shard = entry.id.clone();
        report.left.push((entry.id.clone(), VramError::TimedOut { shard, waited }));
    }
    report.leases_of(core, holders);
    report.reservations = count(core.promises.list().len());
    // The call that closes the manager.
    report.under_way = 1;
    for gpu in &core.gpus {
        report.unreturned.extend(gpu.still_held());
    }
}

/// Wipes the keys. The shards that were sealed under them are freed, or will be freed without being
/// read.
fn forget_keys(core: &Core) {
    // A key ring must hold a key; a closed manager uses it for nothing.
    let nothing = SealKey::random().unwrap_or_else(|_no_entropy| SealKey::from_bytes(&[0; 32]));
    let mut keys = write(&core.keys);
    if core.closing.last_key.set(keys.active().id()).is_ok() {
        *keys = KeyRing::new(nothing);
    }
}

impl CloseReport {
    fn leases_of(&mut self, core: &Core, holders: Holders) {
        (self.lease_count, self.leases) = holders.end(core.events.monotonic());
    }

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
    use crate::sync::read;

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
