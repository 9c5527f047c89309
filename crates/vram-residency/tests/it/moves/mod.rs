//! Moves: whatever becomes of a shard, its bytes come back equal, or an error says why not and
//! everything is as it was.

pub(crate) mod compact;
pub(crate) mod keys;
mod links;
pub(crate) mod models;
pub(crate) mod park;
pub(crate) mod sealed_images;
