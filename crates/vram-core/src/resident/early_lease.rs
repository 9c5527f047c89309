//! Leases that are taken before their shard arrives, so that nothing comes between its arrival and
//! its use.

use std::sync::Arc;

use crate::error::VramError;
use crate::parts::Core;
use crate::parts::core::in_use;
use crate::resident::Lease;
use crate::resident::lease::begun;
use crate::shard::{Entry, View};

/// The lease of a shard that is about to arrive on a GPU. Dropping it ends it.
#[must_use = "the lease ends when this is dropped"]
pub(crate) struct EarlyLease {
    // Empty once it is a lease.
    entry: Option<Arc<Entry>>,
    first: bool,
}

impl EarlyLease {
    /// Takes a lease of a shard that nobody uses yet, or that is parked.
    ///
    /// # Errors
    ///
    /// [`VramError::InUse`] if the calling thread is inside the gate of this shard already.
    pub(crate) fn of(entry: &Arc<Entry>) -> Result<Self, VramError> {
        let pass = entry.gate.shared().map_err(|busy| in_use(entry, busy))?;
        let first = entry.gate.lease(&pass) == 1;
        Ok(Self { entry: Some(Arc::clone(entry)), first })
    }

    /// The lease, now that the shard has arrived, verified. A shard whose GPU was lost since has one
    /// too: like every lease, it says so when it is used.
    pub(crate) fn begin(mut self, core: &Core) -> Option<Lease> {
        let entry = self.entry.take()?;
        let state = entry.state();
        let view = state.space().map(|space| {
            let (gpu, range, block) = (Arc::clone(space.gpu()), space.range(), space.behind());
            (gpu, range, block, state.seal.protection())
        });
        drop(state);
        let address = view.and_then(|(gpu, range, block, protection)| {
            View::address_in(&*gpu.memory_in(&block).ok()?, range, protection)
        });
        Some(begun(core, entry, self.first, address))
    }
}

impl Drop for EarlyLease {
    fn drop(&mut self) {
        // No other call counted it: the shard never arrived.
        if let Some(entry) = self.entry.take() {
            entry.gate.end_lease();
        }
    }
}
