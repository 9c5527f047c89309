//! The shared state of a manager, and how each operation finds its shard.

pub(crate) mod steady;
#[cfg(test)]
pub(crate) mod testing;

use core::convert::Infallible;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use vram_alloc::ByteLen;
use vram_events::{Events, OnEviction, SinkCounts, SinkThreads, Sinks};
use vram_id::{Clock, IdSource, ShardId};
use vram_seal::parallel::{Threads, map_each};
use vram_seal::{KeyRing, SealParams, TicketKey};
use vram_space::{Gpu, Tenants};

use crate::error::VramError;
use crate::parts::call::Call;
use crate::parts::core::steady::SteadyClock;
use crate::parts::meter::PANIC;
use crate::parts::{
    Closing, Coded, EvictionPolicy, EvictionUnit, Limits, Links, Meters, Promises, Residents,
    TimedCall,
};
use crate::shard::{
    Busy, Entry, Evicted, KeyUses, Listeners, Marker, ParkCapacity, Parked, Registry, SealedShard,
    ShardCause,
};
use crate::sync::{Deadline, Mutex, RwLock};
use crate::transfer::ReadBack;

/// The state that all operations of a manager share.
#[derive(Debug)]
pub struct Core {
    // Declared before the GPUs, so that shards are dropped and wiped while the GPUs still exist.
    pub(crate) registry: Registry,
    pub(crate) gpus: Vec<Arc<Gpu>>,
    pub(crate) keys: RwLock<KeyRing>,
    pub(crate) key_uses: KeyUses,
    pub(crate) links: Links,
    pub(crate) marker: Marker,
    pub(crate) promises: Arc<Promises>,
    /// The key that signs tickets; `None` if it is derived from the active seal key.
    pub(crate) ticket_key: Option<TicketKey>,
    /// The name of this machine, for tickets.
    pub(crate) node: Option<Arc<str>>,
    pub(crate) ids: IdSource,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) events: Arc<Events>,
    /// Those events and the census, for shards.
    pub(crate) listeners: Arc<Listeners>,
    pub(crate) limits: Limits,
    pub(crate) defaults: SealParams,
    pub(crate) read_back: ReadBack,
    pub(crate) threads: Threads,
    pub(crate) eviction: Option<Arc<dyn EvictionPolicy>>,
    pub(crate) on_eviction: OnEviction,
    pub(crate) eviction_unit: EvictionUnit,
    /// Models and shards that were parked to make room, until the program takes them.
    pub(crate) evicted: Mutex<Evicted>,
    /// The number of uses of any shard so far.
    pub(crate) uses: AtomicU64,
    /// The number of models admitted so far.
    pub(crate) admissions: AtomicU64,
    pub(crate) closing: Closing,
    pub(crate) meters: Meters,
    // Declared last: dropping the fields above may still emit events.
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) sink_threads: SinkThreads,
}

/// The parts that a manager is built from, apart from its GPUs.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Settings {
    /// The keys; the active one makes new seals.
    pub keys: KeyRing,
    /// The key that signs tickets; `None` if it is derived from the active seal key.
    pub ticket_key: Option<TicketKey>,
    /// The name of this machine, for tickets.
    pub node: Option<Arc<str>>,
    pub ids: IdSource,
    pub clock: Arc<dyn Clock>,
    pub sinks: Sinks,
    pub limits: Limits,
    /// The seal parameters for requests that name none.
    pub defaults: SealParams,
    /// How much is read back after writing, for requests that name nothing.
    pub read_back: ReadBack,
    pub threads: Threads,
    /// The policy that chooses the shards to evict; without one, no shard is evicted.
    pub eviction: Option<Arc<dyn EvictionPolicy>>,
    /// What eviction does with shards whose request names nothing.
    pub on_eviction: OnEviction,
    /// What goes together.
    pub eviction_unit: EvictionUnit,
    /// Host bytes that parked shards and backups may take.
    pub park_limit: ByteLen,
}

impl Core {
    /// Builds a manager. `gpus` makes its GPUs, each with a clone of the tenants.
    ///
    /// # Errors
    ///
    /// [`VramError::Io`] if the operating system cannot start a thread for a sink;
    /// [`VramError::Config`] for the limit of parked shards; [`VramError::Key`] if the operating
    /// system gives no random bytes; any error of `gpus`.
    pub fn new(
        settings: Settings,
        gpus: impl FnOnce(&Arc<dyn Tenants>) -> Result<Vec<Arc<Gpu>>, VramError>,
    ) -> Result<Self, VramError> {
        let clock: Arc<dyn Clock> = Arc::new(SteadyClock::new(settings.clock));
        let promises = Arc::new(Promises::new(Arc::clone(&clock)));
        let events = Events::start(Arc::clone(&clock), settings.sinks);
        let (events, sink_threads) = events.map_err(|error| VramError::Io {
            action: "start the thread of an event sink",
            path: None,
            source: Arc::new(error),
        })?;
        let parked = Parked::new(settings.park_limit)?;
        let registry = Registry::new(settings.limits.shard_count_max, parked);
        let listeners = Arc::new(Listeners {
            events: Arc::clone(&events),
            census: Arc::clone(&registry.census),
            evicts_models: settings.eviction_unit == EvictionUnit::Model,
        });
        let tenants: Arc<dyn Tenants> = Arc::new(Residents {
            promises: Arc::clone(&promises),
            listeners: Arc::clone(&listeners),
        });
        let gpus = gpus(&tenants)?;
        registry.census.begin(gpus.len());
        Ok(Self {
            registry,
            gpus,
            keys: RwLock::new(settings.keys),
            key_uses: KeyUses::default(),
            links: Links::default(),
            marker: Marker::new()?,
            promises,
            ticket_key: settings.ticket_key,
            node: settings.node,
            ids: settings.ids,
            clock,
            events,
            listeners,
            limits: settings.limits,
            defaults: settings.defaults,
            read_back: settings.read_back,
            threads: settings.threads,
            eviction: settings.eviction,
            on_eviction: settings.on_eviction,
            eviction_unit: settings.eviction_unit,
            evicted: Mutex::default(),
            uses: AtomicU64::new(0),
            admissions: AtomicU64::new(0),
            closing: Closing::default(),
            meters: Meters::default(),
            sink_threads,
        })
    }

    /// The GPUs, in order of their index.
    #[must_use]
    pub fn gpus(&self) -> &[Arc<Gpu>] {
        &self.gpus
    }

    /// The number of shards in any state.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.registry.len()
    }

    /// Host memory of parked shards.
    #[must_use]
    pub fn park_capacity(&self) -> ParkCapacity {
        self.registry.parked.capacity()
    }

    /// Waits until every sink in service has received all earlier events and was flushed. Returns
    /// false at the time-out, or if the caller is a sink's own thread.
    #[must_use]
    pub fn flush_events(&self, timeout: Duration) -> bool {
        self.events.flush(Deadline::within(timeout).instant())
    }

    /// The counts of all events, for each sink in the order in which the sinks were added.
    #[must_use]
    pub fn event_counts(&self) -> Vec<SinkCounts> {
        self.events.counts()
    }

    /// The number of GPUs.
    pub fn gpu_count(&self) -> u32 {
        u32::try_from(self.gpus.len()).unwrap_or(u32::MAX)
    }

    /// The indices of the GPUs that are lost. A device is foreign code: the caller holds no lock.
    pub(crate) fn lost_gpus(&self) -> Vec<u32> {
        self.gpus.iter().filter(|gpu| gpu.lost().is_some()).map(|gpu| gpu.index).collect()
    }

    /// # Errors
    ///
    /// [`VramError::UnknownGpu`].
    pub fn gpu(&self, index: u32) -> Result<&Arc<Gpu>, VramError> {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.gpus.get(index))
            .ok_or_else(|| VramError::UnknownGpu { gpu: index, count: self.gpu_count() })
    }

    /// Fresh handles of all shards that lie on a GPU or are being restored there, in ascending order
    /// of their ids.
    #[must_use]
    pub fn handles(&self) -> Vec<SealedShard> {
        self.registry.all().iter().filter_map(|entry| self.handle_on_gpu(entry)).collect()
    }

    /// A fresh handle of one shard, if it lies on a GPU or is being restored there.
    #[must_use]
    pub fn handle_of(&self, id: &ShardId) -> Option<SealedShard> {
        let found = self.registry.find(id)?;
        // Between the two looks a reset may have replaced it: the next generation is listed first.
        self.handle_on_gpu(&found).or_else(|| self.handle_on_gpu(&*self.registry.find(id)?))
    }

    /// Why a shard cannot be used: it is parked, say, or gone.
    pub(crate) fn why_not(&self, id: &ShardId) -> VramError {
        let refused = self
            .registry
            .find(id)
            .and_then(|entry| entry.state().place().allows(ShardCause::Use, id).err());
        refused.unwrap_or_else(|| VramError::ShardFreed { shard: id.clone() })
    }

    fn handle_on_gpu(&self, entry: &Entry) -> Option<SealedShard> {
        let state = entry.state();
        let on_gpu = state.place().state().is_on_gpu();
        let stated = on_gpu.then(|| state.stated(entry));
        drop(state);
        stated.map(|stated| self.marker.handle(stated))
    }

    /// A fresh handle of an entry.
    pub(crate) fn handle(&self, entry: &Entry) -> SealedShard {
        let stated = entry.state().stated(entry);
        self.marker.handle(stated)
    }

    /// Fresh handles of many entries, in their order.
    pub(crate) fn handles_of(&self, entries: &[Arc<Entry>]) -> Vec<SealedShard> {
        let done = map_each(self.threads, entries.iter().collect(), |entry| {
            Ok::<_, Infallible>(self.handle(entry))
        });
        done.unwrap_or_else(|never| match never {})
    }

    /// The entry that a handle names, if the handle is valid.
    ///
    /// # Errors
    ///
    /// In this order: [`VramError::Closed`], [`VramError::ForeignHandle`], [`VramError::HandleAltered`]
    /// by the mark, [`VramError::ShardFreed`], [`VramError::Restoring`], [`VramError::StaleHandle`],
    /// [`VramError::HandleAltered`] by a field that is not the shard's, [`VramError::Parked`].
    pub(crate) fn resolve(&self, handle: &SealedShard) -> Result<Arc<Entry>, VramError> {
        self.check_open()?;
        self.marker.check(handle)?;
        let entry = self
            .registry
            .find(&handle.shard_id)
            .ok_or_else(|| VramError::ShardFreed { shard: handle.shard_id.clone() })?;
        entry.admits(handle)?;
        Ok(entry)
    }

    /// Runs `work` on a handle's shard as a shared user. The shard stays at its placement
    /// meanwhile.
    pub(crate) fn shared<T>(
        &self,
        handle: &SealedShard,
        work: impl FnOnce(&Arc<Entry>) -> Result<T, VramError>,
    ) -> Result<T, VramError> {
        let entry = self.resolve(handle)?;
        let _pass = entry.gate.shared().map_err(|busy| in_use(&entry, busy))?;
        self.still_good(&entry, handle)?;
        work(&entry)
    }

    /// Runs `work` on a handle's shard as its exclusive user.
    pub(crate) fn exclusive<T>(
        &self,
        handle: &SealedShard,
        work: impl FnOnce(&Arc<Entry>) -> Result<T, VramError>,
    ) -> Result<T, VramError> {
        let entry = self.resolve(handle)?;
        let _pass = entry.gate.exclusive().map_err(|busy| in_use(&entry, busy))?;
        self.still_good(&entry, handle)?;
        work(&entry)
    }

    /// Checks a handle's shard inside its gate: it may have been freed or sealed anew while the call
    /// waited.
    pub(crate) fn still_good(&self, entry: &Entry, handle: &SealedShard) -> Result<(), VramError> {
        self.check_open()?;
        entry.still_admits(handle)
    }

    /// # Errors
    ///
    /// [`VramError::Closed`].
    pub fn check_open(&self) -> Result<(), VramError> {
        if self.closing.closed.load(Ordering::Acquire) { Err(VramError::Closed) } else { Ok(()) }
    }

    /// Carries out a public call. Counts it with its time and the `bytes` that it handled; if it
    /// fails, counts the failure and emits an event. This wraps the whole call once: operations
    /// that the call uses inside are not counted separately.
    pub fn watched<T, E: Coded>(
        &self,
        call: Call,
        shard: Option<&ShardId>,
        gpu: Option<u32>,
        bytes: u64,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.watched_for(call, shard, gpu, work, |_outcome| bytes)
    }

    /// Like [`watched`](Self::watched), where the outcome determines the number of bytes.
    pub fn watched_for<T, E: Coded>(
        &self,
        call: Call,
        shard: Option<&ShardId>,
        gpu: Option<u32>,
        work: impl FnOnce() -> Result<T, E>,
        bytes: impl FnOnce(&T) -> u64,
    ) -> Result<T, E> {
        let mut under_way = TimedCall {
            core: self,
            call,
            shard,
            gpu,
            start: Instant::now(),
            bytes: 0,
            code: Some(PANIC),
        };
        let outcome = work();
        match &outcome {
            Ok(done) => (under_way.code, under_way.bytes) = (None, bytes(done)),
            Err(error) => under_way.code = Some(error.code()),
        }
        drop(under_way);
        outcome
    }
}

/// The error for a shard that leases or other calls keep in use. The caller holds no lock that a
/// clock may take.
pub(crate) fn in_use(entry: &Entry, busy: Busy) -> VramError {
    let oldest = if busy.leases > 0 { entry.oldest_lease() } else { None };
    VramError::InUse { shard: entry.id.clone(), leases: busy.leases, oldest: oldest.map(Box::new) }
}
