//! Checking a model ticket with only the ticket key.

use core::time::Duration;

use vram_alloc::{ByteLen, DeviceUuid};
use vram_id::Timestamp;
use vram_seal::Protection;

use crate::error::TicketError;
use crate::expect::{Signed, Terms, TicketVerifier, terms_setters};
use crate::model::{ModelTicket, VERSION};

/// The values that a model ticket must have.
///
/// ```
/// use vram_alloc::ByteLen;
/// use vram_id::Timestamp;
/// use vram_ticket::ModelTicketExpectation;
///
/// let (nonce, now) = ([42; 32], Timestamp::from_unix_millis(1_800_000_000_000));
/// let root = [7; 32]; // that the auditor computed: see `model_root`
/// let expected = ModelTicketExpectation::new(nonce, now)
///     .model_id("llama-3-8b")
///     .root(root)
///     .shard_count(291)
///     .plaintext_len(ByteLen::new(16_060_522_496));
/// # let _ = expected;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ModelTicketExpectation {
    terms: Terms,
    root: Option<[u8; 32]>,
    shard_count: Option<u64>,
    plaintext_len: Option<ByteLen>,
    protection: Option<Protection>,
    gpus: Option<Vec<DeviceUuid>>,
}

impl ModelTicketExpectation {
    /// Expects the nonce of the request, a model of which no shard is in quarantine, and an age of at
    /// most one minute by the checking party's own clock, with a tolerance of five seconds.
    pub const fn new(nonce: [u8; 32], now: Timestamp) -> Self {
        Self {
            terms: Terms::new(nonce, now),
            root: None,
            shard_count: None,
            plaintext_len: None,
            protection: None,
            gpus: None,
        }
    }

    terms_setters!();

    /// Also accepts the ticket of a model with shards in quarantine.
    pub const fn allow_quarantined(mut self) -> Self {
        self.terms.quarantined = true;
        self
    }

    /// Expects exactly the shards and seal records with this root: see
    /// [`model_root`](crate::model_root).
    pub const fn root(mut self, root: [u8; 32]) -> Self {
        self.root = Some(root);
        self
    }

    /// Expects this number of shards.
    pub const fn shard_count(mut self, count: u64) -> Self {
        self.shard_count = Some(count);
        self
    }

    /// Expects this many bytes of plaintext.
    pub const fn plaintext_len(mut self, len: ByteLen) -> Self {
        self.plaintext_len = Some(len);
        self
    }

    /// Expects this form of the content in device memory, of every shard.
    pub const fn protection(mut self, protection: Protection) -> Self {
        self.protection = Some(protection);
        self
    }

    /// Expects that no other GPU than these holds a shard.
    pub fn on_gpus(mut self, uuids: impl IntoIterator<Item = DeviceUuid>) -> Self {
        self.gpus = Some(uuids.into_iter().collect());
        self
    }

    /// Sets the maximum time since any shard was last verified. It is compared at the time of the
    /// check, so the ticket's own age is added.
    pub const fn max_unverified(mut self, age: Duration) -> Self {
        self.terms.max_unverified = Some(age);
        self
    }

    fn fields(&self, ticket: &ModelTicket) -> Result<(), TicketError> {
        let other = |field| Err(TicketError::Field { field });
        if self.root.is_some_and(|root| root != ticket.root) {
            return other("root");
        }
        if self.shard_count.is_some_and(|count| count != ticket.shard_count) {
            return other("count");
        }
        if self.plaintext_len.is_some_and(|len| len != ticket.plaintext_len) {
            return other("length");
        }
        let authenticated = match self.protection {
            None => None,
            Some(Protection::Encrypted) => Some(0),
            Some(Protection::Authenticated) => Some(ticket.shard_count),
            Some(_unknown) => return other("protection"),
        };
        if authenticated.is_some_and(|count| count != ticket.authenticated) {
            return other("protection");
        }
        if let Some(gpus) = &self.gpus
            && !ticket.gpus.iter().all(|gpu| gpus.contains(gpu))
        {
            return other("gpu");
        }
        Ok(())
    }
}

impl TicketVerifier {
    /// Checks that a model ticket is genuine and has the expected values, as
    /// [`verify`](Self::verify) does for that of one shard.
    ///
    /// # Errors
    ///
    /// [`TicketError`] for the first failed check.
    pub fn verify_model(
        &self,
        ticket: &ModelTicket,
        expected: &ModelTicketExpectation,
    ) -> Result<(), TicketError> {
        if ticket.version != VERSION {
            return Err(TicketError::ModelVersion { found: u16::from(ticket.version) });
        }
        let statement = ticket.statement().ok_or(TicketError::Malformed { what: "a field" })?;
        self.genuine(&statement, &ticket.signature, ticket.signed_by)?;
        let terms = &expected.terms;
        let age = terms.of_now(&ticket.nonce, ticket.issued_at)?;
        if ticket.quarantined > 0 && !terms.quarantined {
            return Err(TicketError::ModelQuarantined { shards: ticket.quarantined });
        }
        if let Some((age, max)) = terms.unverified(ticket.unverified_ms, age) {
            return Err(TicketError::ModelUnverified { age, max });
        }
        terms.whose(&Signed {
            model_id: &ticket.model_id,
            owner: ticket.owner.as_ref(),
            node: ticket.node.as_ref(),
        })?;
        expected.fields(ticket)
    }
}
