//! One range of one object from one store.

use core::hash::BuildHasher as _;
use core::ops::Range;
use core::time::Duration;
use std::fs::File;
use std::hash::RandomState;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectMeta, ObjectStoreExt as _};
use vram_alloc::host;

use super::Body;
use crate::options::Limits;
use crate::store::{Store, redact};

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
    let options = GetOptions::new().with_range(Some(GetRange::Bounded(range.clone())));
    match get(store, key, options, past_caches, limits.stall, range_len(&range)).await {
        // A range beyond the end of an object is refused in words that differ from store to store.
        Err(Answer::Failed(why) | Answer::Refused(why)) if why.to_lowercase().contains("range") => {
            let (objects, name) = (store.objects(past_caches), store.key(key));
            match tokio::time::timeout(limits.stall, objects.head(&name)).await {
                Ok(Ok(meta)) if meta.size != object_len => {
                    Answer::Length { expected: object_len, found: meta.size }
                }
                _ => Answer::Failed(why),
            }
        }
        Err(answer) => answer,
        Ok((meta, _)) if meta.size != object_len => {
            Answer::Length { expected: object_len, found: meta.size }
        }
        Ok((_, bytes)) => {
            let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            // Stores answer a range past the end with fewer bytes, and call that a success.
            if found == range_len(&range) {
                Answer::Bytes(bytes)
            } else {
                Answer::Length { expected: range_len(&range), found }
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
    match get(store, key, GetOptions::new(), past_caches, limits.stall, len_max).await {
        Err(answer) => answer,
        Ok((meta, bytes)) => {
            let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            if found == meta.size {
                Answer::Bytes(bytes)
            } else {
                Answer::Length { expected: meta.size, found }
            }
        }
    }
}

/// Sends a request, and takes the bytes of the answer as they come, at most `len_max`.
async fn get(
    store: &Store,
    key: &str,
    options: GetOptions,
    past_caches: bool,
    stall: Duration,
    len_max: u64,
) -> Result<(ObjectMeta, Body), Answer> {
    let stalled = |_elapsed| Answer::Failed(format!("no byte within {stall:?}"));
    let (objects, name) = (store.objects(past_caches), store.key(key));
    let answer = tokio::time::timeout(stall, objects.get_opts(&name, options)).await;
    let result = answer.map_err(stalled)?.map_err(|error| judge(&error))?;
    let (meta, range) = (result.meta, result.range);
    let mut stream = match result.payload {
        GetResultPayload::File(file, _path) => {
            let len = range_len(&range).min(len_max);
            let read = move || read_file(&file, range.start, len);
            let read = tokio::task::spawn_blocking(read);
            let read = tokio::time::timeout(stall, read).await.map_err(stalled)?;
            let bytes = read.map_err(|error| Answer::Failed(error.to_string()))?;
            return match bytes {
                Ok(bytes) => Ok((meta, bytes.into())),
                Err(error) => Err(Answer::Failed(error.to_string())),
            };
        }
        GetResultPayload::Stream(stream) => stream,
        // The enum may grow.
        #[expect(unreachable_patterns, reason = "the enum may grow")]
        _ => return Err(Answer::Refused("an answer of an unknown kind".to_owned())),
    };
    let room = usize::try_from(range_len(&range).min(len_max)).unwrap_or(0);
    let mut bytes = Body::default();
    while let Some(piece) = tokio::time::timeout(stall, stream.next()).await.map_err(stalled)? {
        let piece = piece.map_err(|error| judge(&error))?;
        let len = bytes.len().saturating_add(piece.len());
        if len > room {
            // More than was asked for: nothing of it is kept.
            let found = u64::try_from(len).unwrap_or(u64::MAX);
            return Err(Answer::Length { expected: range_len(&range).min(len_max), found });
        }
        bytes.push(piece);
    }
    Ok((meta, bytes))
}

/// Reads a part of a file, to where the kernel copies fast.
pub(crate) fn read_file(file: &File, start: u64, len: u64) -> std::io::Result<Bytes> {
    let refused = || std::io::Error::from(std::io::ErrorKind::OutOfMemory);
    let len = usize::try_from(len).map_err(std::io::Error::other)?;
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
            Answer::Failed(redact(error))
        }
        _ => Answer::Refused(redact(error)),
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
