//! One entry for each resident shard; the registry finds it by id.

pub(crate) mod arrive;
pub(crate) mod member;
pub(crate) mod quarantine;
pub(crate) mod told;

use std::sync::Arc;

use vram_alloc::{ByteLen, ByteOffset, ByteRange};
use vram_events::EventKind;
use vram_id::ShardId;
use vram_seal::AlteredSegments;
use vram_space::{Gpu, Space};

use crate::error::{OldestLease, VramError};
use crate::shard::entry::member::{Member, Of, UnderWay};
use crate::shard::entry::quarantine::Quarantine;
pub(crate) use crate::shard::entry::told::{Listeners, Told};
use crate::shard::{
    Ages, Copies, Counted, Gate, HeldBy, Lies, Place, Row, Seal, SealedAs, ShardCause, ShardState,
    Standing, Stated, View,
};
use crate::sync::{Mutex, MutexGuard, lock};

/// One shard.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: ShardId,
    pub(crate) sealed_as: SealedAs,
    pub(crate) of: Of,
    pub(crate) plaintext_len: ByteLen,
    pub(crate) gate: Gate,
    pub(crate) standing: Standing,
    pub(crate) listeners: Arc<Listeners>,
    state: Mutex<State>,
}

/// The part of a shard that changes. Only a thread that is exclusive at the gate changes it, except
/// `quarantine` and `ages`, which shared users change too, and a reset, for which every use of the
/// shard has ended.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) seal: Arc<Seal>,
    /// Where the shard is. Changed by [`go`](Self::go) alone.
    place: Place,
    /// Counts how often the shard was sealed anew.
    pub(crate) generation: u64,
    /// What was found altered; `None` until an alteration is found.
    pub(crate) quarantine: Option<Arc<Quarantine>>,
    /// Since when the bytes lie there, and when all of them were last found sound.
    pub(crate) ages: Ages,
    /// Copies of the shard elsewhere, from which it is restored if its device is lost.
    pub(crate) copies: Copies,
    /// The shard's slot in the count of resident shards; taken out when the shard is lost with its
    /// device.
    counted: Option<Counted>,
    /// How the shard is counted in its model.
    lies: Option<Lies>,
}

impl Entry {
    /// A complete entry that no other thread knows yet. The census does not count it before it [arrives](arrive::arrive).
    pub(crate) fn new(
        id: ShardId,
        sealed_as: SealedAs,
        of: Of,
        plaintext_len: ByteLen,
        standing: Standing,
        listeners: Arc<Listeners>,
        (state, counted): (State, Counted),
    ) -> Self {
        let state = State { counted: Some(counted), ..state };
        Self {
            id,
            sealed_as,
            of,
            plaintext_len,
            gate: Gate::default(),
            standing,
            listeners,
            state: Mutex::new(state),
        }
    }

    /// The entry of the shard after a reset of its GPU, in `state`: the same shard, with the gate of
    /// its own that no lease of the last generation holds. It is counted from now on, in the slot of
    /// `before`, the state until now.
    pub(crate) fn next_generation(&self, before: &mut State, mut state: State) -> Self {
        state.counted = before.counted.take();
        state.recount(self, None);
        Self {
            id: self.id.clone(),
            sealed_as: self.sealed_as.clone(),
            of: self.of.clone(),
            plaintext_len: self.plaintext_len,
            gate: Gate::default(),
            standing: self.standing.again(),
            listeners: Arc::clone(&self.listeners),
            state: Mutex::new(state),
        }
    }

    /// The model that the shard was admitted with; `None` for one that was sealed by itself.
    pub(crate) const fn member(&self) -> Option<&Member> {
        self.of.member()
    }

    pub(crate) fn holder(&self) -> &HeldBy {
        self.of.holder()
    }

    /// Who hears of the changes of the shard.
    pub(crate) fn told(&self) -> Told<'_> {
        Told { listeners: &self.listeners, of: &self.of }
    }

    /// Marks a call on the whole model of this shard, if it has one.
    pub(crate) fn begin_on_model(&self) -> Option<UnderWay> {
        self.member().map(|member| member.model.begin())
    }

    /// Gives up the shard's slot in the count of resident shards.
    pub(crate) fn take_seat(&self) -> Option<Counted> {
        lock(&self.state).counted.take()
    }

    /// The lease that began first, with its age. The caller holds no lock: a clock is foreign code.
    pub(crate) fn oldest_lease(&self) -> Option<OldestLease> {
        let oldest = self.gate.oldest_lease()?;
        let now = self.listeners.events.monotonic();
        Some(OldestLease::new(oldest.holder, now.saturating_sub(oldest.since)))
    }

    /// Locks the state, to read it.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Changes the state in one critical section. `change` calls nothing foreign: it assigns, and
    /// appends the event of what it did.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State, Told<'_>) -> T) -> T {
        let mut state = lock(&self.state);
        let before = state.row();
        let outcome = change(&mut state, self.told());
        state.recount(self, before);
        outcome
    }

    /// The GPU that the shard lies on. The caller holds a pass of the gate, so the shard stays
    /// there.
    ///
    /// # Errors
    ///
    /// [`VramError::ShardFreed`], [`VramError::Parked`], [`VramError::Restoring`] or
    /// [`VramError::StaleHandle`] if that happened to it while the caller waited at the gate.
    pub(crate) fn here(&self) -> Result<Arc<Gpu>, VramError> {
        let state = self.state();
        state.place.allows(ShardCause::Use, &self.id)?;
        let gpu = state.space().map(|space| Arc::clone(space.gpu()));
        gpu.ok_or_else(|| VramError::ShardFreed { shard: self.id.clone() })
    }

    /// Where the shard lies now, and the right to touch its device. The caller holds a pass of the
    /// gate, so the shard stays there.
    ///
    /// # Errors
    ///
    /// As [`here`](Self::here); [`VramError::DeviceLost`]; [`VramError::GpuInUse`] while a reset of
    /// the GPU waits for the calls that run on it; [`VramError::Closed`].
    pub(crate) fn view(&self) -> Result<View, VramError> {
        let gpu = self.here()?;
        let pass = Arc::new(gpu.enter()?);
        // Asked again: a reset may have taken the shard away before this call had its pass.
        let state = self.state();
        state.place.allows(ShardCause::Use, &self.id)?;
        let space = state.space().filter(|space| Arc::ptr_eq(space.gpu(), &gpu));
        let space = space.ok_or_else(|| VramError::Restoring { shard: self.id.clone() })?;
        Ok(View::with(space, Arc::clone(&state.seal), pass))
    }

    /// # Errors
    ///
    /// [`VramError::Quarantined`] if a check found the shard altered.
    pub(crate) fn not_quarantined(&self) -> Result<(), VramError> {
        match &self.state().quarantine {
            None => Ok(()),
            Some(known) => {
                Err(VramError::Quarantined { shard: self.id.clone(), segments: known.listed() })
            }
        }
    }

    /// Puts the shard into quarantine: its device bytes differ from its record, so it is not read.
    pub(crate) fn quarantine(&self, segments: &[u64]) {
        let (at, listed) = (self.listeners.events.now(), AlteredSegments::from(segments));
        self.change(|state, told| {
            let gpu = state.gpu_index();
            let first = Quarantine::add(&mut state.quarantine, segments);
            let (shard, segments) = (self.id.clone(), listed.clone());
            told.tell(at, EventKind::Altered { shard, gpu, segments });
            if first {
                told.tell(at, EventKind::Quarantined { shard: self.id.clone(), gpu });
            }
        });
        tracing::error!(shard = %self.id, segments = %listed, "altered in device memory, quarantined");
    }
}

impl State {
    pub(crate) const fn new(place: Place, seal: Arc<Seal>, generation: u64, ages: Ages) -> Self {
        Self {
            seal,
            place,
            generation,
            quarantine: None,
            ages,
            copies: Copies { backup: None, exported: None },
            counted: None,
            lies: None,
        }
    }

    /// Makes the transition that `cause` leads to, away from a GPU, and returns the space that the
    /// shard had. The caller drops it outside of the lock.
    ///
    /// # Errors
    ///
    /// The refusal that the table names; nothing changed.
    pub(crate) fn go(
        &mut self,
        shard: &ShardId,
        cause: ShardCause,
        next: Place,
    ) -> Result<Option<Space>, VramError> {
        debug_assert!(!matches!(next, Place::Resident(_)), "shards arrive in `arrive`");
        self.place.allows(cause, shard)?;
        Ok(self.replace(next))
    }

    /// Replaces the place, and returns the space that the shard had.
    fn replace(&mut self, next: Place) -> Option<Space> {
        match core::mem::replace(&mut self.place, next) {
            Place::Resident(space) => Some(space),
            _ => None,
        }
    }

    /// How the census counts the shard, unless nobody knows the shard yet.
    fn row(&self) -> Option<Row> {
        self.space().map(|space| Row {
            gpu: space.gpu().index,
            bytes: space.footprint(),
            unverified_since: self.quarantine.is_none().then(|| self.ages.unverified_since()),
        })
    }

    /// Lets the census count the shard as it is now, and no longer as it did `before`.
    fn recount(&mut self, entry: &Entry, before: Option<Row>) {
        let census = &entry.listeners.census;
        census.change((&entry.id, entry.holder()), before, self.row());
        let lies = match self.place {
            Place::Resident(_) => Some(Lies::OnGpu),
            Place::Parked { .. } => Some(Lies::Parked),
            Place::Restoring { .. } => Some(Lies::Restoring),
            _ => None,
        };
        if let Some(member) = entry.member().filter(|_| lies != self.lies) {
            census.models.went(&member.model, self.lies, lies);
        }
        self.lies = lies;
    }

    /// The memory that the bytes lie in, on a device that may be lost.
    pub(crate) const fn space(&self) -> Option<&Space> {
        match &self.place {
            Place::Resident(space) => Some(space),
            _ => None,
        }
    }

    pub(crate) const fn space_mut(&mut self) -> Option<&mut Space> {
        match &mut self.place {
            Place::Resident(space) => Some(space),
            _ => None,
        }
    }

    pub(crate) const fn place(&self) -> &Place {
        &self.place
    }

    /// The state, as reports name it, if these GPUs are lost. Whether they are is asked before: a
    /// device is foreign code.
    pub(crate) fn standing(&self, lost: &[u32]) -> ShardState {
        let lost = self.space().is_some_and(|space| lost.contains(&space.gpu().index));
        if lost { ShardState::Lost } else { self.place.state() }
    }

    /// Whether the bytes lie on this GPU.
    pub(crate) fn lies_on(&self, gpu: u32) -> bool {
        self.space().is_some_and(|space| space.gpu().index == gpu)
    }

    /// Replaces the seal. Returns the copies that were made under the old seal: they are no longer
    /// copies of the shard.
    #[must_use = "dropped outside of the lock"]
    pub(crate) fn seal_anew(&mut self, seal: Arc<Seal>) -> Copies {
        self.seal = seal;
        self.generation = self.generation.saturating_add(1);
        core::mem::take(&mut self.copies)
    }

    /// The fields of a handle that is made now.
    pub(crate) fn stated(&self, entry: &Entry) -> Stated {
        Stated {
            shard_id: entry.id.clone(),
            gpu_index: self.gpu_index(),
            sealed_data: self.seal.record(),
            model_id: Arc::clone(&entry.sealed_as.model_id),
            plaintext_len: entry.plaintext_len.get(),
            protection: self.seal.protection(),
            generation: self.generation,
        }
    }

    /// The GPU that holds the shard, or restores it; `u32::MAX` for a shard that is on none.
    pub(crate) fn gpu_index(&self) -> u32 {
        match &self.place {
            Place::Resident(space) => space.gpu().index,
            Place::Restoring { gpu } => *gpu,
            _ => u32::MAX,
        }
    }
}

/// The bounds check of every call that names a range of a shard.
pub(crate) fn in_shard(entry: &Entry, offset: u64, length: u64) -> Result<ByteRange, VramError> {
    let len = entry.plaintext_len;
    ByteRange::checked(ByteOffset::new(offset), ByteLen::new(length), len)
        .map_err(|_outside| VramError::OutOfBounds { shard: entry.id.clone(), offset, length, len })
}
