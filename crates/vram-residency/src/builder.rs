//! Putting a manager together: devices, budgets, keys, limits, policies.

mod sinks;

use core::sync::atomic::AtomicU64;
use std::sync::Arc;

use vram_alloc::{Arena, ByteLen, GpuIndex, Ledger, MAX_TOTAL};
use vram_gpu::{Device, DeviceKind, HostDevice};
use vram_seal::parallel::Threads;
use vram_seal::{KeyRing, SealKey, SealParams, SegmentSize, Suite, TicketKey};

use crate::block::{Backing, Block, Held, MemoryMode, foreign};
use crate::clock::{Clock, SystemClock};
use crate::close::Closing;
use crate::error::VramError;
use crate::events::Events;
use crate::gpu::{Gpu, Means, Tenants, WipePolicy};
use crate::id::IdSource;
use crate::key_uses::KeyUses;
use crate::keys::KeySource;
use crate::limits::Limits;
use crate::links::Links;
use crate::manager::{Core, VramManager};
use crate::meter::Meters;
use crate::parked::Parked;
use crate::policy::EvictionPolicy;
use crate::pool::StagingPool;
use crate::promise::Promises;
use crate::registry::Registry;
use crate::scrub::Scrubbing;
use crate::shard::Marker;
use crate::sink::Sinks;
use crate::standing::OnEviction;
use crate::sync::{Mutex, RwLock};
use crate::tenants::Residents;
use crate::ticket::check_node;
use crate::write::ReadBack;

/// How much of a GPU a manager takes: at once when it is built, or [block by block](MemoryMode).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Budget {
    /// So many bytes.
    Bytes(ByteLen),
    /// A fraction, above 0 and at most 1, of what the driver reports free when the manager is built;
    /// whole granules.
    FractionOfFree(f64),
}

/// The key, or where it comes from.
#[derive(Debug)]
enum Keys {
    Ring(KeyRing),
    Source(KeySource),
}

/// Puts a [`VramManager`] together. Everything but the devices has a default.
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
    devices: Vec<Wanted>,
    per_gpu: Vec<(u32, PerGpu)>,
    keys: Option<Keys>,
    defaults: SealParams,
    limits: Limits,
    threads: Threads,
    wipe: WipePolicy,
    read_back: ReadBack,
    clock: Arc<dyn Clock>,
    id_seed: Option<u64>,
    pub(crate) sinks: Sinks,
    ticket_key: Option<TicketKey>,
    node: Option<Arc<str>>,
    pub(crate) park_limit: ByteLen,
    pub(crate) eviction: Option<Arc<dyn EvictionPolicy>>,
    pub(crate) on_eviction: OnEviction,
}

#[derive(Debug)]
enum Wanted {
    Device(Arc<dyn Device>),
    Host(ByteLen),
}

#[derive(Clone, Copy, Debug)]
enum PerGpu {
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
            park_limit: MAX_TOTAL,
            eviction: None,
            on_eviction: OnEviction::Never,
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

    /// Sets how much of a GPU is taken. Default: all that is free of a host device, nine tenths of
    /// what is free of any other.
    pub fn budget(mut self, gpu: u32, budget: Budget) -> Self {
        self.per_gpu.push((gpu, PerGpu::Budget(budget)));
        self
    }

    /// Sets how much of a GPU's budget is kept free. Default: nothing.
    pub fn headroom(mut self, gpu: u32, headroom: ByteLen) -> Self {
        self.per_gpu.push((gpu, PerGpu::Headroom(headroom)));
        self
    }

    /// Sets how a GPU's memory is taken. Default: one region, when the manager is built.
    pub fn memory(mut self, gpu: u32, mode: MemoryMode) -> Self {
        self.per_gpu.push((gpu, PerGpu::Memory(mode)));
        self
    }

    /// Sets the key that seals. Default: a fresh random one, which dies with the manager.
    pub fn key(mut self, key: SealKey) -> Self {
        self.keys = Some(Keys::Ring(KeyRing::new(key)));
        self
    }

    /// Sets several keys: the active one seals, all of them open.
    pub fn key_ring(mut self, keys: KeyRing) -> Self {
        self.keys = Some(Keys::Ring(keys));
        self
    }

    /// Sets where the key that seals comes from. It is read when the manager is built.
    pub fn key_source(mut self, source: KeySource) -> Self {
        self.keys = Some(Keys::Source(source));
        self
    }

    /// Sets the cipher of requests that name none.
    pub fn suite(mut self, suite: Suite) -> Self {
        self.defaults = self.defaults.with_suite(suite);
        self
    }

    /// Sets the segment size of requests that name none.
    pub fn segment_size(mut self, segment: SegmentSize) -> Self {
        self.defaults = self.defaults.with_segment(segment);
        self
    }

    /// Sets what one manager accepts at most.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how many threads one call works with. Default: as many as the machine has.
    pub fn threads(mut self, threads: Threads) -> Self {
        self.threads = threads;
        self
    }

    /// Sets whether device memory is overwritten before it is given back.
    pub fn wipe(mut self, wipe: WipePolicy) -> Self {
        self.wipe = wipe;
        self
    }

    /// Sets how much is read back after sealing where the request does not say.
    pub fn read_back(mut self, read_back: ReadBack) -> Self {
        self.read_back = read_back;
        self
    }

    /// Sets where the time comes from. Shard ids follow it only together with
    /// [`id_seed`](Self::id_seed).
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Makes shard ids repeatable: the same seed and clock give the same ids. For runs that are to
    /// be repeated; two managers with one seed make the same ids, and only their handles differ.
    pub fn id_seed(mut self, seed: u64) -> Self {
        self.id_seed = Some(seed);
        self
    }

    /// Sets the key that tickets are signed with. Default: one that is derived from the active seal
    /// key, and changes with it. Whoever holds it can make tickets.
    pub fn ticket_key(mut self, key: TicketKey) -> Self {
        self.ticket_key = Some(key);
        self
    }

    /// Names this machine, for tickets: 1 to 1024 bytes. Default: no name.
    pub fn node(mut self, name: &str) -> Self {
        self.node = Some(name.into());
        self
    }

    /// Builds the manager, and takes its region of every device but those that are used block by
    /// block.
    ///
    /// # Errors
    ///
    /// [`VramError::Config`] without a device, with more than `u32::MAX` of them, with the same
    /// device twice, with a budget that is not a fraction or is larger than the device, for a GPU
    /// that is not there, or with limits that allow nothing; [`VramError::Key`] or
    /// [`VramError::KeySource`];
    /// [`VramError::Device`], [`VramError::DeviceLost`] and [`VramError::HostMemory`] if a region
    /// cannot be taken. What was taken of other devices is given back.
    pub fn build(mut self) -> Result<VramManager, VramError> {
        let count = u32::try_from(self.devices.len())
            .map_err(|_too_many| VramError::config("more devices than 2^32 - 1"))?;
        if count == 0 {
            return Err(VramError::config("no device was given: add at least one"));
        }
        if let Some((gpu, _)) = self.per_gpu.iter().find(|(gpu, _)| *gpu >= count) {
            return Err(VramError::UnknownGpu { gpu: *gpu, count });
        }
        check_node(self.node.as_deref())?;
        let segment = self.defaults.segment().bytes();
        if self.limits.staging_bytes < segment {
            return Err(VramError::config(format!(
                "staging of {} holds not even one segment of {segment}",
                self.limits.staging_bytes
            )));
        }

        // Before any device is touched: a key that cannot be had costs nothing.
        let keys = match self.keys.take() {
            Some(Keys::Ring(keys)) => keys,
            Some(Keys::Source(source)) => KeyRing::new(source.load()?),
            None => KeyRing::new(SealKey::random()?),
        };
        let promises = Arc::new(Promises::new(Arc::clone(&self.clock)));
        let sinks = core::mem::take(&mut self.sinks);
        let (events, sink_threads) =
            Events::start(Arc::clone(&self.clock), sinks).map_err(|error| VramError::Io {
                action: "start the thread of an event sink",
                path: None,
                source: Arc::new(error),
            })?;
        let parked = Parked::new(self.park_limit)?;
        let registry = Registry::new(self.limits.shard_count_max, parked);
        let tenants = Arc::new(Residents {
            promises: Arc::clone(&promises),
            shards: registry.shards(),
            events: Arc::clone(&events),
        });
        let mut gpus: Vec<Arc<Gpu>> = Vec::new();
        for (index, wanted) in (0_u32..).zip(&self.devices) {
            let device: Arc<dyn Device> = match wanted {
                Wanted::Device(device) => Arc::clone(device),
                Wanted::Host(total) => {
                    let host = HostDevice::new(GpuIndex::new(index), *total);
                    Arc::new(host.map_err(|error| VramError::config(error.to_string()))?)
                }
            };
            // Host devices may share an identity: only tests make several of one index.
            let same = |gpu: &&Arc<Gpu>| {
                let (ours, theirs) = (gpu.device.info(), device.info());
                Arc::ptr_eq(&gpu.device, &device)
                    || (theirs.kind != DeviceKind::Host && ours.uuid == theirs.uuid)
            };
            if let Some(twin) = gpus.iter().find(same) {
                let first = twin.index;
                return Err(VramError::config(format!("gpu {index} is gpu {first} once more")));
            }
            gpus.push(Arc::new(self.gpu(index, device, Arc::<Residents>::clone(&tenants))?));
        }
        let core = Core {
            registry,
            gpus,
            keys: RwLock::new(keys),
            key_uses: KeyUses::default(),
            links: Links::default(),
            marker: Marker::new()?,
            promises,
            ticket_key: self.ticket_key,
            node: self.node,
            ids: self.id_seed.map_or(IdSource::Process, IdSource::seeded),
            clock: self.clock,
            events,
            limits: self.limits,
            defaults: self.defaults,
            read_back: self.read_back,
            threads: self.threads,
            eviction: self.eviction,
            on_eviction: self.on_eviction,
            evicted: Mutex::default(),
            scrubbing: Scrubbing::default(),
            uses: AtomicU64::new(0),
            closing: Closing::default(),
            meters: Meters::default(),
            sink_threads,
        };
        Ok(VramManager { core: Arc::new(core) })
    }

    fn gpu(
        &self,
        index: u32,
        device: Arc<dyn Device>,
        tenants: Arc<dyn Tenants>,
    ) -> Result<Gpu, VramError> {
        let fail = |error: vram_gpu::GpuError| {
            let source = Box::new(error);
            match error {
                vram_gpu::GpuError::HostMemory { wanted } => VramError::HostMemory { wanted },
                _ if error.is_sticky() => VramError::DeviceLost { gpu: index, source },
                _ => VramError::Device { gpu: index, source },
            }
        };
        let mut budget = None;
        let mut headroom = ByteLen::ZERO;
        let mut mode = MemoryMode::default();
        // The last word counts.
        for (_, setting) in self.per_gpu.iter().filter(|(gpu, _)| *gpu == index) {
            match setting {
                PerGpu::Budget(wanted) => budget = Some(*wanted),
                PerGpu::Headroom(wanted) => headroom = *wanted,
                PerGpu::Memory(wanted) => mode = *wanted,
            }
        }
        let memory = device.memory().map_err(fail)?;
        let total = match budget {
            Some(Budget::Bytes(bytes)) if bytes > memory.total => {
                return Err(VramError::config(format!(
                    "a budget of {bytes} is more than gpu {index} has: {}",
                    memory.total
                )));
            }
            Some(Budget::Bytes(bytes)) => bytes,
            Some(Budget::FractionOfFree(fraction)) => part_of(memory.free, fraction)?,
            None if device.info().kind == DeviceKind::Host => memory.free,
            None => part_of(memory.free, 0.9)?,
        };
        let wrong = |error: &dyn core::fmt::Display| {
            VramError::config(format!("a budget of {total} for gpu {index}: {error}"))
        };
        let ledger = Ledger::new(total).map_err(|error| wrong(&error))?;
        ledger.set_headroom(headroom);
        let extent = match mode {
            MemoryMode::Region => total,
            // Whole granules, so that no placement is cut short at its end.
            MemoryMode::Blocks => ByteLen::new(MAX_TOTAL.get() & !255),
        };
        let arena = Arena::new(extent).map_err(|error| wrong(&error))?;
        let backing = match mode {
            MemoryMode::Region if total.is_zero() => Backing::Region(Mutex::default()),
            MemoryMode::Region => {
                let region = Block::region(device.allocate(total).map_err(fail)?, 0);
                Backing::Region(Mutex::new(Some(region)))
            }
            MemoryMode::Blocks => {
                ledger.set_foreign(foreign(total, ByteLen::ZERO, memory));
                Backing::Blocks(Held::default())
            }
        };
        let pool = StagingPool::new(self.limits.staging_bytes);
        let means = Means { threads: self.threads, staging_bytes: self.limits.staging_bytes };
        Ok(Gpu::new(index, device, backing, ledger, tenants, arena, self.wipe, pool, means))
    }
}

/// A fraction of a length, rounded down to whole granules.
fn part_of(len: ByteLen, fraction: f64) -> Result<ByteLen, VramError> {
    const STEPS: f64 = 1_000_000.0;
    if !(fraction > 0.0 && fraction <= 1.0) {
        return Err(VramError::config(format!(
            "a budget is a fraction above 0 and at most 1 of what is free, not {fraction}"
        )));
    }
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to a million, checked above"
    )]
    let millionths = (fraction * STEPS) as u64;
    let wide = u128::from(len.get()).saturating_mul(u128::from(millionths)) / 1_000_000;
    let bytes = u64::try_from(wide).unwrap_or(u64::MAX);
    Ok(ByteLen::new(bytes & !255))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_is_of_what_is_free_and_in_whole_granules() {
        let part = |bytes, fraction| part_of(ByteLen::new(bytes), fraction).map(ByteLen::get);
        assert_eq!(part(10_000, 1.0).unwrap(), 9984);
        assert_eq!(part(10_000, 0.5).unwrap(), 4864);
        assert_eq!(part(u64::MAX, 1.0).unwrap(), !255);
        for wrong in [0.0, -0.1, 1.000_001, f64::NAN, f64::INFINITY] {
            assert!(part(10_000, wrong).is_err(), "{wrong}");
        }
    }
}
