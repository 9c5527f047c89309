//! Placing: arena and ledger change together.

use std::sync::Arc;

use vram_alloc::{
    Alignment, Arena, ArenaError, ArenaReport, ByteLen, Capacity, DeviceOffset, LedgerError,
    Placement, Reservation,
};

use crate::block::MemoryMode;
use crate::error::{NoRoom, SpaceError};
use crate::gpu::Gpu;
use crate::life::pass::LifePass;
use crate::space::{Origin, Space};
use crate::sync::lock;

/// A call that places pieces on one GPU. What it places is under way as one call, which a reset and the
/// close of the manager wait for.
#[derive(Debug)]
pub struct Placing {
    gpu: Arc<Gpu>,
    pass: Arc<LifePass>,
}

impl Placing {
    /// Places one piece, as [`Gpu::place`].
    ///
    /// # Errors
    ///
    /// As [`Gpu::place`].
    pub fn place(&self, len: ByteLen) -> Result<Space, SpaceError> {
        let gpu = &self.gpu;
        // Asked for each piece: while the others were placed, the device may have been lost.
        gpu.ready()?;
        let mut space = match gpu.place_in_books(len) {
            // Other processes may have freed memory since the last figure.
            Err(SpaceError::NoRoom(lack)) if !lack.foreign.is_zero() => {
                gpu.ask_again()?;
                gpu.place_in_books(len)
            }
            placed => placed,
        }?;
        space.filling.set_pass(Arc::clone(&self.pass));
        let Err(error) = space.open() else { return Ok(space) };
        drop(space);
        let needed = len.round_up(gpu.granule()).unwrap_or(len);
        if error.is_capacity() && gpu.ledger.capacity().room() < needed {
            // The driver had no room, and the ledger now has its figure of foreign bytes.
            return Err(gpu.no_room(len));
        }
        Err(error)
    }

    /// The GPU.
    #[must_use]
    pub const fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }
}

impl Gpu {
    /// Takes `len` bytes from the arena and the ledger together; in mode `Blocks`, then allocates a
    /// block of that length.
    ///
    /// # Errors
    ///
    /// [`SpaceError::NoRoom`] if arena or ledger refuses, [`SpaceError::DeviceLost`]; in mode
    /// `Blocks`, the driver's error for the allocation.
    pub fn place(self: &Arc<Self>, len: ByteLen) -> Result<Space, SpaceError> {
        self.begin_placing()?.place(len)
    }

    /// Begins a call that places one piece or many.
    ///
    /// # Errors
    ///
    /// As [`enter`](Self::enter).
    pub fn begin_placing(self: &Arc<Self>) -> Result<Placing, SpaceError> {
        self.bring_back();
        // Before the ledger changes: the ledger of a closed manager stays as it is.
        let pass = Arc::new(self.enter()?);
        Ok(Placing { gpu: Arc::clone(self), pass })
    }

    fn place_in_books(self: &Arc<Self>, len: ByteLen) -> Result<Space, SpaceError> {
        self.tenants.sweep();
        let mut arena = lock(&self.arena);
        let placement = match arena.place(len, Alignment::GRANULE) {
            Ok(placement) => placement,
            Err(ArenaError::NoHole { .. }) => return Err(self.shortfall(len, &arena.report())),
            Err(other) => return Err(SpaceError::Invalid { what: other.to_string() }),
        };
        match self.ledger.reserve(placement.footprint()) {
            Ok(reservation) => {
                drop(arena);
                Ok(Space::new(Arc::clone(self), placement, reservation))
            }
            Err(_no_room) => {
                self.take_back(&mut arena, placement);
                Err(self.shortfall(len, &arena.report()))
            }
        }
    }

    /// As [`place`](Self::place), exactly at `start`. `None` if that place is not free.
    ///
    /// # Errors
    ///
    /// [`SpaceError::NoRoom`] if the ledger refuses, [`SpaceError::DeviceLost`].
    pub fn place_at(
        self: &Arc<Self>,
        start: DeviceOffset,
        len: ByteLen,
    ) -> Result<Option<Space>, SpaceError> {
        let _under_way = self.enter()?;
        let mut arena = lock(&self.arena);
        let Ok(placement) = arena.place_at(start, len) else { return Ok(None) };
        match self.ledger.reserve(placement.footprint()) {
            Ok(reservation) => {
                drop(arena);
                Ok(Some(Space::new(Arc::clone(self), placement, reservation)))
            }
            Err(_no_room) => {
                self.take_back(&mut arena, placement);
                Err(self.shortfall(len, &arena.report()))
            }
        }
    }

    /// Returns a placement to the arena, whose lock the caller holds.
    pub fn take_back(&self, arena: &mut Arena, placement: Placement) {
        if let Err(error) = arena.release(placement) {
            // Each placement is released once, to the arena it came from.
            tracing::error!(%error, "the arena refused its own placement");
            debug_assert!(false, "the arena refused its own placement: {error}");
        }
    }

    /// The refusal for lack of room, with the present figures and the arena's `report`.
    pub fn shortfall(&self, len: ByteLen, report: &ArenaReport) -> SpaceError {
        let capacity = self.ledger.capacity();
        SpaceError::NoRoom(Box::new(NoRoom {
            gpu: self.index,
            needed: len.round_up(self.granule()).unwrap_or(len),
            room: capacity.room(),
            largest_hole: self.hole(capacity, report),
            foreign: capacity.foreign,
            headroom: capacity.headroom,
            most: capacity.total.saturating_sub(capacity.headroom),
        }))
    }

    /// The refusal for lack of room, with the present figures.
    pub(crate) fn no_room(&self, len: ByteLen) -> SpaceError {
        let report = lock(&self.arena).report();
        self.shortfall(len, &report)
    }

    /// The longest piece that could be placed; in mode `Blocks`, all the room there is.
    fn hole(&self, books: Capacity, report: &ArenaReport) -> ByteLen {
        match self.backing.mode() {
            MemoryMode::Region => report.largest_hole,
            MemoryMode::Blocks | MemoryMode::SharedBlocks => books.room(),
        }
    }

    /// Reserves bytes in the ledger, in whole granules. `keep` calls the function that it is given,
    /// once, and records the bytes: under its own lock, so that other threads see the bytes in
    /// ledger and record, or in neither.
    ///
    /// # Errors
    ///
    /// [`SpaceError::NoRoom`].
    pub fn promise<T>(
        &self,
        len: ByteLen,
        keep: impl FnOnce(&dyn Fn() -> Result<Reservation, LedgerError>) -> Result<T, LedgerError>,
    ) -> Result<T, SpaceError> {
        self.bring_back();
        self.tenants.sweep();
        let whole = len.round_up(self.granule()).unwrap_or(len);
        // The last granule of a budget may be short: then the exact length is reserved.
        let take = || self.ledger.reserve(whole).or_else(|_no_room| self.ledger.reserve(len));
        keep(&take).map_err(|_no_room| self.no_room(len))
    }

    /// As [`place`](Self::place), with bytes that were promised before.
    ///
    /// # Errors
    ///
    /// As [`place`](Self::place), and the error of `grant`; nothing is taken then.
    pub fn place_granted<E: From<SpaceError>>(
        self: &Arc<Self>,
        len: ByteLen,
        origin: Box<dyn Origin>,
        grant: impl FnOnce(ByteLen) -> Result<Reservation, E>,
    ) -> Result<Space, E> {
        let _under_way = self.enter()?;
        let mut arena = lock(&self.arena);
        let placement = match arena.place(len, Alignment::GRANULE) {
            Ok(placement) => placement,
            Err(ArenaError::NoHole { .. }) => {
                return Err(self.shortfall(len, &arena.report()).into());
            }
            Err(other) => return Err(SpaceError::Invalid { what: other.to_string() }.into()),
        };
        // Under the arena's lock: the lock that `grant` takes comes after it in the lock order.
        match grant(placement.footprint()) {
            Ok(bytes) => {
                drop(arena);
                Ok(Space::out_of(origin, Arc::clone(self), placement, bytes))
            }
            Err(error) => {
                self.take_back(&mut arena, placement);
                Err(error)
            }
        }
    }
}
