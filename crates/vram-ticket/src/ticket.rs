//! The ticket itself: its fields, and which of them `Debug` shows.

use core::fmt;
use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceUuid};
use vram_id::{ShardId, Timestamp};
use vram_seal::{Checked, ContentDigest, KeyId, Protection};

/// The version of tickets that is written and read.
pub(crate) const VERSION: u8 = 2;

/// The known state of a shard's device bytes when its ticket is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum TicketState {
    /// Resident; no check has found it altered. The word speaks of the segments' tags, which exclude
    /// a party without the key; a ticket does not say that the content as a whole was compared.
    Sound,
    /// Resident, found altered, and closed to readers.
    Quarantined,
}

/// A signed statement about one resident shard at one moment.
///
/// Use the fields only after [`TicketVerifier::verify`](crate::TicketVerifier::verify): before it
/// they are unproven. No field is secret; the digest, if it was requested, confirms guesses of the
/// content.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct ShardTicket {
    /// The version of the signed layout: 2.
    pub version: u8,
    /// The nonce that the requesting party chose, so that an old ticket is not accepted as a new
    /// one.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::array"))]
    pub nonce: [u8; 32],
    /// The manager that holds the shard: a random value, new after each start.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::array"))]
    pub manager: [u8; 16],
    /// The node, if the manager has a name for it.
    pub node: Option<Arc<str>>,
    /// The shard.
    pub shard_id: ShardId,
    /// The model that it was sealed as.
    pub model_id: Arc<str>,
    /// The owner, if the request named one.
    pub owner: Option<Arc<str>>,
    /// Identity of the GPU that holds it.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::uuid"))]
    pub gpu_uuid: DeviceUuid,
    /// That GPU's index in the manager.
    pub gpu_index: u32,
    /// Bytes of plaintext.
    pub plaintext_len: ByteLen,
    /// The form of the content in device memory.
    pub protection: Protection,
    /// The code of the seal record, its last 32 bytes: identifies the record, and reveals nothing
    /// about the content.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::array"))]
    pub record_mac: [u8; 32],
    /// The plain digest of the content, if it was requested.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::digest"))]
    pub digest: Option<ContentDigest>,
    /// The id of the key that it is sealed under.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::key_id"))]
    pub key_id: KeyId,
    /// The id of the ticket key that signed it: a verifier with several keys chooses by it.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::key_id"))]
    pub signed_by: KeyId,
    /// How many times the shard was sealed again.
    pub generation: u64,
    /// The known state of its device bytes.
    pub state: TicketState,
    /// Start of the last check that verified the whole shard, by the node's wall clock.
    pub last_verified: Option<Timestamp>,
    /// What that check rests on. There if `last_verified` is.
    #[cfg_attr(feature = "serde", serde(default))]
    pub checked: Option<Checked>,
    /// The time since then when the ticket was created, in milliseconds of the node's monotonic
    /// clock; without a check, the time since the shard was placed there.
    pub unverified_ms: u64,
    /// When the ticket was made, by the node's wall clock.
    pub issued_at: Timestamp,
    /// HMAC-SHA256 over everything above.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::array"))]
    pub signature: [u8; 32],
}

impl fmt::Debug for ShardTicket {
    /// Shows neither the digest nor the signature.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardTicket")
            .field("shard_id", &self.shard_id)
            .field("model_id", &self.model_id)
            .field("node", &self.node)
            .field("owner", &self.owner)
            .field("gpu_uuid", &self.gpu_uuid)
            .field("gpu_index", &self.gpu_index)
            .field("plaintext_len", &self.plaintext_len)
            .field("protection", &self.protection)
            .field("key_id", &self.key_id)
            .field("signed_by", &self.signed_by)
            .field("generation", &self.generation)
            .field("state", &self.state)
            .field("last_verified", &self.last_verified)
            .field("checked", &self.checked)
            .field("unverified_ms", &self.unverified_ms)
            .field("issued_at", &self.issued_at)
            .finish_non_exhaustive()
    }
}
