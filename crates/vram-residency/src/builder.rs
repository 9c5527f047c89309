//! Putting a manager together: devices, budgets, keys, limits, policies.

mod build;
mod host_memory;
mod share;
mod sinks;

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_core::parts::{EvictionPolicy, EvictionUnit, Limits};
use vram_core::transfer::ReadBack;
use vram_events::{OnEviction, Sinks};
use vram_files::KeySource;
use vram_gpu::Device;
use vram_id::{Clock, SystemClock};
use vram_nvml::Monitor;
use vram_seal::parallel::Threads;
use vram_seal::{KeyRing, SealKey, SealParams, SegmentSize, Suite, TicketKey};
use vram_space::{Compute, MemoryMode, WipePolicy};

/// How much of a GPU a manager takes: at once in `build`, or [block by block](MemoryMode). The
/// scratch memory of a device's kernels is a part of it: see [`scratch`](crate::GpuCapacity::scratch).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Budget {
    /// This many bytes.
    Bytes(ByteLen),
    /// A fraction, above 0 and at most 1, of what the driver reports free when the manager is built;
    /// whole granules.
    FractionOfFree(f64),
}

/// The key, or where it comes from.
#[derive(Debug)]
pub(crate) enum Keys {
    Ring(KeyRing),
    Source(KeySource),
}

/// Builds a [`VramManager`](crate::VramManager) from its parts. Everything but the devices has a
/// default.
///
/// ```
/// use vram_residency::{ByteLen, VramManager, WipePolicy};
///
/// # fn main() -> Result<(), vram_residency::VramError> {
/// let manager = VramManager::builder()
///     .host_device(ByteLen::from_mib_saturating(64))
///     .host_device(ByteLen::from_mib_saturating(64))
///     .headroom(1, ByteLen::MIB)
///     .wipe(WipePolicy::Always)
///     .build()?;
/// assert_eq!(manager.gpu_count(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct VramManagerBuilder {
    pub(crate) devices: Vec<Wanted>,
    pub(crate) per_gpu: Vec<(u32, PerGpu)>,
    pub(crate) keys: Option<Keys>,
    pub(crate) defaults: SealParams,
    pub(crate) limits: Limits,
    pub(crate) threads: Threads,
    pub(crate) wipe: WipePolicy,
    pub(crate) read_back: ReadBack,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) id_seed: Option<u64>,
    pub(crate) sinks: Sinks,
    pub(crate) ticket_key: Option<TicketKey>,
    pub(crate) node: Option<Arc<str>>,
    /// `None` for the share of the host's memory.
    pub(crate) park_limit: Option<ByteLen>,
    pub(crate) eviction: Option<Arc<dyn EvictionPolicy>>,
    pub(crate) on_eviction: OnEviction,
    pub(crate) eviction_unit: EvictionUnit,
    pub(crate) compute: Compute,
    pub(crate) cards: Option<Monitor>,
}

#[derive(Debug)]
pub(crate) enum Wanted {
    Device(Arc<dyn Device>),
    Host(ByteLen),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum PerGpu {
    Budget(Budget),
    Headroom(ByteLen),
    Memory(MemoryMode),
}

impl VramManagerBuilder {
    pub(crate) fn new() -> Self {
        Self {
            devices: Vec::new(),
            per_gpu: Vec::new(),
            keys: None,
            defaults: SealParams::new(),
            limits: Limits::default(),
            threads: Threads::AUTO,
            wipe: WipePolicy::default(),
            read_back: ReadBack::default(),
            clock: Arc::new(SystemClock),
            id_seed: None,
            sinks: Sinks::new(),
            ticket_key: None,
            node: None,
            park_limit: None,
            eviction: None,
            on_eviction: OnEviction::Never,
            eviction_unit: EvictionUnit::Model,
            compute: Compute::default(),
            cards: None,
        }
    }

    /// Adds a device. Its index in the manager is the number of devices added before.
    pub fn device(mut self, device: Arc<dyn Device>) -> Self {
        self.devices.push(Wanted::Device(device));
        self
    }

    /// Adds several devices, in order.
    pub fn devices(mut self, devices: impl IntoIterator<Item = Arc<dyn Device>>) -> Self {
        self.devices.extend(devices.into_iter().map(Wanted::Device));
        self
    }

    /// Adds a device in host memory, of `total` bytes; zero is allowed.
    pub fn host_device(mut self, total: ByteLen) -> Self {
        self.devices.push(Wanted::Host(total));
        self
    }

    /// Sets what the devices that hold the bytes may compute. Default: [`Compute::Checks`], where a
    /// device has kernels.
    pub const fn compute(mut self, compute: Compute) -> Self {
        self.compute = compute;
        self
    }

    /// Sets how much of a GPU the manager takes. Default: all free memory of a host device, nine
    /// tenths of the free memory of any other device.
    pub fn budget(mut self, gpu: u32, budget: Budget) -> Self {
        self.per_gpu.push((gpu, PerGpu::Budget(budget)));
        self
    }

    /// Sets how much of a GPU's budget is kept free. Default: nothing.
    pub fn headroom(mut self, gpu: u32, headroom: ByteLen) -> Self {
        self.per_gpu.push((gpu, PerGpu::Headroom(headroom)));
        self
    }

    /// Sets how the manager takes a GPU's memory. Default: one region, in `build`.
    pub fn memory(mut self, gpu: u32, mode: MemoryMode) -> Self {
        self.per_gpu.push((gpu, PerGpu::Memory(mode)));
        self
    }

    /// Sets the key that seals. Default: a fresh random key, wiped when the manager is dropped.
    pub fn key(mut self, key: SealKey) -> Self {
        self.keys = Some(Keys::Ring(KeyRing::new(key)));
        self
    }

    /// Sets several keys: the active one seals, all of them open.
    pub fn key_ring(mut self, keys: KeyRing) -> Self {
        self.keys = Some(Keys::Ring(keys));
        self
    }

    /// Sets where the sealing key comes from. `build` reads it.
    pub fn key_source(mut self, source: KeySource) -> Self {
        self.keys = Some(Keys::Source(source));
        self
    }

    /// Sets the cipher of requests that do not name one.
    pub fn suite(mut self, suite: Suite) -> Self {
        self.defaults = self.defaults.with_suite(suite);
        self
    }

    /// Sets the segment size of requests that do not name one.
    pub fn segment_size(mut self, segment: SegmentSize) -> Self {
        self.defaults = self.defaults.with_segment(segment);
        self
    }

    /// Sets the largest sizes and counts that the manager accepts.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how many threads one call uses. Default: one for each processor of the machine.
    pub fn threads(mut self, threads: Threads) -> Self {
        self.threads = threads;
        self
    }

    /// Sets whether the manager overwrites device memory before it returns it.
    pub fn wipe(mut self, wipe: WipePolicy) -> Self {
        self.wipe = wipe;
        self
    }

    /// Sets how much a sealing call reads back if its request does not say.
    pub fn read_back(mut self, read_back: ReadBack) -> Self {
        self.read_back = read_back;
        self
    }

    /// Sets the clock of the manager. Shard ids follow this clock only if
    /// [`id_seed`](Self::id_seed) is set too.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Makes shard ids repeatable: the same seed and clock give the same ids. Use it for runs that
    /// must be repeated. Two managers with the same seed make the same ids, and only their handles
    /// differ.
    pub fn id_seed(mut self, seed: u64) -> Self {
        self.id_seed = Some(seed);
        self
    }

    /// Sets the key that signs tickets. Default: a key derived from the active seal key, which
    /// changes with it. Every holder of this key can make tickets.
    pub fn ticket_key(mut self, key: TicketKey) -> Self {
        self.ticket_key = Some(key);
        self
    }

    /// Sets the name of this machine that tickets state: 1 to 1024 bytes. Default: no name.
    pub fn node(mut self, name: &str) -> Self {
        self.node = Some(name.into());
        self
    }

    /// Lets the manager evict models and shards to make room for others, in the order that `policy`
    /// gives. A model goes as a whole, and of those that are first in the order as few as possible:
    /// see [`eviction_unit`](Self::eviction_unit).
    /// Default: the manager evicts nothing.
    ///
    /// It evicts only shards whose request allows it
    /// ([`SealRequest::on_eviction`](crate::SealRequest::on_eviction)). Shards whose request says
    /// nothing follow [`on_eviction`](Self::on_eviction). A request never waits for a shard that
    /// other calls use: it evicts others, or is refused with the names of those in use
    /// ([`Shortfall::busy`](crate::Shortfall)).
    pub fn eviction(mut self, policy: impl EvictionPolicy + 'static) -> Self {
        self.eviction = Some(Arc::new(policy));
        self
    }

    /// Sets what an eviction does with shards whose request does not say. Default: they stay
    /// resident.
    pub fn on_eviction(mut self, on_eviction: OnEviction) -> Self {
        self.on_eviction = on_eviction;
        self
    }

    /// Sets what goes together when room is made. Default: a whole model, as it was admitted. It is
    /// the choice of a program whose models are of use without some of their shards.
    pub fn eviction_unit(mut self, unit: EvictionUnit) -> Self {
        self.eviction_unit = unit;
        self
    }

    /// Sets what asks NVIDIA's management library about the cards: see [`card`](crate::VramManager::card).
    /// Default: nothing asks.
    pub fn card_monitor(mut self, monitor: Monitor) -> Self {
        self.cards = Some(monitor);
        self
    }

    /// Sets how much host memory parked shards and backups may use. Default: a quarter of the host's
    /// memory, or of the limit of the process's control group where that is less; 4 GiB where the
    /// operating system does not say (all but Linux).
    /// [`ParkCapacity::limit`](crate::ParkCapacity) shows it.
    ///
    /// A call that parks is refused with [`VramError::ParkLimit`](crate::VramError::ParkLimit) where
    /// no room is left. An eviction passes over shards that would have to be parked and find no
    /// room.
    pub fn park_limit(mut self, bytes: ByteLen) -> Self {
        self.park_limit = Some(bytes);
        self
    }
}
