//! Frees all shards of a model, or none.

use std::sync::Arc;

use crate::error::VramError;
use crate::models::{ModelHandle, together};
use crate::parts::Core;
use crate::room::{FreedReceipt, free};
use crate::shard::Entry;

/// Frees all shards of a model, or none.
pub fn free_model(core: &Core, model: &ModelHandle) -> Result<Vec<FreedReceipt>, VramError> {
    loop {
        let mut named = Vec::new();
        for shard in model.shards() {
            match core.resolve(shard) {
                Ok(entry) => named.push((shard, entry)),
                Err(VramError::ShardFreed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        match together::exclusive_among(named, |entries| free_all(core, entries)) {
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
    let mut receipts = Vec::with_capacity(entries.len());
    let mut failure = None;
    for entry in entries {
        match free::free_entry(core, entry) {
            Ok(receipt) => receipts.push(receipt),
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
    }
    failure.map_or(Ok(receipts), Err)
}
