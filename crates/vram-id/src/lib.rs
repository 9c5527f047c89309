#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod clock;
mod rising;
mod shard_id;
mod source;
mod split_mix;
mod sync;

pub use clock::{Clock, SystemClock, Timestamp};
pub use shard_id::{ParseShardIdError, ShardId};
pub use source::{IdSource, Seeded};
pub use split_mix::SplitMix;
