//! The names of things in a store, and what their names prove.

pub(crate) mod id;
pub(crate) mod layout;
pub(crate) mod parts;
pub(crate) mod revision;
