#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod bytes;
mod error;
mod expect;
mod model;
mod model_bytes;
mod model_expect;
mod model_statement;
mod root;
mod statement;
#[cfg(feature = "serde")]
mod text;
mod ticket;

pub use bytes::TICKET_NAME_LEN_MAX;
pub use error::TicketError;
pub use expect::{TicketExpectation, TicketVerifier};
pub use model::{ModelTicket, TICKET_GPUS_MAX};
pub use model_expect::ModelTicketExpectation;
pub use model_statement::ModelStatement;
pub use root::model_root;
pub use statement::{Statement, TicketOptions};
pub use ticket::{ShardTicket, TicketState};

// What a party that verifies tickets needs of the crates below, so that it depends on this one alone.
pub use vram_alloc::{ByteLen, DeviceUuid, Site};
pub use vram_id::{Clock, ShardId, SystemClock, Timestamp};
pub use vram_seal::{Checked, ContentDigest, Evidence, KeyId, Protection, SealRecord, TicketKey};
