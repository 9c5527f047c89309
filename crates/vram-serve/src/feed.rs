//! The last events, for any number of readers: each has a position, and no event waits for a reader.
//!
//! An event is rendered once. A reader that falls behind what is kept is told so, and its stream ends:
//! it takes a new snapshot and goes on from there.

use core::fmt::Write as _;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use axum::body::Bytes;
use serde::Serialize;
use tokio::sync::{broadcast, watch};
use vram_residency::{Event, EventKind, EventSink, ShardId};

/// Events that one write carries at most.
const BATCH: usize = 64;
/// News that one holder may be behind.
const NEWS_KEPT: usize = 256;

/// The last events. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    kept: Arc<Mutex<Kept>>,
    head: watch::Sender<u64>,
    /// Distinguishes the ids of this run from those of an earlier one.
    run: Arc<str>,
    len_max: usize,
    news: broadcast::Sender<News>,
}

/// What who holds shards must know at once.
#[derive(Clone, Debug)]
pub(crate) struct News {
    pub(crate) what: What,
    pub(crate) shards: Arc<[ShardId]>,
}

/// What became of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Altered,
    Lost,
}

#[derive(Debug, Default)]
struct Kept {
    /// The number of the oldest event that is kept.
    first: u64,
    frames: VecDeque<Bytes>,
}

/// An event of the server itself, beside those of the manager.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Own<'a> {
    /// A model could not be loaded.
    LoadFailed { model: &'a str, code: &'a str, message: &'a str },
    /// A model that could not be loaded is listed no longer: the last `kept` of those that no configuration
    /// names are.
    LoadForgotten { model: &'a str, kept: usize },
    /// A model that a reset loaded again has another content than before.
    LoadedChanged { model: &'a str },
    /// A source of a model's images gave wrong bytes, and is left out.
    SourceLied { model: &'a str, source: &'a str, image: &'a str, what: &'a str },
    /// A source of a model has other bytes under the name of its manifest, and was passed over.
    ManifestRefused { model: &'a str, source: &'a str, manifest: &'a str, what: &'a str },
    /// A connection holds a model from now on.
    LeaseBegan { lease: u64, model: &'a str, holder: &'a str },
    /// It does no more: `ended` by its worker, or `cut` at the end of a drain.
    LeaseEnded { lease: u64, model: &'a str, holder: &'a str, how: &'a str },
    /// The server takes no more control calls.
    Draining { deadline_ms: u64 },
    /// A card reported an XID: its number, what it means, and what helps.
    Xid { uuid: String, xid: u64, what: &'a str, next: &'a str },
}

/// Where a reader stands.
#[derive(Debug)]
pub(crate) struct Reader {
    feed: Feed,
    next: u64,
    changed: watch::Receiver<u64>,
    /// What the reader is told first.
    first: Option<Bytes>,
}

/// What a reader is given next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// These frames.
    Frames(Bytes),
    /// It fell behind: this is the last frame of its stream.
    Lagged(Bytes),
}

impl Feed {
    pub(crate) fn new(len_max: usize) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (head, _) = watch::channel(0);
        let run = format!("{:x}", since.as_micros()).into();
        let (news, _) = broadcast::channel(NEWS_KEPT);
        Self { kept: Arc::default(), head, run, len_max, news }
    }

    /// What becomes of shards from now on. Nothing waits for who reads it: what is missed is counted.
    pub(crate) fn news(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends an event of the server.
    pub(crate) fn tell(&self, own: &Own<'_>) {
        self.append(own_name(own), own);
    }

    fn append(&self, name: &str, data: &impl Serialize) {
        let Ok(json) = serde_json::to_string(data) else { return };
        let mut kept = self.lock();
        let number = kept.next();
        kept.frames.push_back(frame(name, &self.id(number), &json));
        if kept.frames.len() > self.len_max {
            kept.frames.pop_front();
            kept.first = kept.first.saturating_add(1);
        }
        drop(kept);
        self.head.send_replace(number.saturating_add(1));
    }

    fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.run)
    }

    /// A reader that begins after the event of this id, or with the next one that happens.
    ///
    /// An id of another run, or one that is no longer kept, is answered with a frame `lagged`, and
    /// then with what is kept.
    pub(crate) fn reader(&self, last_id: Option<&str>) -> Reader {
        let changed = self.head.subscribe();
        let kept = self.lock();
        let (first, end) = (kept.first, kept.next());
        drop(kept);
        let Some(last_id) = last_id else {
            return Reader { feed: self.clone(), next: end, changed, first: None };
        };
        let number = last_id.strip_prefix(&*self.run).and_then(|rest| rest.strip_prefix('-'));
        let wanted = number.and_then(|number| number.parse::<u64>().ok());
        let wanted = wanted.and_then(|number| number.checked_add(1));
        match wanted {
            Some(next) if (first..=end).contains(&next) => {
                Reader { feed: self.clone(), next, changed, first: None }
            }
            Some(next) if next < first => {
                let missed = self.lagged(Some(first.saturating_sub(next)), first);
                Reader { feed: self.clone(), next: first, changed, first: Some(missed) }
            }
            _ => {
                let missed = self.lagged(None, first);
                Reader { feed: self.clone(), next: first, changed, first: Some(missed) }
            }
        }
    }

    /// The frame that says that events are missing before number `next`.
    fn lagged(&self, missed: Option<u64>, next: u64) -> Bytes {
        #[derive(Serialize)]
        struct Lagged {
            /// How many; `null` if that is not known.
            missed: Option<u64>,
            next: &'static str,
        }

        let said = Lagged { missed, next: "GET /snapshot, and connect again" };
        let json = serde_json::to_string(&said).unwrap_or_default();
        match next.checked_sub(1) {
            Some(before) => frame("lagged", &self.id(before), &json),
            None => Bytes::from(format!("event: lagged\ndata: {json}\n\n")),
        }
    }
}

impl News {
    fn of(kind: &EventKind) -> Option<Self> {
        let (what, shards) = match kind {
            EventKind::Altered { shard, .. } => (What::Altered, Arc::from([shard.clone()])),
            EventKind::DeviceLost { shards, .. } | EventKind::DeviceReset { lost: shards, .. } => {
                (What::Lost, Arc::clone(shards))
            }
            _ => return None,
        };
        Some(Self { what, shards })
    }
}

impl Kept {
    /// The number of the next event.
    fn next(&self) -> u64 {
        self.first.saturating_add(u64::try_from(self.frames.len()).unwrap_or(u64::MAX))
    }
}

impl EventSink for Feed {
    fn event(&mut self, event: &Event) {
        self.append(event.kind.name(), event);
        if let Some(news) = News::of(&event.kind) {
            let _nobody_holds_any = self.news.send(news);
        }
    }

    fn dropped(&mut self, count: u64) {
        #[derive(Serialize)]
        struct Dropped {
            count: u64,
        }
        self.append("dropped", &Dropped { count });
    }
}

impl Reader {
    /// What comes next: waits until there is something.
    pub(crate) async fn next(&mut self) -> Next {
        if let Some(first) = self.first.take() {
            return Next::Frames(first);
        }
        loop {
            self.changed.mark_unchanged();
            if let Some(next) = self.take() {
                return next;
            }
            // The feed lives in this reader, so the sender is never gone.
            let _always = self.changed.changed().await;
        }
    }

    fn take(&mut self) -> Option<Next> {
        let kept = self.feed.lock();
        let Some(behind) = self.next.checked_sub(kept.first) else {
            let missed = kept.first.saturating_sub(self.next);
            let head = kept.next();
            drop(kept);
            return Some(Next::Lagged(self.feed.lagged(Some(missed), head)));
        };
        let behind = usize::try_from(behind).unwrap_or(usize::MAX);
        let frames: Vec<Bytes> = kept.frames.iter().skip(behind).take(BATCH).cloned().collect();
        drop(kept);
        if frames.is_empty() {
            return None;
        }
        let count = u64::try_from(frames.len()).unwrap_or(u64::MAX);
        self.next = self.next.saturating_add(count);
        Some(Next::Frames(Bytes::from(frames.concat())))
    }
}

/// One frame of the stream. JSON has no line breaks.
fn frame(name: &str, id: &str, json: &str) -> Bytes {
    let mut text = String::with_capacity(json.len().saturating_add(64));
    // Writing to a text never fails.
    let _ = write!(text, "id: {id}\nevent: {name}\ndata: {json}\n\n");
    Bytes::from(text)
}

const fn own_name(own: &Own<'_>) -> &'static str {
    match own {
        Own::LoadFailed { .. } => "load_failed",
        Own::LoadForgotten { .. } => "load_forgotten",
        Own::LoadedChanged { .. } => "loaded_changed",
        Own::SourceLied { .. } => "source_lied",
        Own::ManifestRefused { .. } => "manifest_refused",
        Own::LeaseBegan { .. } => "lease_began",
        Own::LeaseEnded { .. } => "lease_ended",
        Own::Draining { .. } => "draining",
        Own::Xid { .. } => "xid",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(count: u64, len_max: usize) -> Feed {
        let feed = Feed::new(len_max);
        for deadline_ms in 0..count {
            feed.tell(&Own::Draining { deadline_ms });
        }
        feed
    }

    fn text(next: Next) -> (bool, String) {
        match next {
            Next::Frames(bytes) => (false, String::from_utf8(bytes.to_vec()).unwrap()),
            Next::Lagged(bytes) => (true, String::from_utf8(bytes.to_vec()).unwrap()),
        }
    }

    fn wait(reader: &mut Reader) -> (bool, String) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        text(runtime.block_on(reader.next()))
    }

    #[test]
    fn a_reader_that_comes_back_goes_on_after_the_id_that_it_had() {
        let feed = told(10, 100);
        let mut reader = feed.reader(Some(&feed.id(6)));
        let (lagged, frames) = wait(&mut reader);
        assert!(!lagged && frames.starts_with(&format!("id: {}\n", feed.id(7))), "{frames}");
        assert_eq!(frames.matches("event: draining").count(), 3);
        let mut fresh = feed.reader(None);
        feed.tell(&Own::Draining { deadline_ms: 99 });
        assert!(wait(&mut fresh).1.contains("99"));
    }

    #[test]
    fn a_reader_that_missed_events_is_told_how_many_and_goes_on_with_what_is_kept() {
        let feed = told(10, 4);
        let (_, first) = wait(&mut feed.reader(Some(&feed.id(2))));
        assert!(first.contains("event: lagged") && first.contains("\"missed\":3"), "{first}");
        assert!(first.contains(&format!("id: {}\n", feed.id(5))), "{first}");
        for foreign in ["", "x-3", "ffffff-1", &format!("{}-18446744073709551615", feed.run)] {
            let mut reader = feed.reader(Some(foreign));
            assert!(wait(&mut reader).1.contains("\"missed\":null"), "{foreign}");
            assert_eq!(wait(&mut reader).1.matches("event: draining").count(), 4);
        }
    }

    #[test]
    fn a_reader_that_is_too_slow_is_let_go_with_an_id_from_which_it_can_go_on() {
        let feed = told(1, 4);
        let mut reader = feed.reader(Some(&feed.id(0)));
        for deadline_ms in 0..20 {
            feed.tell(&Own::Draining { deadline_ms });
        }
        let (lagged, last) = wait(&mut reader);
        assert!(lagged && last.contains("\"missed\":16"), "{last}");
        assert!(last.contains(&format!("id: {}\n", feed.id(20))), "{last}");
        assert!(feed.reader(Some(&feed.id(20))).first.is_none());
    }

    #[test]
    fn no_more_is_kept_than_the_bound() {
        let feed = told(10_000, 100);
        assert_eq!(feed.lock().frames.len(), 100);
        assert_eq!(feed.lock().next(), 10_000);
    }
}
