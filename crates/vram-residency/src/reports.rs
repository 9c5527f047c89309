//! What a manager says about itself when asked.

pub(crate) mod accounts_table;
pub(crate) mod ages;
pub(crate) mod budget;
pub(crate) mod compare;
pub(crate) mod metrics;
pub(crate) mod prometheus;
pub(crate) mod reconcile;
pub(crate) mod reconciliation;
pub(crate) mod report;
pub(crate) mod snapshot;
pub(crate) mod table;
pub(crate) mod ticket;
