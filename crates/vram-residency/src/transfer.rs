//! Bytes between the host and one place on a device; no policy.

pub(crate) mod check;
pub(crate) mod convert;
pub(crate) mod copy;
pub(crate) mod feed;
pub(crate) mod host;
pub(crate) mod outward;
pub(crate) mod read;
pub(crate) mod walk;
pub(crate) mod windows;
pub(crate) mod write;
