//! The ticket of a whole model: its fields, and which of them `Debug` shows.

use core::fmt;
use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceUuid};
use vram_id::Timestamp;
use vram_seal::{Checked, KeyId};

/// The version of model tickets that is written and read.
pub(crate) const VERSION: u8 = 1;

/// The most GPUs that one ticket can name.
pub const TICKET_GPUS_MAX: usize = 256;

/// A signed statement that all shards of a model are resident on a node at one moment.
///
/// Use the fields only after [`TicketVerifier::verify_model`](crate::TicketVerifier::verify_model):
/// before it they are unproven. No field is secret, and none confirms a guess of the content.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct ModelTicket {
    /// The version of the signed layout: 1.
    pub version: u8,
    /// The nonce that the requesting party chose.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::array"))]
    pub nonce: [u8; 32],
    /// The manager that holds the model: a random value, new after each start.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::array"))]
    pub manager: [u8; 16],
    /// The node, if the manager has a name for it.
    pub node: Option<Arc<str>>,
    /// The model that the shards were sealed as.
    pub model_id: Arc<str>,
    /// The owner, if the request named one.
    pub owner: Option<Arc<str>>,
    /// The number of the admission that brought the model, as in the manager's events.
    pub admission: u64,
    /// The GPUs that hold its shards, in ascending order.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::uuids"))]
    pub gpus: Vec<DeviceUuid>,
    /// The number of shards.
    pub shard_count: u64,
    /// Bytes of plaintext.
    pub plaintext_len: ByteLen,
    /// The number of shards whose plaintext lies in device memory; all others are encrypted there.
    pub authenticated: u64,
    /// [`model_root`](crate::model_root) over all shards, in the order of the plan.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::array"))]
    pub root: [u8; 32],
    /// The number of shards that were found altered, and are closed to readers.
    pub quarantined: u64,
    /// The id of the ticket key that signed it.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::key_id"))]
    pub signed_by: KeyId,
    /// Start of the check that verified the shard that waits longest, by the node's wall clock;
    /// `None` if a shard was never verified since it was placed.
    pub last_verified: Option<Timestamp>,
    /// What that check rests on; of a model, the weakest of its shards. There if `last_verified` is.
    #[cfg_attr(feature = "serde", serde(default))]
    pub checked: Option<Checked>,
    /// The longest time since a shard was verified, or placed, when the ticket was created, in
    /// milliseconds of the node's monotonic clock.
    pub unverified_ms: u64,
    /// When the ticket was made, by the node's wall clock.
    pub issued_at: Timestamp,
    /// HMAC-SHA256 over everything above.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::array"))]
    pub signature: [u8; 32],
}

impl fmt::Debug for ModelTicket {
    /// Does not show the signature.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelTicket")
            .field("model_id", &self.model_id)
            .field("node", &self.node)
            .field("owner", &self.owner)
            .field("admission", &self.admission)
            .field("gpus", &self.gpus)
            .field("shard_count", &self.shard_count)
            .field("plaintext_len", &self.plaintext_len)
            .field("authenticated", &self.authenticated)
            .field("quarantined", &self.quarantined)
            .field("signed_by", &self.signed_by)
            .field("last_verified", &self.last_verified)
            .field("checked", &self.checked)
            .field("unverified_ms", &self.unverified_ms)
            .field("issued_at", &self.issued_at)
            .finish_non_exhaustive()
    }
}
