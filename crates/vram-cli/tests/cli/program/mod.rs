//! What all commands share: JSON and its schemas, keys, messages, streams, terminals.

mod json;
mod keys;
mod messages;
pub(crate) mod schema;
mod served;
mod starts;
mod streams;
mod terminal;
