//! After the manifest: every object that it names is looked for again, behind every collection.
//!
//! A collection puts a mark, and reads the manifests after that. A push writes its manifest, and looks for
//! marks after that. So one of the two sees the other: a collection that begins later finds the manifest,
//! and keeps what it names; one that is under way is waited for, and what it deleted is sent anew.

use super::{Push, Sent, image::Sealed, seal};
use crate::error::StoreError;
use crate::manifest::{Manifest, ShardEntry};
use crate::naming::layout::{image_key, parts_key};
use crate::naming::parts::Parts;
use crate::options::StoreOptions;
use crate::store::Store;
use crate::upkeep::wait_for_collections;

/// How often what is gone is sent: the first time because of a collection, and there is no reason for more.
const ROUNDS: usize = 2;

impl Store {
    /// Makes sure that all that a manifest names is there, and stays.
    pub(super) fn settle(
        &self,
        push: &Push<'_>,
        manifest: &Manifest,
        options: &StoreOptions<'_>,
        sent: &mut Sent,
    ) -> Result<(), StoreError> {
        for round in 0..=ROUNDS {
            wait_for_collections(self, options)?;
            let mut gone = Vec::new();
            for shard in &manifest.shards {
                options.go_on()?;
                if !self.has_both(shard, options)? {
                    gone.push(shard);
                }
            }
            let Some(first) = gone.first() else { return Ok(()) };
            if round == ROUNDS {
                let why = "it was deleted while it was pushed, though a manifest names it; push again when \
                           nothing deletes there";
                return Err(self.failed(format!("keep {}", image_key(&first.image)), &why));
            }
            for shard in gone {
                let at = usize::try_from(shard.index).unwrap_or(usize::MAX);
                let Some(path) = push.files.get(at) else { continue };
                let (file, report) = seal(push, shard.index, path, options)?;
                let sealed = Sealed::new(shard.index, file, &report)?;
                if sealed.entry != *shard {
                    let what = format!(
                        "{} was changed while it was pushed: push it again",
                        path.display()
                    );
                    return Err(StoreError::config(what));
                }
                self.push_image(&sealed, options, sent)?;
            }
        }
        Ok(())
    }

    fn has_both(&self, shard: &ShardEntry, options: &StoreOptions<'_>) -> Result<bool, StoreError> {
        let image = self.len(&image_key(&shard.image), options)?;
        let parts = self.len(&parts_key(&shard.image), options)?;
        let parts_len = Parts::object_len(shard.image_len);
        Ok(image == Some(shard.image_len) && parts == Some(parts_len))
    }
}
