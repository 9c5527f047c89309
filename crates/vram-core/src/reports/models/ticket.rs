//! Makes tickets of whole models: a statement about one moment, which `vram-ticket` signs.

use std::collections::BTreeMap;
use std::sync::Arc;

use core::time::Duration;

use vram_alloc::{ByteLen, DeviceUuid};
use vram_id::Timestamp;
use vram_seal::{Checked, Protection};
use vram_space::Gpu;
use vram_ticket::{ModelStatement, ModelTicket, TICKET_GPUS_MAX, model_root};

use crate::error::VramError;
use crate::models::ModelHandle;
use crate::parts::Core;
use crate::reports::ticket;
use crate::shard::{Admitted, Entry, Seal};

/// How often the shards are looked at while calls change them.
const LOOKS: u32 = 8;

/// One shard, as it is at one moment.
struct Look {
    /// Differs after every move and every new seal.
    at: (u64, u32, u32),
    gpu: Arc<Gpu>,
    seal: Arc<Seal>,
    quarantined: bool,
    last_verified: Option<Timestamp>,
    checked: Option<Checked>,
    unverified: Duration,
}

/// A signed statement about all shards of a model in their present state.
pub fn ticket_model(
    core: &Core,
    model: &ModelHandle,
    nonce: [u8; 32],
) -> Result<ModelTicket, VramError> {
    let (admitted, entries) = whole(core, model)?;
    let (issued_at, now) = (core.clock.now(), core.clock.monotonic());
    let looks = of_one_moment(core, &entries, now)?;
    let gpus: BTreeMap<u32, &Arc<Gpu>> =
        looks.iter().map(|(look, _)| (look.gpu.index, &look.gpu)).collect();
    // Asked outside of every lock: a device is foreign code.
    for gpu in gpus.values() {
        gpu.ready()?;
    }
    let gpus: Vec<DeviceUuid> = gpus.values().map(|gpu| gpu.device.info().uuid).collect();
    let gpu_count = ByteLen::from_usize(gpus.len()).get();
    let count = |which: &dyn Fn(&(Look, bool)) -> bool| {
        ByteLen::from_usize(looks.iter().filter(|look| which(look)).count()).get()
    };
    let plain = |look: &(Look, bool)| look.0.seal.protection() == Protection::Authenticated;
    let first = entries.first();
    let records: Vec<_> = looks.iter().map(|(look, _)| look.seal.record()).collect();
    let statement = ModelStatement {
        nonce,
        manager: core.marker.manager().into_bytes(),
        node: core.node.clone(),
        model_id: Arc::clone(&model.model_id),
        owner: first.and_then(|entry| entry.holder().owner.clone()),
        admission: admitted.number,
        gpus,
        shard_count: ByteLen::from_usize(entries.len()).get(),
        plaintext_len: entries
            .iter()
            .fold(ByteLen::ZERO, |sum, entry| sum.saturating_add(entry.plaintext_len)),
        authenticated: count(&plain),
        root: model_root(entries.iter().zip(&records).map(|(entry, record)| (&entry.id, record))),
        quarantined: count(&|(_, quarantined)| *quarantined),
        // The least of them; none if one was never verified.
        last_verified: looks.iter().map(|(look, _)| look.last_verified).min().flatten(),
        checked: weakest(looks.iter().filter_map(|(look, _)| look.checked)),
        unverified: looks.iter().map(|(look, _)| look.unverified).max().unwrap_or_default(),
        issued_at,
    };
    // Of all that a ticket bounds, only the number of GPUs was not bounded before.
    ticket::with_key(core, |key| statement.sign(key))?.map_err(|_too_many| {
        VramError::LimitExceeded {
            what: "GPUs in the ticket of a model",
            limit: ByteLen::from_usize(TICKET_GPUS_MAX).get(),
            wanted: gpu_count,
        }
    })
}

/// The shards of a model, in the order of its plan, if the handle names each of them, and no other.
fn whole(core: &Core, model: &ModelHandle) -> Result<(Arc<Admitted>, Vec<Arc<Entry>>), VramError> {
    let entries: Vec<_> =
        model.shards().map(|shard| core.resolve(shard)).collect::<Result<_, _>>()?;
    let Some(first) = entries.first() else {
        return Err(VramError::config("a model without shards has no ticket"));
    };
    let altered = || VramError::HandleAltered { shard: first.id.clone() };
    let admitted = &first.member().ok_or_else(altered)?.model;
    let named = entries.iter().map(|entry| &entry.id);
    if named.eq(admitted.shards()) && model.model_id == first.holder().model_id {
        Ok((Arc::clone(admitted), entries))
    } else {
        Err(altered())
    }
}

/// What all shards were at one moment, each with whether it was in quarantine then: every shard is
/// looked at, and then again, until no shard has moved or was sealed anew in between. The moment lies
/// between the two looks.
fn of_one_moment(
    core: &Core,
    entries: &[Arc<Entry>],
    now: Duration,
) -> Result<Vec<(Look, bool)>, VramError> {
    let look = || entries.iter().map(|entry| look(core, entry, now)).collect::<Result<Vec<_>, _>>();
    let mut before = look()?;
    let mut changed = None;
    for _ in 0..LOOKS {
        let after = look()?;
        changed = before.iter().zip(&after).position(|(one, other)| one.at != other.at);
        if changed.is_none() {
            // A shard that was found altered, or repaired, between the looks counts as altered.
            let altered = after.iter().map(|look| look.quarantined).collect::<Vec<_>>();
            let both = before.into_iter().zip(altered);
            return Ok(both
                .map(|(one, after)| {
                    let either = one.quarantined || after;
                    (one, either)
                })
                .collect());
        }
        before = after;
    }
    let shard = changed.and_then(|at| entries.get(at)).map(|entry| entry.id.clone());
    let shard = shard.ok_or_else(|| VramError::config("a model without shards has no ticket"))?;
    Err(VramError::TimedOut { shard, waited: Duration::ZERO })
}

/// What all of the checks rest on at least.
fn weakest(checks: impl Iterator<Item = Checked>) -> Option<Checked> {
    checks.reduce(Checked::weaker)
}

fn look(core: &Core, entry: &Entry, now: Duration) -> Result<Look, VramError> {
    let state = entry.state();
    let Some(space) = state.space() else {
        drop(state);
        return Err(entry.here().err().unwrap_or_else(|| core.why_not(&entry.id)));
    };
    Ok(Look {
        at: (state.generation, state.ages.arrivals(), space.gpu().index),
        gpu: Arc::clone(space.gpu()),
        seal: Arc::clone(&state.seal),
        quarantined: state.quarantine.is_some(),
        last_verified: state.ages.last_verified(),
        checked: state.ages.last_checked(),
        unverified: state.ages.unverified_for(now),
    })
}
