//! Keys: the master key and its public name, derived keys, key rings, ticket keys.

pub(crate) mod derive;
pub(crate) mod derived;
pub(crate) mod id;
pub(crate) mod mac;
pub(crate) mod manifest;
pub(crate) mod master;
pub(crate) mod ring;
pub(crate) mod schedule;
pub(crate) mod secret;
pub(crate) mod seed;
pub(crate) mod ticket;
