//! Changing where a shard lies.

pub mod arrival;
pub mod compact;
pub mod compact_report;
pub mod compaction;
pub mod export;
pub mod export_options;
pub mod import;
pub mod import_request;
pub mod links;
pub mod migrate;
pub mod wake;
pub mod wake_error;
