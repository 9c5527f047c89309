//! One store: a folder, a bucket or a server of files, by its address.

mod address;
mod write;

use core::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _};

use crate::error::StoreError;
use crate::options::StoreOptions;

pub(crate) use address::redact;

/// A place for sealed images: a folder, a bucket, or a server of files.
///
/// Nothing that it answers is believed. Cloning is cheap.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    /// Without credentials.
    name: Arc<str>,
    objects: Arc<dyn ObjectStore>,
    /// The same place, with requests that pass caches on the way.
    past_caches: Option<Arc<dyn ObjectStore>>,
    root: String,
    /// The folder, if it is one of this machine.
    folder: Option<PathBuf>,
}

impl Store {
    /// Opens a store: a folder (a path, or `file:///…`), and with the feature `cloud` `s3://`, `gs://`,
    /// `az://`, `http://` and `https://`. Credentials come from the environment, as the provider's own
    /// tools take them; an address that contains one is refused.
    ///
    /// # Errors
    ///
    /// [`StoreError::Address`].
    pub fn open(address: &str) -> Result<Self, StoreError> {
        match address::scheme(address) {
            None => Self::folder(address),
            Some(("file", path)) => Self::folder(path),
            Some((scheme, _)) => address::remote(scheme, address),
        }
    }

    /// As [`open`](Self::open), and makes the folder if there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Address`].
    pub fn open_or_create(address: &str) -> Result<Self, StoreError> {
        if let Some(folder) = address::folder(address) {
            fs::create_dir_all(folder).map_err(|error| address::refused(address, error))?;
        }
        Self::open(address)
    }

    /// As [`open`](Self::open); a folder that is not there is a store that has nothing, as a server that
    /// cannot be reached is one that answers nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::Address`].
    pub fn open_or_absent(address: &str) -> Result<Self, StoreError> {
        match address::folder(address) {
            Some(folder) if !Path::new(folder).exists() => {
                Ok(Self::over(address, Arc::new(InMemory::new())))
            }
            _ => Self::open(address),
        }
    }

    /// Opens a folder of this machine as a store.
    ///
    /// # Errors
    ///
    /// [`StoreError::Address`] if there is no such folder.
    pub fn folder(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let folder = fs::canonicalize(path).map_err(|error| address::refused(&name, error))?;
        if !folder.is_dir() {
            return Err(address::refused(&name, "it is a file, and a store is a folder"));
        }
        let local = LocalFileSystem::new_with_prefix(&folder)
            .map_err(|error| address::refused(&name, error))?;
        Ok(Self::new(&name, Arc::new(local), None, "", Some(folder)))
    }

    /// A store over any implementation of the trait. `name` is shown in errors and events, so it must
    /// contain no credential.
    #[must_use]
    pub fn over(name: &str, objects: Arc<dyn ObjectStore>) -> Self {
        Self::new(name, objects, None, "", None)
    }

    fn new(
        name: &str,
        objects: Arc<dyn ObjectStore>,
        past_caches: Option<Arc<dyn ObjectStore>>,
        root: &str,
        folder: Option<PathBuf>,
    ) -> Self {
        let root = root.trim_matches('/').to_owned();
        let name = Arc::from(name);
        Self { inner: Arc::new(Inner { name, objects, past_caches, root, folder }) }
    }

    /// The store's name in errors and events: its address without credentials.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.inner.name
    }

    /// The file that an object is, if the store is a folder of this machine.
    pub(crate) fn path_of(&self, key: &str) -> Option<PathBuf> {
        self.inner.folder.as_ref().map(|folder| folder.join(key))
    }

    pub(crate) fn objects(&self, past_caches: bool) -> &Arc<dyn ObjectStore> {
        match &self.inner.past_caches {
            Some(objects) if past_caches => objects,
            _ => &self.inner.objects,
        }
    }

    /// The name of an object as the store has it.
    pub(crate) fn key(&self, key: &str) -> Key {
        let root = &self.inner.root;
        if root.is_empty() { Key::from(key) } else { Key::from(format!("{root}/{key}")) }
    }

    /// The length of an object; `None` if there is none.
    pub(crate) fn len(
        &self,
        key: &str,
        options: &StoreOptions<'_>,
    ) -> Result<Option<u64>, StoreError> {
        let (objects, name) = (Arc::clone(self.objects(false)), self.key(key));
        let head = async move { objects.head(&name).await };
        match options.wait(head)? {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(format!("look for {key}"), &error)),
        }
    }

    /// All objects under a prefix, with their keys below the store's root.
    pub(crate) fn list(
        &self,
        prefix: &str,
        options: &StoreOptions<'_>,
    ) -> Result<Vec<(String, ObjectMeta)>, StoreError> {
        let (objects, name) = (Arc::clone(self.objects(false)), self.key(prefix));
        let list = async move { objects.list(Some(&name)).try_collect::<Vec<_>>().await };
        let found = match options.wait(list)? {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(self.failed(format!("list {prefix}"), &error)),
        };
        let root = &self.inner.root;
        let below = |meta: ObjectMeta| {
            let key = meta.location.as_ref().strip_prefix(root)?.trim_start_matches('/').to_owned();
            Some((key, meta))
        };
        let mut found: Vec<_> = found.into_iter().filter_map(below).collect();
        found.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(found)
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, key: &str, options: &StoreOptions<'_>) -> Result<(), StoreError> {
        let (objects, name) = (Arc::clone(self.objects(false)), self.key(key));
        let delete = async move { objects.delete(&name).await };
        match options.wait(delete)? {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(format!("delete {key}"), &error)),
        }
    }

    pub(crate) fn failed(&self, action: String, error: &object_store::Error) -> StoreError {
        StoreError::Failed { store: Arc::clone(self.name()), action, why: redact(error) }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.inner.name)
    }
}
