//! What is told of a source whose manifest was not taken.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::{ManifestError, Trusted};
use crate::error::StoreError;
use crate::naming::id::ManifestId;
use crate::options::{StoreEvent, StoreOptions};
use crate::store::Store;

/// Where a manifest came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Cache,
    Mirror,
    Store,
}

/// A manifest of this digest from the cache, the first mirror that has it, or the store; the others are told.
/// One that stalls, or did lately, is asked once more when all others gave none, with fewer tries than the last.
///
/// # Errors
///
/// That of the store.
pub(super) fn first_of(
    before: &[(Origin, &Store)],
    store: &Store,
    id: &ManifestId,
    options: &StoreOptions<'_>,
    find: impl Fn(&Store) -> Result<Trusted, StoreError>,
) -> Result<(Trusted, Origin), StoreError> {
    let all = before.iter().copied().chain([(Origin::Store, store)]);
    all.clone().for_each(|(_, one)| one.may_be_asked(options));
    let (late, prompt): (Vec<_>, Vec<_>) = all.partition(|(_, one)| one.record().is_late());
    let prompt = prompt.into_iter().map(|(origin, one)| (origin, one, false));
    let late = late.into_iter().map(|(origin, one)| (origin, one, true));
    let mut queue: VecDeque<_> = prompt.chain(late).collect();
    let mut of_store = None;
    while let Some((origin, one, was_late)) = queue.pop_front() {
        let (began, last) = (Instant::now(), queue.is_empty());
        let found = if last { find(one) } else { find(&one.hasty()) };
        let error = match found {
            Ok(found) => return Ok((found, origin)),
            // Nothing is left of the time, or nobody waits.
            Err(error @ (StoreError::Deadline { .. } | StoreError::Cancelled)) => {
                return Err(error);
            }
            Err(error) => error,
        };
        match &error {
            // These are the bytes; the caller does not have their key.
            StoreError::Manifest { source, .. }
                if matches!(**source, ManifestError::UnknownKey { .. }) =>
            {
                return Err(error);
            }
            _ if !last && !was_late && one.record().stalled_since(began) => {
                passed_over(one, id, &error, options);
                queue.push_back((origin, one, true));
            }
            _ if origin == Origin::Store => of_store = Some(error),
            StoreError::NotFound { .. } if origin == Origin::Cache => {}
            _ => passed_over(one, id, &error, options),
        }
    }
    Err(of_store.unwrap_or_else(|| StoreError::config("there is no store to ask")))
}

/// Tells why a source did not give a manifest, when another one does.
pub(super) fn passed_over(
    store: &Store,
    id: &ManifestId,
    error: &StoreError,
    options: &StoreOptions<'_>,
) {
    let source = Arc::clone(store.name());
    let event = match error {
        StoreError::Manifest { source: why, .. } if why.is_wrong() => {
            StoreEvent::ManifestRefused { source, manifest: *id, why: Arc::new((**why).clone()) }
        }
        StoreError::NotFound { .. } => {
            StoreEvent::GaveUp { source, why: format!("manifest {id} is not there") }
        }
        StoreError::Manifest { source: why, .. } => {
            StoreEvent::GaveUp { source, why: format!("manifest {id}: {why}") }
        }
        StoreError::Failed { action, why, .. } => {
            StoreEvent::GaveUp { source, why: format!("{action}: {why}") }
        }
        other => StoreEvent::GaveUp { source, why: other.to_string() },
    };
    options.tell(&event);
}

impl ManifestError {
    /// Returns true if the bytes are not those of a manifest of this name; false if the caller lacks the
    /// key, gave another context, or the bytes could not be read.
    #[must_use]
    pub const fn is_wrong(&self) -> bool {
        !matches!(self, Self::UnknownKey { .. } | Self::Context | Self::Unreadable { .. })
    }
}
