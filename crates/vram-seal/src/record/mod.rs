//! The seal record: its fields, and the context that it is bound to.

pub(crate) mod checked;
pub(crate) mod context;
pub(crate) mod expected;
pub(crate) mod fields;
pub(crate) mod header;
pub(crate) mod layout;
pub(crate) mod metadata;
pub(crate) mod params;
mod parse;
pub(crate) mod protection;
