//! Tickets of resident shards: what is stated of one moment, for `vram-ticket` to sign.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_ticket::{ShardTicket, Statement, TICKET_NAME_LEN_MAX, TicketOptions, TicketState};

use crate::call::Call;
use crate::error::VramError;
use crate::manager::{Core, VramManager};
use crate::shard::SealedShard;
use crate::sync::read;

impl VramManager {
    /// A signed statement that a shard is resident here, for the party that chose `nonce`: 32 fresh
    /// random bytes. Waits for nobody, and reads no device byte: how fresh what it says is, is part
    /// of what it says.
    ///
    /// Signed with the key that the manager was built with, or one derived from the active seal key:
    /// then another active key makes another ticket key.
    ///
    /// # Errors
    ///
    /// Those of a bad handle; [`VramError::DeviceLost`], since what cannot be reached is not
    /// resident; [`VramError::LimitExceeded`] for an owner of more than
    /// [`TICKET_NAME_LEN_MAX`] bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::{TicketExpectation, TicketKey, TicketVerifier, Timestamp, VramManager};
    ///
    /// let manager = VramManager::builder()
    ///     .host_device(vram_residency::ByteLen::MIB)
    ///     .ticket_key(TicketKey::from_bytes([7; 32]))
    ///     .build()?;
    /// let shard = manager.seal_model("llama-3-8b", 0, b"weights")?;
    ///
    /// // The orchestrator, which holds the ticket key and no seal key.
    /// let nonce = [42; 32]; // 32 fresh random bytes
    /// let ticket = manager.ticket(&shard, nonce)?;
    /// let now = ticket.issued_at; // its own clock
    /// let verifier = TicketVerifier::new(TicketKey::from_bytes([7; 32]));
    /// let expected = TicketExpectation::new(nonce, now).model_id("llama-3-8b");
    /// verifier.verify(&ticket, &expected)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id))]
    pub fn ticket(&self, shard: &SealedShard, nonce: [u8; 32]) -> Result<ShardTicket, VramError> {
        self.ticket_with(shard, TicketOptions::new(nonce))
    }

    /// As [`ticket`](Self::ticket), with what the options ask for.
    ///
    /// # Errors
    ///
    /// As [`ticket`](Self::ticket).
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id))]
    pub fn ticket_with(
        &self,
        shard: &SealedShard,
        options: TicketOptions,
    ) -> Result<ShardTicket, VramError> {
        let (id, gpu) = (&shard.shard_id, shard.gpu_index);
        let work = || self.core.ticket(shard, options);
        self.core.watched(Call::Ticket, Some(id), Some(gpu), 0, work)
    }
}

impl Core {
    fn ticket(
        &self,
        handle: &SealedShard,
        options: TicketOptions,
    ) -> Result<ShardTicket, VramError> {
        let entry = self.resolve(handle)?;
        let (issued_at, now) = (self.clock.now(), self.clock.monotonic());
        // Everything of one moment, under the lock; nothing is called there.
        let state = entry.state();
        let Some(space) = state.space.as_ref() else {
            drop(state);
            // Freed or parked since: as a reader would be told.
            return Err(match entry.view() {
                Err(error) => error,
                Ok(_back_already) => VramError::Parked { shard: entry.id.clone() },
            });
        };
        let gpu = Arc::clone(space.gpu());
        let (generation, seal) = (state.generation, Arc::clone(&state.seal));
        let quarantined = state.quarantine.is_some();
        let (last_verified, unverified) =
            (state.ages.last_verified(), state.ages.unverified_for(now));
        drop(state);
        if generation != handle.generation {
            return Err(VramError::StaleHandle { shard: entry.id.clone() });
        }
        gpu.ready()?;
        let owner_len = entry.owner.as_deref().map_or(0, str::len);
        let statement = Statement {
            nonce: options.nonce(),
            manager: self.marker.manager().into_bytes(),
            node: self.node.clone(),
            shard_id: entry.id.clone(),
            model_id: Arc::clone(&entry.sealed_as.model_id),
            owner: entry.owner.clone(),
            gpu_uuid: gpu.device.info().uuid,
            gpu_index: gpu.index,
            plaintext_len: entry.plaintext_len,
            protection: seal.protection(),
            record_mac: seal.record.mac(),
            digest: options.wants_digest().then_some(seal.digest),
            key_id: seal.key_id(),
            generation,
            state: if quarantined { TicketState::Quarantined } else { TicketState::Sound },
            last_verified,
            unverified,
            issued_at,
        };
        let signed = if let Some(key) = &self.ticket_key {
            statement.sign(key)
        } else {
            let derived = read(&self.keys).active().ticket_key();
            statement.sign(&derived)
        };
        // Of all texts in it, only the owner's length is not bounded before.
        signed.map_err(|_too_long| VramError::LimitExceeded {
            what: "bytes of a shard's owner in a ticket",
            limit: ByteLen::from_usize(TICKET_NAME_LEN_MAX).get(),
            wanted: ByteLen::from_usize(owner_len).get(),
        })
    }
}

/// Checks what the builder was told about tickets.
///
/// # Errors
///
/// [`VramError::Config`] for a node name that no ticket could carry.
pub(crate) fn check_node(node: Option<&str>) -> Result<(), VramError> {
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
