//! Pulling and loading the images of a manifest.

mod cache;

use core::cell::Cell;
use core::fmt;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vram_seal::KeyRing;

pub use cache::Cache;

use crate::error::{Part, StoreError};
use crate::fetch::CallSource;
use crate::manifest::{ShardEntry, Trusted};
use crate::naming::id::ImageId;
use crate::options::{StoreEvent, StoreOptions};
use crate::read::{
    Failure, ImageRead, Means, SealedReader, StoreContent, VerifiedImage, Wrong, fetch_file,
    verify_only,
};
use crate::store::{Store, is_among};

/// Why a load failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError<E> {
    /// The sources could not give the image.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The importer refused it for a reason of its own, such as no room.
    #[error("the image could not be admitted")]
    Admit(E),
}

/// Reads the images of a trusted manifest from several sources, in order: the cache, mirrors, and the
/// store itself. None of them is believed.
pub struct Pull<'a> {
    manifest: &'a Trusted,
    keys: Option<(&'a KeyRing, &'a [u8])>,
    cache: Option<&'a Cache>,
    sources: Vec<CallSource>,
    options: StoreOptions<'a>,
    done: Cell<u64>,
    total: Cell<u64>,
}

impl<'a> Pull<'a> {
    /// Reads from `store`, and opens every segment under the keys. `context` is what the images were
    /// sealed in, such as a tenant; empty for none.
    #[must_use]
    pub fn new(manifest: &'a Trusted, keys: &'a KeyRing, context: &'a [u8], store: &Store) -> Self {
        Self::with(manifest, Some((keys, context)), store)
    }

    /// Reads from `store` without the key: each part of 8 MiB is compared with digests that merge to
    /// the ids in the manifest. For mirrors and caches; the images stay sealed.
    #[must_use]
    pub fn without_key(manifest: &'a Trusted, store: &Store) -> Self {
        Self::with(manifest, None, store)
    }

    fn with(manifest: &'a Trusted, keys: Option<(&'a KeyRing, &'a [u8])>, store: &Store) -> Self {
        Self {
            manifest,
            keys,
            cache: None,
            sources: vec![CallSource::new(store.clone())],
            options: StoreOptions::new(),
            done: Cell::new(0),
            total: Cell::new(0),
        }
    }

    /// Adds a mirror: asked after the mirrors that were added before it, and before the store.
    #[must_use]
    pub fn mirror(mut self, store: &Store) -> Self {
        let last = self.sources.len().saturating_sub(1);
        self.sources.insert(last, CallSource::new(store.clone()));
        self
    }

    /// Sets the cache: asked first, and filled with what it lacks.
    #[must_use]
    pub fn cache(mut self, cache: &'a Cache) -> Self {
        self.cache = Some(cache);
        self.sources.insert(0, CallSource::cache(cache.store().clone()));
        self
    }

    /// Sets how the calls run.
    #[must_use]
    pub fn options(mut self, options: StoreOptions<'a>) -> Self {
        self.options = options;
        self
    }

    fn means(&self) -> Means<'a> {
        match self.keys {
            Some((keys, context)) => Means::Keys { keys, context: Some(context) },
            None => Means::Parts,
        }
    }

    fn read<'s>(&'s self, shard: &'s ShardEntry, sources: &[CallSource]) -> ImageRead<'s, 'a> {
        ImageRead::new(self.manifest, shard, self.means(), sources, &self.options)
    }

    fn begin(&self, shards: &[&ShardEntry]) {
        let sum = shards.iter().fold(0_u64, |sum, shard| sum.saturating_add(shard.image_len));
        self.total.set(sum);
        self.done.set(0);
    }

    fn advance(&self, len: u64, source: &str) {
        let done = self.done.get().saturating_add(len);
        self.done.set(done);
        let (total, source) = (self.total.get(), Arc::from(source));
        self.options.tell(&StoreEvent::Progress { done, total, source });
    }

    /// Fetches all images into a folder, as `00000.vseal` and so on; what is there is verified. An
    /// interrupted call goes on where it was. No file is removed or replaced.
    ///
    /// # Errors
    ///
    /// [`StoreError::InTheWay`] if a file of such a name is another one; [`StoreError`]. Images that were
    /// finished stay.
    pub fn to_folder(&self, folder: &Path) -> Result<Vec<VerifiedImage>, StoreError> {
        let shards: Vec<_> = self.manifest.shards().iter().collect();
        self.begin(&shards);
        self.is_no_store(folder)?;
        self.nothing_in_the_way(folder, &shards)?;
        let mut images = Vec::new();
        for shard in shards {
            let target = name_in(folder, shard);
            let read = self.read(shard, &self.sources);
            let mut done = |len, from: &str| self.advance(len, from);
            let image = fetch_file(&read, &target, Wrong::Keep, &mut done);
            forget_wrong(self.cache, &read);
            images.push(image?);
        }
        Ok(images)
    }

    /// Refuses a folder that is one of the stores, or lies among the objects of one.
    fn is_no_store(&self, folder: &Path) -> Result<(), StoreError> {
        for source in &self.sources {
            let Some(root) = source.store.path_of("") else { continue };
            let target = folder.to_path_buf();
            let found = self.options.on_files(move || is_among(&target, &root))?;
            if found.map_err(|error| StoreError::io("open", folder, error))? {
                return Err(StoreError::config(format!(
                    "{} is the store {}, or lies in it: give another folder for the images",
                    folder.display(),
                    source.store.name()
                )));
            }
        }
        Ok(())
    }

    /// Refuses files of another length, and what is no file, before anything is fetched.
    fn nothing_in_the_way(&self, folder: &Path, shards: &[&ShardEntry]) -> Result<(), StoreError> {
        let expected = |shard: &&ShardEntry| (name_in(folder, shard), shard.image_len, shard.image);
        let expected: Vec<_> = shards.iter().map(expected).collect();
        let another = move || {
            let wrong = |(path, len, _): &&(PathBuf, u64, ImageId)| {
                // A link that leads nowhere has a name as well, which is not free.
                let found = fs::metadata(path).or_else(|_nowhere| fs::symlink_metadata(path));
                found.is_ok_and(|found| !found.is_file() || found.len() != *len)
            };
            Ok(expected.iter().find(wrong).cloned())
        };
        let found = self.options.on_files(another)?;
        match found.map_err(|error| StoreError::io("read", folder, error))? {
            Some((path, _, image)) => Err(StoreError::InTheWay { path, image }),
            None => Ok(()),
        }
    }

    /// Fetches all images into the cache, after room for all of them was made.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoRoom`] before anything is fetched; [`StoreError`].
    pub fn to_cache(&self) -> Result<Vec<VerifiedImage>, StoreError> {
        let Some(cache) = self.cache else {
            return Err(StoreError::config("there is no cache to fetch into"));
        };
        let shards: Vec<_> = self.manifest.shards().iter().collect();
        self.begin(&shards);
        cache.check_own(shards.iter().map(|shard| &shard.image))?;
        Cache::check_apart(cache.folder(), self.sources.iter().filter_map(CallSource::other))?;
        // Also where nothing is fetched: in the end, not all images of it would stay.
        let whole: BTreeSet<_> = shards.iter().map(|one| (one.image, one.image_len)).collect();
        cache.check_limit(whole.iter().fold(0, |sum, (_, len)| len.saturating_add(sum)))?;
        self.room_for(cache, &shards)?;
        let mut images = Vec::new();
        for shard in shards {
            let target = cache.path_of(&shard.image);
            // The cache is the target, and a source as well: what it has needs no other one.
            let read = self.read(shard, &self.sources);
            let mut done = |len, from: &str| self.advance(len, from);
            let image = fetch_file(&read, &target, Wrong::Replace, &mut done)?;
            cache.touch(&shard.image);
            images.push(image);
        }
        cache.hold_limit(&self.named());
        Ok(images)
    }

    /// The images that the manifest names.
    fn named(&self) -> BTreeSet<ImageId> {
        self.manifest.shards().iter().map(|one| one.image).collect()
    }

    /// Makes room in the cache for those of these images that it lacks.
    fn room_for(&self, cache: &Cache, shards: &[&ShardEntry]) -> Result<(), StoreError> {
        // Room is made by removing.
        Cache::check_apart(cache.folder(), self.sources.iter().filter_map(CallSource::other))?;
        let absent: BTreeSet<(ImageId, u64)> = shards
            .iter()
            .map(|shard| (shard.image, shard.image_len))
            .filter(|(image, len)| !cache.may_have(image, *len))
            .collect();
        let needed = absent.iter().fold(0_u64, |sum, (_, len)| sum.saturating_add(*len));
        cache.make_room(needed, &self.named())
    }

    /// Verifies every byte of a shard's image without keeping it.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn verify(&self, index: u64) -> Result<(), StoreError> {
        let shard = self.shard(index)?;
        self.begin(&[shard]);
        let read = self.read(shard, &self.sources);
        let verified = verify_only(&read, &|_all| true, &mut |len, from| self.advance(len, from));
        forget_wrong(self.cache, &read);
        verified
    }

    /// The content of a shard at any position, as a source: `VramManager::repair_from` mends a resident
    /// shard from it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if no source has the image's record and table.
    pub fn content(&self, index: u64) -> Result<StoreContent<'_, 'a>, StoreError> {
        let shard = self.shard(index)?;
        let cache = self.cache;
        let met = Box::new(move |read: &ImageRead<'_, '_>| forget_wrong(cache, read));
        StoreContent::open(self.read(shard, &self.sources), met)
    }

    /// Admits a shard by an importer that verifies every segment, such as
    /// `VramManager::import`. The record is proven to be the manifest's before the importer gets a
    /// byte. If the importer refuses a segment, the source that gave it is named and left out, and
    /// `admit` is called again; it must have rolled back by then. With a cache, the bytes go there in
    /// the same pass.
    ///
    /// # Arguments
    ///
    /// * `altered`: the part that an error of the importer is about, by [`Part::altered`]; `None` if it
    ///   has another reason.
    ///
    /// # Errors
    ///
    /// [`LoadError::Store`] if no source is left; [`LoadError::Admit`] with the importer's own error.
    pub fn load<T, E>(
        &self,
        index: u64,
        altered: impl Fn(&E) -> Option<Part>,
        mut admit: impl FnMut(&mut SealedReader<'_, '_>) -> Result<T, E>,
    ) -> Result<T, LoadError<E>> {
        let shard = self.shard(index)?;
        self.begin(&[shard]);
        let read = self.read(shard, &self.sources);
        let mut by_file = true;
        loop {
            let head = read.head()?;
            forget_wrong(self.cache, &read);
            let segment_len = head.opener.layout().segment_size().bytes().get();
            let copy = self.copy_for(shard, &read);
            let mut reader = SealedReader::new(&read, head, copy, by_file);
            match admit(&mut reader) {
                Ok(value) => {
                    self.done.set(shard.image_len.saturating_sub(reader.given()));
                    let from = reader.origin(Part::Content, segment_len);
                    let from = from.map_or_else(|| Arc::from(""), |(at, _)| read.sources.name(at));
                    self.advance(reader.given(), &from);
                    if let Some(copy) = reader.take_copy() {
                        // The importer has verified what the copy holds.
                        if let (Ok(()), Some(cache)) = (copy.publish(), self.cache) {
                            cache.hold_limit(&self.named());
                        }
                    } else if let Some(cache) = self.cache {
                        cache.touch(&shard.image);
                    }
                    return Ok(value);
                }
                Err(error) => {
                    let failure = reader.take_failure();
                    let part = altered(&error);
                    let origin =
                        part.and_then(|part| reader.origin(part, segment_len).zip(Some(part)));
                    match (failure, origin) {
                        (Some(Failure::File { source, why }), _) => {
                            by_file = false;
                            let source = read.sources.name(source);
                            self.options.tell(&StoreEvent::Retried { source, why });
                        }
                        (Some(Failure::Final(error)), _) => return Err(error.into()),
                        (None, Some(((source, past_caches), part))) => {
                            read.sources.lied(source, past_caches, part, &self.options);
                            forget_wrong(self.cache, &read);
                        }
                        (None, None) => return Err(LoadError::Admit(error)),
                    }
                }
            }
        }
    }

    /// The file in which what is loaded is kept, if there is a cache which lacks it and has room.
    fn copy_for(
        &self,
        shard: &ShardEntry,
        read: &ImageRead<'_, '_>,
    ) -> Option<vram_files::WholeFile> {
        let cache = self.cache?;
        // It comes from the cache.
        if read.sources.next() == Some(0) && cache.may_have(&shard.image, shard.image_len) {
            return None;
        }
        if let Err(error) = self.room_for(cache, &[shard]) {
            let source = Arc::clone(cache.store().name());
            self.options.tell(&StoreEvent::GaveUp { source, why: error.to_string() });
            return None;
        }
        cache.begin(&shard.image)
    }

    fn shard(&self, index: u64) -> Result<&'a ShardEntry, StoreError> {
        let at = usize::try_from(index).ok();
        at.and_then(|at| self.manifest.shards().get(at))
            .ok_or_else(|| StoreError::config(format!("the manifest has no shard {index}")))
    }
}

impl Drop for Pull<'_> {
    /// The limit of the cache holds when no call uses it, whether something was fetched or not.
    fn drop(&mut self) {
        if let Some(cache) = self.cache {
            cache.hold_limit(&BTreeSet::new());
        }
    }
}

/// Removes the file of the cache, the first source, that was found wrong.
fn forget_wrong(cache: Option<&Cache>, read: &ImageRead<'_, '_>) {
    let image = read.shard.image;
    if let Some(cache) = cache
        && read.sources.has_lied(0)
        && cache.remove(&image)
    {
        read.options.tell(&StoreEvent::Dropped { image, path: cache.path_of(&image) });
    }
}

/// The file of a shard in a folder of images.
fn name_in(folder: &Path, shard: &ShardEntry) -> PathBuf {
    folder.join(format!("{:05}.vseal", shard.index))
}

impl fmt::Debug for Pull<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pull")
            .field("manifest", self.manifest.id())
            .field("sources", &self.sources)
            .finish_non_exhaustive()
    }
}
