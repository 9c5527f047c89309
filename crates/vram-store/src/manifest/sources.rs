//! Finding a manifest in a cache, in mirrors and in the store itself.

use vram_seal::KeyRing;

use super::passed::passed_over;
use super::{Trusted, Wanted};
use crate::error::StoreError;
use crate::options::StoreOptions;
use crate::pull::Cache;
use crate::store::Store;

impl Store {
    /// Finds a manifest, and proves it under the keys, or without any by its pin alone. A pinned manifest
    /// is taken from the cache and the mirrors too, in this order; without a pin this store alone decides.
    /// A source that has a wrong one, or cannot be read, is told and passed over. The cache keeps what was
    /// found under the keys.
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
        let Some(pin) = wanted.pin else {
            let found = find(self)?;
            if let Some(cache) = cache {
                cache.keep_manifest(&found);
            }
            return Ok(found);
        };
        let cached = cache.filter(|_| keys.is_some());
        let before = cached.map(Cache::store).into_iter().chain(mirrors);
        let mut last = None;
        for (at, store) in before.enumerate() {
            let from_cache = cached.is_some() && at == 0;
            match find(store) {
                Ok(found) if from_cache => return Ok(found),
                Ok(found) => {
                    last = Some(found);
                    break;
                }
                // Nothing is left of the time, or nobody waits.
                Err(error @ (StoreError::Deadline { .. } | StoreError::Cancelled)) => {
                    return Err(error);
                }
                Err(StoreError::NotFound { .. }) if from_cache => {}
                Err(error) => passed_over(store, pin, &error, options),
            }
        }
        let found = match last {
            Some(found) => found,
            None => find(self)?,
        };
        if let Some(cache) = cached {
            cache.keep_manifest(&found);
        }
        Ok(found)
    }
}
