//! The way back of a space that came out of a promise.

use std::sync::Arc;

use vram_alloc::{Placement, Reservation};
use vram_space::{Block, Gpu, Origin, Space};

use crate::parts::promise::{Contents, Promise};
use crate::sync::lock;

/// The slot of one piece in a promise, to which the piece's space returns.
#[derive(Debug)]
pub(crate) struct Slot {
    promise: Arc<Promise>,
    /// The index of the piece in its plan.
    slot: usize,
}

impl Slot {
    pub(crate) fn new(promise: &Arc<Promise>, slot: usize) -> Self {
        Self { promise: Arc::clone(promise), slot }
    }
}

impl Origin for Slot {
    fn holds_places(&self) -> bool {
        matches!(&*lock(&self.promise.contents), Contents::Places { .. })
    }

    fn take_back(
        self: Box<Self>,
        gpu: &Arc<Gpu>,
        placement: Placement,
        granted: Reservation,
        block: Option<Arc<Block>>,
    ) {
        // A space of a promise of placements returns as it is; of a promise of bytes, only the
        // bytes return.
        if matches!(&*lock(&self.promise.contents), Contents::Bytes { .. }) {
            let mut arena = lock(&gpu.arena);
            gpu.take_back(&mut arena, placement);
            let mut contents = lock(&self.promise.contents);
            let rest = match &mut *contents {
                Contents::Bytes { bytes, .. } => bytes.join(granted).err(),
                _ => Some(granted),
            };
            // Dropped under the arena's lock, so that no other thread sees the room in the arena
            // and not yet in the ledger.
            drop(rest);
            return;
        }
        let space = Space::new(Arc::clone(gpu), placement, granted).with_block(block);
        let mut contents = lock(&self.promise.contents);
        let rest = match &mut *contents {
            Contents::Places { spaces, .. } => match spaces.get_mut(self.slot) {
                Some(slot) => slot.replace(space),
                None => Some(space),
            },
            _ => Some(space),
        };
        drop(contents);
        // No promise holds this space any more.
        drop(rest);
    }
}
