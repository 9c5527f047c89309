//! What is told of a source whose manifest was not taken.

use std::sync::Arc;

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

/// A manifest of this digest from the cache or the first mirror that has it; the others are told. `None`:
/// the store is to be asked.
pub(super) fn first_of(
    before: &[(Origin, &Store)],
    id: &ManifestId,
    options: &StoreOptions<'_>,
    find: impl Fn(&Store) -> Result<Trusted, StoreError>,
) -> Option<Result<(Trusted, Origin), StoreError>> {
    for (origin, store) in before.iter().copied() {
        match find(store) {
            Ok(found) => return Some(Ok((found, origin))),
            // Nothing is left of the time, or nobody waits.
            Err(error @ (StoreError::Deadline { .. } | StoreError::Cancelled)) => {
                return Some(Err(error));
            }
            // These are the bytes; the caller does not have their key.
            Err(StoreError::Manifest { store, id, source })
                if matches!(*source, ManifestError::UnknownKey { .. }) =>
            {
                return Some(Err(StoreError::Manifest { store, id, source }));
            }
            Err(StoreError::NotFound { .. }) if origin == Origin::Cache => {}
            Err(error) => passed_over(store, id, &error, options),
        }
    }
    None
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
