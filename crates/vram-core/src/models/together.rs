//! Exclusive use of all shards of a model.

use std::sync::Arc;

use crate::error::VramError;
use crate::models::ModelHandle;
use crate::models::moves::TRIES;
use crate::parts::Core;
use crate::parts::core::in_use;
use crate::shard::{Entry, SealedShard};

/// Runs `work` on all shards of a model as their exclusive user.
///
/// A thread that is inside one gate does not wait at another, or two such threads could wait for
/// each other. The call therefore tries all gates. If one is occupied, it leaves all of them and
/// waits at that one first.
pub(crate) fn exclusive_all<T>(
    core: &Core,
    model: &ModelHandle,
    work: impl FnOnce(&[Arc<Entry>]) -> Result<T, VramError>,
) -> Result<T, VramError> {
    let named: Result<Vec<_>, VramError> =
        model.shards().map(|shard| Ok((shard, core.resolve(shard)?))).collect();
    exclusive_among(named?, work)
}

/// Like [`exclusive_all`](Self::exclusive_all), on shards that were found already.
pub(crate) fn exclusive_among<T>(
    named: Vec<(&SealedShard, Arc<Entry>)>,
    work: impl FnOnce(&[Arc<Entry>]) -> Result<T, VramError>,
) -> Result<T, VramError> {
    let (shards, entries): (Vec<_>, Vec<_>) = named.into_iter().unzip();
    let (mut first, mut tries) = (0, TRIES);
    loop {
        let mut passes = Vec::new();
        let others = (0..entries.len()).filter(|index| *index != first);
        let order = core::iter::once(first).chain(others);
        let mut refused = None;
        for (index, entry) in order.filter_map(|index| Some((index, entries.get(index)?))) {
            match entry.gate.exclusive() {
                Ok(pass) => passes.push(pass),
                Err(busy) => {
                    refused = Some((index, in_use(entry, busy), busy.leases > 0));
                    break;
                }
            }
        }
        let Some((index, error, leased)) = refused else {
            for (entry, shard) in entries.iter().zip(shards) {
                entry.view()?;
                entry.check_current(shard)?;
            }
            return work(&entries);
        };
        tries = tries.saturating_sub(1);
        // A shard is leased, or this thread itself uses one: waiting would not help.
        if leased || passes.is_empty() || tries == 0 {
            return Err(error);
        }
        first = index;
    }
}
