//! Using a shard where it lies.

pub(crate) mod beside;
pub(crate) mod contents;
pub(crate) mod in_place;
pub(crate) mod lease;
pub(crate) mod read;
pub(crate) mod reseal;
pub(crate) mod verify;
