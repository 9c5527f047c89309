//! Moves: after any move of a shard its bytes are equal, or the call returns an error with the
//! reason and nothing has changed.

mod busy;
pub(crate) mod compact;
mod import_kinds;
pub(crate) mod keys;
mod links;
mod meanwhile;
pub(crate) mod models;
mod models_in_use;
pub(crate) mod park;
mod parked_again;
pub(crate) mod sealed_images;
