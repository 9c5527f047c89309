//! One shard: its handle, its place, its life, and the list of all of them.

pub(crate) mod ages;
pub(crate) mod entry;
pub(crate) mod gate;
pub(crate) mod handle;
pub(crate) mod host;
pub(crate) mod parked;
pub(crate) mod registry;
pub(crate) mod seal;
pub(crate) mod seats;
pub(crate) mod standing;
pub(crate) mod view;
