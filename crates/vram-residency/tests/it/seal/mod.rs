//! Sealing from sources, whole models, and changes of a shard's protection.

mod batches;
mod changing_sources;
mod files;
pub(crate) mod models;
mod prints;
mod sinks;
mod sources;
mod staging;
mod streams;
pub(crate) mod transitions;
mod verified;
