//! What the server keeps: the manager, and a slot for each model that it knows by name.

pub(crate) mod calls;
pub(crate) mod from_store;
pub(crate) mod leases;
pub(crate) mod load;
pub(crate) mod repair;
pub(crate) mod reset;
pub(crate) mod sharing;
mod slot;
pub(crate) mod stored;
pub(crate) mod view;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vram_residency::model::Limits;
use vram_residency::nvml::{Monitor, MonitorOptions, XidMeaning, meaning};
use vram_residency::{
    CancelToken, Device, DeviceKind, KeyRing, ParkedModel, ScrubOptions, ScrubRate, Scrubber,
    SealKey, VramError, VramManager,
};

use self::leases::Leases;
use self::slot::{Slot, State};
use crate::config::{CacheConfig, Config, ModelConfig, ScrubConfig};
use crate::feed::{Feed, Own};
use crate::lane::Lane;
use crate::problem::Problem;
use crate::report::ServeError;
use crate::server::prepare::Devices;

/// What the server keeps. Its calls block: they run in a [`Lane`].
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) manager: VramManager,
    pub(crate) feed: Feed,
    pub(crate) leases: Leases,
    /// Loads, checks and moves.
    pub(crate) heavy: Lane,
    /// Calls that touch no bytes: leases, pins, frees.
    pub(crate) light: Lane,
    models: Mutex<BTreeMap<String, Slot>>,
    /// Models that were parked to make room, until their slots have them.
    evicted: Mutex<Vec<ParkedModel>>,
    /// How many were, by device.
    evictions: Vec<AtomicU64>,
    scrubber: Mutex<Option<Scrubber>>,
    /// Resets of devices that have ended. Rises under the lock of the slots.
    resets: AtomicU64,
    /// What opens images of stores; `None` if no model has one.
    keys: Option<KeyRing>,
    cache: Option<CacheConfig>,
    /// Bounds on the headers of model files.
    limits: Limits,
    /// Cancelled when the server ends: for calls on stores that change no slot.
    ending: CancelToken,
    draining: AtomicBool,
}

/// Calls that wait for a light one: each is short.
const LIGHT_WAITING: usize = 256;
/// How long an error waits for what the card's own library adds to it.
const CARD_WAIT: Duration = Duration::from_secs(1);
/// Light calls that run at the same time.
const LIGHT: usize = 4;

impl Engine {
    /// Builds the manager over these devices, and starts the scrubber.
    pub(crate) fn new(config: &Config, devices: Devices, key: SealKey) -> Result<Self, ServeError> {
        let limits = &config.limits;
        let stored = config.models.iter().any(|model| model.store.is_some());
        let keys = if stored { Some(KeyRing::new(copy_of(&key)?)) } else { None };
        let feed = Feed::new(limits.events_kept);
        let Devices { open, builder, .. } = devices;
        let builder = builder.card_monitor(watch(&open, &feed)).key(key).event_sink(feed.clone());
        let manager = builder.build().map_err(ServeError::manager)?;
        let scrubber = match &config.scrub {
            Some(scrub) => {
                let started = manager.start_scrubber(ScrubOptions::new(rate(scrub)));
                Some(started.map_err(ServeError::manager)?)
            }
            None => None,
        };
        let models = config.models.iter().cloned().enumerate();
        let slots = models.map(|(place, model)| Slot::configured(place, model));
        Ok(Self {
            manager,
            feed,
            leases: Leases::new(limits.leases),
            heavy: Lane::new(limits.calls, limits.calls_waiting).map_err(ServeError::threads)?,
            light: Lane::new(LIGHT, LIGHT_WAITING).map_err(ServeError::threads)?,
            models: Mutex::new(slots.map(|slot| (slot.config.name.clone(), slot)).collect()),
            evicted: Mutex::default(),
            evictions: config.devices.iter().map(|_| AtomicU64::new(0)).collect(),
            scrubber: Mutex::new(scrubber),
            resets: AtomicU64::new(0),
            keys,
            cache: config.cache.clone(),
            limits: limits.of_models(),
            ending: CancelToken::new(),
            draining: AtomicBool::new(false),
        })
    }

    /// An error of the manager, with what the card's own library adds to it.
    fn told(&self, error: &VramError) -> Problem {
        let mut problem = Problem::from(error);
        if let Some(words) = self.manager.card_words(error, CARD_WAIT) {
            problem.message = format!("{}; {words}", problem.message);
        }
        problem
    }

    /// An error of the manager in a call on a model: a shard that it names is one of this model.
    fn told_of(&self, name: &str, error: &VramError) -> Problem {
        let mut problem = self.told(error);
        problem.message = format!("model {name:?}: {}", problem.message);
        problem
    }

    /// The slots. Held for moments only, never during a call of the manager.
    fn slots(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a control call once the server is being stopped.
    pub(crate) fn check_open(&self) -> Result<(), Problem> {
        if self.is_draining() { Err(Problem::draining()) } else { Ok(()) }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Takes no more control calls from now on. False if that was so before.
    pub(crate) fn begin_draining(&self, deadline: Duration) -> bool {
        let first = !self.draining.swap(true, Ordering::SeqCst);
        if first {
            let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
            self.feed.tell(&Own::Draining { deadline_ms });
        }
        first
    }

    /// Cancels all loads that are under way, and drops what is parked: for a server that ends.
    pub(crate) fn let_go(&self) {
        self.ending.cancel();
        let mut parked = Vec::new();
        for slot in self.slots().values_mut() {
            match core::mem::replace(&mut slot.state, State::Absent) {
                State::Busy { doing, cancel, progress } => {
                    cancel.cancel();
                    slot.state = State::Busy { doing, cancel, progress };
                }
                State::Parked(model) => parked.push(model),
                State::Absent | State::Resident(_) => {}
            }
        }
        self.collect_evicted();
        parked.append(&mut self.lock_evicted());
        // Wiping host memory takes a while: not under the lock of the slots.
        drop(parked);
        drop(self.scrubber.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Cancels the load of a model. Returns false if none is under way.
    pub(crate) fn cancel(&self, name: &str) -> bool {
        let slots = self.slots();
        let Some(State::Busy { doing: "loading", cancel, .. }) =
            slots.get(name).map(|slot| &slot.state)
        else {
            return false;
        };
        cancel.cancel();
        true
    }

    fn lock_evicted(&self) -> MutexGuard<'_, Vec<ParkedModel>> {
        self.evicted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the models that were parked to make room to their slots, and counts them.
    pub(crate) fn collect_evicted(&self) {
        let mut fresh = self.manager.take_evicted_models();
        let mut waiting = self.lock_evicted();
        waiting.append(&mut fresh);
        if waiting.is_empty() {
            return;
        }
        let mut slots = self.slots();
        let all = core::mem::take(&mut *waiting);
        for model in all {
            match slots.iter_mut().find(|(_, slot)| slot.state.has(&model)) {
                Some((name, slot)) => {
                    self.count_eviction(&slot.state);
                    let by = model.evicted_for().map(|asker| slot::name_of(&asker));
                    tracing::warn!(model = %name, by, "evicted: another model needed its room; parked");
                    slot.state = State::Parked(model);
                }
                // A call on the model is under way: its slot has room when that call has ended.
                None => waiting.push(model),
            }
        }
    }

    /// Counts a model that lay here, at each of its devices.
    fn count_eviction(&self, lay: &State) {
        let State::Resident(model) = lay else { return };
        let gpus: BTreeSet<u32> = model.shards().map(|shard| shard.gpu_index).collect();
        for gpu in gpus {
            let count = usize::try_from(gpu).ok().and_then(|gpu| self.evictions.get(gpu));
            if let Some(count) = count {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Models that were parked to make room for others, by the device that they lay on.
    pub(crate) fn evictions(&self) -> impl Iterator<Item = u64> {
        self.evictions.iter().map(|count| count.load(Ordering::Relaxed))
    }

    /// The models that are parked since this one needed their room.
    pub(crate) fn parked_for(&self, name: &str) -> BTreeSet<String> {
        self.collect_evicted();
        let slots = self.slots();
        let parked = slots.iter().filter(|(_, slot)| slot.made_room_for().as_deref() == Some(name));
        parked.map(|(name, _)| name.clone()).collect()
    }

    /// The configured models, in the order of the configuration.
    pub(crate) fn configured(&self) -> Vec<ModelConfig> {
        let slots = self.slots();
        let mut configured: Vec<_> =
            slots.values().filter(|slot| slot.configured.is_some()).collect();
        configured.sort_by_key(|slot| slot.place);
        configured.into_iter().map(|slot| slot.config.clone()).collect()
    }
}

/// Asks NVIDIA's management library about the cards among these devices. Each XID is an event.
fn watch(devices: &[Arc<dyn Device>], feed: &Feed) -> Monitor {
    let cards = devices.iter().map(|device| device.info());
    let cards = cards.filter(|info| info.kind == DeviceKind::Cuda).map(|info| info.uuid);
    let feed = feed.clone();
    Monitor::start(MonitorOptions::new(cards).on_xid(move |event| {
        let XidMeaning { what, next, .. } = meaning(event.xid);
        feed.tell(&Own::Xid { uuid: event.card.to_string(), xid: event.xid, what, next });
    }))
}

/// A second holder of a key: the manager takes one.
fn copy_of(key: &SealKey) -> Result<SealKey, ServeError> {
    let copy = SealKey::from_hex(&key.expose_hex());
    copy.map_err(|error| ServeError::System(std::io::Error::other(error)))
}

fn rate(scrub: &ScrubConfig) -> ScrubRate {
    match (scrub.within, scrub.bytes_per_second) {
        (Some(within), _) => ScrubRate::Within(within),
        (None, rate) => ScrubRate::BytesPerSecond(rate.unwrap_or_default().get()),
    }
}
