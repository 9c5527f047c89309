//! What a manager tells when it is asked: metrics, accounts, snapshots.

mod metrics;
mod operations;
mod prometheus;
mod reconcile;
mod snapshots;
