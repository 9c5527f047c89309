//! What a manager tells when it is asked: metrics, accounts, snapshots.

mod metrics;
mod operations;
mod reconcile;
mod snapshots;
