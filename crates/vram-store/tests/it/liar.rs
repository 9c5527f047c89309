//! A source that lies: a store whose answers are altered on their way.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;
use vram_store::Store;
use vram_store::object_store::path::Path;
use vram_store::object_store::{
    Error, Extensions, GetOptions, GetRange, GetResult, GetResultPayload, ObjectStore, Result,
};

use crate::through::{Before, Through};

/// What a source does to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Another value of one byte.
    Flip(u64, u8),
    /// The object ends early, and says so.
    Short(u64),
    /// The object goes on, and says so.
    Long(u64),
    /// Answers have fewer bytes than were asked for, of an object that says the right length.
    ShortAnswers,
    /// Answers have more bytes than were asked for.
    LongAnswers,
    /// Two ranges change places.
    Swap(Range<u64>, Range<u64>),
    /// Other bytes altogether.
    Instead(Vec<u8>),
    /// The first so many requests fail, then all is well.
    FailFirst(u64),
    /// The stream breaks in the middle; the first so many times.
    Reset(u64),
    /// No byte ever comes; the first so many times.
    Stall(u64),
    /// No range is answered, in words of its own; the object is shorter by so much, and says so.
    NoRange(u64),
    /// Nothing is there.
    Absent,
    /// The account may not read.
    Denied,
}

/// What lies about images alone.
#[derive(Debug)]
pub(crate) struct Liar {
    lie: Lie,
    asked: AtomicU64,
}

impl Liar {
    pub(crate) fn store(name: &str, inner: &Arc<impl ObjectStore>, lie: Lie) -> Store {
        Store::over(name, Through::of(inner.clone(), Self { lie, asked: AtomicU64::new(0) }))
    }

    fn altered(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let at = |place: u64| usize::try_from(place).unwrap();
        match &self.lie {
            Lie::Flip(place, with) => {
                if let Some(byte) = bytes.get_mut(at(*place)) {
                    *byte ^= with;
                }
            }
            Lie::Short(by) => bytes.truncate(bytes.len().saturating_sub(at(*by))),
            Lie::Long(by) => bytes.resize(bytes.len() + at(*by), 0),
            Lie::Swap(one, other) => {
                for (a, b) in (one.clone()).zip(other.clone()) {
                    bytes.swap(at(a), at(b));
                }
            }
            Lie::Instead(other) => bytes.clone_from(other),
            _ => {}
        }
        bytes
    }
}

fn broken() -> Error {
    Error::Generic { store: "liar", source: "503 Slow Down".into() }
}

#[async_trait::async_trait]
impl Before for Liar {
    async fn read(
        &self,
        inner: &dyn ObjectStore,
        location: &Path,
        options: GetOptions,
    ) -> Result<GetResult> {
        if !location.as_ref().contains(".vseal") {
            return inner.get_opts(location, options).await;
        }
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        match self.lie {
            Lie::FailFirst(count) if asked < count => return Err(broken()),
            Lie::Stall(count) if asked < count => return core::future::pending().await,
            Lie::NoRange(_) if !options.head => {
                return Err(Error::Generic { store: "liar", source: "lengthy trouble".into() });
            }
            Lie::NoRange(by) => {
                let mut answer = inner.get_opts(location, options).await?;
                answer.meta.size -= by;
                return Ok(answer);
            }
            Lie::Absent => {
                let source = "liar".into();
                return Err(Error::NotFound { path: location.to_string(), source });
            }
            Lie::Denied => {
                let source = "liar".into();
                return Err(Error::PermissionDenied { path: location.to_string(), source });
            }
            _ => {}
        }
        let range = options.range.clone();
        let whole = inner.get_opts(location, GetOptions::default()).await?;
        let (mut meta, attributes) = (whole.meta.clone(), whole.attributes.clone());
        let bytes = self.altered(whole.bytes().await?.to_vec());
        meta.size = bytes.len().try_into().unwrap();
        let range = match range {
            Some(GetRange::Bounded(range)) => range,
            _ => 0..meta.size,
        };
        let end = range.end.min(meta.size);
        let at = |place: u64| usize::try_from(place.min(meta.size)).unwrap();
        let mut part = bytes[at(range.start.min(end))..at(end)].to_vec();
        match self.lie {
            Lie::ShortAnswers => part.truncate(part.len() / 2),
            Lie::LongAnswers => part.push(0),
            _ => {}
        }
        let mut pieces: Vec<Result<_>> =
            part.chunks(5000).map(|piece| Ok(piece.to_vec().into())).collect();
        if matches!(self.lie, Lie::Reset(count) if asked < count) {
            pieces.truncate(pieces.len() / 2);
            pieces.push(Err(broken()));
        }
        let payload = GetResultPayload::Stream(stream::iter(pieces).boxed());
        let range = range.start.min(end)..end;
        Ok(GetResult { payload, meta, range, attributes, extensions: Extensions::default() })
    }
}

/// What watches an honest store: it counts how many reads are under way, and fails at a write after so
/// many, and at all that follow.
#[derive(Debug)]
pub(crate) struct Watched {
    now: AtomicU64,
    most: Arc<AtomicU64>,
    /// A read takes so long: long enough for all that may begin to have begun.
    read_takes: Duration,
    writes_left: AtomicU64,
}

impl Watched {
    /// A store, and the most reads that were under way at one time.
    pub(crate) fn counting(inner: &Arc<impl ObjectStore>) -> (Store, Arc<AtomicU64>) {
        let most = Arc::default();
        let read_takes = Duration::from_millis(2);
        (Self::store("counting", inner, &most, read_takes, u64::MAX), most)
    }

    /// A store that takes so many writes.
    pub(crate) fn dropping(inner: &Arc<impl ObjectStore>, writes: u64) -> Store {
        Self::store("dropping", inner, &Arc::default(), Duration::ZERO, writes)
    }

    fn store(
        name: &str,
        inner: &Arc<impl ObjectStore>,
        most: &Arc<AtomicU64>,
        read_takes: Duration,
        writes: u64,
    ) -> Store {
        let (now, most, writes_left) =
            (AtomicU64::new(0), Arc::clone(most), AtomicU64::new(writes));
        Store::over(name, Through::of(inner.clone(), Self { now, most, read_takes, writes_left }))
    }
}

#[async_trait::async_trait]
impl Before for Watched {
    async fn read(
        &self,
        inner: &dyn ObjectStore,
        location: &Path,
        options: GetOptions,
    ) -> Result<GetResult> {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        std::thread::sleep(self.read_takes);
        let answer = inner.get_opts(location, options).await;
        self.now.fetch_sub(1, Ordering::Relaxed);
        answer
    }

    fn write(&self) -> Result<()> {
        let take = |left: u64| left.checked_sub(1);
        let left = self.writes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        left.map(|_| ()).map_err(|_none| broken())
    }
}
