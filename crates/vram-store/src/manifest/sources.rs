//! Finding a manifest in a cache, in mirrors and in the store itself.

use vram_seal::KeyRing;

use super::passed::{Origin, first_of};
use super::{Trusted, Wanted};
use crate::error::StoreError;
use crate::options::StoreOptions;
use crate::pull::Cache;
use crate::store::Store;

impl Store {
    /// Finds a manifest, and proves it under the keys, or without any by its pin alone. It is taken from
    /// the cache, the mirrors and this store, in this order. Without a pin, this store alone says which
    /// manifests there are: the others are asked for those that it lists. A source that has a wrong one, or
    /// cannot be read, is told and passed over; one that stalls, or did lately, is asked when the others gave
    /// none. The cache keeps what was found.
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
        let cached = cache.map(|cache| (Origin::Cache, cache.store()));
        let mirrors = mirrors.iter().map(|one| (Origin::Mirror, one));
        let before: Vec<_> = cached.into_iter().chain(mirrors).collect();
        let (found, origin) = match (wanted.pin, keys) {
            (Some(pin), _) => first_of(&before, self, pin, options, find)?,
            (None, Some(keys)) => {
                let found = self.listed_manifest(&before, wanted, keys, options)?;
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
