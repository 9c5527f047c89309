//! The facade: every operation, and what it promises. Each is carried out in a file of its own.

mod close;
mod images;
mod keys;
mod loss;
mod models;
mod moves;
mod reports;
mod room;
mod seal;
mod shards;
mod start;
mod verify;

use core::fmt;
use std::sync::Arc;

pub(crate) use vram_core::parts::Core;
use vram_core::scrub::Scrubbing;

/// Keeps model shards resident in GPU memory, accounted for, and provably what was sealed.
///
/// Every call takes `&self`, may come from any thread, and blocks until it is done; share the
/// manager in an [`Arc`]. An async caller uses its runtime's `spawn_blocking`. A failed call changes
/// nothing, except what the failure itself revealed and its error names.
///
/// Dropping the manager frees everything that is resident, wiped first: video memory does not
/// outlive the process that holds it.
pub struct VramManager {
    pub(crate) core: Arc<Core>,
    pub(crate) scrubbing: Scrubbing,
}

impl Drop for VramManager {
    /// What works in the background lets go first, so that everything is given back here.
    fn drop(&mut self) {
        self.scrubbing.end();
    }
}

impl fmt::Debug for VramManager {
    /// Counts only: neither keys nor digests.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VramManager")
            .field("gpus", &self.core.gpus().len())
            .field("shards", &self.core.shard_count())
            .finish_non_exhaustive()
    }
}
