//! Signed statements about resident shards, for an orchestrator that decides by them.
//!
//! A ticket says which shard is where, under which record, and when it was last found sound. It is
//! signed with HMAC-SHA256: **whoever can verify a ticket can also make one**, so a ticket key is
//! shared within one pair that trusts each other, and with nobody else.

mod bytes;
pub(crate) mod expect;
#[cfg(feature = "serde")]
mod text;

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_gpu::DeviceUuid;
use vram_id::{ShardId, Timestamp};
use vram_seal::{ContentDigest, KeyId, Protection};

use crate::error::VramError;
use crate::parts::core::Core;
use crate::shard::handle::SealedShard;
use crate::sync::read;
pub(crate) use crate::ticket::expect::TicketError;

/// The longest node name and the longest owner that a ticket can carry, in bytes.
pub const TICKET_NAME_LEN_MAX: usize = 1024;

/// What is known of a shard's device bytes when its ticket is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum TicketState {
    /// Resident, and nobody has found it altered.
    Sound,
    /// Resident, found altered, and closed to readers.
    Quarantined,
}

/// What one ticket is to hold.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct TicketOptions {
    nonce: [u8; 32],
    with_digest: bool,
}

impl TicketOptions {
    /// A ticket for whoever chose this nonce, without the content's digest.
    pub const fn new(nonce: [u8; 32]) -> Self {
        Self { nonce, with_digest: false }
    }

    /// Puts the plain digest of the content in. It confirms guesses of the content to everybody who
    /// sees the ticket.
    pub const fn with_digest(mut self) -> Self {
        self.with_digest = true;
        self
    }
}

/// A signed statement about one resident shard at one moment.
///
/// The fields are for reading, after [`TicketVerifier::verify`]: before, they are a claim. None of
/// them is secret; the digest, where it was asked for, confirms guesses of the content.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct ShardTicket {
    /// The layout that was signed: 1.
    pub version: u8,
    /// What the party that asked chose, so that no old ticket passes for a new one.
    #[cfg_attr(feature = "serde", serde(with = "text::array"))]
    pub nonce: [u8; 32],
    /// The manager that holds the shard: random, another one after each start.
    #[cfg_attr(feature = "serde", serde(with = "text::array"))]
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
    #[cfg_attr(feature = "serde", serde(with = "text::uuid"))]
    pub gpu_uuid: DeviceUuid,
    /// That GPU, as the manager counts them.
    pub gpu_index: u32,
    /// Bytes of plaintext.
    pub plaintext_len: ByteLen,
    /// What lies in device memory.
    #[cfg_attr(feature = "serde", serde(with = "crate::shard::handle::protection_as_word"))]
    pub protection: Protection,
    /// The code of the seal record, its last 32 bytes: names the record, and says nothing of the
    /// content.
    #[cfg_attr(feature = "serde", serde(with = "text::array"))]
    pub record_mac: [u8; 32],
    /// The plain digest of the content, if it was asked for.
    #[cfg_attr(feature = "serde", serde(with = "text::digest"))]
    pub digest: Option<ContentDigest>,
    /// The key that it is sealed under.
    #[cfg_attr(feature = "serde", serde(with = "text::key_id"))]
    pub key_id: KeyId,
    /// How often the shard was sealed anew.
    pub generation: u64,
    /// What is known of its device bytes.
    pub state: TicketState,
    /// When the check began that last found all of it sound, by the node's wall clock.
    pub last_verified: Option<Timestamp>,
    /// How long nobody had found all of it sound when the ticket was made, in milliseconds of the
    /// node's monotonic clock; since it lay there, if nobody ever had.
    pub unverified_ms: u64,
    /// When the ticket was made, by the node's wall clock.
    pub issued_at: Timestamp,
    /// HMAC-SHA256 over everything above.
    #[cfg_attr(feature = "serde", serde(with = "text::array"))]
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

pub(crate) fn ticket(
    core: &Core,
    handle: &SealedShard,
    options: TicketOptions,
) -> Result<ShardTicket, VramError> {
    let entry = core.resolve(handle)?;
    let (issued_at, now) = (core.clock.now(), core.clock.monotonic());
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
    let (last_verified, unverified) = (state.ages.last_verified(), state.ages.unverified_for(now));
    drop(state);
    if generation != handle.generation {
        return Err(VramError::StaleHandle { shard: entry.id.clone() });
    }
    gpu.ready()?;
    let mut ticket = ShardTicket {
        version: bytes::VERSION,
        nonce: options.nonce,
        manager: core.marker.manager().into_bytes(),
        node: core.node.clone(),
        shard_id: entry.id.clone(),
        model_id: Arc::clone(&entry.sealed_as.model_id),
        owner: entry.owner.clone(),
        gpu_uuid: gpu.device.info().uuid,
        gpu_index: gpu.index,
        plaintext_len: entry.plaintext_len,
        protection: seal.protection(),
        record_mac: seal.record.mac(),
        digest: options.with_digest.then_some(seal.digest),
        key_id: seal.key_id(),
        generation,
        state: if quarantined { TicketState::Quarantined } else { TicketState::Sound },
        last_verified,
        unverified_ms: millis(unverified),
        issued_at,
        signature: [0; 32],
    };
    let statement = ticket.statement().ok_or_else(|| VramError::LimitExceeded {
        what: "bytes of a shard's owner in a ticket",
        limit: ByteLen::from_usize(TICKET_NAME_LEN_MAX).get(),
        wanted: ByteLen::from_usize(ticket.owner.as_deref().map_or(0, str::len)).get(),
    })?;
    ticket.signature = if let Some(key) = &core.ticket_key {
        key.sign(&statement)
    } else {
        let derived = read(&core.keys).active().ticket_key();
        derived.sign(&statement)
    };
    Ok(ticket)
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

/// Whole milliseconds, rounded up: an age is never told shorter than it is.
fn millis(time: Duration) -> u64 {
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
