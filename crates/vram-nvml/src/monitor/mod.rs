//! Asks the library on threads of its own, and keeps its last answers.
//!
//! A call of the library may hang for good where a card fell off the bus. Only these threads make
//! such calls; a reader takes the last answer, with its age, and waits no longer than it says.

mod answer;
mod options;
mod state;
mod threads;

use core::fmt;
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use vram_alloc::DeviceUuid;

pub use self::answer::{Answer, Reading};
pub use self::options::MonitorOptions;
use self::state::{Shared, State};
use crate::library::NoLibrary;
use crate::xid::{XidCount, XidEvent, XidWatch};

/// Answers of the library on some cards, kept up to date. Clones share them; the threads end after
/// the last clone was dropped, and no drop waits for them.
#[derive(Clone)]
pub struct Monitor(Arc<Handle>);

/// Ends the threads when it is dropped.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.0.lock();
        f.debug_struct("Monitor")
            .field("library", &state.library)
            .field("cards", &state.cards.len())
            .finish_non_exhaustive()
    }
}

/// A reading this young is as good as a new one: calls that fail together ask the library once.
const FRESH: Duration = Duration::from_secs(1);

impl Monitor {
    /// Starts the threads that ask, and returns at once. Never fails: a library that is not there is
    /// an answer.
    ///
    /// # Examples
    ///
    /// ```
    /// use core::time::Duration;
    /// use vram_alloc::DeviceUuid;
    /// use vram_nvml::{Answer, Monitor, MonitorOptions};
    ///
    /// let card = DeviceUuid::new([7; 16]);
    /// let monitor = Monitor::start(MonitorOptions::new([card]).library("/nowhere/libnvidia-ml.so.1"));
    /// let answer = monitor.card(card, Duration::from_secs(10));
    /// assert!(matches!(answer, Answer::NoLibrary { .. }), "{answer:?}");
    /// ```
    #[must_use]
    pub fn start(options: MonitorOptions) -> Self {
        let shared = Arc::new(Shared::new(&options));
        threads::start(&shared, options);
        Self(Arc::new(Handle(shared)))
    }

    /// The last answer on a card. Where there is none yet, waits for the first, for at most `most`.
    #[must_use]
    pub fn card(&self, card: DeviceUuid, most: Duration) -> Answer {
        let shared = &self.0.0;
        let state = shared.wait(most, |state| state.is_settled(card));
        state.answer(card, Instant::now())
    }

    /// Asks for a new answer on all cards, waits for it, for at most `most`, and returns the last
    /// that there is. An answer of the last second is not asked for again, and a library that has
    /// kept a question for longer than `most` is not waited for.
    #[must_use]
    pub fn fresh(&self, card: DeviceUuid, most: Duration) -> Answer {
        let shared = &self.0.0;
        let now = Instant::now();
        let ticket = {
            let mut state = shared.lock();
            if state.hangs(most, now) || state.age(card, now).is_some_and(|age| age <= FRESH) {
                return state.answer(card, now);
            }
            state.ask()
        };
        shared.tell();
        let state = shared.wait(most, |state| state.answered(ticket));
        state.answer(card, Instant::now())
    }

    /// The version of the driver, as the library says it.
    ///
    /// # Errors
    ///
    /// Why no library answers; `None` while it has not answered yet.
    pub fn driver(&self) -> Result<Option<String>, NoLibrary> {
        let state: &State = &self.0.0.lock();
        state.library.clone()
    }

    /// How the XIDs of a card are watched.
    #[must_use]
    pub fn xid_watch(&self, card: DeviceUuid) -> XidWatch {
        self.0.0.lock().watch_of(card)
    }

    /// How often a card reported each XID since the watch began, in the order of the numbers. At most
    /// 64 kinds are counted apart.
    #[must_use]
    pub fn xids(&self, card: DeviceUuid) -> Vec<XidCount> {
        self.0.0.lock().xids.counts(card)
    }

    /// The last XIDs of all cards, at most 256, the oldest first.
    #[must_use]
    pub fn recent_xids(&self) -> Vec<XidEvent> {
        self.0.0.lock().xids.recent()
    }
}
