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

mod cursor;
mod pace;
mod status;
mod step;
mod thread;
mod totals;
#[cfg(test)]
mod within;

use core::time::Duration;

use vram_alloc::ByteLen;

pub use cursor::ScrubCursor;
pub use pace::{ScrubOptions, ScrubRate};
pub use status::ScrubStatus;
pub use step::ScrubStep;
pub use thread::Scrubber;
pub(crate) use thread::Scrubbing;
pub use totals::ScrubMetrics;

use crate::error::VramError;
use crate::manager::VramManager;

impl VramManager {
    /// Starts a thread that verifies all resident shards, of all GPUs, over and over: those that were
    /// verified longest ago first, in small steps, at the rate that the options set. What it finds
    /// altered goes into quarantine. Shards that are parked, in quarantine or on a lost GPU are left
    /// alone; one that is being moved is skipped and comes again.
    ///
    /// The scrubber ends when it is stopped or dropped, and when the manager is dropped. It does not
    /// keep the manager alive.
    ///
    /// # Errors
    ///
    /// [`VramError::Config`] for a rate of nothing, a share that is not above 0 and at most 1, and
    /// if a scrubber is running already; [`VramError::Io`] if there is no thread to be had.
    ///
    /// # Examples
    ///
    /// ```
    /// use core::time::Duration;
    /// use vram_residency::{ScrubOptions, ScrubRate, VramManager};
    ///
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let _shard = manager.seal_model("llama-3-8b", 0, b"weights")?;
    /// let hourly = ScrubOptions::new(ScrubRate::Within(Duration::from_secs(3600)));
    /// let scrubber = manager.start_scrubber(hourly)?;
    /// assert_eq!(scrubber.status().altered, 0);
    /// scrubber.stop();
    /// # Ok::<(), vram_residency::VramError>(())
    /// ```
    #[tracing::instrument(level = "info", skip_all)]
    pub fn start_scrubber(&self, options: ScrubOptions) -> Result<Scrubber, VramError> {
        thread::start(&self.core, options)
    }

    /// One step of scrubbing, on the calling thread: verifies about `budget` bytes (at least one
    /// segment) from where the cursor stands. What the scrubber's thread does; for callers with a
    /// schedule of their own.
    ///
    /// What goes wrong is told in the answer: a shard that cannot be read is left for the next pass.
    /// Of a closed manager it is [`VramError::Closed`], with nothing looked at.
    #[tracing::instrument(level = "debug", skip_all, fields(bytes = budget.get()))]
    pub fn scrub_step(&self, cursor: &mut ScrubCursor, budget: ByteLen) -> ScrubStep {
        self.core.scrub_step(cursor, budget)
    }

    /// How long an alteration of any byte that is resident now can go unnoticed at most, if the
    /// cursor goes on at this rate: a pass over everything, and the longest shard once more. To that
    /// comes the length of one step. Rising loads raise it.
    ///
    /// # Arguments
    ///
    /// * `bytes_per_second`: of what steps [charge](ScrubStep::charged); 0 is never.
    #[must_use]
    pub fn scrub_bound(&self, cursor: &ScrubCursor, bytes_per_second: u64) -> Duration {
        let bytes = cursor.round().bound(self.core.scrub_load());
        pace::time_for(bytes, bytes_per_second)
    }
}
