//! What is resident: one entry for each shard, found by id.

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use vram_alloc::{ByteLen, DeviceRange};
use vram_seal::{ContentDigest, KeyId, Opener, Protection, SealParams, SealRecord};

use crate::age::Ages;
use crate::backup::Copies;
use crate::block::Block;
use crate::error::VramError;
use crate::events::EventKind;
use crate::events::emit::Events;
use crate::gate::Gate;
use crate::gpu::Gpu;
use crate::id::ShardId;
use crate::key_uses::KeyUse;
use crate::parked::{Listed, Parked};
use crate::request::SealedAs;
use crate::shard::{SealedShard, Stated};
use crate::space::Space;
use crate::standing::Standing;
use crate::sync::{Mutex, MutexGuard, lock};

/// All resident shards, by id. No guard of the map is held across a call into anything else: the
/// entry is cloned out.
#[derive(Debug)]
pub(crate) struct Registry {
    shards: Arc<Shards>,
    /// Shards that are resident, or being made so.
    count: Arc<AtomicU64>,
    count_max: u64,
    /// Shards that are in host memory meanwhile.
    pub(crate) parked: Arc<Parked>,
}

/// Resident and parked shards, by id. A parked one stays in the map, so that whoever looks for it
/// at any moment finds it.
pub(crate) type Shards = DashMap<ShardId, Arc<Entry>>;

/// One resident shard.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: ShardId,
    pub(crate) sealed_as: SealedAs,
    pub(crate) owner: Option<Arc<str>>,
    pub(crate) plaintext_len: ByteLen,
    pub(crate) gate: Gate,
    pub(crate) standing: Standing,
    events: Arc<Events>,
    state: Mutex<State>,
    /// Its place among the shards that may be resident; taken out when it is lost with its device.
    counted: Mutex<Option<Counted>>,
}

/// What changes about a resident shard. Changed only by whoever is exclusive at the gate, but for
/// `quarantine` and `ages`, which shared users change too.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) seal: Arc<Seal>,
    /// Where the bytes lie; none while the shard is parked, and once it was freed.
    pub(crate) space: Option<Space>,
    /// Whether the shard is in host memory, to come back.
    pub(crate) parked: bool,
    /// Host bytes that it takes while it is there.
    pub(crate) host_len: ByteLen,
    /// Counts how often the shard was sealed anew.
    pub(crate) generation: u64,
    /// Segments found altered, in ascending order, from the moment on that any was. Empty inside
    /// if the segments are sound one by one and the content as a whole is not.
    pub(crate) quarantine: Option<Vec<u64>>,
    /// Since when it lies there, and when all of it was last found sound.
    pub(crate) ages: Ages,
    /// Copies of it elsewhere, to bring it back from if its device is lost.
    pub(crate) copies: Copies,
}

/// One seal of a shard: never changed, only replaced.
#[derive(Debug)]
pub(crate) struct Seal {
    pub(crate) record: SealRecord,
    /// Record and table, authenticated once when the shard became resident.
    pub(crate) opener: Opener,
    pub(crate) params: SealParams,
    pub(crate) digest: ContentDigest,
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) key_use: KeyUse,
}

/// Where a shard lies and how it is sealed, while a pass of its gate is held.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) gpu: Arc<Gpu>,
    pub(crate) range: DeviceRange,
    /// What it lies in. Not owned: a block goes back to the driver though views of it are left.
    pub(crate) block: Weak<Block>,
    pub(crate) seal: Arc<Seal>,
}

/// A place among the shards that may be resident; given back when dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    count: Arc<AtomicU64>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Registry {
    pub(crate) fn new(count_max: u64, parked: Parked) -> Self {
        Self { shards: Arc::default(), count: Arc::default(), count_max, parked: Arc::new(parked) }
    }

    /// Takes a place for one more shard.
    ///
    /// # Errors
    ///
    /// [`VramError::LimitExceeded`] if as many are resident as may be.
    pub(crate) fn count_one(&self) -> Result<Counted, VramError> {
        let taken = self.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
            if count < self.count_max { count.checked_add(1) } else { None }
        });
        match taken {
            Ok(_before) => Ok(Counted { count: Arc::clone(&self.count) }),
            Err(count) => Err(VramError::LimitExceeded {
                what: "the number of resident shards",
                limit: self.count_max,
                wanted: count.saturating_add(1),
            }),
        }
    }

    /// The shards themselves, for whoever outlives them.
    pub(crate) fn shards(&self) -> Weak<Shards> {
        Arc::downgrade(&self.shards)
    }

    /// The shards that lie on a GPU, in ascending order of their ids.
    pub(crate) fn on(&self, gpu: &Gpu) -> Vec<Arc<Entry>> {
        crate::tenants::on(&self.shards, gpu)
    }

    pub(crate) fn insert(&self, entry: Arc<Entry>) {
        self.shards.insert(entry.id.clone(), entry);
    }

    /// A shard that is resident.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Entry>> {
        self.find(id).filter(|entry| !entry.state().parked)
    }

    /// A shard that is resident or parked.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<Entry>> {
        self.shards.get(id).map(|entry| Arc::clone(&entry))
    }

    /// Keeps a shard known while it is parked.
    pub(crate) fn list(&self, entry: &Entry) -> Listed {
        Listed::new(entry.id.clone(), Arc::clone(&self.shards), Arc::clone(&self.parked))
    }

    pub(crate) fn remove(&self, id: &str) {
        // The entry is dropped after the map's guard: dropping it may call the device.
        let removed = self.shards.remove(id);
        drop(removed);
    }

    /// How many shards are resident.
    pub(crate) fn len(&self) -> usize {
        self.shards.len()
    }

    /// All resident shards, in ascending order of their ids.
    pub(crate) fn sorted(&self) -> Vec<Arc<Entry>> {
        let mut entries = self.all();
        entries.retain(|entry| !entry.state().parked);
        entries
    }

    /// All resident and parked shards, in ascending order of their ids.
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        let mut entries: Vec<_> =
            self.shards.iter().map(|entry| Arc::clone(entry.value())).collect();
        entries.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        entries
    }
}

impl Entry {
    #[expect(clippy::too_many_arguments, reason = "one for each thing that an entry consists of")]
    pub(crate) fn new(
        id: ShardId,
        sealed_as: SealedAs,
        owner: Option<Arc<str>>,
        plaintext_len: ByteLen,
        standing: Standing,
        events: Arc<Events>,
        state: State,
        counted: Counted,
    ) -> Self {
        Self {
            id,
            sealed_as,
            owner,
            plaintext_len,
            gate: Gate::default(),
            standing,
            events,
            state: Mutex::new(state),
            counted: Mutex::new(Some(counted)),
        }
    }

    /// Gives up its place among the shards, or passes it on.
    pub(crate) fn take_seat(&self) -> Option<Counted> {
        lock(&self.counted).take()
    }

    /// The state, for a short look or assignment: nothing is called while it is held.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Whether it was not freed yet.
    pub(crate) fn is_resident(&self) -> bool {
        self.state().space.is_some()
    }

    /// Where the shard lies now. The caller holds a pass of the gate, so it stays there.
    ///
    /// # Errors
    ///
    /// [`VramError::ShardFreed`] or [`VramError::Parked`] if it was freed or parked while the
    /// caller waited at the gate.
    pub(crate) fn view(&self) -> Result<View, VramError> {
        let state = self.state();
        let space = state.space.as_ref().ok_or_else(|| {
            let shard = self.id.clone();
            if state.parked { VramError::Parked { shard } } else { VramError::ShardFreed { shard } }
        })?;
        Ok(space.view(Arc::clone(&state.seal)))
    }

    /// Compares a handle, whose mark was checked, with the shard as it is now.
    ///
    /// # Errors
    ///
    /// [`VramError::StaleHandle`] if the shard was sealed anew since, [`VramError::HandleAltered`]
    /// if the record is not the shard's.
    pub(crate) fn check_current(&self, handle: &SealedShard) -> Result<(), VramError> {
        let state = self.state();
        if handle.generation != state.generation {
            return Err(VramError::StaleHandle { shard: self.id.clone() });
        }
        let differing = handle
            .sealed_data
            .iter()
            .zip(state.seal.record.iter())
            .fold(0, |bits, (a, b)| black_box(bits | (a ^ b)));
        if differing == 0 {
            Ok(())
        } else {
            Err(VramError::HandleAltered { shard: self.id.clone() })
        }
    }

    /// # Errors
    ///
    /// [`VramError::Quarantined`] if the shard was found altered.
    pub(crate) fn not_quarantined(&self) -> Result<(), VramError> {
        match &self.state().quarantine {
            None => Ok(()),
            Some(segments) => {
                Err(VramError::Quarantined { shard: self.id.clone(), segments: segments.clone() })
            }
        }
    }

    /// Closes the shard to readers: its device bytes are not those of its record.
    pub(crate) fn quarantine(&self, segments: &[u64]) {
        let mut state = self.state();
        let (first, gpu) = (state.quarantine.is_none(), state.gpu_index());
        let known = state.quarantine.get_or_insert_default();
        known.extend_from_slice(segments);
        known.sort_unstable();
        known.dedup();
        drop(state);
        tracing::error!(shard = %self.id, ?segments, "altered in device memory, quarantined");
        let shard = self.id.clone();
        self.events.emit(EventKind::Altered { shard, gpu, segments: segments.to_vec() });
        if first {
            self.events.emit(EventKind::Quarantined { shard: self.id.clone(), gpu });
        }
    }
}

impl View {
    /// The memory that the shard lies in, if the device takes calls.
    ///
    /// # Errors
    ///
    /// [`VramError::DeviceLost`].
    pub(crate) fn memory(&self) -> Result<Arc<Block>, VramError> {
        self.gpu.memory_in(&self.block)
    }

    /// As [`memory`](Self::memory), also while a reset that may be refused yet waits for the caller:
    /// for what must not be left half done.
    ///
    /// # Errors
    ///
    /// [`VramError::DeviceLost`].
    pub(crate) fn memory_to_the_end(&self) -> Result<Arc<Block>, VramError> {
        let winds_up = self.gpu.winds_up();
        match self.block.upgrade().filter(|_| winds_up) {
            Some(block) => Ok(block),
            None => self.memory(),
        }
    }
}

impl State {
    /// Whether the bytes lie on this GPU.
    pub(crate) fn lies_on(&self, gpu: &Gpu) -> bool {
        self.space.as_ref().is_some_and(|space| core::ptr::eq(&raw const **space.gpu(), gpu))
    }

    /// Replaces the seal. What was copied under the old one is a copy of the shard no more.
    pub(crate) fn seal_anew(&mut self, seal: Arc<Seal>) {
        self.seal = seal;
        self.generation = self.generation.saturating_add(1);
        self.copies = Copies::default();
    }

    /// What a handle of the shard states now.
    pub(crate) fn stated(&self, entry: &Entry) -> Stated {
        Stated {
            shard_id: entry.id.clone(),
            gpu_index: self.gpu_index(),
            sealed_data: self.seal.record.clone(),
            model_id: Arc::clone(&entry.sealed_as.model_id),
            plaintext_len: entry.plaintext_len.get(),
            protection: self.seal.protection(),
            generation: self.generation,
        }
    }

    /// The GPU that holds the shard; the last possible index once it was freed.
    pub(crate) fn gpu_index(&self) -> u32 {
        self.space.as_ref().map_or(u32::MAX, |space| space.gpu().index)
    }
}

impl Seal {
    pub(crate) const fn protection(&self) -> Protection {
        self.params.protection()
    }

    pub(crate) const fn key_id(&self) -> KeyId {
        self.opener.fields().key_id()
    }
}
