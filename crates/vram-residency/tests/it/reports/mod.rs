//! Reports of a manager: metrics, accounts, snapshots.

mod altered;
mod metrics;
mod operations;
mod prometheus;
mod reconcile;
mod snapshots;
