//! Checking a ticket: with the ticket key alone, against what the party that asked expects.

use core::time::Duration;
use std::sync::Arc;

use vram_alloc::DeviceUuid;
use vram_id::{ShardId, Timestamp};
use vram_seal::{SealRecord, TicketKey};

use crate::error::TicketError;
use crate::ticket::{ShardTicket, TicketState};

/// How old a ticket may be where nothing else is said.
const MAX_AGE: Duration = Duration::from_mins(1);
/// How far two clocks may differ where nothing else is said.
const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// Checks tickets. The key that checks them can also sign them: share it only within one pair of
/// parties that trust each other.
#[derive(Debug)]
pub struct TicketVerifier {
    key: TicketKey,
}

/// What a ticket must say.
///
/// ```
/// use core::time::Duration;
/// use vram_id::Timestamp;
/// use vram_ticket::TicketExpectation;
///
/// let now = Timestamp::from_unix_millis(1_800_000_000_000);
/// let expected = TicketExpectation::new([42; 32], now)
///     .max_age(Duration::from_secs(10))
///     .model_id("llama-3-8b")
///     .max_unverified(Duration::from_secs(3600));
/// # let _ = expected;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct TicketExpectation {
    nonce: [u8; 32],
    now: Timestamp,
    max_age: Duration,
    clock_skew: Duration,
    quarantined: bool,
    model_id: Option<Arc<str>>,
    owner: Option<Arc<str>>,
    node: Option<Arc<str>>,
    shard_id: Option<ShardId>,
    gpu_uuid: Option<DeviceUuid>,
    record_mac: Option<[u8; 32]>,
    max_unverified: Option<Duration>,
}

impl TicketExpectation {
    /// Expects the nonce that was sent with the request, and a ticket of the last minute, by the
    /// checking party's own clock, give or take five seconds. Of a shard that is not in quarantine.
    pub const fn new(nonce: [u8; 32], now: Timestamp) -> Self {
        Self {
            nonce,
            now,
            max_age: MAX_AGE,
            clock_skew: CLOCK_SKEW,
            quarantined: false,
            model_id: None,
            owner: None,
            node: None,
            shard_id: None,
            gpu_uuid: None,
            record_mac: None,
            max_unverified: None,
        }
    }

    /// Sets how old the ticket may be.
    pub const fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Sets how far the two clocks may differ.
    pub const fn clock_skew(mut self, skew: Duration) -> Self {
        self.clock_skew = skew;
        self
    }

    /// Takes the ticket of a shard in quarantine too: it is resident, and altered.
    pub const fn allow_quarantined(mut self) -> Self {
        self.quarantined = true;
        self
    }

    /// Expects this model.
    pub fn model_id(mut self, model_id: &str) -> Self {
        self.model_id = Some(model_id.into());
        self
    }

    /// Expects this owner.
    pub fn owner(mut self, owner: &str) -> Self {
        self.owner = Some(owner.into());
        self
    }

    /// Expects this node.
    pub fn node(mut self, node: &str) -> Self {
        self.node = Some(node.into());
        self
    }

    /// Expects this shard.
    pub fn shard_id(mut self, shard: ShardId) -> Self {
        self.shard_id = Some(shard);
        self
    }

    /// Expects this GPU.
    pub const fn gpu_uuid(mut self, uuid: DeviceUuid) -> Self {
        self.gpu_uuid = Some(uuid);
        self
    }

    /// Expects this seal record, and so this content: two contents never share one.
    pub fn record(self, record: &SealRecord) -> Self {
        self.record_mac(record.mac())
    }

    /// Expects the seal record with this code: its last 32 bytes.
    pub const fn record_mac(mut self, mac: [u8; 32]) -> Self {
        self.record_mac = Some(mac);
        self
    }

    /// Sets how long ago all of the shard was last found sound at most: by the time of the check,
    /// so the ticket's own age is added.
    pub const fn max_unverified(mut self, age: Duration) -> Self {
        self.max_unverified = Some(age);
        self
    }
}

impl TicketVerifier {
    /// A verifier of tickets that are signed with this key.
    #[must_use]
    pub const fn new(key: TicketKey) -> Self {
        Self { key }
    }

    /// Whether the ticket is genuine and says what is expected. First its signature, in constant
    /// time; only then what it says.
    ///
    /// # Errors
    ///
    /// [`TicketError`] naming the first field, in the order of its kinds.
    pub fn verify(
        &self,
        ticket: &ShardTicket,
        expected: &TicketExpectation,
    ) -> Result<(), TicketError> {
        let statement = ticket.statement().ok_or(TicketError::Malformed { what: "a field" })?;
        self.key
            .verify(&statement, &ticket.signature)
            .map_err(|_mismatch| TicketError::Signature)?;
        // A nonce is no secret: it travelled with the request.
        if ticket.nonce != expected.nonce {
            return Err(TicketError::Nonce);
        }
        let (issued, now) = (ticket.issued_at.unix_millis(), expected.now.unix_millis());
        let ahead = Duration::from_millis(issued.saturating_sub(now));
        let age = Duration::from_millis(now.saturating_sub(issued));
        if ahead > expected.clock_skew {
            return Err(TicketError::FromTheFuture { ahead, skew: expected.clock_skew });
        }
        let max = expected.max_age.saturating_add(expected.clock_skew);
        if age > max {
            return Err(TicketError::Stale { age, max });
        }
        if ticket.state != TicketState::Sound && !expected.quarantined {
            return Err(TicketError::Quarantined { shard: ticket.shard_id.clone() });
        }
        if let Some(max) = expected.max_unverified {
            let age = Duration::from_millis(ticket.unverified_ms).saturating_add(age);
            if age > max {
                return Err(TicketError::Unverified { shard: ticket.shard_id.clone(), age, max });
            }
        }
        expected.fields(ticket)
    }
}

impl TicketExpectation {
    fn fields(&self, ticket: &ShardTicket) -> Result<(), TicketError> {
        let other = |field| Err(TicketError::Field { field });
        if self.model_id.as_ref().is_some_and(|model| *model != ticket.model_id) {
            return other("model");
        }
        if self.owner.is_some() && self.owner != ticket.owner {
            return other("owner");
        }
        if self.node.is_some() && self.node != ticket.node {
            return other("node");
        }
        if self.shard_id.as_ref().is_some_and(|shard| *shard != ticket.shard_id) {
            return other("shard");
        }
        if self.gpu_uuid.is_some_and(|uuid| uuid != ticket.gpu_uuid) {
            return other("gpu");
        }
        if self.record_mac.is_some_and(|mac| mac != ticket.record_mac) {
            return other("record");
        }
        Ok(())
    }
}
