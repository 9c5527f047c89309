//! Leases and pins: a shard that a program works with stays where it is.

use core::fmt;
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceRange};
use vram_gpu::DeviceAddress;
use vram_seal::Protection;
use vram_space::Block;

use crate::error::VramError;
use crate::parts::Core;
use crate::parts::core::in_use;
use crate::parts::limits::{check_label, label};
use crate::resident::{SharedShard, Verify, share, verify};
use crate::shard::gate::SharedPass;
use crate::shard::{CountedLease, Entry, Leased, Refusal, SealedShard};
use crate::sync::Deadline;

/// A guarantee that a shard stays where it is. While a lease of a shard exists, the shard is not
/// freed, moved, evicted, compacted, opened, closed or sealed anew. Other calls can still read and
/// verify it.
///
/// A lease is owned and can be sent to another thread. Dropping it ends it. It can outlive even the
/// manager; the shard's memory is then returned with its last lease.
#[must_use = "a lease ends when it is dropped"]
pub struct Lease {
    entry: Arc<Entry>,
    shard: SealedShard,
    pointer: Option<Pointer>,
    /// Whether another process was told where the shard lies.
    shared: AtomicBool,
    leased: Leased,
}

/// The address of a shard's plaintext, with the memory that it points into.
pub(crate) struct Pointer {
    address: DeviceAddress,
    // Keeps the address from being reused while the lease exists: also where a reset has replaced the
    // memory, and the device alone knows whether anything lies there.
    memory: Arc<Block>,
}

impl Pointer {
    /// `None` for ciphertext, and for a place that no address has.
    pub(crate) fn of(
        memory: Arc<Block>,
        range: DeviceRange,
        protection: Protection,
    ) -> Option<Self> {
        let start = memory.address().get().checked_add(range.start().get());
        let start = start.filter(|_| protection == Protection::Authenticated)?;
        Some(Self { address: DeviceAddress::new(start), memory })
    }
}

impl Lease {
    /// The handle of the shard, as it is while the lease exists.
    #[must_use]
    pub const fn shard(&self) -> &SealedShard {
        &self.shard
    }

    /// The GPU that holds the shard.
    #[must_use]
    pub const fn gpu(&self) -> u32 {
        self.shard.gpu_index
    }

    /// The name that the program gave for the holder of the lease, if any.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        self.leased.holder.as_deref()
    }

    /// Time since the lease began, by the manager's monotonic clock. This calls the clock.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.entry.listeners.events.monotonic().saturating_sub(self.leased.since)
    }

    /// Plaintext bytes of the shard.
    #[must_use]
    pub const fn len(&self) -> ByteLen {
        ByteLen::new(self.shard.plaintext_len)
    }

    /// Whether the shard is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len().is_zero()
    }

    /// The address of the plaintext of an Authenticated shard in device memory, for kernels that
    /// read it there. The plaintext is [`len`](Self::len) bytes long. All of it was verified before
    /// the lease was taken out.
    ///
    /// `None` for an Encrypted shard, for a shard whose device was lost, and for a shard that was
    /// found altered. The pointer is valid as long as the lease exists, and for reading only: a
    /// write through it is detected as tampering. Call this again rather than store the pointer.
    ///
    /// On a host device it is an address of this process. A read through it stays harmless until the
    /// lease ends, after the loss and the reset of the device too.
    #[must_use]
    pub fn device_pointer(&self) -> Option<DeviceAddress> {
        let sound = self.ensure_sound().is_ok();
        self.pointer.as_ref().filter(|_| sound).map(|pointer| pointer.address)
    }

    /// Names the shard's memory to another process, which opens it on the same device
    /// ([`Device::open_shared`](vram_gpu::Device::open_shared)) and uses the plaintext in place. Calling
    /// this again gives the same names.
    ///
    /// That process can read **and write** the whole allocation; what it alters is found as any
    /// alteration is, by a check or by the scrubber. The lease has to live until that process has closed
    /// the memory or has ended: what happens to memory that is freed before is undefined. The caller
    /// knows when that is; this library does not.
    ///
    /// # Errors
    ///
    /// [`VramError::NotShareable`] for a shard without bytes, for an Encrypted one, and for one on a GPU
    /// that is not used with [`MemoryMode::SharedBlocks`](vram_space::MemoryMode::SharedBlocks);
    /// [`VramError::Device`] with [`GpuError::NotShareable`](vram_gpu::GpuError::NotShareable) where the
    /// device shares no memory; the errors of [`ensure_sound`](Self::ensure_sound).
    pub fn share(&self) -> Result<SharedShard, VramError> {
        self.ensure_sound()?;
        let memory = self.pointer.as_ref().map(|pointer| &pointer.memory);
        let shared = share::share(&self.entry, memory, self.len())?;
        self.shared.store(true, Ordering::Release);
        Ok(shared)
    }

    /// Whether [`share`](Self::share) has succeeded: another process may have the memory open.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Acquire)
    }

    /// Checks that no alteration of the shard is known: its device is not lost, and no check found
    /// it altered. This call verifies no bytes itself.
    ///
    /// # Errors
    ///
    /// [`VramError::Quarantined`], [`VramError::DeviceLost`], [`VramError::ShardFreed`].
    pub fn ensure_sound(&self) -> Result<(), VramError> {
        self.entry.here()?.ready()?;
        self.entry.not_quarantined()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("shard", &self.shard)
            .field("holder", &self.leased.holder)
            .field("shared", &self.is_shared())
            .finish_non_exhaustive()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // First: the call that waits for the end of the last lease may return this memory. Where a
        // reset has replaced it, this is its end. That makes no driver call, and a panic changes
        // nothing.
        let memory = self.pointer.take().map(|pointer| pointer.memory);
        let _dropped = catch_unwind(AssertUnwindSafe(|| drop(memory)));
        let (entry, gpu) = (&*self.entry, self.shard.gpu_index);
        let last = entry.gate.end_lease(&self.leased) == 0;
        let lease = counted(core::mem::take(&mut self.leased), entry);
        entry.listeners.census.lease_ended(gpu, entry.holder(), &lease, last);
    }
}

/// The lease of a shard, as the census counts it.
fn counted(leased: Leased, entry: &Entry) -> CountedLease {
    CountedLease { leased, shard: entry.id.clone(), of: entry.of.clone() }
}

/// The name of a holder of leases. An empty one names nobody.
pub fn holder(name: &str) -> Result<Option<Arc<str>>, VramError> {
    let holder = label(name);
    check_holder(holder.as_ref())?;
    Ok(holder)
}

/// # Errors
///
/// [`VramError::LimitExceeded`] for a name that is too long.
pub(crate) fn check_holder(holder: Option<&Arc<str>>) -> Result<(), VramError> {
    check_label("bytes of the holder of a lease", holder)
}

/// Takes out a lease for a holder without a name. With a `timeout`, waits for other calls no longer
/// than that.
pub fn lease(
    core: &Core,
    handle: &SealedShard,
    timeout: Option<Duration>,
) -> Result<Lease, VramError> {
    lease_as(core, handle, None, timeout)
}

/// As [`lease`](fn@lease), for a [`holder`].
pub fn lease_as(
    core: &Core,
    handle: &SealedShard,
    holder: Option<Arc<str>>,
    timeout: Option<Duration>,
) -> Result<Lease, VramError> {
    let entry = core.resolve(handle)?;
    let pass = entry.gate.shared_until(timeout.map_or(Deadline::NEVER, Deadline::within));
    let waited = timeout.unwrap_or_default();
    let pass = pass.map_err(|refusal| refused(&entry, refusal, waited))?;
    core.still_good(&entry, handle)?;
    entry.not_quarantined()?;
    // Held until the lease exists: a reset of a working device finds the call or the lease.
    let view = entry.view()?;
    let protection = view.seal.protection();
    if protection == Protection::Authenticated && entry.state().ages.last_verified().is_none() {
        let verdict = verify::verify_entry(core, &entry, &view, Verify::Segments)?;
        if !verdict.sound {
            let segments = verdict.altered.iter().map(|span| span.segment).collect();
            return Err(VramError::ShardAltered { shard: entry.id.clone(), segments });
        }
    }
    // An empty shard on a GPU without a budget has no memory to point to.
    let memory = view.memory().ok();
    let pointer = memory.and_then(|memory| Pointer::of(memory, view.range, protection));
    let (leased, first) = note(core, &entry, &pass, holder);
    drop(pass);
    Ok(begun(core, entry, (leased, first), pointer))
}

/// Notes a lease at the gate of its shard: the lease, and whether it is the first of the shard.
pub(crate) fn note(
    core: &Core,
    entry: &Entry,
    pass: &SharedPass<'_>,
    holder: Option<Arc<str>>,
) -> (Leased, bool) {
    let (since, number) = used(core, entry);
    let leased = Leased { since, number, holder };
    let first = entry.gate.lease(pass, leased.clone()) == 1;
    (leased, first)
}

/// The lease of a shard on a GPU, that its gate has noted.
pub(crate) fn begun(
    core: &Core,
    entry: Arc<Entry>,
    (leased, first): (Leased, bool),
    pointer: Option<Pointer>,
) -> Lease {
    let shard = core.handle(&entry);
    let lease = counted(leased.clone(), &entry);
    entry.listeners.census.leased(shard.gpu_index, entry.holder(), lease, first);
    Lease { entry, shard, pointer, shared: AtomicBool::new(false), leased }
}

/// Runs `work` on a handle's shard as its exclusive user. Waits for other calls and for leases no
/// longer than `timeout`.
pub(crate) fn exclusive_within<T>(
    core: &Core,
    handle: &SealedShard,
    timeout: Duration,
    work: impl FnOnce(&Arc<Entry>) -> Result<T, VramError>,
) -> Result<T, VramError> {
    let entry = core.resolve(handle)?;
    let pass = entry.gate.exclusive_until(Deadline::within(timeout));
    let _pass = pass.map_err(|refusal| refused(&entry, refusal, timeout))?;
    core.still_good(&entry, handle)?;
    work(&entry)
}

/// Pins a shard, or unpins it.
pub fn set_pinned(core: &Core, handle: &SealedShard, pinned: bool) -> Result<(), VramError> {
    // Inside the gate: a call that evicts the shard has either finished or will see the pin.
    core.shared(handle, |entry| {
        entry.standing.set_pinned(pinned);
        Ok(())
    })
}

/// Records that a shard was used now. Returns the monotonic time, and the number of the use among
/// all uses of any shard.
pub(crate) fn used(core: &Core, entry: &Entry) -> (Duration, u64) {
    let now = core.clock.monotonic();
    (now, used_at(core, entry, now))
}

/// As [`used`], at this monotonic time.
pub(crate) fn used_at(core: &Core, entry: &Entry, now: Duration) -> u64 {
    let number = core.uses.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    entry.standing.used(now, number);
    number
}

pub(crate) fn refused(entry: &Entry, refusal: Refusal, waited: Duration) -> VramError {
    match refusal {
        Refusal::Busy(busy) => in_use(entry, busy),
        Refusal::TimedOut => VramError::TimedOut { shard: entry.id.clone(), waited },
    }
}
