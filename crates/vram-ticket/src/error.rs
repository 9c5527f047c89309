//! Why a ticket was not accepted.

use core::time::Duration;

use vram_id::ShardId;

/// Why a ticket was not accepted: names the field, and holds no byte of any.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// The bytes are not a ticket.
    #[error("not a ticket: {what} is not as it must be")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// The signature is not one that this key makes for these fields.
    #[error("the ticket's signature does not match: another key, or a field was changed")]
    Signature,
    /// The ticket answers another request.
    #[error("the ticket is for another nonce")]
    Nonce,
    /// The ticket is older than it may be.
    #[error("the ticket is {age:?} old, and {max:?} was allowed")]
    Stale {
        /// Its age, by the checking party's clock.
        age: Duration,
        /// What was allowed, with the clocks' difference.
        max: Duration,
    },
    /// The ticket was issued later than it is now: the clocks differ by more than was allowed.
    #[error("the ticket is from {ahead:?} in the future, and clocks may differ by {skew:?}")]
    FromTheFuture {
        /// How far.
        ahead: Duration,
        /// What was allowed.
        skew: Duration,
    },
    /// The shard is in quarantine.
    #[error("{shard} is in quarantine")]
    Quarantined {
        /// The shard.
        shard: ShardId,
    },
    /// All of the shard was last found sound too long ago.
    #[error("{shard} was not verified for {age:?}, and {max:?} was allowed")]
    Unverified {
        /// The shard.
        shard: ShardId,
        /// For how long, at the time of the check.
        age: Duration,
        /// What was allowed.
        max: Duration,
    },
    /// A field is not the one that was expected.
    #[error("the ticket is of another {field}")]
    Field {
        /// Which: `model`, `owner`, `node`, `shard`, `gpu` or `record`.
        field: &'static str,
    },
}
