//! The seal record: what it says of a shard, and what it is bound to.

pub(crate) mod context;
pub(crate) mod expected;
pub(crate) mod fields;
pub(crate) mod header;
pub(crate) mod layout;
pub(crate) mod params;
mod parse;
