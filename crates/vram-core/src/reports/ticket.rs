//! Makes tickets of resident shards: the statement about one moment, which `vram-ticket` signs.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_seal::TicketKey;
use vram_ticket::{ShardTicket, Statement, TICKET_NAME_LEN_MAX, TicketOptions, TicketState};

use crate::error::VramError;
use crate::parts::{Core, keys};
use crate::shard::SealedShard;

/// A signed statement about a shard in its present state.
pub fn ticket(
    core: &Core,
    handle: &SealedShard,
    options: TicketOptions,
) -> Result<ShardTicket, VramError> {
    let entry = core.resolve(handle)?;
    let (issued_at, now) = (core.clock.now(), core.clock.monotonic());
    // Everything is read at one moment, under the lock; no foreign code is called under it.
    let state = entry.state();
    let Some(space) = state.space() else {
        drop(state);
        // The shard was freed or parked since: return the error that a reader would get.
        return Err(match entry.view() {
            Err(error) => error,
            Ok(_back_already) => VramError::Parked { shard: entry.id.clone(), evicted_for: None },
        });
    };
    let gpu = Arc::clone(space.gpu());
    let (generation, seal) = (state.generation, Arc::clone(&state.seal));
    let quarantined = state.quarantine.is_some();
    let (last_verified, checked) = (state.ages.last_verified(), state.ages.last_checked());
    let unverified = state.ages.unverified_for(now);
    drop(state);
    if generation != handle.generation {
        return Err(VramError::StaleHandle { shard: entry.id.clone() });
    }
    gpu.ready()?;
    let owner_len = entry.holder().owner.as_deref().map_or(0, str::len);
    let statement = Statement {
        nonce: options.nonce(),
        manager: core.marker.manager().into_bytes(),
        node: core.node.clone(),
        shard_id: entry.id.clone(),
        model_id: Arc::clone(&entry.sealed_as.model_id),
        owner: entry.holder().owner.clone(),
        gpu_uuid: gpu.device.info().uuid,
        gpu_index: gpu.index,
        plaintext_len: entry.plaintext_len,
        protection: seal.protection(),
        record_mac: seal.opener.record_mac(),
        digest: options.wants_digest().then_some(seal.digest),
        key_id: seal.key_id(),
        generation,
        state: if quarantined { TicketState::Quarantined } else { TicketState::Sound },
        last_verified,
        checked,
        unverified,
        issued_at,
    };
    let signed = with_key(core, |key| statement.sign(key))?;
    // Of all texts in the statement, only the length of the owner was not bounded before.
    signed.map_err(|_too_long| VramError::LimitExceeded {
        what: "bytes of a shard's owner in a ticket",
        limit: ByteLen::from_usize(TICKET_NAME_LEN_MAX).get(),
        wanted: ByteLen::from_usize(owner_len).get(),
    })
}

/// Signs with the manager's ticket key, or with the one that is derived from the active seal key.
pub(crate) fn with_key<T>(core: &Core, sign: impl FnOnce(&TicketKey) -> T) -> Result<T, VramError> {
    if let Some(key) = &core.ticket_key {
        return Ok(sign(key));
    }
    let derived = keys::ring(core)?.active().ticket_key();
    Ok(sign(&derived))
}

/// Checks the node name that the builder was given for tickets.
///
/// # Errors
///
/// [`VramError::Config`] for a node name that a ticket cannot hold.
pub fn check_node(node: Option<&str>) -> Result<(), VramError> {
    match node {
        Some(name) if name.is_empty() || name.len() > TICKET_NAME_LEN_MAX => {
            Err(VramError::config(format!(
                "a node name has 1 to {TICKET_NAME_LEN_MAX} bytes, not {}",
                name.len()
            )))
        }
        _ => Ok(()),
    }
}
