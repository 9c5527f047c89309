//! The ticket itself: what it says, and what of it is shown.

use core::fmt;
use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceUuid};
use vram_id::{ShardId, Timestamp};
use vram_seal::{ContentDigest, KeyId, Protection};

/// What is known of a shard's device bytes when its ticket is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum TicketState {
    /// Resident, and never found altered.
    Sound,
    /// Resident, found altered, and closed to readers.
    Quarantined,
}

/// A signed statement about one resident shard at one moment.
///
/// The fields are for reading, after [`TicketVerifier::verify`](crate::TicketVerifier::verify): before, they are a claim. None of
/// them is secret; the digest, where it was asked for, confirms guesses of the content.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct ShardTicket {
    /// The layout that was signed: 1.
    pub version: u8,
    /// What the party that asked chose, so that no old ticket passes for a new one.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::array"))]
    pub nonce: [u8; 32],
    /// The manager that holds the shard: random, another one after each start.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::array"))]
    pub manager: [u8; 16],
    /// The node, if the manager was given a name for it.
    pub node: Option<Arc<str>>,
    /// The shard.
    pub shard_id: ShardId,
    /// The model that it was sealed as.
    pub model_id: Arc<str>,
    /// Who it belongs to, if the request said so.
    pub owner: Option<Arc<str>>,
    /// Identity of the GPU that holds it.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::uuid"))]
    pub gpu_uuid: DeviceUuid,
    /// That GPU, as the manager counts them.
    pub gpu_index: u32,
    /// Bytes of plaintext.
    pub plaintext_len: ByteLen,
    /// What lies in device memory.
    pub protection: Protection,
    /// The code of the seal record, its last 32 bytes: names the record, and says nothing of the
    /// content.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::array"))]
    pub record_mac: [u8; 32],
    /// The plain digest of the content, if it was asked for.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::digest"))]
    pub digest: Option<ContentDigest>,
    /// The key that it is sealed under.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::key_id"))]
    pub key_id: KeyId,
    /// How often the shard was sealed anew.
    pub generation: u64,
    /// What is known of its device bytes.
    pub state: TicketState,
    /// When the check began that last found all of it sound, by the node's wall clock.
    pub last_verified: Option<Timestamp>,
    /// How long ago all of it was last found sound when the ticket was made, in milliseconds of the
    /// node's monotonic clock; since it lies there, if it never was.
    pub unverified_ms: u64,
    /// When the ticket was made, by the node's wall clock.
    pub issued_at: Timestamp,
    /// HMAC-SHA256 over everything above.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::array"))]
    pub signature: [u8; 32],
}

impl fmt::Debug for ShardTicket {
    /// Neither the digest nor the signature.
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
            .field("generation", &self.generation)
            .field("state", &self.state)
            .field("last_verified", &self.last_verified)
            .field("unverified_ms", &self.unverified_ms)
            .field("issued_at", &self.issued_at)
            .finish_non_exhaustive()
    }
}
