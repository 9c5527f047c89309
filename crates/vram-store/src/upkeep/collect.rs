//! Images that no manifest names.

use core::time::Duration;
use std::collections::BTreeSet;
use std::time::SystemTime;

use super::mark::{Mark, Marks};
use crate::error::StoreError;
use crate::naming::id::ImageId;
use crate::naming::layout::{IMAGES, Named, parse};
use crate::options::StoreOptions;
use crate::store::{Object, Store};

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
    /// Objects among the images and among the marks of collections whose keys are of neither.
    pub strange: Vec<String>,
    /// Objects that no manifest names, old enough to go, behind a link to a folder: they are never deleted.
    pub behind_links: Vec<String>,
    /// Marks of other collections, which are deleting or were killed: pushes wait for them for a while.
    pub marks: Vec<String>,
    /// Marks of killed collections that were removed.
    pub dead_marks: Vec<String>,
    /// Whether the unnamed ones were deleted.
    pub deleted: bool,
}

impl Store {
    /// Finds the images that no manifest names, and deletes them if asked.
    ///
    /// An object younger than `grace` stays: a push sends its images before the manifest that names
    /// them. With any `grace`, a push that succeeds leaves no manifest without its images: it waits for
    /// collections that are deleting, and sends anew what they deleted. If a manifest, or a folder of
    /// manifests, cannot be read, nothing is deleted: what it names is not known.
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
        let named = self.named(options, &mut || Ok(()))?;
        let marks = Marks::find(self, options)?;
        let mut found = Collected { strange: marks.strange, ..Collected::default() };
        found.marks.extend(marks.marks.into_iter().map(|mark| mark.key));
        let oldest = SystemTime::now().checked_sub(grace);
        for Object { key, len, modified, behind_link, .. } in images {
            let Some(Named::Image(id) | Named::Parts(id)) = parse(&key) else {
                found.strange.push(key);
                continue;
            };
            if named.contains(&id) {
                found.named = found.named.saturating_add(1);
            } else if oldest.is_none_or(|oldest| modified > oldest) {
                found.too_young = found.too_young.saturating_add(1);
            } else if behind_link.is_some() {
                found.behind_links.push(key);
            } else {
                found.unnamed_bytes = found.unnamed_bytes.saturating_add(len);
                found.unnamed.push(key);
            }
        }
        if delete {
            self.delete_unnamed(grace, &mut found, options)?;
        }
        Ok(found)
    }

    /// Deletes what no manifest names still, and is old enough still.
    fn delete_unnamed(
        &self,
        grace: Duration,
        found: &mut Collected,
        options: &StoreOptions<'_>,
    ) -> Result<(), StoreError> {
        let candidates = core::mem::take(&mut found.unnamed);
        found.unnamed_bytes = 0;
        found.deleted = true;
        if candidates.is_empty() && found.marks.is_empty() {
            return Ok(());
        }
        let (mut mark, dead) = Mark::put(self, options)?;
        found.marks.retain(|one| !dead.contains(one));
        found.dead_marks = dead;
        if candidates.is_empty() {
            return Ok(());
        }
        // After the mark: a push that writes its manifest later than this finds the mark, and waits.
        let named = self.named(options, &mut || mark.renew(options))?;
        for key in candidates {
            let Some(Named::Image(id) | Named::Parts(id)) = parse(&key) else { continue };
            if named.contains(&id) {
                found.named = found.named.saturating_add(1);
                continue;
            }
            mark.renew(options)?;
            // A push that found it there may have made it young.
            let Some(now) = self.look(&key, options)? else { continue };
            let oldest = SystemTime::now().checked_sub(grace);
            if oldest.is_none_or(|oldest| now.modified > oldest) {
                found.too_young = found.too_young.saturating_add(1);
                continue;
            }
            mark.is_fresh()?;
            self.delete(&key, options).inspect_err(|_may_be_under_way| mark.leave())?;
            found.unnamed_bytes = found.unnamed_bytes.saturating_add(now.len);
            found.unnamed.push(key);
        }
        Ok(())
    }

    /// The images that manifests name.
    fn named(
        &self,
        options: &StoreOptions<'_>,
        each: &mut dyn FnMut() -> Result<(), StoreError>,
    ) -> Result<BTreeSet<ImageId>, StoreError> {
        let mut named = BTreeSet::new();
        let survey = self.survey(None, options, each)?;
        if let Some((key, what)) = survey.hidden.first() {
            let why = format!("it is {what}, which could hide manifests: nothing is deleted");
            return Err(self.failed(format!("look into {key}"), &why));
        }
        for listed in survey.manifests {
            let manifest = listed.manifest.map_err(|why| self.refused(&listed.id, why))?;
            named.extend(manifest.shards.iter().map(|shard| shard.image));
        }
        Ok(named)
    }
}
