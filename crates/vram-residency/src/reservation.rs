//! Reservations: bytes of a GPU that are promised to somebody, before there is anything to put
//! there.

use core::time::Duration;
use std::sync::Arc;

use vram_alloc::{Alignment, ArenaError, ByteLen};

use crate::call::Call;
use crate::error::VramError;
use crate::evict::{Goal, RoomMaking};
use crate::gpu::Gpu;
use crate::manager::{Core, VramManager};
use crate::promise::{Contents, Promise, Promises, ReservationId, Slot, Terms};
use crate::request::SealRequest;
use crate::shard::SealedShard;
use crate::space::{Home, Space};
use crate::sync::lock;
use crate::write::WriteOptions;

/// A request to reserve bytes of one GPU.
///
/// ```
/// use core::time::Duration;
/// use vram_residency::{ByteLen, ReserveRequest};
///
/// let request = ReserveRequest::new(0, ByteLen::from_mib_saturating(64))
///     .owner("pool-1")
///     .purpose("llama-3-8b")
///     .expires_in(Duration::from_secs(30));
/// # let _ = request;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ReserveRequest {
    gpu: u32,
    bytes: ByteLen,
    terms: Terms,
}

impl ReserveRequest {
    /// A request for so many bytes of the GPU of this index, for as long as they are held.
    pub fn new(gpu: u32, bytes: ByteLen) -> Self {
        Self { gpu, bytes, terms: Terms::default() }
    }

    /// Names who reserves, for listings.
    pub fn owner(mut self, owner: &str) -> Self {
        self.terms.owner = Some(owner.into());
        self
    }

    /// Says what for, for listings.
    pub fn purpose(mut self, purpose: &str) -> Self {
        self.terms.purpose = Some(purpose.into());
        self
    }

    /// Sets after how long the bytes go back by themselves, if they were not used until then.
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.terms.expires_in = Some(time);
        self
    }
}

/// Bytes of one GPU that nobody else gets. They are a sum, not a place: whether they lie in one
/// piece is not promised (a plan reservation promises places).
///
/// It is owned and can go to another thread. Dropping it gives back what was not used. One that
/// expires gives its bytes back by itself, and what is asked of it then is answered with
/// [`VramError::ReservationExpired`].
#[derive(Debug)]
#[must_use = "a reservation that is dropped gives its bytes back"]
pub struct Reservation {
    held: Held,
    gpu: u32,
}

/// A promise in the hands of its holder.
#[derive(Debug)]
pub(crate) struct Held {
    promises: Arc<Promises>,
    pub(crate) promise: Arc<Promise>,
}

/// One open reservation, as [`reservations`](VramManager::reservations) lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ReservationReport {
    /// Its number.
    pub id: ReservationId,
    /// Who reserved, if they said so.
    pub owner: Option<Arc<str>>,
    /// What for, if they said so.
    pub purpose: Option<Arc<str>>,
    /// Bytes that were promised.
    pub len: ByteLen,
    /// Of those: bytes that were not used yet, for each GPU that has any, in ascending order.
    pub remaining: Vec<(u32, ByteLen)>,
    /// For a plan: how many of its pieces still have their place held.
    pub pieces: Option<u64>,
    /// How long it lasts yet; `None` if it does not expire.
    pub expires_in: Option<Duration>,
}

impl Held {
    pub(crate) fn new(promises: &Arc<Promises>, promise: Arc<Promise>) -> Self {
        Self { promises: Arc::clone(promises), promise }
    }

    pub(crate) fn remaining(&self) -> ByteLen {
        self.promises.sweep();
        self.promise.remaining()
    }

    pub(crate) fn expires_in(&self) -> Option<Duration> {
        self.promises.time_left(&self.promise)
    }

    pub(crate) fn renew(&self, expires_in: Option<Duration>) -> Result<(), VramError> {
        self.promises.renew(&self.promise, expires_in)
    }

    /// # Errors
    ///
    /// [`VramError::ForeignReservation`] if another manager made the promise.
    pub(crate) fn check(&self, core: &Core) -> Result<(), VramError> {
        if Arc::ptr_eq(&self.promises, &core.promises) {
            self.promises.sweep();
            Ok(())
        } else {
            Err(VramError::ForeignReservation { reservation: self.promise.id })
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.promises.release(&self.promise);
    }
}

impl Reservation {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> ReservationId {
        self.held.promise.id
    }

    /// The GPU that the bytes are on.
    #[must_use]
    pub const fn gpu(&self) -> u32 {
        self.gpu
    }

    /// Bytes that were promised: what was asked for, in whole granules of 256 bytes.
    #[must_use]
    pub fn len(&self) -> ByteLen {
        self.held.promise.len
    }

    /// Whether nothing was promised.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len().is_zero()
    }

    /// Bytes that are still held: less those that were sealed into, none once it has expired.
    #[must_use]
    pub fn remaining(&self) -> ByteLen {
        self.held.remaining()
    }

    /// Who reserved.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.held.promise.owner.as_deref()
    }

    /// What for.
    #[must_use]
    pub fn purpose(&self) -> Option<&str> {
        self.held.promise.purpose.as_deref()
    }

    /// How long it lasts yet, zero once it has expired; `None` if it does not expire.
    #[must_use]
    pub fn expires_in(&self) -> Option<Duration> {
        self.held.expires_in()
    }

    /// Makes it last that long from now on; `None` for as long as it is held.
    ///
    /// # Errors
    ///
    /// [`VramError::ReservationExpired`] if it is too late.
    pub fn renew(&mut self, expires_in: Option<Duration>) -> Result<(), VramError> {
        self.held.renew(expires_in)
    }

    /// Gives back what was not used. The same as dropping, said aloud.
    pub fn release(self) {
        drop(self);
    }
}

impl VramManager {
    /// Reserves bytes of a GPU: nobody else gets them, until the reservation is dropped.
    ///
    /// # Errors
    ///
    /// [`VramError::InsufficientVram`], [`VramError::UnknownGpu`], [`VramError::DeviceLost`].
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::{ByteLen, SealRequest, VramManager};
    ///
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let mut room = manager.reserve(0, ByteLen::new(1 << 19))?;
    /// assert!(manager.seal_model("late", 0, &[0; 1 << 20]).is_err());
    ///
    /// let shard = manager.seal_reserved(&mut room, SealRequest::new("early", 0), &[0; 1000])?;
    /// assert_eq!(room.remaining().get(), (1 << 19) - 1024);
    /// drop(room);
    /// assert_eq!(manager.get_used_vram(0)?, 1024);
    /// # Ok::<(), vram_residency::VramError>(())
    /// ```
    pub fn reserve(&self, gpu: u32, bytes: ByteLen) -> Result<Reservation, VramError> {
        self.reserve_with(ReserveRequest::new(gpu, bytes))
    }

    /// As [`reserve`](Self::reserve), with an owner, a purpose, an expiry.
    ///
    /// # Errors
    ///
    /// As [`reserve`](Self::reserve).
    #[tracing::instrument(level = "info", skip_all, fields(gpu = request.gpu, bytes = request.bytes.get()))]
    pub fn reserve_with(&self, request: ReserveRequest) -> Result<Reservation, VramError> {
        let (gpu, bytes) = (Some(request.gpu), request.bytes.get());
        self.core.watched(Call::Reserve, None, gpu, bytes, || self.core.reserve(request))
    }

    /// Seals `data` into bytes that were reserved. If it fails, they are reserved as before.
    ///
    /// # Errors
    ///
    /// [`VramError::ReservationExpired`]; [`VramError::ReservationTooSmall`];
    /// [`VramError::ReservationElsewhere`] if the request names another GPU than the reservation;
    /// [`VramError::ForeignReservation`]; [`VramError::InsufficientVram`] if no hole is long
    /// enough, however many bytes are reserved; otherwise as [`seal`](Self::seal).
    #[tracing::instrument(level = "info", skip_all, fields(gpu = request.gpu, bytes = data.len()))]
    #[expect(clippy::needless_pass_by_value, reason = "a request is made for one call")]
    pub fn seal_reserved(
        &self,
        reservation: &mut Reservation,
        request: SealRequest,
        data: &[u8],
    ) -> Result<SealedShard, VramError> {
        let (gpu, len) = (Some(request.gpu), ByteLen::from_usize(data.len()).get());
        self.core.watched(Call::Seal, None, gpu, len, || {
            self.core.seal_reserved(reservation, &request, data)
        })
    }

    /// All reservations that are open, in ascending order of their numbers.
    #[must_use]
    pub fn reservations(&self) -> Vec<ReservationReport> {
        self.core.reservations()
    }
}

impl Core {
    fn reserve(&self, request: ReserveRequest) -> Result<Reservation, VramError> {
        self.check_open()?;
        let gpu = self.gpu(request.gpu)?;
        // Held until the promise is written down, where whoever closes the manager finds it.
        let _under_way = gpu.enter()?;
        let whole = request.bytes.round_up(Alignment::GRANULE).unwrap_or(request.bytes);
        let gpus = core::slice::from_ref(gpu);
        // Reserving evicts nobody; the refusal says what would help.
        let bytes = self.with_room(gpus, Goal::Room(whole), RoomMaking::none(u32::MAX), || {
            gpu.promise(request.bytes)
        })?;
        let (len, index) = (bytes.len(), gpu.index);
        let promise = self.promises.open(request.terms, len, Contents::Bytes { gpu: index, bytes });
        tracing::debug!(reservation = promise.id.get(), bytes = len.get(), "reserved");
        Ok(Reservation { held: Held::new(&self.promises, promise), gpu: index })
    }

    fn seal_reserved(
        &self,
        reservation: &Reservation,
        request: &SealRequest,
        data: &[u8],
    ) -> Result<SealedShard, VramError> {
        self.check_open()?;
        reservation.held.check(self)?;
        if request.gpu != reservation.gpu {
            return Err(VramError::ReservationElsewhere {
                reservation: reservation.id(),
                reserved: reservation.gpu,
                asked: request.gpu,
            });
        }
        let len = ByteLen::from_usize(data.len());
        let counted = self.admissible(request, len)?;
        let space = {
            let promise = &reservation.held.promise;
            let home = Box::new(Slot::new(promise, 0));
            self.gpu(request.gpu)?
                .place_granted(len, home, |footprint| promise.take_bytes(footprint))?
        };
        let entry = self.write_shard(request, space, counted, &data, &WriteOptions::SLICE)?;
        Ok(self.publish(entry))
    }

    pub(crate) fn reservations(&self) -> Vec<ReservationReport> {
        let report = |promise: Arc<Promise>| {
            let remaining =
                self.gpus.iter().map(|gpu| (gpu.index, promise.remaining_on(gpu.index)));
            let pieces = promise.look(|contents| match contents {
                Contents::Places { spaces, .. } => {
                    Some(ByteLen::from_usize(spaces.iter().flatten().count()).get())
                }
                _ => None,
            });
            ReservationReport {
                id: promise.id,
                owner: promise.owner.clone(),
                purpose: promise.purpose.clone(),
                len: promise.len,
                remaining: remaining.filter(|(_, bytes)| !bytes.is_zero()).collect(),
                pieces,
                expires_in: self.promises.time_left(&promise),
            }
        };
        self.promises.list().into_iter().map(report).collect()
    }
}

impl Gpu {
    /// Promises bytes, in whole granules.
    ///
    /// # Errors
    ///
    /// [`VramError::InsufficientVram`].
    fn promise(&self, len: ByteLen) -> Result<vram_alloc::Reservation, VramError> {
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
    fn place_granted(
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
