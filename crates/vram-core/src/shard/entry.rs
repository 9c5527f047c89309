//! One entry for each resident shard; the registry finds it by id.

use core::hint::black_box;
use std::sync::Arc;

use vram_alloc::{ByteLen, ByteOffset, ByteRange};
use vram_events::{EventKind, Events};
use vram_id::ShardId;
use vram_space::Space;

use crate::error::VramError;
use crate::shard::{
    Ages, Copies, Counted, Gate, Seal, SealedAs, SealedShard, Standing, Stated, View,
};
use crate::sync::{Mutex, MutexGuard, lock};

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
    /// The shard's slot in the count of resident shards; taken out when the shard is lost with its
    /// device.
    counted: Mutex<Option<Counted>>,
}

/// The part of a resident shard that changes. Only a thread that is exclusive at the gate changes
/// it, except `quarantine` and `ages`, which shared users change too.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) seal: Arc<Seal>,
    /// The memory that the bytes lie in; `None` while the shard is parked, and after it was freed.
    pub(crate) space: Option<Space>,
    /// Whether the shard is parked in host memory.
    pub(crate) parked: bool,
    /// Host bytes that the shard takes while it is parked.
    pub(crate) host_len: ByteLen,
    /// Counts how often the shard was sealed anew.
    pub(crate) generation: u64,
    /// Segments found altered, in ascending order; `None` until an alteration is found. An empty
    /// list means that each segment is sound and the content as a whole differs.
    pub(crate) quarantine: Option<Vec<u64>>,
    /// Since when the bytes lie there, and when all of them were last found sound.
    pub(crate) ages: Ages,
    /// Copies of the shard elsewhere, from which it is restored if its device is lost.
    pub(crate) copies: Copies,
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

    /// Gives up the shard's slot in the count of resident shards, or passes it on.
    pub(crate) fn take_seat(&self) -> Option<Counted> {
        lock(&self.counted).take()
    }

    /// Locks the state, for a short read or assignment. The holder of the lock calls nothing.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Whether the shard has not been freed.
    pub(crate) fn is_resident(&self) -> bool {
        self.state().space.is_some()
    }

    /// Where the shard lies now. The caller holds a pass of the gate, so the shard stays there.
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
        Ok(View::of(space, Arc::clone(&state.seal)))
    }

    /// Compares a handle, whose mark was checked, with the present state of the shard.
    ///
    /// # Errors
    ///
    /// [`VramError::StaleHandle`] if the shard was sealed anew after the handle was made,
    /// [`VramError::HandleAltered`] if the record is not the shard's.
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
    /// [`VramError::Quarantined`] if a check found the shard altered.
    pub(crate) fn not_quarantined(&self) -> Result<(), VramError> {
        match &self.state().quarantine {
            None => Ok(()),
            Some(segments) => {
                Err(VramError::Quarantined { shard: self.id.clone(), segments: segments.clone() })
            }
        }
    }

    /// Puts the shard into quarantine: its device bytes differ from its record, so it is not read.
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

impl State {
    /// Whether the bytes lie on this GPU.
    pub(crate) fn lies_on(&self, gpu: u32) -> bool {
        self.space.as_ref().is_some_and(|space| space.gpu().index == gpu)
    }

    /// Replaces the seal. Copies that were made under the old seal no longer count as copies of the
    /// shard.
    pub(crate) fn seal_anew(&mut self, seal: Arc<Seal>) {
        self.seal = seal;
        self.generation = self.generation.saturating_add(1);
        self.copies = Copies::default();
    }

    /// The fields of a handle that is made now.
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

    /// The GPU that holds the shard; `u32::MAX` after the shard was freed.
    pub(crate) fn gpu_index(&self) -> u32 {
        self.space.as_ref().map_or(u32::MAX, |space| space.gpu().index)
    }
}

/// The bounds check of every call that names a range of a shard.
pub(crate) fn in_shard(entry: &Entry, offset: u64, length: u64) -> Result<ByteRange, VramError> {
    let len = entry.plaintext_len;
    ByteRange::checked(ByteOffset::new(offset), ByteLen::new(length), len)
        .map_err(|_outside| VramError::OutOfBounds { shard: entry.id.clone(), offset, length, len })
}
