#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![expect(
    clippy::missing_errors_doc,
    reason = "the methods of the facade, which call these functions one to one, state the errors"
)]

pub mod close;
pub mod error;
pub mod models;
pub mod moves;
pub mod parts;
pub mod repair;
pub mod reports;
pub mod reset;
pub mod resident;
pub mod room;
pub mod scrub;
pub mod sealing;
pub mod shard;
mod sync;
pub mod transfer;
