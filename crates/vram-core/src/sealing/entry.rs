//! Adds a sealed shard to the registry.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::EventKind;
use vram_id::{ShardId, Timestamp};
use vram_seal::Protection;
use vram_space::Space;

use crate::error::VramError;
use crate::parts::Core;
use crate::resident::early_lease::EarlyLease;
use crate::resident::{Anew, lease, reseal};
use crate::sealing::SealRequest;
use crate::shard::entry::arrive::{arrive, arrive_all};
use crate::shard::{
    Ages, Arrived, Check, Counted, Entry, Moment, Of, Place, Seal, SealedShard, ShardCause,
    Standing, State, Told, View,
};

/// A complete shard that is not in the registry yet: dropping it returns everything.
pub(crate) struct Ready {
    entry: Arc<Entry>,
    /// Where it lies, until it arrives.
    space: Option<Space>,
    /// The handle of the shard as it arrives: made here, by the thread that sealed it.
    handle: SealedShard,
}

/// A complete entry for the shard in `space`. `verified` is when its read-back began, if all of it
/// was read back.
pub(crate) fn entry(
    core: &Core,
    id: ShardId,
    request: &SealRequest,
    seal: Arc<Seal>,
    space: Space,
    counted: Counted,
    verified: Option<Check>,
) -> Ready {
    let len = seal.opener.fields().plaintext_len();
    let place = Place::Restoring { gpu: space.gpu().index };
    let now = Moment::now(&*core.clock);
    let state = State::new(place, seal, 0, Ages::new(now, verified));
    let of = match &request.member {
        Some(member) => Of::Piece(member.clone()),
        None => Of::Alone(Arc::new(request.holder())),
    };
    let standing = Standing::new(request.claim);
    let sealed_as = request.sealed_as.clone();
    let entry =
        Entry::new(id, sealed_as, of, len, standing, Arc::clone(&core.listeners), (state, counted));
    lease::used_at(core, &entry, now.monotonic);
    let handle = core.handle(&entry);
    Ready { entry: Arc::new(entry), space: Some(space), handle }
}

impl Ready {
    /// A lease that begins when the shard arrives.
    pub(crate) fn early_lease(
        &self,
        core: &Core,
        holder: Option<&Arc<str>>,
    ) -> Result<EarlyLease, VramError> {
        EarlyLease::of(core, &self.entry, holder)
    }

    /// Seals the shard anew in this protection, unless it has it, before any other thread knows it.
    ///
    /// # Errors
    ///
    /// As for a resident shard; everything is returned.
    pub(crate) fn in_protection(self, core: &Core, to: Protection) -> Result<Self, VramError> {
        let seal = Arc::clone(&self.entry.state().seal);
        if seal.protection() == to {
            return Ok(self);
        }
        let Self { entry, space, .. } = self;
        let gone = || VramError::ShardFreed { shard: entry.id.clone() };
        let mut space = space.ok_or_else(gone)?;
        let anew = Anew { params: seal.params.with_protection(to), key: seal.key_id() };
        let view = View::of(&mut space, seal)?;
        let (seal, written) = reseal::write(core, &entry, &view, anew)?;
        let Arrived { space, verified } = written.arrived(space);
        let now = Moment::now(&*core.clock);
        entry.change(|state, _told| {
            state.seal = seal;
            state.ages = Ages::new(now, verified);
        });
        let handle = core.handle(&entry);
        Ok(Self { entry, space: Some(space), handle })
    }
}

/// Makes a complete shard resident.
///
/// # Errors
///
/// [`VramError::DeviceLost`] if its GPU was lost since it was written: everything is returned.
pub(crate) fn publish(core: &Core, ready: Ready) -> Result<SealedShard, VramError> {
    let Ready { entry, space, handle } = ready;
    let mut space = space.ok_or_else(|| VramError::config("no shard was sealed"))?;
    space.keep();
    let at = core.events.now();
    arrive(&entry, space, ShardCause::Wake, |_state, told| list(core, at, &entry, &handle, told))?;
    log(&handle);
    Ok(handle)
}

/// Adds a shard that has arrived to the list, and tells it.
fn list(core: &Core, at: Timestamp, entry: &Arc<Entry>, handle: &SealedShard, told: Told<'_>) {
    core.registry.insert(Arc::clone(entry));
    let (shard, model_id) = (entry.id.clone(), Arc::clone(&entry.holder().model_id));
    let (owner, gpu) = (entry.holder().owner.clone(), handle.gpu_index);
    let bytes = entry.plaintext_len;
    told.tell(at, EventKind::Sealed { shard, model_id, owner, gpu, bytes });
}

fn log(shard: &SealedShard) {
    let (id, gpu, bytes) = (&shard.shard_id, shard.gpu_index, shard.plaintext_len);
    tracing::info!(shard = %id, gpu, bytes, "sealed");
}

/// Makes complete shards resident, all in one moment.
///
/// # Errors
///
/// As [`publish`]; none is resident then.
pub(crate) fn publish_all(
    core: &Core,
    mut ready: Vec<Ready>,
) -> Result<impl Iterator<Item = SealedShard> + use<>, VramError> {
    let at = core.events.now();
    let mut coming = Vec::with_capacity(ready.len());
    let mut entries = Vec::with_capacity(ready.len());
    for one in &mut ready {
        if let Some(mut space) = one.space.take() {
            space.keep();
            coming.push((&*one.entry, space));
            entries.push((&one.entry, &one.handle));
        }
    }
    let mut model = entries.last().and_then(|(last, _)| whole_model(last, entries.len()));
    let arrived = arrive_all(coming, ShardCause::Wake, |index, _state, told| {
        let Some((entry, handle)) = entries.get(index) else { return };
        list(core, at, entry, handle, told);
        if index.saturating_add(1) == entries.len()
            && let Some(model) = model.take()
        {
            told.tell_model(at, model);
        }
    });
    arrived?;
    for one in &ready {
        log(&one.handle);
    }
    Ok(ready.into_iter().map(|one| one.handle))
}

/// The event that follows those of its shards, if they are a whole model.
fn whole_model(last: &Entry, count: usize) -> Option<EventKind> {
    let member = last.member()?;
    let shards = ByteLen::from_usize(count).get();
    Some(EventKind::ModelAdmitted { shards, bytes: member.model.plan.total() })
}

#[cfg(test)]
mod tests {
    use super::*;

    use vram_id::SystemClock;

    use crate::parts::core::testing;
    use crate::room::free;
    use crate::sealing::seal;

    /// One of two shards is gone: neither is where it was to arrive.
    #[test]
    fn shards_that_arrive_together_arrive_all_or_none_of_them() {
        let core = testing::core(Arc::new(SystemClock));
        let request = SealRequest::new("m", 0);
        let entries = [0, 1].map(|byte| {
            let shard = seal::seal_slice(&core, &request, &[byte; 1000]).unwrap();
            (core.resolve(&shard).unwrap(), shard)
        });
        free::free(&core, &entries[1].1).unwrap();
        let [first, gone] = entries.map(|(entry, _)| entry);
        let gpu = core.gpu(0).unwrap();
        let lies_at = |entry: &Entry| entry.state().space().map(Space::range);
        let (before, counted) = (lies_at(&first), core.registry.census.counts(0));
        let books = gpu.capacity();
        let coming = [&first, &gone].map(|entry| {
            let mut space = gpu.place(ByteLen::new(1000)).unwrap();
            space.written().unwrap();
            (&**entry, space)
        });
        let error = arrive_all(coming.into(), ShardCause::Move, |_, _, _| ()).unwrap_err();
        assert!(matches!(error, VramError::ShardFreed { .. }), "{error}");
        assert_eq!((lies_at(&first), core.registry.census.counts(0)), (before, counted));
        assert_eq!(gpu.capacity(), books, "both spaces went back");

        let mut space = gpu.place(ByteLen::new(1000)).unwrap();
        space.written().unwrap();
        let old = arrive_all(vec![(&*first, space)], ShardCause::Move, |_, _, _| ()).unwrap();
        assert!(old.iter().flatten().count() == 1 && lies_at(&first) != before);
    }
}
