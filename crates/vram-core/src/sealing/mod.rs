//! Brings bytes in: seals them onto a GPU.

pub(crate) mod batch;
pub mod entry;
pub(crate) mod on_card;
pub mod place;
pub mod request;
pub mod reservation;
pub mod seal;
pub mod stream;

pub use self::request::SealRequest;
pub(crate) use self::reservation::HeldPromise;
pub use self::reservation::{Reservation, ReservationReport, ReserveRequest};
pub use self::stream::SealOptions;
