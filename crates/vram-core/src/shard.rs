//! One shard: its handle, its place, its life, and the list of all of them.

pub mod ages;
pub mod entry;
pub mod gate;
pub mod handle;
pub mod host;
pub mod parked;
pub mod registry;
pub mod seal;
pub mod seats;
pub mod standing;
pub mod view;
