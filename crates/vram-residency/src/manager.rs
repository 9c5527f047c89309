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
mod verify;

use core::fmt;
use std::sync::Arc;

use vram_alloc::ByteLen;

use crate::builder::VramManagerBuilder;
use crate::error::VramError;
pub(crate) use crate::parts::core::Core;

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
}

impl VramManager {
    /// A manager over one GPU in host memory, of `total` bytes, with a fresh random key. For tests
    /// and trials: host memory is taken as it is first written.
    ///
    /// # Errors
    ///
    /// [`VramError::Config`] above 2^48 − 1 bytes; [`VramError::Key`] if the operating system gives
    /// no random bytes.
    pub fn new_mock(total: usize) -> Result<Self, VramError> {
        Self::new_mock_multi_gpu(vec![total])
    }

    /// A manager over several GPUs in host memory: GPU `i` has `capacities[i]` bytes.
    ///
    /// # Errors
    ///
    /// As [`new_mock`](Self::new_mock); [`VramError::Config`] for an empty list.
    pub fn new_mock_multi_gpu(capacities: Vec<usize>) -> Result<Self, VramError> {
        let mut builder = Self::builder();
        for capacity in capacities {
            builder = builder.host_device(ByteLen::from_usize(capacity));
        }
        builder.build()
    }

    /// A manager put together piece by piece.
    pub fn builder() -> VramManagerBuilder {
        VramManagerBuilder::new()
    }
}

impl Drop for VramManager {
    /// What works in the background lets go first, so that everything is given back here.
    fn drop(&mut self) {
        self.core.scrubbing.end();
    }
}

impl fmt::Debug for VramManager {
    /// Counts only: neither keys nor digests.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VramManager")
            .field("gpus", &self.core.gpus.len())
            .field("shards", &self.core.registry.len())
            .finish_non_exhaustive()
    }
}
