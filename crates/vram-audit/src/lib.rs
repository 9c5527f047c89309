#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod error;
mod head;
mod line;
mod target;
mod verify;
mod writer;

pub use error::AuditError;
pub use head::{AuditHead, ParseAuditHeadError};
pub use verify::{AuditSummary, verify_audit, verify_audit_against};
pub use writer::{AuditStatus, AuditWriter};

// What an auditor needs of the crates below, so that it depends on this one alone.
pub use vram_events::{Event, EventKind, EventSink};
pub use vram_seal::TicketKey;
