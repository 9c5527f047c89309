//! Bytes between the host and one place on a device; no policy.

pub mod check;
pub mod convert;
pub mod copy;
pub mod feed;
pub mod host;
pub mod outward;
pub mod read;
pub mod walk;
pub mod windows;
pub mod write;
