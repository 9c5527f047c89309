//! Using a shard where it lies.

pub mod beside;
pub mod contents;
pub mod in_place;
pub mod lease;
pub mod read;
pub mod reseal;
pub mod verify;
