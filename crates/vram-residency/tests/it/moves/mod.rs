//! Moves: whatever becomes of a shard, its bytes come back equal, or an error says why not and
//! everything is as it was.

mod compact;
mod keys;
mod links;
mod models;
mod park;
mod sealed_images;
