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

impl Coming<'_> {
    /// Lets the shard lie in its space, and returns the one that it had. The table of states allows it.
    fn settle(&mut self, more: impl FnOnce(&mut State, Told<'_>)) -> Option<Space> {
        let space = self.space.take()?;
        let row = self.state.row();
        let before = self.state.replace(Place::Resident(space));
        more(&mut self.state, self.entry.told());
        self.state.recount(self.entry, row);
        before
    }
}

/// Makes a shard resident in `space`, in one critical section with `more`, and returns the space
/// that it had.
///
/// # Errors
///
/// As [`arrive_all`].
pub(crate) fn arrive(
    entry: &Entry,
    mut space: Space,
    cause: ShardCause,
    more: impl FnOnce(&mut State, Told<'_>),
) -> Result<Option<Space>, VramError> {
    // Held until the shard lies there: a reset waits for it.
    let pass = space.pass();
    space.finish_placing();
    let (gpu, pass) = (Arc::clone(space.gpu()), pass?);
    space.commit();
    let mut coming = Coming { entry, state: lock(&entry.state), space: Some(space) };
    let arrived = gpu.arrive(&pass, || {
        coming.state.place().allows(cause, &entry.id)?;
        Ok(coming.settle(more))
    });
    // What was refused is given back once the lock is free.
    let Coming { state, space: refused, .. } = coming;
    drop(state);
    drop((pass, refused));
    arrived?
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
    mut shards: Vec<(&Entry, Space)>,
    cause: ShardCause,
    mut more: impl FnMut(usize, &mut State, Told<'_>),
) -> Result<Vec<Option<Space>>, VramError> {
    // One for each GPU, held until the shards lie there: a reset waits for them.
    let (mut passes, mut refused) = (Vec::new(), None);
    for (_, space) in &mut shards {
        match space.pass() {
            Ok(pass) => hold(&mut passes, space.gpu(), pass),
            Err(error) => refused = Some(error.into()),
        }
        space.finish_placing();
    }
    if let Some(refused) = refused {
        return Err(refused);
    }
    for (_, space) in &mut shards {
        space.commit();
    }
    let states = lock_all(&shards);
    let mut coming = Vec::with_capacity(shards.len());
    coming.extend(shards.into_iter().zip(states).filter_map(|((entry, space), state)| {
        Some(Coming { entry, state: state?, space: Some(space) })
    }));
    let arrived = on_all(&passes, &mut || {
        for one in &coming {
            one.state.place().allows(cause, &one.entry.id)?;
        }
        let mut before = Vec::with_capacity(coming.len());
        for (index, one) in coming.iter_mut().enumerate() {
            // What is not taken stays in `coming`: it is not dropped under these locks.
            before.push(one.settle(|state, told| more(index, state, told)));
        }
        Ok(before)
    });
    // What was refused is given back once the locks are free.
    let refused: Vec<_> = coming.into_iter().map(|one| one.space).collect();
    drop((passes, refused));
    arrived
}

/// Keeps the pass, unless one of the same GPU is held; in the order of the indices of the GPUs.
fn hold(passes: &mut Vec<(Arc<Gpu>, Arc<LifePass>)>, gpu: &Arc<Gpu>, pass: Arc<LifePass>) {
    if let Err(at) = passes.binary_search_by_key(&gpu.index, |(held, _)| held.index) {
        passes.insert(at, (Arc::clone(gpu), pass));
    }
}

/// Locks the states of all these shards, and returns them in the order of the shards.
///
/// Locks of several states are taken in the order of the ids, and by this function alone.
fn lock_all<'a>(shards: &[(&'a Entry, Space)]) -> Vec<Option<MutexGuard<'a, State>>> {
    let entry = |index: usize| shards.get(index).map(|(entry, _)| *entry);
    let id = |index: &usize| entry(*index).map(|entry| &entry.id);
    let mut order: Vec<usize> = (0..shards.len()).collect();
    // Most often they are in this order already, or in a few runs, which is seen in one pass.
    order.sort_by(|one, other| id(one).cmp(&id(other)));
    let mut states: Vec<_> = order.iter().map(|_| None).collect();
    for index in order {
        if let (Some(state), Some(entry)) = (states.get_mut(index), entry(index)) {
            *state = Some(lock(&entry.state));
        }
    }
    states
}

/// Runs `commit` under the lives of all these GPUs, in the order of their indices.
fn on_all<T>(
    passes: &[(Arc<Gpu>, Arc<LifePass>)],
    commit: &mut dyn FnMut() -> Result<T, VramError>,
) -> Result<T, VramError> {
    let Some(((gpu, pass), others)) = passes.split_first() else { return commit() };
    gpu.arrive(pass, || on_all(others, commit))?
}
