//! The facade: every operation and its promises. Each kind of operation has its own file.

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
use vram_nvml::Monitor;

/// Keeps model shards resident in GPU memory, accounted for, and provably what was sealed.
///
/// Every call takes `&self`, may come from any thread, and blocks until it is done; share the
/// manager in an [`Arc`]. An async caller uses its runtime's `spawn_blocking`. A failed call changes
/// nothing, except what the failure itself revealed and its error names.
///
/// Dropping the manager frees everything that is resident, wiped first: video memory does not
/// outlive the process that holds it. It waits for steps of the scrubber that run, for at most five
/// seconds. If a device hangs in one, what lies on the other GPUs is freed and wiped at once; what
/// lies on this one is counted in an event `closed`, and freed and wiped when the device lets go.
pub struct VramManager {
    pub(crate) core: Arc<Core>,
    pub(crate) scrubbing: Scrubbing,
    /// Asks NVIDIA's management library, if the program wants that.
    pub(crate) cards: Option<Monitor>,
}

impl Drop for VramManager {
    /// Stops the scrubber's threads first, so that this drop frees the shards and the memory. What a
    /// device that hangs keeps from that is told, and left to its thread.
    fn drop(&mut self) {
        vram_core::close::end(&self.core, &self.scrubbing);
    }
}

impl fmt::Debug for VramManager {
    /// Prints counts only: neither keys nor digests.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VramManager")
            .field("gpus", &self.core.gpus().len())
            .field("shards", &self.core.shard_count())
            .finish_non_exhaustive()
    }
}
