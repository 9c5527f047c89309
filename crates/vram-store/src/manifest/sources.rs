//! Finding a manifest in a cache, in mirrors and in the store itself.

use vram_seal::KeyRing;

use super::passed::passed_over;
use super::{ManifestError, Trusted, Wanted};
use crate::error::StoreError;
use crate::naming::id::ManifestId;
use crate::options::StoreOptions;
use crate::pull::Cache;
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
    cache: Option<&Cache>,
    mirrors: &[Store],
    id: &ManifestId,
    options: &StoreOptions<'_>,
    find: impl Fn(&Store) -> Result<Trusted, StoreError>,
) -> Option<Result<(Trusted, Origin), StoreError>> {
    let cached = cache.map(|cache| (Origin::Cache, cache.store()));
    let mirrors = mirrors.iter().map(|one| (Origin::Mirror, one));
    for (origin, store) in cached.into_iter().chain(mirrors) {
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

impl Store {
    /// Finds a manifest, and proves it under the keys, or without any by its pin alone. It is taken from
    /// the cache, the mirrors and this store, in this order. Without a pin, this store alone says which
    /// manifests there are: the others are asked for those that it lists. A source that has a wrong one, or
    /// cannot be read, is told and passed over. The cache keeps what was found.
    ///
    /// # Errors
    ///
    /// Those of [`manifest`](Self::manifest) and [`pinned_manifest`](Self::pinned_manifest).
    pub fn manifest_from(
        &self,
        cache: Option<&Cache>,
        mirrors: &[Self],
        wanted: &Wanted<'_>,
        keys: Option<&KeyRing>,
        options: &StoreOptions<'_>,
    ) -> Result<Trusted, StoreError> {
        let find = |store: &Self| match keys {
            Some(keys) => store.manifest(wanted, keys, options),
            None => store.pinned_manifest(wanted, options),
        };
        let (found, origin) = match (wanted.pin, keys) {
            (Some(pin), _) => first_of(cache, mirrors, pin, options, find)
                .unwrap_or_else(|| find(self).map(|found| (found, Origin::Store)))?,
            (None, Some(keys)) => {
                let found = self.listed_manifest(cache, mirrors, wanted, keys, options)?;
                (found, Origin::Store)
            }
            (None, None) => (find(self)?, Origin::Store),
        };
        if let Some(cache) = cache.filter(|_| origin != Origin::Cache) {
            cache.keep_manifest(&found);
        }
        Ok(found)
    }
}
