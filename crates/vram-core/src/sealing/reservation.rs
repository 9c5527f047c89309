//! Reservations: bytes of a GPU that are promised to a holder before there is content for them.

use core::time::Duration;
use std::sync::Arc;

use vram_alloc::ByteLen;

use crate::error::{ReservationId, VramError};
use crate::parts::limits::label;
use crate::parts::{Contents, Core, Promise, Promises, Slot, Terms};
use crate::room::{Goal, RoomMaking, make_room};
use crate::sealing::{SealRequest, entry, place, seal};
use crate::shard::SealedShard;
use crate::transfer::WriteOptions;

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
    pub(crate) gpu: u32,
    pub(crate) bytes: ByteLen,
    terms: Terms,
}

impl ReserveRequest {
    /// A request for this many bytes of the GPU with this index, until the reservation is dropped.
    pub fn new(gpu: u32, bytes: ByteLen) -> Self {
        Self { gpu, bytes, terms: Terms::default() }
    }

    setters! {
        /// Sets the owner of the reservation, for listings: at most 1,024 bytes. An empty text names
        /// no owner.
        fn owner(owner: &str) => terms.owner = label(owner);
        /// Sets the purpose of the reservation, for listings: at most 1,024 bytes. An empty text names
        /// no purpose.
        fn purpose(purpose: &str) => terms.purpose = label(purpose);
        /// Sets the time after which unused bytes are returned automatically.
        fn expires_in(time: Duration) => terms.expires_in = Some(time);
    }
}

/// Bytes of one GPU that no other request can take. They are an amount, not a placement: they need
/// not lie in one piece (a plan reservation promises placements).
///
/// A reservation is owned and can be sent to another thread. Dropping it returns the unused bytes.
/// A reservation that expires returns its bytes automatically; a later attempt to use it fails with
/// [`VramError::ReservationExpired`].
#[derive(Debug)]
#[must_use = "a reservation that is dropped gives its bytes back"]
pub struct Reservation {
    held: HeldPromise,
    gpu: u32,
}

/// A promise that its holder owns.
#[derive(Debug)]
pub(crate) struct HeldPromise {
    promises: Arc<Promises>,
    pub(crate) promise: Arc<Promise>,
}

/// One open reservation, as `VramManager::reservations` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ReservationReport {
    /// Its number.
    pub id: ReservationId,
    /// The owner, if it was named.
    pub owner: Option<Arc<str>>,
    /// The purpose, if it was named.
    pub purpose: Option<Arc<str>>,
    /// Bytes that were promised.
    pub len: ByteLen,
    /// Promised bytes that were not used yet, for each GPU that has any, in ascending order.
    pub remaining: Vec<(u32, ByteLen)>,
    /// For a plan: the number of its pieces whose placement is still held.
    pub pieces: Option<u64>,
    /// The time until the reservation expires; `None` if it does not expire.
    pub expires_in: Option<Duration>,
}

impl HeldPromise {
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

impl Drop for HeldPromise {
    fn drop(&mut self) {
        self.promises.release(&self.promise);
    }
}

/// Generates the methods that all kinds of reservations share, for types with a field `held`.
macro_rules! held_methods {
    ($(#[$len:meta])* len; $(#[$remaining:meta])* remaining;) => {
        /// The number of the reservation.
        #[must_use]
        pub fn id(&self) -> ReservationId {
            self.held.promise.id
        }

        $(#[$len])*
        #[must_use]
        pub fn len(&self) -> ByteLen {
            self.held.promise.len
        }

        /// Whether no bytes were promised.
        #[must_use]
        pub fn is_empty(&self) -> bool {
            self.len().is_zero()
        }

        $(#[$remaining])*
        #[must_use]
        pub fn remaining(&self) -> ByteLen {
            self.held.remaining()
        }

        /// The time until the reservation expires, zero after it has expired; `None` if it does not
        /// expire.
        #[must_use]
        pub fn expires_in(&self) -> Option<Duration> {
            self.held.expires_in()
        }

        /// Sets the time from now until the reservation expires; with `None` it does not expire.
        ///
        /// # Errors
        ///
        /// [`VramError::ReservationExpired`] if it has expired already.
        pub fn renew(&mut self, expires_in: Option<Duration>) -> Result<(), VramError> {
            self.held.renew(expires_in)
        }

        /// Returns the unused bytes. The same as dropping the reservation, but explicit.
        pub fn release(self) {
            drop(self);
        }
    };
}

pub(crate) use held_methods;

impl Reservation {
    held_methods! {
        /// Bytes that were promised: the requested bytes, in whole granules of 256 bytes.
        len;
        /// Bytes that are still held: without those that shards were sealed into; none after it has
        /// expired.
        remaining;
    }

    /// The GPU that the bytes are on.
    #[must_use]
    pub const fn gpu(&self) -> u32 {
        self.gpu
    }

    /// The owner, if it was named.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.held.promise.owner.as_deref()
    }

    /// The purpose, if it was named.
    #[must_use]
    pub fn purpose(&self) -> Option<&str> {
        self.held.promise.purpose.as_deref()
    }
}

/// Reserves bytes of one GPU.
pub fn reserve(core: &Core, request: ReserveRequest) -> Result<Reservation, VramError> {
    core.check_open()?;
    request.terms.check()?;
    let gpu = core.gpu(request.gpu)?;
    // Held until the promise is recorded, so that a thread that closes the manager finds it.
    let _under_way = gpu.enter()?;
    let whole = request.bytes.round_up(gpu.granule()).unwrap_or(request.bytes);
    let gpus = core::slice::from_ref(gpu);
    // Reserving evicts no shard; the refusal states what would help.
    let (index, terms, room) = (gpu.index, request.terms, RoomMaking::none(u32::MAX));
    let promise = make_room::with_room(core, gpus, Goal::Room(whole), room, || {
        Ok(gpu.promise(request.bytes, |take| core.promises.open_bytes(&terms, index, take))?)
    })?;
    tracing::debug!(reservation = promise.id.get(), bytes = promise.len.get(), "reserved");
    Ok(Reservation { held: HeldPromise::new(&core.promises, promise), gpu: index })
}

/// Seals a shard into reserved bytes.
pub fn seal_reserved(
    core: &Core,
    reservation: &Reservation,
    request: &SealRequest,
    data: &[u8],
) -> Result<SealedShard, VramError> {
    core.check_open()?;
    reservation.held.check(core)?;
    if request.gpu != reservation.gpu {
        return Err(VramError::ReservationElsewhere {
            reservation: reservation.id(),
            reserved: reservation.gpu,
            asked: request.gpu,
        });
    }
    let len = ByteLen::from_usize(data.len());
    let counted = place::admissible(core, request, len)?;
    let space = {
        let promise = &reservation.held.promise;
        let origin = Box::new(Slot::new(promise, 0));
        core.gpu(request.gpu)?
            .place_granted(len, origin, |footprint| promise.take_bytes(footprint))?
    };
    let ready = seal::write_shard(core, request, space, counted, &data, &WriteOptions::SLICE)?;
    entry::publish(core, ready)
}

/// All open reservations, in ascending order of their numbers.
pub fn reservations(core: &Core) -> Vec<ReservationReport> {
    let report = |promise: Arc<Promise>| {
        let remaining = core.gpus.iter().map(|gpu| (gpu.index, promise.remaining_on(gpu.index)));
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
            expires_in: core.promises.time_left(&promise),
        }
    };
    core.promises.list().into_iter().map(report).collect()
}

/// The GPU that a request names, and the bytes that it asks for.
#[must_use]
pub const fn asked(request: &ReserveRequest) -> (u32, ByteLen) {
    (request.gpu, request.bytes)
}
