//! Shards that come to lie on GPUs: one, or many in one moment.

use std::sync::Arc;

use vram_space::{Gpu, LifePass, Space};

use crate::error::VramError;
use crate::shard::{Entry, Place, ShardCause, State, Told};
use crate::sync::{MutexGuard, lock};

/// A shard that is about to lie in a space.
struct Coming<'a> {
    entry: &'a Entry,
    state: MutexGuard<'a, State>,
    space: Option<Space>,
}

/// Makes a shard resident in `space`, in one critical section with `more`, and returns the space
/// that it had.
///
/// # Errors
///
/// As [`arrive_all`].
pub(crate) fn arrive(
    entry: &Entry,
    space: Space,
    cause: ShardCause,
    more: impl FnOnce(&mut State, Told<'_>),
) -> Result<Option<Space>, VramError> {
    let mut more = Some(more);
    let arrived = arrive_all(vec![(entry, space)], cause, |_index, state, told| {
        if let Some(more) = more.take() {
            more(state, told);
        }
    });
    arrived.map(|mut before| before.pop().flatten())
}

/// Makes many shards resident, each in its space, in one moment: other threads see all of them there
/// or none. `more` runs for each, in the same critical section. Returns the spaces that they had, in
/// the order of the shards.
///
/// A loss of a GPU comes before, and refuses all of them, or comes after, and names them.
///
/// # Errors
///
/// [`VramError::DeviceLost`], or the refusal of the table of states. Nothing changed, and the spaces
/// were given back.
pub(crate) fn arrive_all(
    shards: Vec<(&Entry, Space)>,
    cause: ShardCause,
    mut more: impl FnMut(usize, &mut State, Told<'_>),
) -> Result<Vec<Option<Space>>, VramError> {
    // Held until the shards lie there: a reset waits for them.
    let (mut passes, mut refused) = (Vec::with_capacity(shards.len()), None);
    let mut spaces = Vec::with_capacity(shards.len());
    for (entry, mut space) in shards {
        match space.pass() {
            Ok(pass) => passes.push((Arc::clone(space.gpu()), pass)),
            Err(error) => refused = Some(error.into()),
        }
        space.finish_placing();
        spaces.push((entry, space));
    }
    if let Some(refused) = refused {
        return Err(refused);
    }
    for (_, space) in &mut spaces {
        space.commit();
    }
    // Locks of several states are taken in the order of the ids, and by this function alone.
    let mut order: Vec<usize> = (0..spaces.len()).collect();
    let id = |index: &usize| spaces.get(*index).map(|(entry, _)| &entry.id);
    // Most often they are in this order already, which is seen in one pass.
    order.sort_by(|one, other| id(one).cmp(&id(other)));
    let mut slots: Vec<_> = spaces.into_iter().map(Some).collect();
    let mut coming: Vec<Option<Coming<'_>>> = slots.iter().map(|_| None).collect();
    for index in order {
        if let Some((entry, space)) = slots.get_mut(index).and_then(Option::take)
            && let Some(slot) = coming.get_mut(index)
        {
            *slot = Some(Coming { entry, state: lock(&entry.state), space: Some(space) });
        }
    }
    let mut coming: Vec<_> = coming.into_iter().flatten().collect();
    passes.sort_by_key(|(gpu, _)| gpu.index);
    passes.dedup_by_key(|(gpu, _)| gpu.index);
    let arrived = on_all(&passes, &mut || {
        for one in &coming {
            one.state.place().allows(cause, &one.entry.id)?;
        }
        let mut before = Vec::with_capacity(coming.len());
        for (index, one) in coming.iter_mut().enumerate() {
            // What is not taken stays in `coming`: it is not dropped under these locks.
            let Some(space) = one.space.take() else { continue };
            // Allowed just now, under the same lock.
            let row = one.state.row();
            before.push(one.state.replace(Place::Resident(space)));
            more(index, &mut one.state, one.entry.told());
            one.state.recount(one.entry, row);
        }
        Ok(before)
    });
    // What was refused is given back once the locks are free.
    let refused: Vec<_> = coming.into_iter().map(|one| one.space).collect();
    drop((passes, refused));
    arrived
}

/// Runs `commit` under the lives of all these GPUs, in the order of their indices.
fn on_all<T>(
    passes: &[(Arc<Gpu>, Arc<LifePass>)],
    commit: &mut dyn FnMut() -> Result<T, VramError>,
) -> Result<T, VramError> {
    let Some(((gpu, pass), others)) = passes.split_first() else { return commit() };
    gpu.arrive(pass, || on_all(others, commit))?
}
