//! Images that no manifest names.

use core::time::Duration;
use std::collections::BTreeSet;
use std::time::SystemTime;

use crate::error::StoreError;
use crate::naming::layout::{IMAGES, Named, parse};
use crate::options::StoreOptions;
use crate::store::Store;

/// What a collection found, and deleted.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Collected {
    /// Keys of objects that no manifest names, old enough to go.
    pub unnamed: Vec<String>,
    /// Bytes of these.
    pub unnamed_bytes: u64,
    /// Objects that no manifest names and that are too young: a push may be about to name them.
    pub too_young: u64,
    /// Objects that a manifest names.
    pub named: u64,
    /// Objects among the images whose keys are of no image.
    pub strange: Vec<String>,
    /// Whether the unnamed ones were deleted.
    pub deleted: bool,
}

impl Store {
    /// Finds the images that no manifest names, and deletes them if asked.
    ///
    /// An object younger than `grace` stays: a push sends its images before the manifest that names
    /// them. If a manifest cannot be read, nothing is deleted: what it names is not known.
    ///
    /// # Errors
    ///
    /// [`StoreError::Manifest`] for a manifest that cannot be read; those of the store.
    pub fn collect(
        &self,
        grace: Duration,
        delete: bool,
        options: &StoreOptions<'_>,
    ) -> Result<Collected, StoreError> {
        // Images first: one that is pushed and named meanwhile is not in this list.
        let images = self.list(IMAGES, options)?;
        let mut named = BTreeSet::new();
        for listed in self.list_manifests(None, options)? {
            let manifest = listed.manifest.map_err(|why| self.refused(&listed.id, why))?;
            named.extend(manifest.shards.iter().map(|shard| shard.image));
        }
        let mut found = Collected::default();
        let oldest = SystemTime::now().checked_sub(grace);
        for crate::store::Object { key, len, modified } in images {
            let Some(Named::Image(id) | Named::Parts(id)) = parse(&key) else {
                found.strange.push(key);
                continue;
            };
            if named.contains(&id) {
                found.named = found.named.saturating_add(1);
            } else if oldest.is_none_or(|oldest| modified > oldest) {
                found.too_young = found.too_young.saturating_add(1);
            } else {
                found.unnamed_bytes = found.unnamed_bytes.saturating_add(len);
                found.unnamed.push(key);
            }
        }
        if delete {
            for key in &found.unnamed {
                self.delete(key, options)?;
            }
            found.deleted = true;
        }
        Ok(found)
    }
}
