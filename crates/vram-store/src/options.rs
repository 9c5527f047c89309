//! How a call on a store runs: how much at once, how long, who is told, who can stop it.

mod threads;

use core::fmt;
use core::time::Duration;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::time::error::Elapsed;
use vram_files::CancelToken;

pub(crate) use threads::{Started, on_files, within};

use crate::error::{Lie, StoreError};
use crate::manifest::ManifestError;
use crate::naming::id::{ImageId, ManifestId};
use crate::store::Places;

/// How often a waiting call looks at its deadline and its token.
const TICK: Duration = Duration::from_millis(20);

/// How long nothing comes of a source before it is told that it is waited for.
const SILENT: Duration = Duration::from_secs(3);

/// What happened during a call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StoreEvent {
    /// Bytes of an image were verified and kept, or sent.
    Progress {
        /// Bytes that are done.
        done: u64,
        /// Bytes of the whole call.
        total: u64,
        /// Where the last ones came from, or went to.
        source: Arc<str>,
    },
    /// A source gave wrong bytes, also when it was asked past its caches. It is left out from now on.
    SourceLied(Lie),
    /// A range was asked for again.
    Retried {
        /// The source.
        source: Arc<str>,
        /// Why.
        why: String,
    },
    /// A source was given up for an image.
    GaveUp {
        /// The source.
        source: Arc<str>,
        /// Why.
        why: String,
    },
    /// An image was there already, and is not sent or fetched again.
    Present {
        /// The image.
        image: ImageId,
        /// Where it is.
        place: Arc<str>,
    },
    /// A file in a cache was not what its name says, and was removed.
    Dropped {
        /// The image that it should have been.
        image: ImageId,
        /// Where it was.
        path: PathBuf,
    },
    /// A source has other bytes under the name of a manifest, also when it was asked past its caches.
    ManifestRefused {
        /// The source.
        source: Arc<str>,
        /// The manifest that it should have been.
        manifest: ManifestId,
        /// What is wrong.
        why: Arc<ManifestError>,
    },
    /// A manifest that was wrong in the store was written again with the bytes of its name.
    ManifestMended {
        /// The store.
        store: Arc<str>,
        /// The manifest.
        manifest: ManifestId,
    },
    /// An image that was wrong in the store was sent again.
    ImageMended {
        /// The store.
        store: Arc<str>,
        /// The image.
        image: ImageId,
    },
    /// A push waits for a collection that another process began: told at once, and every minute.
    WaitsForCollection {
        /// The store.
        store: Arc<str>,
        /// The key of the collection's mark.
        mark: Arc<str>,
        /// The push goes on if the mark does not change for as long: then no collection runs.
        dead_after: Duration,
    },
    /// The mark of a collection that was killed was removed.
    DeadMark {
        /// The store.
        store: Arc<str>,
        /// The key of the mark.
        mark: Arc<str>,
    },
    /// A folder on the way to manifests is a link: what lies behind it is read, and never written or deleted.
    FollowsLink {
        /// The store.
        store: Arc<str>,
        /// The key of the link.
        link: Arc<str>,
    },
    /// Nothing has come of a source for some seconds: told once of each in a call.
    Waits {
        /// The source.
        source: Arc<str>,
        /// How long nothing came.
        silent: Duration,
    },
    /// A multipart upload failed, and could not be aborted: its parts may be stored, and billed.
    NotAborted {
        /// The key of the object.
        key: String,
    },
}

type OnEvent<'a> = Box<dyn FnMut(&StoreEvent) + Send + 'a>;

/// How a call runs.
///
/// ```
/// use std::time::Duration;
/// use vram_store::StoreOptions;
///
/// let options = StoreOptions::new()
///     .deadline(Duration::from_secs(600))
///     .in_flight(4)
///     .on_event(|event| eprintln!("{event:?}"));
/// ```
pub struct StoreOptions<'a> {
    pub(crate) limits: Limits,
    deadline: Option<(Instant, Duration)>,
    cancel: Option<CancelToken>,
    on_event: Option<Mutex<OnEvent<'a>>>,
    read_present: Option<bool>,
    places: Places,
}

/// What the tasks of a call need of its options.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) range_len: u64,
    pub(crate) in_flight: usize,
    pub(crate) attempts: u32,
    pub(crate) stall: Duration,
    pub(crate) backoff: Duration,
}

impl Default for StoreOptions<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> StoreOptions<'a> {
    /// Ranges of 8 MiB, 8 at a time, 5 tries each, 10 s without a byte before the next one; no
    /// deadline.
    #[must_use]
    pub fn new() -> Self {
        let limits = Limits {
            range_len: 8 << 20,
            in_flight: 8,
            attempts: 5,
            stall: Duration::from_secs(10),
            backoff: Duration::from_millis(100),
        };
        let places = Places::default();
        Self { limits, deadline: None, cancel: None, on_event: None, read_present: None, places }
    }

    /// Sets the bytes of one range, at least 64 KiB: a call holds so many times
    /// [`in_flight`](Self::in_flight) in memory.
    #[must_use]
    pub fn range_len(mut self, len: u64) -> Self {
        self.limits.range_len = len.clamp(64 << 10, 1 << 30);
        self
    }

    /// Sets how many ranges are asked for at a time.
    #[must_use]
    pub fn in_flight(mut self, count: usize) -> Self {
        self.limits.in_flight = count.clamp(1, 256);
        self
    }

    /// Sets how often a range is tried at one source, and the longest first pause between two tries.
    /// Each pause is drawn at random below a bound that doubles.
    #[must_use]
    pub fn attempts(mut self, attempts: u32, first_pause: Duration) -> Self {
        self.limits.attempts = attempts.max(1);
        self.limits.backoff = first_pause;
        self
    }

    /// Sets how long a source may send nothing, or fewer than 64 KiB, before the range is asked for again.
    #[must_use]
    pub const fn stall(mut self, stall: Duration) -> Self {
        self.limits.stall = stall;
        self
    }

    /// Sets the time for the whole call, from now on.
    #[must_use]
    pub fn deadline(self, within: Duration) -> Self {
        self.deadline_since(Instant::now(), within)
    }

    /// Sets the time for several calls together, from the moment at which the first of them began.
    #[must_use]
    pub fn deadline_since(mut self, began: Instant, within: Duration) -> Self {
        self.deadline = began.checked_add(within).map(|at| (at, within));
        self
    }

    /// Sets the token with which the caller can end the call early.
    #[must_use]
    pub fn cancel(mut self, token: CancelToken) -> Self {
        self.cancel = Some(token);
        self
    }

    /// Sets who is told what happens: one event at a time, from the thread that calls or that reads.
    #[must_use]
    pub fn on_event(mut self, callback: impl FnMut(&StoreEvent) + Send + 'a) -> Self {
        self.on_event = Some(Mutex::new(Box::new(callback)));
        self
    }

    /// Sets whether a push reads every byte of an image that is in the store already; by default it does
    /// in a folder of this machine, and elsewhere reads the first and the last part of 8 MiB.
    #[must_use]
    pub const fn read_present(mut self, whole: bool) -> Self {
        self.read_present = Some(whole);
        self
    }

    /// Whether all of an image that is there is read.
    pub(crate) fn reads_present(&self, in_a_folder: bool) -> bool {
        self.read_present.unwrap_or(in_a_folder)
    }

    /// Tells the caller of an event.
    pub(crate) fn tell(&self, event: &StoreEvent) {
        match event {
            StoreEvent::SourceLied(lie) => {
                let image = crate::manifest::short(lie.image.as_bytes());
                let (model, part) = (&lie.model, &lie.part);
                tracing::warn!(source = %lie.source, %model, %image, %part, "a source lied");
            }
            StoreEvent::ManifestRefused { source, manifest, why } => {
                tracing::warn!(source = %source, manifest = %manifest, "wrong manifest: {why}");
            }
            _ => {}
        }
        if let Some(callback) = &self.on_event {
            callback.lock().unwrap_or_else(PoisonError::into_inner)(event);
        }
    }

    /// Checks token and deadline.
    pub(crate) fn go_on(&self) -> Result<(), StoreError> {
        if self.cancel.as_ref().is_some_and(CancelToken::is_cancelled) {
            return Err(StoreError::Cancelled);
        }
        match self.deadline {
            Some((at, within)) if Instant::now() >= at => {
                let began = at.checked_sub(within).unwrap_or(at);
                let sources = self.places.at_deadline(began, within);
                Err(StoreError::Deadline { within, sources })
            }
            _ => Ok(()),
        }
    }

    /// Notes a place that the call may ask: an error at the deadline names it.
    pub(crate) const fn places(&self) -> &Places {
        &self.places
    }

    /// The token, for a call of another crate.
    pub(crate) fn token(&self) -> CancelToken {
        self.cancel.clone().unwrap_or_default()
    }

    /// Runs a future to its end, on the crate's own threads: the caller may be any thread.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.join(&mut Started::new(future)?)
    }

    /// As [`wait`](Self::wait), for at most `patience`. The inner error: it took longer.
    pub(crate) fn wait_within<T: Send + 'static>(
        &self,
        patience: Duration,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<Result<T, Elapsed>, StoreError> {
        self.wait(async move { tokio::time::timeout(patience, future).await })
    }

    /// Waits for a task that was started before.
    pub(crate) fn join<T>(&self, started: &mut Started<T>) -> Result<T, StoreError> {
        let began = Instant::now();
        loop {
            self.go_on()?;
            if began.elapsed() >= SILENT
                && let Some((source, silent)) = self.places.silent_for(SILENT)
            {
                self.tell(&StoreEvent::Waits { source, silent });
            }
            match started.answer_within(TICK) {
                Ok(value) => return Ok(value),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let why = "the client of the store panicked: see standard error".to_owned();
                    let (store, action) = (Arc::from("a store"), "ask it".to_owned());
                    return Err(StoreError::Failed { store, action, why });
                }
            }
        }
    }

    /// Runs calls on files on another thread, which is left behind at the deadline or when the call is
    /// cancelled. `work` owns what it reads into.
    pub(crate) fn on_files<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<io::Result<T>, StoreError> {
        self.wait(on_files(None, work))
    }
}

impl fmt::Debug for StoreOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions").field("limits", &self.limits).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_ends_at_its_deadline_or_when_it_is_cancelled() {
        let never = core::future::pending::<()>;
        let began = Instant::now();
        let options = StoreOptions::new().deadline(Duration::from_millis(60));
        assert!(matches!(options.wait(never()), Err(StoreError::Deadline { .. })));
        let token = CancelToken::new();
        let options = StoreOptions::new().cancel(token.clone());
        token.cancel();
        assert!(matches!(options.wait(never()), Err(StoreError::Cancelled)));
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(StoreOptions::new().wait(async { 7 }).unwrap(), 7);
    }
}
