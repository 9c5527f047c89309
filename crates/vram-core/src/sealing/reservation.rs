//! Reservations: bytes of a GPU that are promised to somebody, before there is anything to put
//! there.

use core::time::Duration;
use std::sync::Arc;

use vram_alloc::{Alignment, ByteLen};

use crate::error::{ReservationId, VramError};
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
    /// A request for so many bytes of the GPU of this index, for as long as they are held.
    pub fn new(gpu: u32, bytes: ByteLen) -> Self {
        Self { gpu, bytes, terms: Terms::default() }
    }

    setters! {
        /// Names who reserves, for listings.
        fn owner(owner: &str) => terms.owner = Some(owner.into());
        /// Says what for, for listings.
        fn purpose(purpose: &str) => terms.purpose = Some(purpose.into());
        /// Sets after how long the bytes go back by themselves, if they were not used until then.
        fn expires_in(time: Duration) => terms.expires_in = Some(time);
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

/// One open reservation, as `VramManager::reservations` lists it.
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

/// Writes what every reservation answers and does, by its field `held`.
macro_rules! held_methods {
    ($(#[$len:meta])* len; $(#[$remaining:meta])* remaining;) => {
        /// Its number.
        #[must_use]
        pub fn id(&self) -> ReservationId {
            self.held.promise.id
        }

        $(#[$len])*
        #[must_use]
        pub fn len(&self) -> ByteLen {
            self.held.promise.len
        }

        /// Whether nothing was promised.
        #[must_use]
        pub fn is_empty(&self) -> bool {
            self.len().is_zero()
        }

        $(#[$remaining])*
        #[must_use]
        pub fn remaining(&self) -> ByteLen {
            self.held.remaining()
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
    };
}

pub(crate) use held_methods;

impl Reservation {
    held_methods! {
        /// Bytes that were promised: what was asked for, in whole granules of 256 bytes.
        len;
        /// Bytes that are still held: less those that were sealed into, none once it has expired.
        remaining;
    }

    /// The GPU that the bytes are on.
    #[must_use]
    pub const fn gpu(&self) -> u32 {
        self.gpu
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
}

/// Reserves bytes of one GPU.
pub fn reserve(core: &Core, request: ReserveRequest) -> Result<Reservation, VramError> {
    core.check_open()?;
    let gpu = core.gpu(request.gpu)?;
    // Held until the promise is written down, where whoever closes the manager finds it.
    let _under_way = gpu.enter()?;
    let whole = request.bytes.round_up(Alignment::GRANULE).unwrap_or(request.bytes);
    let gpus = core::slice::from_ref(gpu);
    // Reserving evicts nobody; the refusal says what would help.
    let bytes =
        make_room::with_room(core, gpus, Goal::Room(whole), RoomMaking::none(u32::MAX), || {
            Ok(gpu.promise(request.bytes)?)
        })?;
    let (len, index) = (bytes.len(), gpu.index);
    let promise = core.promises.open(request.terms, len, Contents::Bytes { gpu: index, bytes });
    tracing::debug!(reservation = promise.id.get(), bytes = len.get(), "reserved");
    Ok(Reservation { held: Held::new(&core.promises, promise), gpu: index })
}

/// Seals into bytes that were reserved.
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
        let home = Box::new(Slot::new(promise, 0));
        core.gpu(request.gpu)?
            .place_granted(len, home, |footprint| promise.take_bytes(footprint))?
    };
    let entry = seal::write_shard(core, request, space, counted, &data, &WriteOptions::SLICE)?;
    Ok(entry::publish(core, entry))
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
