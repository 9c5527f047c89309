//! The scrubber: looks at everything that is resident again and again, so that no alteration stays
//! unnoticed for longer than is stated.
//!
//! Shards are taken in the order of their ages, the one that was looked at longest ago first. Between
//! two looks at one shard every other one has had its turn at most once, so the time between them is
//! that of one pass: what is resident, divided by the rate. A shard is looked at in steps of bounded
//! length; between two steps whoever wants to free or move it gets in, and then it starts again.
//!
//! ```text
//!   a round      shards in order of age        [a......)[b..)[c............)
//!   its steps                                  |---|---|----|---|---|---|--|
//!   the next one                                                            [a......)[b..)[c....
//!   b is at most so old                                 '-------------- a pass and b ----'
//! ```

pub mod cursor;
pub mod pace;
pub mod status;
pub mod step;
pub mod thread;
pub mod totals;
#[cfg(test)]
pub mod within;

pub use self::cursor::ScrubCursor;
pub(crate) use self::cursor::{Load, Round, Run, Seen};
pub(crate) use self::pace::Pace;
pub use self::pace::{ScrubOptions, ScrubRate};
pub use self::status::ScrubStatus;
pub(crate) use self::status::{Facts, Tally};
pub use self::step::ScrubStep;
pub use self::thread::{Scrubber, Scrubbing};
pub(crate) use self::totals::Counts;
pub use self::totals::{ScrubMetrics, Totals};
