//! Bringing bytes in.

pub(crate) mod entry;
pub(crate) mod place;
pub(crate) mod request;
pub(crate) mod reservation;
pub(crate) mod seal;
pub(crate) mod stream;
