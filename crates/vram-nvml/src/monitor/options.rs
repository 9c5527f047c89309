//! What a monitor watches.

use core::fmt;
use core::time::Duration;
use std::path::PathBuf;

use vram_alloc::DeviceUuid;

use crate::xid::XidEvent;

/// What a [`Monitor`](super::Monitor) watches, and how often.
#[must_use]
pub struct MonitorOptions {
    pub(super) cards: Vec<DeviceUuid>,
    pub(super) every: Duration,
    pub(super) library: Option<PathBuf>,
    pub(super) xids: Xids,
}

/// Called for each XID, on the thread of the watch.
pub(super) type OnXid = Box<dyn Fn(&XidEvent) + Send>;

/// Whether XIDs are watched.
pub(super) enum Xids {
    No,
    Kept,
    Told(OnXid),
}

impl MonitorOptions {
    /// Watches these cards: all figures once every 15 s, no XIDs.
    pub fn new(cards: impl IntoIterator<Item = DeviceUuid>) -> Self {
        Self {
            cards: cards.into_iter().collect(),
            every: Duration::from_secs(15),
            library: None,
            xids: Xids::No,
        }
    }

    /// Sets how long the monitor waits between two questions: at least 100 ms.
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every.max(Duration::from_millis(100));
        self
    }

    /// Names the library, in place of the environment variable
    /// [`LIBRARY_VARIABLE`](crate::LIBRARY_VARIABLE) and the system's own.
    pub fn library(mut self, path: impl Into<PathBuf>) -> Self {
        self.library = Some(path.into());
        self
    }

    /// Watches for XIDs too, on a second thread.
    pub fn xids(mut self) -> Self {
        self.xids = Xids::Kept;
        self
    }

    /// Watches for XIDs, and calls `on_xid` for each. A panic in it is caught and logged.
    pub fn on_xid(mut self, on_xid: impl Fn(&XidEvent) + Send + 'static) -> Self {
        self.xids = Xids::Told(Box::new(on_xid));
        self
    }
}

impl fmt::Debug for MonitorOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonitorOptions")
            .field("cards", &self.cards)
            .field("every", &self.every)
            .field("library", &self.library)
            .field("xids", &!matches!(self.xids, Xids::No))
            .finish_non_exhaustive()
    }
}
