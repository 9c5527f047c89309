//! The issuer's statement in a ticket, and its signature.

use core::time::Duration;
use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceUuid};
use vram_id::{ShardId, Timestamp};
use vram_seal::{Checked, ContentDigest, KeyId, Protection, TicketKey};

use crate::bytes::stated;
use crate::error::TicketError;
use crate::ticket::{ShardTicket, TicketState, VERSION};

/// The requested content of one ticket.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct TicketOptions {
    nonce: [u8; 32],
    with_digest: bool,
}

impl TicketOptions {
    /// A ticket for the party that chose this nonce, without the content's digest.
    pub const fn new(nonce: [u8; 32]) -> Self {
        Self { nonce, with_digest: false }
    }

    /// Adds the plain digest of the content. The digest confirms guesses of the content to every
    /// party that sees the ticket.
    pub const fn with_digest(mut self) -> Self {
        self.with_digest = true;
        self
    }

    /// The nonce that the requesting party chose.
    #[must_use]
    pub const fn nonce(&self) -> [u8; 32] {
        self.nonce
    }

    /// Whether the ticket contains the plain digest of the content.
    #[must_use]
    pub const fn wants_digest(&self) -> bool {
        self.with_digest
    }
}

/// An issuer's statement about one resident shard: all fields of a ticket except its signature and the id of
/// the key that signs.
///
/// The fields are those of [`ShardTicket`], all read at one moment.
#[derive(Clone, Debug)]
pub struct Statement {
    /// The nonce that the requesting party chose.
    pub nonce: [u8; 32],
    /// The manager that holds the shard: a random value, new after each start.
    pub manager: [u8; 16],
    /// The node, if it has a name: at most [`TICKET_NAME_LEN_MAX`](crate::TICKET_NAME_LEN_MAX)
    /// bytes.
    pub node: Option<Arc<str>>,
    /// The shard.
    pub shard_id: ShardId,
    /// The model that it was sealed as.
    pub model_id: Arc<str>,
    /// The owner, if known: at most [`TICKET_NAME_LEN_MAX`](crate::TICKET_NAME_LEN_MAX) bytes.
    pub owner: Option<Arc<str>>,
    /// Identity of the GPU that holds it.
    pub gpu_uuid: DeviceUuid,
    /// That GPU's index in the manager.
    pub gpu_index: u32,
    /// Bytes of plaintext.
    pub plaintext_len: ByteLen,
    /// The form of the content in device memory.
    pub protection: Protection,
    /// The code of the seal record.
    pub record_mac: [u8; 32],
    /// The plain digest of the content, if it was requested.
    pub digest: Option<ContentDigest>,
    /// The id of the key that it is sealed under.
    pub key_id: KeyId,
    /// How many times the shard was sealed again.
    pub generation: u64,
    /// The known state of its device bytes.
    pub state: TicketState,
    /// Start of the last check that verified the whole shard, by the node's wall clock.
    pub last_verified: Option<Timestamp>,
    /// What that check rests on; by the seal itself on the host if it is not stated.
    pub checked: Option<Checked>,
    /// The time since then by the node's monotonic clock; without a check, the time since the shard
    /// was placed there.
    pub unverified: Duration,
    /// When the ticket is created, by the node's wall clock.
    pub issued_at: Timestamp,
}

impl Statement {
    /// Creates the ticket. The unverified age is rounded up to whole milliseconds, so that a ticket
    /// never states a shorter age than the real one.
    ///
    /// # Errors
    ///
    /// [`TicketError::Malformed`] for a text that is longer than a ticket can contain.
    pub fn sign(self, key: &TicketKey) -> Result<ShardTicket, TicketError> {
        let mut ticket = ShardTicket {
            version: VERSION,
            nonce: self.nonce,
            manager: self.manager,
            node: self.node,
            shard_id: self.shard_id,
            model_id: self.model_id,
            owner: self.owner,
            gpu_uuid: self.gpu_uuid,
            gpu_index: self.gpu_index,
            plaintext_len: self.plaintext_len,
            protection: self.protection,
            record_mac: self.record_mac,
            digest: self.digest,
            key_id: self.key_id,
            signed_by: key.id(),
            generation: self.generation,
            state: self.state,
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

/// Whole milliseconds, rounded up.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_never_told_shorter_than_it_is() {
        assert_eq!(millis(Duration::ZERO), 0);
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::from_millis(5)), 5);
        assert_eq!(millis(Duration::from_nanos(5_000_001)), 6);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }
}
