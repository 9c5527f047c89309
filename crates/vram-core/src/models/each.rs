//! The same work on every piece of a model: small pieces in parallel, a thread each, then large
//! pieces one after the other, all threads inside each.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_files::CancelToken;
use vram_seal::parallel::for_each_segment;

use crate::error::VramError;
use crate::parts::Core;
use crate::shard::Entry;
use crate::sync::{Mutex, into_inner, lock};

/// The length up to which one thread handles a whole piece: below it, passing parts to other threads
/// costs more than it saves.
const SMALL_LEN_MAX: ByteLen = ByteLen::new(4 << 20);

/// Where one piece is.
enum Slot<I, T> {
    Waiting(I),
    AtWork,
    Done(T),
}

/// Calls `work` with every item and its index, each at most once, and returns the results in the order
/// of the items. After the first error, or once `cancel` is cancelled, it begins no more of them; the
/// results so far, and the items that are left, are dropped.
///
/// # Errors
///
/// The error of `work`, of the first small piece that failed if several did; [`VramError::Cancelled`].
pub(crate) fn each_piece<I: Send, T: Send>(
    core: &Core,
    lens: &[ByteLen],
    items: impl IntoIterator<Item = I>,
    cancel: Option<&CancelToken>,
    work: impl Fn(usize, I) -> Result<T, VramError> + Sync,
) -> Result<Vec<T>, VramError> {
    let slots: Vec<_> = items.into_iter().map(|item| Mutex::new(Slot::Waiting(item))).collect();
    let bytes_done = AtomicU64::new(0);
    let one = |index: usize| {
        let (Some(len), Some(slot)) = (lens.get(index), slots.get(index)) else { return Ok(()) };
        if cancel.is_some_and(CancelToken::is_cancelled) {
            let total = lens.iter().fold(ByteLen::ZERO, |sum, len| sum.saturating_add(*len));
            let done = ByteLen::new(bytes_done.load(Ordering::Relaxed));
            return Err(VramError::Cancelled { done, total });
        }
        let item = core::mem::replace(&mut *lock(slot), Slot::AtWork);
        if let Slot::Waiting(item) = item {
            let done = work(index, item)?;
            *lock(slot) = Slot::Done(done);
        }
        // Cannot overflow: these bytes lie in memory.
        bytes_done.fetch_add(len.get(), Ordering::Relaxed);
        Ok(())
    };
    let is_small = |index: &usize| lens.get(*index).is_some_and(|len| *len <= SMALL_LEN_MAX);
    let (small, large): (Vec<_>, Vec<_>) = (0..slots.len()).partition(is_small);
    let count = ByteLen::from_usize(small.len()).get();
    for_each_segment(
        core.threads,
        count,
        || Ok(()),
        |(), position| {
            let index = usize::try_from(position).ok().and_then(|at| small.get(at));
            index.map_or(Ok(()), |index| one(*index))
        },
    )?;
    for index in large {
        one(index)?;
    }
    let done = slots.into_iter().filter_map(|slot| match into_inner(slot) {
        Slot::Done(result) => Some(result),
        Slot::Waiting(_) | Slot::AtWork => None,
    });
    Ok(done.collect())
}

/// The lengths of shards, in their order.
pub(crate) fn lens_of(entries: &[Arc<Entry>]) -> Vec<ByteLen> {
    entries.iter().map(|entry| entry.plaintext_len).collect()
}
