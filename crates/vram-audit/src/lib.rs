#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod check;
mod error;
mod file_id;
mod head;
mod hex;
mod line;
mod summary;
mod target;
mod verify;
mod writer;

pub use check::{AuditCheck, verify_audit, verify_audit_against};
pub use error::AuditError;
pub use file_id::{AuditFileId, ParseAuditFileIdError};
pub use head::{AuditHead, ParseAuditHeadError};
pub use summary::AuditSummary;
pub use writer::{AuditHandle, AuditWriter};

// What an auditor needs of the crates below, so that it depends on this one alone.
pub use vram_events::{Event, EventKind, EventSink};
pub use vram_seal::TicketKey;
