//! Checking a ticket with only the ticket key, against the expectations of the requesting party.

use core::time::Duration;
use std::sync::Arc;

use vram_alloc::DeviceUuid;
use vram_id::{ShardId, Timestamp};
use vram_seal::{KeyId, Protection, SealRecord, TicketKey};

use crate::error::TicketError;
use crate::ticket::{ShardTicket, TicketState, VERSION};

/// Default maximum age of a ticket.
const MAX_AGE: Duration = Duration::from_mins(1);
/// Default maximum difference of two clocks.
const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// Checks tickets. The key that checks them can also sign them: share it only within one pair of
/// parties that trust each other.
#[derive(Debug)]
pub struct TicketVerifier {
    key: TicketKey,
}

/// The values that a ticket must have.
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
    terms: Terms,
    shard_id: Option<ShardId>,
    gpu_uuid: Option<DeviceUuid>,
    record_mac: Option<[u8; 32]>,
    protection: Option<Protection>,
    key_id: Option<KeyId>,
    generation: Option<u64>,
}

/// What tickets of shards and of models are both expected to have.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    nonce: [u8; 32],
    now: Timestamp,
    pub(crate) max_age: Duration,
    pub(crate) clock_skew: Duration,
    pub(crate) quarantined: bool,
    pub(crate) model_id: Option<Arc<str>>,
    pub(crate) owner: Option<Arc<str>>,
    pub(crate) node: Option<Arc<str>>,
    pub(crate) max_unverified: Option<Duration>,
}

/// Whose and where a ticket says that something is.
pub(crate) struct Signed<'a> {
    pub(crate) model_id: &'a Arc<str>,
    pub(crate) owner: Option<&'a Arc<str>>,
    pub(crate) node: Option<&'a Arc<str>>,
}

impl Terms {
    pub(crate) const fn new(nonce: [u8; 32], now: Timestamp) -> Self {
        Self {
            nonce,
            now,
            max_age: MAX_AGE,
            clock_skew: CLOCK_SKEW,
            quarantined: false,
            model_id: None,
            owner: None,
            node: None,
            max_unverified: None,
        }
    }

    /// The age of a ticket that answers this request.
    pub(crate) fn of_now(
        &self,
        nonce: &[u8; 32],
        issued_at: Timestamp,
    ) -> Result<Duration, TicketError> {
        // A nonce is no secret: the request contained it.
        if *nonce != self.nonce {
            return Err(TicketError::Nonce);
        }
        let (issued, now) = (issued_at.unix_millis(), self.now.unix_millis());
        let ahead = Duration::from_millis(issued.saturating_sub(now));
        let age = Duration::from_millis(now.saturating_sub(issued));
        if ahead > self.clock_skew {
            return Err(TicketError::FromTheFuture { ahead, skew: self.clock_skew });
        }
        let max = self.max_age.saturating_add(self.clock_skew);
        if age > max { Err(TicketError::Stale { age, max }) } else { Ok(age) }
    }

    /// The unverified age and the allowed one, if it is longer than that.
    pub(crate) fn unverified(&self, stated_ms: u64, age: Duration) -> Option<(Duration, Duration)> {
        let age = Duration::from_millis(stated_ms).saturating_add(age);
        self.max_unverified.filter(|max| age > *max).map(|max| (age, max))
    }

    pub(crate) fn whose(&self, signed: &Signed<'_>) -> Result<(), TicketError> {
        let other = |field| Err(TicketError::Field { field });
        if self.model_id.as_ref().is_some_and(|model| model != signed.model_id) {
            return other("model");
        }
        if self.owner.is_some() && self.owner.as_ref() != signed.owner {
            return other("owner");
        }
        if self.node.is_some() && self.node.as_ref() != signed.node {
            return other("node");
        }
        Ok(())
    }
}

/// The setters of what tickets of shards and of models have in common.
macro_rules! terms_setters {
    () => {
        /// Sets the maximum age of the ticket.
        pub const fn max_age(mut self, age: Duration) -> Self {
            self.terms.max_age = age;
            self
        }

        /// Sets the maximum difference of the two clocks.
        pub const fn clock_skew(mut self, skew: Duration) -> Self {
            self.terms.clock_skew = skew;
            self
        }

        /// Expects this model.
        pub fn model_id(mut self, model_id: &str) -> Self {
            self.terms.model_id = Some(model_id.into());
            self
        }

        /// Expects this owner.
        pub fn owner(mut self, owner: &str) -> Self {
            self.terms.owner = Some(owner.into());
            self
        }

        /// Expects this node.
        pub fn node(mut self, node: &str) -> Self {
            self.terms.node = Some(node.into());
            self
        }
    };
}

pub(crate) use terms_setters;

impl TicketExpectation {
    /// Expects the nonce of the request, a shard that is not in quarantine, and an age of at most
    /// one minute by the checking party's own clock, with a tolerance of five seconds.
    pub const fn new(nonce: [u8; 32], now: Timestamp) -> Self {
        Self {
            terms: Terms::new(nonce, now),
            shard_id: None,
            gpu_uuid: None,
            record_mac: None,
            protection: None,
            key_id: None,
            generation: None,
        }
    }

    terms_setters!();

    /// Also accepts the ticket of a shard in quarantine: it is resident, but altered.
    pub const fn allow_quarantined(mut self) -> Self {
        self.terms.quarantined = true;
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

    /// Expects this seal record. No party without the seal key can have other content under it; a
    /// holder of that key can: where that matters, ask for a ticket with the digest and compare it.
    pub fn record(self, record: &SealRecord) -> Self {
        self.record_mac(record.mac())
    }

    /// Expects the seal record with this code: its last 32 bytes.
    pub const fn record_mac(mut self, mac: [u8; 32]) -> Self {
        self.record_mac = Some(mac);
        self
    }

    /// Expects this form of the content in device memory. Without it, plaintext in device memory
    /// passes where an encrypted shard was meant.
    pub const fn protection(mut self, protection: Protection) -> Self {
        self.protection = Some(protection);
        self
    }

    /// Expects a shard that is sealed under the key of this id.
    pub const fn key_id(mut self, id: KeyId) -> Self {
        self.key_id = Some(id);
        self
    }

    /// Expects this generation: the shard was sealed again this many times, no less and no more.
    pub const fn generation(mut self, generation: u64) -> Self {
        self.generation = Some(generation);
        self
    }

    /// Sets the maximum time since the whole shard was last verified. It is compared at the time of
    /// the check, so the ticket's own age is added.
    pub const fn max_unverified(mut self, age: Duration) -> Self {
        self.terms.max_unverified = Some(age);
        self
    }
}

impl TicketVerifier {
    /// A verifier of tickets that are signed with this key.
    #[must_use]
    pub const fn new(key: TicketKey) -> Self {
        Self { key }
    }

    /// The id of this verifier's key. A ticket names the id of the key that signed it.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key.id()
    }

    /// Checks that the ticket is genuine and has the expected values. Checks the signature first,
    /// in constant time, and the values after it.
    ///
    /// # Errors
    ///
    /// [`TicketError`] for the first failed check, in the order of its variants.
    pub fn verify(
        &self,
        ticket: &ShardTicket,
        expected: &TicketExpectation,
    ) -> Result<(), TicketError> {
        if ticket.version != VERSION {
            return Err(TicketError::Version { found: u16::from(ticket.version) });
        }
        let statement = ticket.statement().ok_or(TicketError::Malformed { what: "a field" })?;
        self.genuine(&statement, &ticket.signature, ticket.signed_by)?;
        let terms = &expected.terms;
        let age = terms.of_now(&ticket.nonce, ticket.issued_at)?;
        if ticket.state != TicketState::Sound && !terms.quarantined {
            return Err(TicketError::Quarantined { shard: ticket.shard_id.clone() });
        }
        if let Some((age, max)) = terms.unverified(ticket.unverified_ms, age) {
            return Err(TicketError::Unverified { shard: ticket.shard_id.clone(), age, max });
        }
        terms.whose(&Signed {
            model_id: &ticket.model_id,
            owner: ticket.owner.as_ref(),
            node: ticket.node.as_ref(),
        })?;
        expected.fields(ticket)
    }

    /// Checks that this verifier's key signed the statement.
    pub(crate) fn genuine(
        &self,
        statement: &[u8],
        signature: &[u8; 32],
        named: KeyId,
    ) -> Result<(), TicketError> {
        let own = self.key_id();
        let refused = if named == own {
            TicketError::Signature
        } else {
            TicketError::OtherKey { named, own }
        };
        self.key.verify(statement, signature).map_err(|_mismatch| refused.clone())?;
        // A holder of the key signed a ticket that names another one.
        if named != own {
            return Err(refused);
        }
        Ok(())
    }
}

impl TicketExpectation {
    fn fields(&self, ticket: &ShardTicket) -> Result<(), TicketError> {
        let other = |field| Err(TicketError::Field { field });
        if self.shard_id.as_ref().is_some_and(|shard| *shard != ticket.shard_id) {
            return other("shard");
        }
        if self.gpu_uuid.is_some_and(|uuid| uuid != ticket.gpu_uuid) {
            return other("gpu");
        }
        if self.record_mac.is_some_and(|mac| mac != ticket.record_mac) {
            return other("record");
        }
        if self.protection.is_some_and(|protection| protection != ticket.protection) {
            return other("protection");
        }
        if self.key_id.is_some_and(|id| id != ticket.key_id) {
            return other("key");
        }
        if self.generation.is_some_and(|generation| generation != ticket.generation) {
            return other("generation");
        }
        Ok(())
    }
}
