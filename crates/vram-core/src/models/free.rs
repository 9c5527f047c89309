//! Frees all shards of a model, or none.

use core::time::Duration;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::EventKind;
use vram_seal::parallel::map_each;

use crate::error::VramError;
use crate::models::ModelHandle;
use crate::models::each::{each_piece, lens_of};
use crate::models::telling;
use crate::models::together::{Wait, exclusive_among};
use crate::parts::Core;
use crate::room::{FreedReceipt, free};
use crate::shard::Entry;

/// Frees all shards of a model, or none, waiting for other users no longer than `timeout`.
pub fn free_model(
    core: &Core,
    model: &ModelHandle,
    timeout: Option<Duration>,
) -> Result<Vec<FreedReceipt>, VramError> {
    let wait = Wait::within(timeout);
    loop {
        let named =
            map_each(core.threads, model.shards().collect(), |shard| match core.resolve(shard) {
                Ok(entry) => Ok(Some((shard, entry))),
                Err(VramError::ShardFreed { .. }) => Ok(None),
                Err(error) => Err(error),
            })?;
        let named = named.into_iter().flatten().collect();
        match exclusive_among(core, named, wait, |entries| free_all(core, entries)) {
            // Another call freed a shard while this call waited; that can happen once to each
            // shard.
            Err(VramError::ShardFreed { .. }) => {}
            done => return done,
        }
    }
}

/// Frees shards. The caller is exclusive at all of their gates.
fn free_all(core: &Core, entries: &[Arc<Entry>]) -> Result<Vec<FreedReceipt>, VramError> {
    let mut passes = Vec::with_capacity(entries.len());
    for entry in entries {
        passes.push(entry.here()?.enter()?);
    }
    let _going = entries.first().and_then(|entry| entry.begin_on_model());
    // A shard whose bytes were not returned is freed as well, and keeps none of the others.
    let freed = each_piece(core, &lens_of(entries), entries, None, |_, entry| {
        Ok(free::free_entry(core, entry))
    })?;
    let mut failure = None;
    let mut receipts = Vec::with_capacity(freed.len());
    for one in freed {
        match one {
            Ok(receipt) => receipts.push(receipt),
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
    }
    let shards = ByteLen::from_usize(entries.len()).get();
    let (_, bytes) = telling::sum(receipts.iter().map(|receipt| receipt.bytes));
    telling::tell(core, entries, EventKind::ModelFreed { shards, bytes });
    failure.map_or(Ok(receipts), Err)
}

/// The number of device bytes that were freed.
#[must_use]
pub fn freed_bytes(receipts: &[FreedReceipt]) -> u64 {
    receipts.iter().fold(0, |sum, receipt| sum.saturating_add(receipt.bytes.get()))
}
