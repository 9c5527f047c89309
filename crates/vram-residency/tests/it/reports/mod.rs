//! Reports of a manager: metrics, accounts, snapshots.

mod altered;
mod metrics;
mod models;
mod operations;
mod prometheus;
mod reconcile;
mod snapshots;
