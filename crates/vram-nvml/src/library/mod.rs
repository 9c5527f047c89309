//! NVIDIA's management library, if it is there.

use core::fmt;
use core::time::Duration;

use vram_alloc::DeviceUuid;

use crate::xid::XidWatch;

#[cfg(not(all(feature = "library", target_os = "linux")))]
mod none;
#[cfg(all(feature = "library", target_os = "linux"))]
mod nvml;
#[cfg(all(feature = "library", target_os = "linux"))]
mod places;

#[cfg(not(all(feature = "library", target_os = "linux")))]
pub(crate) use none::Library;
#[cfg(all(feature = "library", target_os = "linux"))]
pub(crate) use nvml::Library;

/// The environment variable whose value replaces the library: a path or a file name.
///
/// Set but empty counts as not set. If the named library cannot be used, no other is tried, so that
/// a misspelt path is noticed.
pub const LIBRARY_VARIABLE: &str = "VRAM_NVML_LIBRARY";

/// Why no library answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(tag = "state", content = "why", rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum NoLibrary {
    /// This build does not load it: it lacks the feature `library`, or is not for Linux.
    NotBuilt,
    /// It is not installed, or cannot be loaded: what was tried, and why not.
    NotInstalled(String),
    /// It is there and does not start, for this reason.
    NotStarted(String),
    /// The thread that asks it ended, for this reason.
    Ended(String),
}

impl fmt::Display for NoLibrary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBuilt => f.write_str("this build does not load NVIDIA's management library"),
            Self::NotInstalled(why) => {
                write!(f, "NVIDIA's management library is not installed: {why}")
            }
            Self::NotStarted(why) => {
                write!(f, "NVIDIA's management library does not start: {why}")
            }
            Self::Ended(why) => {
                write!(f, "NVIDIA's management library is asked no more: {why}")
            }
        }
    }
}

/// What the watch for XIDs calls. It is called with nothing locked.
#[cfg_attr(
    not(all(feature = "library", target_os = "linux")),
    expect(dead_code, reason = "a library alone reports XIDs")
)]
pub(crate) trait XidReceiver {
    /// A card reported an XID.
    fn seen(&self, card: DeviceUuid, xid: u64);
    /// How the watch of a card is.
    fn state(&self, card: DeviceUuid, watch: XidWatch);
    /// Waits for so long, or until the watch is to end. Returns true if it is to end.
    fn pause(&self, span: Duration) -> bool;
}
