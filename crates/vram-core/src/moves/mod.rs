//! Changes where a shard lies.

pub mod arrival;
pub mod compact;
pub mod compact_report;
pub mod export;
pub mod export_options;
pub mod import;
pub mod import_request;
pub mod links;
pub mod migrate;
pub mod wake;
pub mod wake_error;

pub(crate) use self::arrival::{Arrival, Proven};
pub use self::compact_report::{CompactBudget, CompactEnd, CompactReport};
pub use self::export_options::ExportOptions;
pub(crate) use self::import::Landed;
pub use self::import_request::ImportRequest;
pub use self::links::LinkReport;
pub use self::wake_error::WakeError;
