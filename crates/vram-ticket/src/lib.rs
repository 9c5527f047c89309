#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod bytes;
mod error;
mod expect;
mod statement;
#[cfg(feature = "serde")]
mod text;
mod ticket;

pub use bytes::TICKET_NAME_LEN_MAX;
pub use error::TicketError;
pub use expect::{TicketExpectation, TicketVerifier};
pub use statement::{Statement, TicketOptions};
pub use ticket::{ShardTicket, TicketState};
