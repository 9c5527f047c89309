//! What a manager says about itself when asked.

pub mod accounts_table;
pub mod ages;
pub mod budget;
pub mod compare;
pub mod metrics;
pub mod prometheus;
pub mod reconcile;
pub mod reconciliation;
pub mod report;
pub mod snapshot;
pub mod table;
pub mod ticket;
