//! Verifying what a cache has: images without digests of parts, and those alone for which it has room.

use std::sync::Arc;

use vram_files::regular_file;

use super::verify::{Finding, StoreVerdict};
use crate::error::StoreError;
use crate::manifest::ShardEntry;
use crate::naming::layout::image_key;
use crate::naming::parts::Parts;
use crate::options::{StoreEvent, StoreOptions};
use crate::store::{Store, is_cache};

impl Store {
    /// Whether this is a folder with the mark of a cache.
    pub(super) fn is_cache(&self, options: &StoreOptions<'_>) -> Result<bool, StoreError> {
        let Some(root) = self.path_of("") else { return Ok(false) };
        let found = options.on_files(move || Ok(is_cache(&root)))?;
        found.map_err(|error| self.failed("look for the mark of a cache".to_owned(), &error))
    }

    /// Whether a cache lacks an image, as it may. Something else under its name is not nothing.
    pub(super) fn lacks(
        &self,
        shard: &ShardEntry,
        options: &StoreOptions<'_>,
    ) -> Result<bool, StoreError> {
        Ok(self.look(&image_key(&shard.image), options)?.is_none())
    }

    /// Without the key and without digests of parts: the digest of all bytes is the image's name.
    pub(super) fn verify_whole(
        &self,
        shard: &ShardEntry,
        options: &StoreOptions<'_>,
        verdict: &mut StoreVerdict,
    ) -> Result<(), StoreError> {
        let key = image_key(&shard.image);
        let Some(path) = self.path_of(&key) else { return Ok(()) };
        let digest = options.on_files(move || {
            let file = regular_file::open_regular(&path)?;
            let len = file.metadata()?.len();
            Parts::of_file(&file, len).map(|parts| *parts.id())
        })?;
        let digest = digest.map_err(|error| self.failed(format!("read {key}"), &error))?;
        if digest == shard.image {
            let (done, total) = (shard.image_len, shard.image_len);
            verdict.bytes = verdict.bytes.saturating_add(done);
            let source = Arc::clone(self.name());
            options.tell(&StoreEvent::Progress { done, total, source });
        } else {
            let what = "its bytes are not those of the image of this name".to_owned();
            verdict.findings.push(Finding { key, part: None, what, unread: false });
        }
        Ok(())
    }
}
