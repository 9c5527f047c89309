//! The scrubber: checks everything that is resident again and again, so that no alteration stays
//! undetected for longer than the stated time.
//!
//! Shards are checked in the order of their ages: the shard whose last check is longest ago comes
//! first. Between two checks of one shard, every other shard is checked at most once. The time
//! between them is therefore that of one pass: the resident bytes, divided by the rate. A shard is
//! read in steps of bounded length. Between two steps, a call that wants to free or move the shard
//! can enter its gate; the shard is then read from its start again.
//!
//! ```text
//!   a round      shards in order of age        [a......)[b..)[c............)
//!   its steps                                  |---|---|----|---|---|---|--|
//!   the next round                                                          [a......)[b..)[c....
//!   the highest age of b                                '-------------- a pass and b ----'
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
