//! Uses a shard where it lies.

pub mod beside;
pub mod contents;
pub mod early_lease;
pub mod in_place;
pub mod lease;
pub(crate) mod on_card;
pub mod read;
pub mod reseal;
pub mod share;
pub mod verify;
pub(crate) mod verify_run;

pub(crate) use self::contents::Anew;
pub use self::lease::Lease;
pub use self::share::SharedShard;
pub use self::verify::{Verdict, Verify};
