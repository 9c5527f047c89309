//! Where an image may come from, in order, and which sources are out for this image.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::range::pause;
use super::{Answer, Body, read_range, read_whole};
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
    /// Asked when all others are out: it stalled, for this image or lately.
    late: AtomicBool,
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
        for source in sources {
            source.store.may_be_asked(options);
        }
        let state = |source: &CallSource| State {
            store: source.store.clone(),
            key: key.to_owned(),
            cache: source.cache,
            out: AtomicBool::new(source.lied.load(Ordering::Relaxed)),
            late: AtomicBool::new(source.store.record().is_late()),
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

    /// The next source to ask: the first that is not out, those that stalled last.
    pub(crate) fn next(&self) -> Option<usize> {
        let in_use = |late| {
            self.list.iter().position(|state| {
                !state.out.load(Ordering::Relaxed) && (late || !state.late.load(Ordering::Relaxed))
            })
        };
        in_use(false).or_else(|| in_use(true))
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

    /// A range from one source. `None` if that source is out now, or asked last.
    pub(crate) async fn range_of(
        &self,
        source: usize,
        range: Range<u64>,
        object_len: u64,
    ) -> Option<Fetched> {
        let fetched = self.tried(source, &Asked::Range { range, object_len }).await;
        fetched.map_err(|cause| cause.map(|cause| self.give_up(source, cause))).ok()
    }

    /// The digests of the image's parts from one source: an object of `len` bytes. `None` if that source is out
    /// now, or asked last.
    pub(crate) async fn parts_of(&self, source: usize, key: &str, len: u64) -> Option<Fetched> {
        match self.tried(source, &Asked::Parts { key, len }).await {
            Ok(fetched) => return Some(fetched),
            Err(Some(Cause::Absent { .. })) => self.lacks_parts(source),
            Err(Some(cause)) => self.give_up(source, cause),
            Err(None) => {}
        }
        None
    }

    /// Asks one source, as often as allowed. The error: why it is to be left out, if it is not yet.
    async fn tried(&self, source: usize, asked: &Asked<'_>) -> Result<Fetched, Option<Cause>> {
        let state = self.list.get(source).ok_or(None)?;
        let name = || Arc::clone(state.store.name());
        let was_late = state.late.load(Ordering::Relaxed);
        let mut attempt = 1_u32;
        loop {
            if state.out.load(Ordering::Relaxed) {
                return Err(None);
            }
            let past_caches = state.past_caches.load(Ordering::Relaxed);
            let why = match asked.of(state, past_caches, &self.limits).await {
                Answer::Bytes(bytes) => return Ok(Fetched { bytes, source, past_caches }),
                Answer::Absent => return Err(Some(Cause::Absent { source: name() })),
                Answer::Refused(why) => return Err(Some(Cause::Failed { source: name(), why })),
                Answer::Length { expected, found } => {
                    if state.past_caches.swap(true, Ordering::Relaxed) && past_caches {
                        let part = Part::Length { expected, found };
                        let lie = self.lie(source, part);
                        state.lied.store(true, Ordering::Relaxed);
                        return Err(Some(Cause::Lied(lie)));
                    }
                    format!("{found} bytes were found, and {expected} expected")
                }
                // Each of its tries costs the time of a stall: others are asked before the next one.
                Answer::Stalled(why) if !was_late && self.others_left(source) => {
                    if !state.late.swap(true, Ordering::Relaxed) {
                        let why = format!("{why}; it is asked last now");
                        lock(&self.events).push(StoreEvent::GaveUp { source: name(), why });
                    }
                    return Err(None);
                }
                answer @ (Answer::Failed(_) | Answer::Stalled(_)) => {
                    let stalled = matches!(answer, Answer::Stalled(_));
                    let why = answer.to_string();
                    if attempt >= self.limits.attempts || stalled && self.others_left(source) {
                        return Err(Some(Cause::Failed { source: name(), why }));
                    }
                    tokio::time::sleep(pause(attempt, self.limits.backoff)).await;
                    attempt = attempt.saturating_add(1);
                    why
                }
            };
            lock(&self.events).push(StoreEvent::Retried { source: name(), why });
        }
    }

    /// Whether another source than this one is not out.
    fn others_left(&self, source: usize) -> bool {
        let left =
            |(at, state): (usize, &State)| at != source && !state.out.load(Ordering::Relaxed);
        self.list.iter().enumerate().any(left)
    }

    /// A range from the first source that has it. `None` if all are out.
    pub(crate) async fn fetch(&self, range: Range<u64>, object_len: u64) -> Option<Fetched> {
        // One that has none is out by then, or asked last.
        while let Some(source) = self.next() {
            let fetched = self.range_of(source, range.clone(), object_len).await;
            if fetched.is_some() {
                return fetched;
            }
        }
        None
    }
}

/// What is asked of a source.
enum Asked<'a> {
    Range { range: Range<u64>, object_len: u64 },
    Parts { key: &'a str, len: u64 },
}

impl Asked<'_> {
    async fn of(&self, state: &State, past_caches: bool, limits: &Limits) -> Answer {
        let store = &state.store;
        match self {
            Self::Range { range, object_len } => {
                let (key, range) = (&state.key, range.clone());
                read_range(store, key, range, *object_len, past_caches, limits).await
            }
            Self::Parts { key, len } => read_whole(store, key, *len, past_caches, limits).await,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
