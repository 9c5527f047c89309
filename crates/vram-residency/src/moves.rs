//! Changing where a shard lies.

pub(crate) mod arrival;
pub(crate) mod compact;
pub(crate) mod compact_report;
pub(crate) mod compaction;
pub(crate) mod export;
pub(crate) mod export_options;
pub(crate) mod import;
pub(crate) mod import_request;
pub(crate) mod links;
pub(crate) mod migrate;
pub(crate) mod wake;
pub(crate) mod wake_error;
