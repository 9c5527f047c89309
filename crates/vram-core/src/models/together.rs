//! Exclusive use of all shards of a model: how long a call waits for it, and what cancels the call.

use core::time::Duration;
use std::sync::Arc;

use vram_files::CancelToken;
use vram_seal::parallel::map_each;

use crate::error::VramError;
use crate::models::ModelHandle;
use crate::parts::Core;
use crate::resident::lease::refused;
use crate::shard::gate::{self, Patience};
use crate::shard::{Entry, SealedShard};
use crate::sync::Deadline;

/// How long a call on a whole model waits for other users of it, and what cancels the call.
///
/// ```
/// use std::time::Duration;
///
/// use vram_residency::{CallOptions, CancelToken};
///
/// let stop = CancelToken::new();
/// let options = CallOptions::new().within(Duration::from_secs(5)).cancel(&stop);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct CallOptions<'a> {
    pub(crate) timeout: Option<Duration>,
    pub(crate) cancel: Option<&'a CancelToken>,
}

impl<'a> CallOptions<'a> {
    /// Waits for other calls that are under way, for no lease, and cannot be cancelled.
    pub const fn new() -> Self {
        Self { timeout: None, cancel: None }
    }

    setters! {
        /// Sets how long the call waits for all other calls and leases on the shards to end.
        [const] fn within(timeout: Duration) => timeout = Some(timeout);
        /// Sets the token that cancels the call. It is looked at before each piece, and not while the
        /// call waits for others.
        [const] fn cancel(token: &'a CancelToken) => cancel = Some(token);
    }
}

/// How long an operation on all shards of a model waits for other users of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    patience: Patience,
    timeout: Duration,
}

impl Wait {
    /// Waits as long as the operation on one shard does: until `timeout` from now, for leases too;
    /// without a timeout for other calls only.
    pub(crate) fn within(timeout: Option<Duration>) -> Self {
        let until = |timeout| Patience::Until(Deadline::within(timeout));
        let patience = timeout.map_or(Patience::ForCalls, until);
        Self { patience, timeout: timeout.unwrap_or(Duration::MAX) }
    }
}

/// Runs `work` on all shards of a model as their exclusive user.
pub(crate) fn exclusive_all<T>(
    core: &Core,
    model: &ModelHandle,
    wait: Wait,
    work: impl FnOnce(&[Arc<Entry>]) -> Result<T, VramError>,
) -> Result<T, VramError> {
    let named = map_each(core.threads, model.shards().collect(), |shard| {
        Ok::<_, VramError>((shard, core.resolve(shard)?))
    })?;
    exclusive_among(core, named, wait, work)
}

/// Like [`exclusive_all`](Self::exclusive_all), on shards that were found already.
pub(crate) fn exclusive_among<T>(
    core: &Core,
    named: Vec<(&SealedShard, Arc<Entry>)>,
    wait: Wait,
    work: impl FnOnce(&[Arc<Entry>]) -> Result<T, VramError>,
) -> Result<T, VramError> {
    let (shards, entries): (Vec<_>, Vec<_>) = named.into_iter().unzip();
    let mut gates: Vec<_> = entries.iter().map(|entry| (&**entry, &entry.gate)).collect();
    gates.sort_unstable_by(|(one, _), (other, _)| one.id.cmp(&other.id));
    let passes = gate::exclusive_all(&gates, wait.patience);
    let _passes = passes.map_err(|(entry, refusal)| refused(entry, refusal, wait.timeout))?;
    for (entry, shard) in entries.iter().zip(shards) {
        core.still_good(entry, shard)?;
    }
    work(&entries)
}
