//! Bringing bytes in: from sources, as whole models, under another protection.

pub(crate) mod models;
mod sinks;
mod sources;
mod streams;
pub(crate) mod transitions;
