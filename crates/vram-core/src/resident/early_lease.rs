//! Leases that are taken before their shard arrives, so that nothing comes between its arrival and
//! its use.

use std::sync::Arc;

use crate::error::VramError;
use crate::parts::Core;
use crate::parts::core::in_use;
use crate::resident::Lease;
use crate::resident::lease::{Pointer, begun, note};
use crate::shard::{Entry, Leased};

/// The lease of a shard that is about to arrive on a GPU. Dropping it ends it.
#[must_use = "the lease ends when this is dropped"]
pub(crate) struct EarlyLease {
    // Empty once it is a lease.
    noted: Option<(Arc<Entry>, (Leased, bool))>,
}

impl EarlyLease {
    /// Takes a lease of a shard that nobody uses yet, or that is parked.
    ///
    /// # Errors
    ///
    /// [`VramError::InUse`] if the calling thread is inside the gate of this shard already.
    pub(crate) fn of(
        core: &Core,
        entry: &Arc<Entry>,
        holder: Option<&Arc<str>>,
    ) -> Result<Self, VramError> {
        let pass = entry.gate.shared().map_err(|busy| in_use(entry, busy))?;
        let noted = note(core, entry, &pass, holder.cloned());
        Ok(Self { noted: Some((Arc::clone(entry), noted)) })
    }

    /// The lease, now that the shard has arrived, verified. A shard whose GPU was lost since has one
    /// too: like every lease, it says so when it is used.
    pub(crate) fn begin(mut self, core: &Core) -> Option<Lease> {
        let (entry, noted) = self.noted.take()?;
        let state = entry.state();
        let lies = state.space().map(|space| {
            let (gpu, range, block) = (Arc::clone(space.gpu()), space.range(), space.behind());
            (gpu, range, block, state.seal.protection())
        });
        drop(state);
        let pointer = lies.and_then(|(gpu, range, block, protection)| {
            Pointer::of(gpu.memory_in(&block).ok()?, range, protection)
        });
        Some(begun(core, entry, noted, pointer))
    }
}

impl Drop for EarlyLease {
    fn drop(&mut self) {
        // No other call counted it: the shard never arrived.
        if let Some((entry, (leased, _))) = self.noted.take() {
            entry.gate.end_lease(&leased);
        }
    }
}
