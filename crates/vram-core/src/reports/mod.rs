//! Reports, metrics, snapshots, reconciliations and tickets of a manager.

pub mod ages;
pub mod budget;
pub mod compare;
pub mod metrics;
pub mod models;
pub mod prometheus;
pub mod reconcile;
pub mod reconciliation;
pub mod report;
pub mod snapshot;
pub mod table;
pub mod ticket;

pub use self::budget::DriverMemory;
pub use self::metrics::{CallMetrics, FailureCount, GpuMetrics, Metrics};
pub use self::models::{LeaseReport, ModelFigures, ModelMetrics, ModelReport, ModelState};
pub use self::reconciliation::{Account, Difference, Reconciliation};
pub(crate) use self::reconciliation::{Look, Owned};
pub use self::report::{GpuReport, Report, ShardReport};
pub use self::snapshot::{
    GpuSnapshot, KeySnapshot, ModelSnapshot, ParkedSnapshot, ReservationSnapshot, Snapshot,
    SnapshotCounters, SnapshotState,
};
pub(crate) use self::table::Short;
