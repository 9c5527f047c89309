//! The scrubber: checks everything that is resident again and again, so that no alteration stays
//! undetected for longer than the stated time.
//!
//! Each GPU has a thread of its own, which touches no other GPU: a device that hangs holds up its
//! own thread alone. Nobody waits for such a thread for ever. A manager that is dropped meanwhile is
//! left to it, and ends when the device lets go.
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

pub mod control;
pub mod cursor;
pub mod handle;
pub mod pace;
pub mod part;
pub mod status;
pub mod step;
pub mod thread;
pub mod totals;
#[cfg(test)]
pub mod within;

pub(crate) use self::control::Control;
pub use self::cursor::ScrubCursor;
pub(crate) use self::cursor::{Load, Over, Round, Run, Seen};
pub use self::handle::{Scrubber, Scrubbing};
pub(crate) use self::pace::Pace;
pub use self::pace::{ScrubOptions, ScrubRate};
pub(crate) use self::part::Part;
pub(crate) use self::status::{Facts, Moment, Tally};
pub use self::status::{GpuScrub, ScrubStatus};
pub use self::step::ScrubStep;
pub(crate) use self::totals::Counts;
pub use self::totals::{ScrubMetrics, Totals};
