//! Placing out of bytes that were promised.

use std::sync::Arc;

use vram_alloc::{Alignment, ArenaError, ByteLen};

use crate::error::VramError;
use crate::sync::lock;
use crate::vs::gpu::Gpu;
use crate::vs::space::{Home, Space};

impl Gpu {
    /// Promises bytes, in whole granules.
    ///
    /// # Errors
    ///
    /// [`VramError::InsufficientVram`].
    pub(crate) fn promise(&self, len: ByteLen) -> Result<vram_alloc::Reservation, VramError> {
        self.tenants.sweep();
        let whole = len.round_up(Alignment::GRANULE).unwrap_or(len);
        // The last granule of a budget may be short: then the bytes as they were asked for.
        self.ledger.reserve(whole).or_else(|_no_room| self.ledger.reserve(len)).map_err(
            |_no_room| {
                let report = lock(&self.arena).report();
                self.shortfall(len, &report)
            },
        )
    }

    /// As [`place`](Self::place), out of bytes that were promised.
    pub(crate) fn place_granted(
        self: &Arc<Self>,
        len: ByteLen,
        home: Box<dyn Home>,
        grant: impl FnOnce(ByteLen) -> Result<vram_alloc::Reservation, VramError>,
    ) -> Result<Space, VramError> {
        let _under_way = self.enter()?;
        let mut arena = lock(&self.arena);
        let placement = match arena.place(len, Alignment::GRANULE) {
            Ok(placement) => placement,
            Err(ArenaError::NoHole { .. }) => return Err(self.shortfall(len, &arena.report())),
            Err(other) => return Err(VramError::config(other.to_string())),
        };
        // Under the arena's lock: its own lock comes after that one.
        match grant(placement.footprint()) {
            Ok(bytes) => {
                drop(arena);
                Ok(Space::out_of(home, Arc::clone(self), placement, bytes))
            }
            Err(error) => {
                self.take_back(&mut arena, placement);
                Err(error)
            }
        }
    }
}
