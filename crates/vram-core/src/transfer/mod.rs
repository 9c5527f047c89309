//! Moves bytes between the host and one placement on a device; contains no policy.

pub mod check;
pub mod convert;
pub mod copy;
pub mod feed;
pub mod host;
pub mod kernels;
pub mod outward;
pub mod read;
pub mod walk;
pub mod windows;
pub mod write;

pub use self::check::ReadBack;
pub(crate) use self::convert::Convert;
pub(crate) use self::feed::SourceFeed;
pub(crate) use self::outward::Outward;
pub(crate) use self::walk::Selection;
pub(crate) use self::windows::{Window, Windows};
pub(crate) use self::write::{Pass, WriteOptions};
