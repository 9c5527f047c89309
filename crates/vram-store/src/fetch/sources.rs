//! Where an image may come from, in order, and which sources are out for this image.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::range::pause;
use super::{Answer, Body, read_range};
use crate::error::{Cause, Lie, Part};
use crate::manifest::short;
use crate::naming::id::ImageId;
use crate::options::{Limits, StoreEvent, StoreOptions};
use crate::store::Store;

/// The sources of one image.
pub(crate) struct Sources {
    model: Arc<str>,
    image: ImageId,
    list: Vec<State>,
    limits: Limits,
    /// What tasks have to tell, until the calling thread tells it.
    events: Mutex<Vec<StoreEvent>>,
    causes: Mutex<Vec<Cause>>,
}

struct State {
    store: Store,
    key: String,
    /// A cache is expected to lack things.
    cache: bool,
    /// Not asked any more for this image.
    out: AtomicBool,
    /// Asked past its caches from now on: it gave wrong bytes once.
    past_caches: AtomicBool,
    /// Shared by all images of a call: a source that lied is out for all of them.
    lied: Arc<AtomicBool>,
    /// Shared by all images of a call: that a source lacks images is told once.
    lacks: Arc<AtomicBool>,
}

/// A range that arrived, from the source of this number.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) bytes: Body,
    pub(crate) source: usize,
    /// Whether the request passed caches on the way.
    pub(crate) past_caches: bool,
}

/// A source of a whole call, and whether it lied in it.
#[derive(Clone, Debug)]
pub(crate) struct CallSource {
    pub(crate) store: Store,
    /// Whether it is the caller's cache folder, where one wrong file says nothing about others.
    cache: bool,
    lied: Arc<AtomicBool>,
    lacks: Arc<AtomicBool>,
}

impl CallSource {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, cache: false, lied: Arc::default(), lacks: Arc::default() }
    }

    pub(crate) fn cache(store: Store) -> Self {
        Self { cache: true, ..Self::new(store) }
    }

    /// The store, if it is not the cache.
    pub(crate) fn other(&self) -> Option<&Store> {
        (!self.cache).then_some(&self.store)
    }
}

impl Sources {
    pub(crate) fn new(
        model: &str,
        image: ImageId,
        key: &str,
        sources: &[CallSource],
        options: &StoreOptions<'_>,
    ) -> Arc<Self> {
        let state = |source: &CallSource| State {
            store: source.store.clone(),
            key: key.to_owned(),
            cache: source.cache,
            out: AtomicBool::new(source.lied.load(Ordering::Relaxed)),
            past_caches: AtomicBool::new(false),
            lied: if source.cache { Arc::default() } else { Arc::clone(&source.lied) },
            lacks: Arc::clone(&source.lacks),
        };
        Arc::new(Self {
            model: Arc::from(model),
            image,
            list: sources.iter().map(state).collect(),
            limits: options.limits,
            events: Mutex::new(Vec::new()),
            causes: Mutex::new(Vec::new()),
        })
    }

    /// The next source after `after` that is not out.
    pub(crate) fn next(&self, after: Option<usize>) -> Option<usize> {
        let first = after.map_or(0, |at| at.saturating_add(1));
        let in_use =
            |at: &usize| self.list.get(*at).is_some_and(|state| !state.out.load(Ordering::Relaxed));
        (first..self.list.len()).find(in_use)
    }

    /// The store of a source.
    pub(crate) fn store(&self, source: usize) -> Option<&Store> {
        self.list.get(source).map(|state| &state.store)
    }

    /// The name of a source.
    pub(crate) fn name(&self, source: usize) -> Arc<str> {
        self.store(source).map_or_else(|| Arc::from("?"), |store| Arc::clone(store.name()))
    }

    /// Notes that a source gave wrong bytes. If they may be those of a cache on the way, it is asked
    /// again, past its caches; if not, it is out, and the lie is told.
    pub(crate) fn lied(
        &self,
        source: usize,
        past_caches: bool,
        part: Part,
        options: &StoreOptions<'_>,
    ) {
        let Some(state) = self.list.get(source) else { return };
        state.past_caches.store(true, Ordering::Relaxed);
        if !past_caches {
            let why = format!("{part}; asked once more, past caches");
            return options.tell(&StoreEvent::Retried { source: self.name(source), why });
        }
        let lie = self.lie(source, part);
        state.lied.store(true, Ordering::Relaxed);
        if !state.out.swap(true, Ordering::Relaxed) {
            self.note(Cause::Lied(lie.clone()));
            options.tell(&StoreEvent::SourceLied(lie));
        }
    }

    fn lie(&self, source: usize, part: Part) -> Lie {
        let model = Arc::clone(&self.model);
        Lie { source: self.name(source), model, image: self.image, part }
    }

    /// Whether a source is asked past its caches.
    pub(crate) fn is_past_caches(&self, source: usize) -> bool {
        self.list.get(source).is_some_and(|state| state.past_caches.load(Ordering::Relaxed))
    }

    /// Whether a source gave wrong bytes of this image, or of another one in this call.
    pub(crate) fn has_lied(&self, source: usize) -> bool {
        self.list.get(source).is_some_and(|state| state.lied.load(Ordering::Relaxed))
    }

    /// Leaves a source out for this image.
    pub(crate) fn give_up(&self, source: usize, cause: Cause) {
        let event = match &cause {
            Cause::Lied(lie) => Some(StoreEvent::SourceLied(lie.clone())),
            Cause::Absent { .. } => self.lacking(source, "image", "is"),
            Cause::Failed { source, why } => {
                Some(StoreEvent::GaveUp { source: Arc::clone(source), why: why.clone() })
            }
        };
        self.leave_out(source, event, cause);
    }

    /// Leaves a source out that lacks the digests of the image's parts, without which nothing is proven that
    /// is read without the key. It may have the image.
    pub(crate) fn lacks_parts(&self, source: usize) {
        let why =
            "the digests of its parts are not there, and without the key nothing else proves it";
        let cause = Cause::Failed { source: self.name(source), why: why.to_owned() };
        self.leave_out(
            source,
            self.lacking(source, "the digests of the parts of image", "are"),
            cause,
        );
    }

    /// What is told of a source that lacks something: once, and of a cache never.
    fn lacking(&self, source: usize, what: &str, are: &str) -> Option<StoreEvent> {
        let state = self.list.get(source)?;
        if state.cache || state.lacks.swap(true, Ordering::Relaxed) {
            return None;
        }
        let image = short(self.image.as_bytes());
        let why = format!("{what} {image} {are} not there, and perhaps others of {}", self.model);
        Some(StoreEvent::GaveUp { source: self.name(source), why })
    }

    fn leave_out(&self, source: usize, event: Option<StoreEvent>, cause: Cause) {
        let Some(state) = self.list.get(source) else { return };
        if !state.out.swap(true, Ordering::Relaxed) {
            lock(&self.events).extend(event);
        }
        self.note(cause);
    }

    /// Tells the caller what the tasks noted.
    pub(crate) fn tell(&self, options: &StoreOptions<'_>) {
        let events = core::mem::take(&mut *lock(&self.events));
        for event in &events {
            options.tell(event);
        }
    }

    /// Why no source is left.
    pub(crate) fn causes(&self) -> Vec<Cause> {
        let mut causes = lock(&self.causes).clone();
        for state in &self.list {
            let source = state.store.name();
            let named = causes.iter().any(|cause| match cause {
                Cause::Lied(lie) => lie.source == *source,
                Cause::Absent { source: other } | Cause::Failed { source: other, .. } => {
                    other == source
                }
            });
            if !named && state.lied.load(Ordering::Relaxed) {
                let why = "it lied about another image of this call, and is left out".to_owned();
                causes.push(Cause::Failed { source: Arc::clone(source), why });
            }
        }
        causes
    }

    fn note(&self, cause: Cause) {
        let mut causes = lock(&self.causes);
        if !causes.contains(&cause) {
            causes.push(cause);
        }
    }

    /// A range from one source, tried as often as allowed. `None` if that source is out now.
    pub(crate) async fn range_of(
        &self,
        source: usize,
        range: Range<u64>,
        object_len: u64,
    ) -> Option<Fetched> {
        let state = self.list.get(source)?;
        let name = || Arc::clone(state.store.name());
        let mut attempt = 1_u32;
        let cause = loop {
            if state.out.load(Ordering::Relaxed) {
                return None;
            }
            let past_caches = state.past_caches.load(Ordering::Relaxed);
            let limits = &self.limits;
            let asked = range.clone();
            let answer =
                read_range(&state.store, &state.key, asked, object_len, past_caches, limits);
            let why = match answer.await {
                Answer::Bytes(bytes) => return Some(Fetched { bytes, source, past_caches }),
                Answer::Absent => break Cause::Absent { source: name() },
                Answer::Refused(why) => break Cause::Failed { source: name(), why },
                Answer::Length { expected, found } => {
                    if state.past_caches.swap(true, Ordering::Relaxed) && past_caches {
                        let part = Part::Length { expected, found };
                        let lie = self.lie(source, part);
                        state.lied.store(true, Ordering::Relaxed);
                        break Cause::Lied(lie);
                    }
                    format!("{found} bytes were found, and {expected} expected")
                }
                Answer::Failed(why) => {
                    if attempt >= self.limits.attempts {
                        break Cause::Failed { source: name(), why };
                    }
                    tokio::time::sleep(pause(attempt, self.limits.backoff)).await;
                    attempt = attempt.saturating_add(1);
                    why
                }
            };
            lock(&self.events).push(StoreEvent::Retried { source: name(), why });
        };
        self.give_up(source, cause);
        None
    }

    /// A range from the first source that has it. `None` if all are out.
    pub(crate) async fn fetch(&self, range: Range<u64>, object_len: u64) -> Option<Fetched> {
        let mut last = None;
        while let Some(source) = self.next(last) {
            let fetched = self.range_of(source, range.clone(), object_len).await;
            if fetched.is_some() {
                return fetched;
            }
            last = Some(source);
        }
        None
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
