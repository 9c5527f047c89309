//! A folder of images on this machine: bounded, and believed as little as any other source.

mod mark;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use vram_alloc::ByteLen;
use vram_files::{WholeFile, folder};
use vram_seal::KeyRing;

use mark::{Found, make, usable};

use crate::error::{Room, StoreError};
use crate::manifest::{Trusted, Wanted};
use crate::naming::id::ImageId;
use crate::naming::layout::{IMAGES, Named, image_key, manifest_key, parse};
use crate::options::{StoreOptions, within};
use crate::store::{PATIENCE, Store, begin, delete, is_apart, overlap};

/// The modes of its folders and files: what a cache has is its owner's.
const MODES: (u32, u32) = (0o700, 0o600);
/// The most manifests of one model that a cache keeps.
const MANIFESTS_MAX: usize = 16;

/// A bounded folder of images, laid out as a store. What is in it is verified whenever it is used, and
/// removed if it is wrong. The images that were not used for the longest time go first.
///
/// Calls that run at the same time each make room for their own images. So the folder may hold more than
/// its limit while they run; each one removes what is too much when it has kept an image, and after the
/// last one the limit holds.
#[derive(Clone, Debug)]
pub struct Cache {
    store: Store,
    folder: PathBuf,
    /// The folder as the caller named it.
    named: PathBuf,
    limit: u64,
    /// Whether it is changed: not by a look at what a call would find.
    writes: bool,
}

/// An image in the cache.
struct Entry {
    id: ImageId,
    key: String,
    len: u64,
    used: SystemTime,
}

impl Cache {
    /// Refuses a folder that is one of these stores, lies in one, or has one in it: what a cache has no room
    /// for, it removes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Config`] with both; [`StoreError::File`] if the folder cannot be looked at.
    pub fn check_apart<'a>(
        path: impl AsRef<Path>,
        stores: impl IntoIterator<Item = &'a Store>,
    ) -> Result<(), StoreError> {
        let path = path.as_ref();
        for store in stores {
            let Some(folder) = store.path_of("") else { continue };
            let cache = path.to_path_buf();
            let found = within(PATIENCE, move || overlap(&cache, &folder));
            if found.map_err(|error| StoreError::io("open the cache", path, error))? {
                return Err(StoreError::config(format!(
                    "the cache {} and the store {} are one folder, or one lies in the other: a cache \
                     removes what it has no room for; give it a folder of its own",
                    path.display(),
                    store.name()
                )));
            }
        }
        Ok(())
    }

    /// Opens a cache folder of at most `limit` bytes, and makes it if there is none. A folder that is not
    /// empty is a cache if it has the mark of one, the file `.vram-cache`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Config`] for a folder with other things in it, such as a store; [`StoreError::File`],
    /// [`StoreError::Address`].
    pub fn open(path: impl AsRef<Path>, limit: ByteLen) -> Result<Self, StoreError> {
        let path = path.as_ref();
        if let Found::Nothing | Found::Empty = usable(path)? {
            let made = path.to_path_buf();
            within(PATIENCE, move || make(&made))
                .map_err(|error| StoreError::io("make the cache", path, error))?;
        }
        Self::at(path, limit, true)
    }

    /// Opens a cache as it is, to look at what a call would find: nothing is made, kept or removed. `None`
    /// if there is none yet, and [`open`](Self::open) would make one.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn look(path: impl AsRef<Path>, limit: ByteLen) -> Result<Option<Self>, StoreError> {
        let path = path.as_ref();
        match usable(path)? {
            Found::Cache => Self::at(path, limit, false).map(Some),
            _ => Ok(None),
        }
    }

    fn at(path: &Path, limit: ByteLen, writes: bool) -> Result<Self, StoreError> {
        let folder =
            fs::canonicalize(path).map_err(|e| StoreError::io("open the cache", path, e))?;
        let named = path.to_path_buf();
        Ok(Self { store: Store::folder(path)?, folder, named, limit: limit.get(), writes })
    }

    /// Bytes of all images in the cache.
    #[must_use]
    pub fn used(&self) -> ByteLen {
        let sum = |sum: u64, entry: &Entry| sum.saturating_add(entry.len);
        ByteLen::new(self.entries().iter().fold(0, sum))
    }

    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn path_of(&self, image: &ImageId) -> PathBuf {
        self.folder.join(image_key(image))
    }

    /// Refuses images behind a link to a folder, which are of somebody else: nothing is written there.
    pub(crate) fn check_own<'i>(
        &self,
        images: impl IntoIterator<Item = &'i ImageId>,
    ) -> Result<(), StoreError> {
        images.into_iter().map(image_key).try_for_each(|key| {
            is_apart(&self.folder, &key)
                .map_err(|error| StoreError::io("write", &self.named.join(&key), error))
        })
    }

    /// Notes that an image was used.
    pub(crate) fn touch(&self, image: &ImageId) {
        if is_apart(&self.folder, &image_key(image)).is_err() {
            return;
        }
        if let Ok(file) = File::options().append(true).open(self.path_of(image)) {
            let _unchanged = file.set_modified(SystemTime::now());
        }
    }

    pub(crate) fn remove(&self, image: &ImageId) -> bool {
        self.writes && folder::remove_beneath(&self.folder, Path::new(&image_key(image))).is_ok()
    }

    /// Whether a file of the right length is there. It may still be wrong.
    pub(crate) fn may_have(&self, image: &ImageId, len: u64) -> bool {
        fs::metadata(self.path_of(image)).is_ok_and(|found| found.is_file() && found.len() == len)
    }

    /// Makes room for `needed` bytes, before the first of them is fetched.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoRoom`] if the limit or the disk has no room, even without all images but
    /// `keep`. Nothing is removed then.
    pub(crate) fn make_room(
        &self,
        needed: u64,
        keep: &BTreeSet<ImageId>,
    ) -> Result<(), StoreError> {
        let mut entries = self.entries();
        entries.sort_by_key(|entry| entry.used);
        let mut used = entries.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.len));
        let mut free = folder::free_bytes(&self.folder).unwrap_or(u64::MAX);
        let mut leave = Vec::new();
        for entry in entries.iter().filter(|entry| !keep.contains(&entry.id)) {
            if used.saturating_add(needed) <= self.limit && needed <= free {
                break;
            }
            used = used.saturating_sub(entry.len);
            free = free.saturating_add(entry.len);
            leave.push(&entry.key);
        }
        let room = self.limit.saturating_sub(used).min(free);
        if needed > room {
            let (needed, room) = (ByteLen::new(needed), ByteLen::new(room));
            let of = if room.get() < free { Room::Limit } else { Room::Disk };
            return Err(StoreError::NoRoom { folder: self.named.clone(), needed, room, of });
        }
        for key in leave {
            // Gone already, if another call made room at the same time.
            delete(&self.folder, key)
                .map_err(|error| StoreError::io("remove", &self.named.join(key), error))?;
        }
        Ok(())
    }

    /// Refuses images that are more than the limit together.
    pub(crate) fn check_limit(&self, needed: u64) -> Result<(), StoreError> {
        if needed <= self.limit {
            return Ok(());
        }
        let (needed, room) = (ByteLen::new(needed), ByteLen::new(self.limit));
        Err(StoreError::NoRoom { of: Room::Limit, folder: self.named.clone(), needed, room })
    }

    /// Removes what is too much, after calls at the same time have each kept their own images.
    pub(crate) fn hold_limit(&self, keep: &BTreeSet<ImageId>) {
        if !self.writes {
            return;
        }
        if let Err(error) = self.make_room(0, keep) {
            tracing::warn!("the cache may hold more than its limit: {error}");
        }
    }

    /// Begins a file that becomes an image of the cache when it is published.
    pub(crate) fn begin(&self, image: &ImageId) -> Option<WholeFile> {
        begin(&self.folder, &image_key(image), MODES).ok()
    }

    /// Finds a pinned manifest that was kept here, and proves it as one of any other store. Without a pin
    /// the answer is always an error: what is newest, the store alone decides.
    ///
    /// # Errors
    ///
    /// Those of [`Store::manifest`].
    pub fn manifest(
        &self,
        wanted: &Wanted<'_>,
        keys: &KeyRing,
        options: &StoreOptions<'_>,
    ) -> Result<Trusted, StoreError> {
        if wanted.pin.is_none() {
            return Err(StoreError::config("a manifest in a cache is found by its pin alone"));
        }
        self.store.manifest(wanted, keys, options)
    }

    /// Keeps a manifest beside the images, so that its model can be loaded while the store cannot be
    /// reached. Of each model the last 16 are kept. A failure costs a later load its speed alone.
    pub fn keep_manifest(&self, manifest: &Trusted) {
        if !self.writes {
            return;
        }
        let stated = manifest.manifest();
        let key = manifest_key(&stated.model, stated.revision, manifest.id());
        let path = self.folder.join(&key);
        let keep = || -> io::Result<()> {
            let models = path.parent().unwrap_or(&self.folder);
            let mut file = begin(&self.folder, &key, MODES)?;
            file.write_all(&stated.to_bytes())?;
            file.publish()?;
            forget_oldest(models, MANIFESTS_MAX)
        };
        if let Err(error) = keep() {
            tracing::warn!("a manifest was not kept in the cache: {error}");
        }
    }

    /// Its images. What lies behind a link to a folder is none of them.
    fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        if is_apart(&self.folder, &format!("{IMAGES}/")).is_err() {
            return entries;
        }
        let folders = fs::read_dir(self.folder.join(IMAGES)).into_iter().flatten();
        for folder in folders.filter_map(Result::ok) {
            if !folder.file_type().is_ok_and(|found| found.is_dir()) {
                continue;
            }
            let files = fs::read_dir(folder.path()).into_iter().flatten();
            for file in files.filter_map(Result::ok) {
                let path = file.path();
                let key = path.strip_prefix(&self.folder).ok().and_then(Path::to_str);
                let (Some(Named::Image(id)), Ok(found)) = (key.and_then(parse), file.metadata())
                else {
                    continue;
                };
                let used = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                entries.push(Entry { id, key: image_key(&id), len: found.len(), used });
            }
        }
        entries
    }
}

/// Removes all but the last manifests of a folder.
fn forget_oldest(folder: &Path, keep: usize) -> io::Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // Files that are being written have other names.
        if path.extension().is_some_and(|it| it == "manifest") {
            found.push((fs::metadata(&path)?.modified()?, path));
        }
    }
    found.sort();
    for (_, path) in found.iter().rev().skip(keep) {
        fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn the_images_that_were_used_last_stay_and_the_limit_holds() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), ByteLen::new(300)).unwrap();
        let ids: Vec<_> = (0..3_u8).map(|n| ImageId::of(&[n])).collect();
        for (age, id) in (1..).zip(&ids) {
            let path = cache.path_of(id);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, [0; 100]).unwrap();
            let used = SystemTime::now() - Duration::from_secs(1000 * age);
            File::options().append(true).open(&path).unwrap().set_modified(used).unwrap();
        }
        let there = |n: usize| cache.may_have(&ids[n], 100);
        assert_eq!(cache.used().get(), 300);
        cache.touch(&ids[2]);
        cache.make_room(50, &BTreeSet::new()).unwrap();
        assert!(there(0) && !there(1) && there(2), "the second one was not used for the longest");
        let keep: BTreeSet<_> = [ids[0]].into();
        let refused = cache.make_room(201, &keep);
        assert!(matches!(refused, Err(StoreError::NoRoom { needed, room, .. })
            if needed.get() == 201 && room.get() == 200));
        assert!(there(0) && there(2), "a refusal removes nothing");
        cache.make_room(200, &keep).unwrap();
        assert!(there(0) && !there(2));
        // Two calls at the same time have each kept their own.
        for id in &ids {
            fs::write(cache.path_of(id), [0; 200]).unwrap();
        }
        cache.hold_limit(&keep);
        assert!(cache.may_have(&ids[0], 200) && cache.used().get() <= 300);
        assert!(cache.remove(&ids[0]) && !there(0));
    }

    #[test]
    fn what_has_not_the_mark_of_a_cache_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let open = |name: &str| Cache::open(at(name), ByteLen::new(1));
        fs::create_dir_all(at("other/v1/images")).unwrap();
        fs::create_dir_all(at("disk/lost+found")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        for name in ["new/deep", "empty", "disk"] {
            assert!(Cache::look(at(name), ByteLen::new(1)).unwrap().is_none(), "{name}");
            open(name).unwrap();
            open(name).unwrap();
            assert!(Cache::look(at(name), ByteLen::new(1)).unwrap().is_some(), "{name}");
        }
        let refused = open("other").unwrap_err();
        assert!(matches!(&refused, StoreError::Config { what } if what.contains("it has v1")));
        assert!(Cache::look(at("other"), ByteLen::new(1)).is_err());
        assert_eq!(fs::read_dir(at("other")).unwrap().count(), 1, "nothing was written");
        // And nobody pushes to where images are removed.
        let pushed_to = Store::open_or_create(at("empty").to_str().unwrap());
        assert!(pushed_to.unwrap_err().to_string().contains("it is a cache"));
    }
}
