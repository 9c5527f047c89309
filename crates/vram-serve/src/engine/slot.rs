//! A model that the server knows by name: where it is, and whose turn it is to change that.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use vram_residency::{CancelToken, EvictedFor, ModelHandle, ParkedModel};

use super::Engine;
use super::from_store::Origin;
use crate::config::ModelConfig;
use crate::feed::Own;
use crate::problem::Problem;

/// A model that the server knows by name.
#[derive(Debug)]
pub(super) struct Slot {
    /// As it was loaded last, or is to be loaded.
    pub(super) config: ModelConfig,
    /// What the configuration says of it, if it names it; if not, it goes when it is freed.
    pub(super) configured: Option<ModelConfig>,
    /// Its place in the configuration, by which the models are loaded.
    pub(super) place: usize,
    pub(super) state: State,
    /// Why the last load failed, until one succeeds.
    pub(super) failure: Option<Problem>,
    /// When that was.
    pub(super) failed_at: Option<Instant>,
    /// The store that its images came from; `None` for a model from files.
    pub(super) origin: Option<Arc<Origin>>,
}

/// How far a load is, and where its last bytes came from.
#[derive(Debug, Default)]
pub(crate) struct LoadProgress {
    done: AtomicU64,
    total: AtomicU64,
    source: Mutex<Option<Arc<str>>>,
}

impl LoadProgress {
    pub(super) fn set(&self, done: u64, total: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    pub(super) fn set_source(&self, source: &Arc<str>) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(source));
    }

    /// Bytes that are done, of how many, and from where.
    pub(super) fn get(&self) -> (u64, u64, Option<Arc<str>>) {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed), source)
    }
}

/// Models that no configuration names and that are nowhere, of which the reason is kept.
const FAILED_MAX: usize = 32;

/// Where a model is.
#[derive(Debug)]
pub(super) enum State {
    /// Nowhere.
    Absent,
    /// On its devices.
    Resident(ModelHandle),
    /// In host memory.
    Parked(ParkedModel),
    /// A call changes it now.
    Busy { doing: &'static str, cancel: CancelToken, progress: Arc<LoadProgress> },
}

impl State {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Resident(_) => "resident",
            Self::Parked(_) => "parked",
            Self::Busy { doing, .. } => doing,
        }
    }

    /// Returns true if this resident model is the one that was parked.
    pub(super) fn has(&self, parked: &ParkedModel) -> bool {
        let Self::Resident(model) = self else { return false };
        let first = parked.pieces.first().map(|piece| piece.parked.shard_id());
        // A model without pieces is known by its name alone.
        match first {
            Some(first) => model.shards().any(|shard| shard.shard_id == *first),
            None => model.model_id == parked.model_id && model.pieces.is_empty(),
        }
    }
}

impl Slot {
    pub(super) fn configured(place: usize, config: ModelConfig) -> Self {
        Self::new(config.clone(), Some(config), place)
    }

    pub(super) const fn asked_for(config: ModelConfig) -> Self {
        Self::new(config, None, 0)
    }

    const fn new(config: ModelConfig, configured: Option<ModelConfig>, place: usize) -> Self {
        let (failure, failed_at) = (None, None);
        Self { config, configured, place, state: State::Absent, failure, failed_at, origin: None }
    }

    /// The model that this one was parked for, if it was not parked by a call.
    pub(super) fn made_room_for(&self) -> Option<String> {
        let State::Parked(model) = &self.state else { return None };
        model.evicted_for().map(|asker| name_of(&asker))
    }

    /// The manifest of what is resident or parked, if it came from a store.
    pub(super) fn manifest(&self) -> Option<String> {
        let origin = self.origin.as_ref().filter(|_| !absent(&self.state))?;
        Some(origin.manifest_id().to_string())
    }
}

/// The right to change one model. While it exists, other calls that would change the model are refused.
/// Dropped without a new state, also by a panic, it puts the old one back.
#[derive(Debug)]
pub(super) struct Turn<'e> {
    engine: &'e Engine,
    name: String,
    before: Option<State>,
    /// How many resets had ended when the turn began.
    resets: u64,
    ended: bool,
    pub(super) cancel: CancelToken,
    pub(super) progress: Arc<LoadProgress>,
}

impl Engine {
    /// Begins to change a model.
    ///
    /// # Errors
    ///
    /// 404 for a name that is not known, 409 while another call changes it.
    pub(super) fn turn(&self, name: &str, doing: &'static str) -> Result<Turn<'_>, Problem> {
        self.check_open()?;
        self.collect_evicted();
        let mut slots = self.slots();
        let slot = slots.get_mut(name).ok_or_else(|| Problem::no_such_model(name))?;
        if let State::Busy { doing, .. } = slot.state {
            return Err(Problem::busy(name, doing));
        }
        let cancel = CancelToken::new();
        let progress = Arc::<LoadProgress>::default();
        let busy = State::Busy { doing, cancel: cancel.clone(), progress: Arc::clone(&progress) };
        let before = Some(core::mem::replace(&mut slot.state, busy));
        let resets = self.resets.load(Ordering::SeqCst);
        Ok(Turn {
            engine: self,
            name: name.to_owned(),
            before,
            resets,
            ended: false,
            cancel,
            progress,
        })
    }

    /// The handle of a model that is resident.
    ///
    /// # Errors
    ///
    /// 404, or 409 if it is elsewhere.
    pub(super) fn resident(&self, name: &str) -> Result<ModelHandle, Problem> {
        self.check_open()?;
        self.collect_evicted();
        let slots = self.slots();
        let slot = slots.get(name).ok_or_else(|| Problem::no_such_model(name))?;
        match &slot.state {
            State::Resident(model) => Ok(model.clone()),
            State::Busy { doing, .. } => Err(Problem::busy(name, doing)),
            other => Err(not_resident(name, other)),
        }
    }
}

/// The name of the model that asked for room: one from a store has it as its owner.
pub(super) fn name_of(asker: &EvictedFor) -> String {
    asker.owner.as_ref().unwrap_or(&asker.model_id).to_string()
}

/// The refusal of a call that needs a model elsewhere than it is.
pub(super) fn not_resident(name: &str, state: &State) -> Problem {
    let next = match state {
        State::Parked(_) => "wake it: POST /v1/models/NAME/wake",
        State::Absent => "load it: POST /v1/models/NAME/load",
        // Of a call that wakes.
        State::Resident(_) => "use it: it is on its devices, and needs no waking",
        State::Busy { .. } => "try again",
    };
    Problem::wrong_state(name, state.name(), next)
}

/// The refusal of a load of a model that is there.
pub(super) fn not_absent(name: &str, state: &State) -> Problem {
    let next = match state {
        State::Parked(_) => {
            "wake it: POST /v1/models/NAME/wake; or free it first, to load it anew: POST /v1/models/NAME/free"
        }
        State::Resident(_) => {
            "use it: it is loaded; to load it anew, free it first: POST /v1/models/NAME/free"
        }
        State::Absent | State::Busy { .. } => "try again",
    };
    Problem::wrong_state(name, state.name(), next)
}

impl Turn<'_> {
    /// The state before, which is put back if the call fails.
    pub(super) const fn before(&self) -> &State {
        match &self.before {
            Some(before) => before,
            None => &State::Absent,
        }
    }

    /// The handle, if the model was resident.
    pub(super) fn resident(&self) -> Result<&ModelHandle, Problem> {
        match self.before() {
            State::Resident(model) => Ok(model),
            other => Err(not_resident(&self.name, other)),
        }
    }

    /// Takes the parked model out, if it was parked. It then has to be given to [`end`](Self::end)
    /// again; after a panic it is gone.
    pub(super) fn take_parked(&mut self) -> Result<ParkedModel, Problem> {
        match self.before.take() {
            Some(State::Parked(model)) => Ok(model),
            other => {
                self.before = other;
                Err(not_resident(&self.name, self.before()))
            }
        }
    }

    /// Ends the turn with a new state.
    pub(super) fn end(mut self, state: State) {
        self.before = Some(state);
    }

    /// Ends the turn: the model lies on its devices.
    ///
    /// # Errors
    ///
    /// 503 if a reset of one of them took it away meanwhile.
    pub(super) fn end_resident(mut self, model: ModelHandle) -> Result<(), Problem> {
        self.before = Some(State::Resident(model));
        self.put_back().map_or(Ok(()), Err)
    }

    /// Gives the slot its state. A model that a reset took away meanwhile is nowhere: says why.
    fn put_back(&mut self) -> Option<Problem> {
        self.ended = true;
        let mut state = self.before.take().unwrap_or(State::Absent);
        let mut gone = None;
        loop {
            let resets = self.engine.resets.load(Ordering::SeqCst);
            if resets != self.resets
                && let State::Resident(model) = &state
                && self.engine.is_gone(model)
            {
                gone = Some(Problem::reset_meanwhile(&self.name));
                state = State::Absent;
            }
            let mut slots = self.engine.slots();
            // A reset that ends from now on finds the model in its slot.
            if self.engine.resets.load(Ordering::SeqCst) == resets {
                if let Some(slot) = slots.get_mut(&self.name) {
                    slot.state = state;
                    if gone.is_some() {
                        slot.failure.clone_from(&gone);
                        slot.failed_at = Some(Instant::now());
                    }
                }
                return gone;
            }
        }
    }

    /// Ends the turn: the model is gone, and if the configuration does not name it, its name too.
    pub(super) fn forget(self) {
        let (engine, name) = (self.engine, self.name.clone());
        self.end(State::Absent);
        let mut slots = engine.slots();
        if slots.get(&name).is_some_and(|slot| slot.configured.is_none() && absent(&slot.state)) {
            slots.remove(&name);
        }
    }

    /// Notes what is loaded: a repair reads the same files.
    pub(super) fn loads(&self, config: &ModelConfig) {
        if let Some(slot) = self.engine.slots().get_mut(&self.name) {
            slot.config = config.clone();
        }
    }

    /// Notes the store that the model was loaded from, or that it was loaded from files.
    pub(super) fn came_from(&self, origin: Option<Arc<Origin>>) {
        if let Some(slot) = self.engine.slots().get_mut(&self.name) {
            slot.origin = origin;
        }
    }

    /// Notes why a load failed, or that one succeeded.
    pub(super) fn note(&self, failure: Option<Problem>) {
        if let Some(slot) = self.engine.slots().get_mut(&self.name) {
            slot.failed_at = failure.as_ref().map(|_| Instant::now());
            slot.failure = failure;
        }
    }
}

impl Engine {
    /// Forgets the models that failed to load first, of those that no configuration names: what a client
    /// mistypes must not stay for ever. The last [`FAILED_MAX`] are kept, so that their reason can be read.
    pub(super) fn forget_failed(&self) {
        let mut slots = self.slots();
        let gone =
            slots.iter().filter(|(_, slot)| slot.configured.is_none() && absent(&slot.state));
        let mut gone: Vec<_> = gone.map(|(name, slot)| (slot.failed_at, name.clone())).collect();
        // The oldest first.
        gone.sort();
        gone.truncate(gone.len().saturating_sub(FAILED_MAX));
        for (_, name) in &gone {
            slots.remove(name);
        }
        drop(slots);
        for (_, model) in &gone {
            self.feed.tell(&Own::LoadForgotten { model, kept: FAILED_MAX });
        }
    }
}

const fn absent(state: &State) -> bool {
    matches!(state, State::Absent)
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let _gone = self.put_back();
        }
    }
}
