//! Bringing bytes in.

pub mod entry;
pub mod place;
pub mod request;
pub mod reservation;
pub mod seal;
pub mod stream;
