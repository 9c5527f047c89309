//! Why a ticket was not accepted.

use core::time::Duration;

use vram_id::ShardId;
use vram_seal::KeyId;

/// Why a ticket was not accepted. An error names the field and contains no byte of it,
/// but for the public id of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// The bytes are not a ticket.
    #[error("not a ticket: {what} is not as it must be")]
    Malformed {
        /// The part that is wrong.
        what: &'static str,
    },
    /// The bytes begin as a ticket of another version, which is not read here: the other party runs
    /// another version of this program.
    #[error(
        "the ticket has version {found}, and this program reads version {}",
        crate::ticket::VERSION
    )]
    Version {
        /// The version that the ticket names.
        found: u16,
    },
    /// The bytes begin as a model ticket of another version.
    #[error(
        "the model ticket has version {found}, and this program reads version {}",
        crate::model::VERSION
    )]
    ModelVersion {
        /// The version that the ticket names.
        found: u16,
    },
    /// The signature does not match: this key did not sign these fields.
    #[error("the ticket's signature does not match: another key, or a field was changed")]
    Signature,
    /// The ticket names another ticket key, and this key did not sign it.
    #[error("the ticket names ticket key {named}, and this key is {own}")]
    OtherKey {
        /// The id of the key that the ticket names. Unproven, as all of the ticket.
        named: KeyId,
        /// The id of the verifier's key.
        own: KeyId,
    },
    /// The ticket belongs to another request.
    #[error("the ticket is for another nonce")]
    Nonce,
    /// The ticket is older than allowed.
    #[error("the ticket is {age:?} old, and {max:?} was allowed")]
    Stale {
        /// Its age, by the checking party's clock.
        age: Duration,
        /// The allowed age, including the clock difference.
        max: Duration,
    },
    /// The ticket was issued in the future: the clocks differ by more than allowed.
    #[error("the ticket is from {ahead:?} in the future, and clocks may differ by {skew:?}")]
    FromTheFuture {
        /// How far in the future.
        ahead: Duration,
        /// The allowed clock difference.
        skew: Duration,
    },
    /// The shard is in quarantine.
    #[error("{shard} is in quarantine")]
    Quarantined {
        /// The shard.
        shard: ShardId,
    },
    /// Shards of the model are in quarantine.
    #[error("{shards} of the model's shards are in quarantine")]
    ModelQuarantined {
        /// How many.
        shards: u64,
    },
    /// The last verification of the whole shard is too long ago.
    #[error("{shard} was not verified for {age:?}, and {max:?} was allowed")]
    Unverified {
        /// The shard.
        shard: ShardId,
        /// The time since then, at the time of the check.
        age: Duration,
        /// The allowed time.
        max: Duration,
    },
    /// The last verification of a shard of the model is too long ago.
    #[error("a shard of the model was not verified for {age:?}, and {max:?} was allowed")]
    ModelUnverified {
        /// The time since then, at the time of the check.
        age: Duration,
        /// The allowed time.
        max: Duration,
    },
    /// A field differs from the expected value.
    #[error("the ticket is of another {field}")]
    Field {
        /// The field: `model`, `owner`, `node`, `shard`, `gpu`, `record`, `protection`, `key` or
        /// `generation`;
        /// of a model ticket also `root`, `count` or `length`.
        field: &'static str,
    },
}
