//! Makes room on a GPU: frees, parks, evicts.

pub mod evict;
pub mod free;
pub mod goal;
pub mod holders;
pub mod host_copy;
pub mod make_room;
pub mod park;
pub mod plan;
pub mod victim;

pub use self::evict::EvictionReport;
pub use self::free::FreedReceipt;
pub(crate) use self::goal::{Goal, RoomMaking};
pub use self::host_copy::BackupReport;
