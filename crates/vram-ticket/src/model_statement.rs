//! The issuer's statement in a model ticket, and its signature.

use core::time::Duration;
use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceUuid};
use vram_id::Timestamp;
use vram_seal::{Checked, TicketKey};

use crate::bytes::stated;
use crate::error::TicketError;
use crate::model::{ModelTicket, VERSION};
use crate::statement::millis;

/// An issuer's statement about one resident model: all fields of a [`ModelTicket`] except its
/// signature and the id of the key that signs, all true at one moment.
#[derive(Clone, Debug)]
pub struct ModelStatement {
    /// The nonce that the requesting party chose.
    pub nonce: [u8; 32],
    /// The manager that holds the model: a random value, new after each start.
    pub manager: [u8; 16],
    /// The node, if it has a name.
    pub node: Option<Arc<str>>,
    /// The model that the shards were sealed as.
    pub model_id: Arc<str>,
    /// The owner, if known.
    pub owner: Option<Arc<str>>,
    /// The number of the admission that brought the model.
    pub admission: u64,
    /// The GPUs that hold its shards, each as often as the caller likes, in any order.
    pub gpus: Vec<DeviceUuid>,
    /// The number of shards.
    pub shard_count: u64,
    /// Bytes of plaintext.
    pub plaintext_len: ByteLen,
    /// The number of shards whose plaintext lies in device memory.
    pub authenticated: u64,
    /// [`model_root`](crate::model_root) over all shards, in the order of the plan.
    pub root: [u8; 32],
    /// The number of shards that were found altered.
    pub quarantined: u64,
    /// Start of the check that verified the shard that waits longest; `None` if one never was.
    pub last_verified: Option<Timestamp>,
    /// What that check rests on; by the seal itself on the host if it is not stated.
    pub checked: Option<Checked>,
    /// The longest time since a shard was verified, or placed.
    pub unverified: Duration,
    /// When the ticket is created, by the node's wall clock.
    pub issued_at: Timestamp,
}

impl ModelStatement {
    /// Creates the ticket. The unverified age is rounded up to whole milliseconds.
    ///
    /// # Errors
    ///
    /// [`TicketError::Malformed`] for a text that is longer than a ticket can contain, or more than
    /// [`TICKET_GPUS_MAX`](crate::TICKET_GPUS_MAX) GPUs.
    pub fn sign(self, key: &TicketKey) -> Result<ModelTicket, TicketError> {
        let mut gpus = self.gpus;
        gpus.sort_unstable_by_key(|uuid| *uuid.as_bytes());
        gpus.dedup();
        let mut ticket = ModelTicket {
            version: VERSION,
            nonce: self.nonce,
            manager: self.manager,
            node: self.node,
            model_id: self.model_id,
            owner: self.owner,
            admission: self.admission,
            gpus,
            shard_count: self.shard_count,
            plaintext_len: self.plaintext_len,
            authenticated: self.authenticated,
            root: self.root,
            quarantined: self.quarantined,
            signed_by: key.id(),
            last_verified: self.last_verified,
            checked: stated(self.last_verified, self.checked),
            unverified_ms: millis(self.unverified),
            issued_at: self.issued_at,
            signature: [0; 32],
        };
        let statement = ticket.statement().ok_or(TicketError::Malformed { what: "a field" })?;
        ticket.signature = key.sign(&statement);
        Ok(ticket)
    }
}
