//! One range of one object from one store.

use core::fmt;
use core::hash::BuildHasher as _;
use core::ops::Range;
use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::fs::File;
use std::hash::RandomState;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStoreExt as _};
use vram_alloc::host;
use vram_files::regular_file;

use super::Body;
use crate::options::{Limits, on_files};
use crate::store::{Asking, Store, caused, is_absent, is_there, stalled};

/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What a store answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// As many bytes as were asked for, and the length that the object is said to have.
    Bytes(Body),
    /// Bytes, but not as many as were asked for, or of an object of another length.
    Length { expected: u64, found: u64 },
    /// There is no such object.
    Absent,
    /// It refused, and would refuse again.
    Refused(String),
    /// It failed, and may succeed later.
    Failed(String),
    /// Nothing came of it in time, or too little.
    Stalled(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Length { expected, found } => {
                write!(f, "it has {found} bytes, and {expected} were expected")
            }
            Self::Absent => f.write_str("it is not there"),
            Self::Refused(why) | Self::Failed(why) | Self::Stalled(why) => f.write_str(why),
        }
    }
}

/// Asks until the answer is one that stays, as often as allowed.
///
/// # Arguments
///
/// * `hasty`: another source is left, so that a stall is not tried again.
pub(crate) async fn tried<F: Future<Output = Answer>>(
    limits: &Limits,
    hasty: bool,
    ask: impl Fn() -> F,
) -> Answer {
    let mut attempt = 1_u32;
    loop {
        match ask().await {
            answer @ Answer::Stalled(_) if hasty => return answer,
            Answer::Failed(_) | Answer::Stalled(_) if attempt < limits.attempts => {
                tokio::time::sleep(pause(attempt, limits.backoff)).await;
                attempt = attempt.saturating_add(1);
            }
            answer => return answer,
        }
    }
}

/// Reads a range of an object that must have `object_len` bytes.
pub(crate) async fn read_range(
    store: &Store,
    key: &str,
    range: Range<u64>,
    object_len: u64,
    past_caches: bool,
    limits: &Limits,
) -> Answer {
    if range.is_empty() {
        return Answer::Bytes(Body::default());
    }
    let expected = range_len(&range);
    match get(store, key, Some(range), past_caches, limits.stall, expected).await {
        // A range beyond the end of an object is an error with most stores, each with one of its own. So
        // the length is asked for, whatever the error: a wrong one is the object's fault and stays.
        Err(Stopped::Answered(answer @ (Answer::Failed(_) | Answer::Refused(_)))) => {
            let (objects, name) = (store.objects(past_caches), store.key(key));
            match tokio::time::timeout(limits.stall, objects.head(&name)).await {
                Ok(Ok(meta)) if meta.size != object_len => {
                    Answer::Length { expected: object_len, found: meta.size }
                }
                _ => answer,
            }
        }
        Err(Stopped::Answered(answer) | Stopped::Broken(answer)) => answer,
        Ok((size, _)) if size != object_len => Answer::Length { expected: object_len, found: size },
        Ok((_, bytes)) => {
            let found = as_u64(bytes.len());
            // Stores answer a range past the end with fewer bytes, and call that a success.
            if found == expected {
                Answer::Bytes(bytes)
            } else {
                Answer::Length { expected, found }
            }
        }
    }
}

/// Reads an object of at most `len_max` bytes whole.
pub(crate) async fn read_whole(
    store: &Store,
    key: &str,
    len_max: u64,
    past_caches: bool,
    limits: &Limits,
) -> Answer {
    match get(store, key, None, past_caches, limits.stall, len_max).await {
        Err(Stopped::Answered(answer) | Stopped::Broken(answer)) => answer,
        Ok((size, bytes)) => {
            let found = as_u64(bytes.len());
            if found == size {
                Answer::Bytes(bytes)
            } else {
                Answer::Length { expected: size, found }
            }
        }
    }
}

/// Why a request brought no bytes.
enum Stopped {
    /// The store answered with an error.
    Answered(Answer),
    /// It answered nothing, or its answer broke off.
    Broken(Answer),
}

/// Reads a range, or all, of an object: its length, and the bytes as they come, at most `len_max`.
async fn get(
    store: &Store,
    key: &str,
    range: Option<Range<u64>>,
    past_caches: bool,
    stall: Duration,
    len_max: u64,
) -> Result<(u64, Body), Stopped> {
    let asking = store.record().ask();
    let got = get_watched(store, key, range, past_caches, stall, len_max, &asking).await;
    match &got {
        Ok(_) => asking.answered("it answered"),
        Err(Stopped::Answered(Answer::Stalled(why)) | Stopped::Broken(Answer::Stalled(why))) => {
            asking.stalled(why);
        }
        Err(Stopped::Answered(answer) | Stopped::Broken(answer)) => {
            asking.answered(&answer.to_string());
        }
    }
    got
}

async fn get_watched(
    store: &Store,
    key: &str,
    range: Option<Range<u64>>,
    past_caches: bool,
    stall: Duration,
    len_max: u64,
    asking: &Asking,
) -> Result<(u64, Body), Stopped> {
    if let Some(path) = store.path_of(key) {
        let mut read = get_file(path, range, stall, len_max).await;
        if let (Err(Answer::Absent), Some(root)) = (&read, store.path_of("")) {
            // Another try finds no folder sooner: a share that is not mounted.
            if let Err(gone) = on_files(Some(stall), move || is_there(&root)).await {
                read = Err(Answer::Refused(gone.to_string()));
            }
        }
        return read.map_err(Stopped::Broken);
    }
    let failed = |_elapsed| Stopped::Broken(Answer::Stalled(stalled(stall)));
    let whole = range.is_none();
    let options = GetOptions::new().with_range(range.map(GetRange::Bounded));
    let (objects, name) = (store.objects(past_caches), store.key(key));
    // A panic of the client is the fault of what this source sent.
    let asked = AssertUnwindSafe(objects.get_opts(&name, options)).catch_unwind();
    let answer = tokio::time::timeout(stall, asked).await.map_err(failed)?;
    let answer = answer.map_err(|_panicked| {
        let why = "its answer is one that the client cannot read: it panicked".to_owned();
        Stopped::Broken(Answer::Refused(why))
    })?;
    let answered = |error| Stopped::Answered(judge(&error));
    let result = answer.map_err(answered)?;
    let (size, len) = (result.meta.size, range_len(&result.range));
    if whole && size > len_max {
        return Err(Stopped::Broken(Answer::Length { expected: len_max, found: size }));
    }
    let room = len.min(len_max);
    let mut stream = match result.payload {
        GetResultPayload::File(file, _path) if len <= len_max => {
            let read = read_pieces(Arc::new(file), result.range, stall).await;
            return read.map(|bytes| (size, bytes)).map_err(Stopped::Broken);
        }
        _ => result.into_stream(),
    };
    let mut bytes = Body::default();
    // A source that sends a little now and then is no better than one that sends nothing.
    let (mut since, mut enough) = (Instant::now(), PACE);
    loop {
        let left = stall.saturating_sub(since.elapsed());
        let piece = tokio::time::timeout(left, stream.next()).await;
        let slow = |_elapsed| {
            let why = format!("fewer than {} KiB within {stall:?}", PACE >> 10);
            Stopped::Broken(Answer::Stalled(why))
        };
        let Some(piece) = piece.map_err(slow)? else { break };
        let piece = piece.map_err(|error| Stopped::Broken(judge(&error)))?;
        let found = as_u64(bytes.len().saturating_add(piece.len()));
        if found > room {
            // More than was asked for: nothing of it is kept.
            return Err(Stopped::Broken(Answer::Length { expected: room, found }));
        }
        bytes.push(piece);
        asking.heard();
        if bytes.len() >= enough {
            (since, enough) = (Instant::now(), bytes.len().saturating_add(PACE));
        }
    }
    Ok((size, bytes))
}

/// Bytes that have to come in the time of a stall, and all of what is shorter.
const PACE: usize = 64 << 10;

/// Bytes of a file that are read at a time: each of these reads has the time that a stall has.
const FILE_PIECE: u64 = 8 << 20;

/// As [`get`], of a file. It waits at no pipe, and a read that the kernel blocks is left behind.
async fn get_file(
    path: PathBuf,
    range: Option<Range<u64>>,
    stall: Duration,
    len_max: u64,
) -> Result<(u64, Body), Answer> {
    let open = move || {
        let file = regular_file::open_regular(&path)?;
        let size = file.metadata()?.len();
        Ok((Arc::new(file), size))
    };
    let (file, size) = on_files(Some(stall), open).await.map_err(|error| judge_file(&error))?;
    let range = range.unwrap_or(0..size);
    let range = range.start..range.end.min(size);
    if range_len(&range) > len_max {
        return Err(Answer::Length { expected: len_max, found: size });
    }
    Ok((size, read_pieces(file, range, stall).await?))
}

async fn read_pieces(file: Arc<File>, range: Range<u64>, stall: Duration) -> Result<Body, Answer> {
    let (mut at, end) = (range.start, range.end);
    let mut bytes = Body::default();
    while at < end {
        let (file, len) = (Arc::clone(&file), end.saturating_sub(at).min(FILE_PIECE));
        let piece = on_files(Some(stall), move || read_file(&file, at, len)).await;
        bytes.push(piece.map_err(|error| judge_file(&error))?);
        at = at.saturating_add(len);
    }
    Ok(bytes)
}

/// Reads a part of a file, to where the kernel copies fast.
pub(crate) fn read_file(file: &File, start: u64, len: u64) -> io::Result<Bytes> {
    let refused = || io::Error::from(ErrorKind::OutOfMemory);
    let len = usize::try_from(len).map_err(io::Error::other)?;
    let room_len = host::room_for(len).ok_or_else(refused)?;
    let mut room = vec![0; room_len];
    let lead = host::lead(room.as_ptr().addr(), room_len.saturating_sub(len));
    room.truncate(lead.saturating_add(len));
    file.read_exact_at(room.get_mut(lead..).unwrap_or_default(), start)?;
    Ok(Bytes::from(room).slice(lead..))
}

/// Whether another try can help.
fn judge(error: &object_store::Error) -> Answer {
    match error {
        object_store::Error::NotFound { .. } => Answer::Absent,
        object_store::Error::Generic { .. } | object_store::Error::JoinError { .. } => {
            Answer::Failed(caused(error))
        }
        _ => Answer::Refused(caused(error)),
    }
}

/// Whether another try can help with a file.
fn judge_file(error: &io::Error) -> Answer {
    match error.kind() {
        _ if is_absent(error) => Answer::Absent,
        ErrorKind::TimedOut => Answer::Stalled(error.to_string()),
        // It is no regular file, or may not be read.
        ErrorKind::InvalidInput | ErrorKind::PermissionDenied => Answer::Refused(error.to_string()),
        _ => Answer::Failed(error.to_string()),
    }
}

/// How long to wait before try number `attempt`, from 1: at random below a bound that doubles, so
/// that many nodes which failed together do not come back together.
pub(crate) fn pause(attempt: u32, first: Duration) -> Duration {
    let doubled = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
    let bound = first.saturating_mul(doubled).min(PAUSE_MAX);
    let random = RandomState::new().hash_one(attempt);
    let share = u32::try_from(random >> 33).unwrap_or(0);
    // `share` has 31 bits.
    bound.saturating_mul(share).checked_div(1 << 31).unwrap_or(bound)
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

const fn range_len(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_random_and_bounded() {
        let first = Duration::from_millis(100);
        for attempt in 1..80 {
            let bound = Duration::from_millis(100 << (attempt - 1).min(10)).min(PAUSE_MAX);
            let drawn: Vec<_> = (0..20).map(|_| pause(attempt, first)).collect();
            assert!(drawn.iter().all(|pause| *pause <= bound), "{attempt}: {drawn:?}");
            assert!(drawn.iter().any(|pause| *pause != drawn[0]), "{attempt}");
        }
        assert_eq!(pause(3, Duration::ZERO), Duration::ZERO);
    }
}
