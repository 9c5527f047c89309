//! One store: a folder, a bucket or a server of files, by its address.

mod address;
#[cfg(feature = "cloud")]
mod bounded;
mod folder;
mod links;
mod list;
mod place;
mod record;
#[cfg(feature = "cloud")]
mod redirects;
mod write;

use core::fmt;
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _};

use crate::error::StoreError;
use crate::options::{StoreOptions, on_files, within};

use address::Place;
pub(crate) use address::{caused, mistyped, redact};
pub(crate) use folder::{CACHE_MARK, is_absent, is_cache, is_there, make_folder};
pub(crate) use links::{begin, delete, is_apart};
pub(crate) use list::Object;
pub(crate) use place::{is_among, overlap};
pub(crate) use record::{Asking, Places, Record};

/// How long the file system may take to find a folder, when it is opened as a store.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A place for sealed images: a folder, a bucket, or a server of files.
///
/// Nothing that it answers is believed. Cloning is cheap.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    /// Whether a stall is not tried again, since another source is left.
    hasty: bool,
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
    record: Arc<Record>,
}

impl Store {
    /// Opens a store: a folder (a path, or `file:///…` with `%20` for a space), and with the feature `cloud` `s3://`, `gs://`,
    /// `az://`, `http://` and `https://`. Credentials come from the environment, as the provider's own
    /// tools take them; an address that contains one is refused.
    ///
    /// # Errors
    ///
    /// [`StoreError::Address`].
    pub fn open(address: &str) -> Result<Self, StoreError> {
        match address::place(address)? {
            Place::Folder(folder) => Self::folder(folder),
            Place::Remote(scheme) => address::remote(scheme, address),
        }
    }

    /// Returns true for the path of a folder, as it is given: neither an address with a scheme, nor what is
    /// refused since it looks like a mistyped one.
    #[must_use]
    pub fn is_path(address: &str) -> bool {
        address::scheme(address).is_none() && mistyped(address).is_none()
    }

    /// As [`open`](Self::open), and makes the folder if there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Address`].
    pub fn open_or_create(address: &str) -> Result<Self, StoreError> {
        if let Place::Folder(folder) = address::place(address)? {
            let begin = move || {
                if let Some(store) = place::within_store(&folder)? {
                    let why = format!("it lies among the objects of the store {}", store.display());
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
                }
                make_folder(&folder, 0o755)?;
                Ok(is_cache(&folder))
            };
            let cache = within(PATIENCE, begin);
            if cache.map_err(|error| address::refused(address, error))? {
                let why =
                    "it is a cache, of which images are removed; a store is a folder of its own";
                return Err(address::refused(address, why));
            }
        }
        Self::open(address)
    }

    /// As [`open`](Self::open); a folder that is not there, such as a share that is not mounted, is a store
    /// that answers nothing until it is there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Address`].
    pub fn open_or_absent(address: &str) -> Result<Self, StoreError> {
        if let Place::Folder(folder) = address::place(address)? {
            let name = folder.display().to_string();
            let find = move || Ok((folder.try_exists()?, std::path::absolute(folder)?));
            let found = within(PATIENCE, find);
            let (there, folder) = found.map_err(|error| address::refused(address, error))?;
            if !there {
                // Calls on a folder are calls on its files.
                let none = Arc::new(InMemory::new());
                return Ok(Self::new(&name, none, None, "", Some(folder)));
            }
        }
        Self::open(address)
    }

    /// Opens a folder of this machine as a store.
    ///
    /// # Errors
    ///
    /// [`StoreError::Address`] if there is no such folder.
    pub fn folder(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let named = path.to_path_buf();
        let find = move || {
            let folder = fs::canonicalize(named)?;
            let is_folder = fs::metadata(&folder)?.is_dir();
            Ok((folder, is_folder))
        };
        let (folder, is_folder) =
            within(PATIENCE, find).map_err(|error| address::refused(&name, error))?;
        if !is_folder {
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
        let (name, root, record) = (Arc::from(name), String::new(), Arc::default());
        // The name is the caller's: two places may have one.
        let inner = Inner { name, objects, past_caches: None, root, folder: None, record };
        Self { inner: Arc::new(inner), hasty: false }
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
        let record = Record::of(&name);
        let inner = Inner { name, objects, past_caches, root, folder, record };
        Self { inner: Arc::new(inner), hasty: false }
    }

    /// The same store, where a stall is not tried again: for a caller with another source.
    pub(crate) fn hasty(&self) -> Self {
        Self { hasty: true, ..self.clone() }
    }

    pub(crate) const fn is_hasty(&self) -> bool {
        self.hasty
    }

    /// What was heard of the place.
    pub(crate) fn record(&self) -> &Arc<Record> {
        &self.inner.record
    }

    /// Notes that a call may ask it: an error at the deadline says what came of it.
    pub(crate) fn may_be_asked(&self, options: &StoreOptions<'_>) {
        options.places().note(self.name(), self.record());
    }

    /// Begins a request of a call.
    pub(crate) fn asking(&self, options: &StoreOptions<'_>) -> Asking {
        self.may_be_asked(options);
        self.record().ask()
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

    /// Returns true if it is no folder of this machine: it may fail to answer, and answer later.
    pub(crate) fn is_remote(&self) -> bool {
        self.path_of("").is_none()
    }

    /// Returns true if this may be a store: all but a folder of this machine that has none of the layout's.
    ///
    /// # Errors
    ///
    /// [`StoreError::Failed`] if the folder is not there.
    pub fn is_laid_out(&self, options: &StoreOptions<'_>) -> Result<bool, StoreError> {
        let Some(root) = self.path_of("") else { return Ok(true) };
        let look = move || {
            is_there(&root)?;
            Ok(fs::symlink_metadata(root.join("v1")).is_ok())
        };
        let found = self.briefly(options, look)?;
        found.map_err(|error| self.failed("look into it".to_owned(), &error))
    }

    /// Length and age of an object, whatever it is; `None` if there is none.
    pub(crate) fn look(
        &self,
        key: &str,
        options: &StoreOptions<'_>,
    ) -> Result<Option<Object>, StoreError> {
        let action = || format!("look for {key}");
        let object = |len, modified| Object::new(key.to_owned(), len, modified);
        if let Some(path) = self.path_of(key) {
            let found = self.briefly(options, move || folder::look(&path))?;
            let found = found.map_err(|error| self.failed(action(), &error))?;
            return Ok(found.map(|(len, modified)| object(len, modified)));
        }
        let found = self.head(key, options)?;
        Ok(found.map(|meta| object(meta.size, meta.last_modified.into())))
    }

    /// What a bucket says of an object; `None` if there is none.
    fn head(
        &self,
        key: &str,
        options: &StoreOptions<'_>,
    ) -> Result<Option<ObjectMeta>, StoreError> {
        let (objects, name) = (Arc::clone(self.objects(false)), self.key(key));
        let head = async move { objects.head(&name).await };
        self.request(options, head, || format!("look for {key}"))
    }

    /// Makes objects of a folder young, where they are there and may be touched. In a bucket nothing is
    /// done: an object changes its age there only by being sent.
    pub(crate) fn refresh(
        &self,
        keys: &[&str],
        options: &StoreOptions<'_>,
    ) -> Result<(), StoreError> {
        let Some(root) = self.path_of("") else { return Ok(()) };
        let keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
        let touch = move || {
            for key in &keys {
                links::touch(&root, key);
            }
            Ok(())
        };
        let _not_ours_to_touch = self.briefly(options, touch)?;
        Ok(())
    }

    /// The length of an object; `None` if there is none.
    pub(crate) fn len(
        &self,
        key: &str,
        options: &StoreOptions<'_>,
    ) -> Result<Option<u64>, StoreError> {
        let action = || format!("look for {key}");
        if let Some(path) = self.path_of(key) {
            let root = self.path_of("").unwrap_or_default();
            let find = move || match folder::len(&path)? {
                None => is_there(&root).map(|()| None),
                found => Ok(found),
            };
            let found = self.briefly(options, find)?;
            return found.map_err(|error| self.failed(action(), &error));
        }
        Ok(self.head(key, options)?.map(|meta| meta.size))
    }

    /// Deletes an object. What lies behind a link to a folder is not deleted: that is an error.
    pub(crate) fn delete(&self, key: &str, options: &StoreOptions<'_>) -> Result<(), StoreError> {
        let action = || format!("delete {key}");
        if let Some(root) = self.path_of("") {
            let name = key.to_owned();
            let gone = self.briefly(options, move || delete(&root, &name))?;
            return gone.map_err(|error| self.failed(action(), &error));
        }
        let (objects, name) = (Arc::clone(self.objects(false)), self.key(key));
        self.request(options, async move { objects.delete(&name).await }, action).map(|_gone| ())
    }

    /// A request that has one short answer; `None` if the object is not there.
    fn request<T: Send + 'static>(
        &self,
        options: &StoreOptions<'_>,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
        action: impl Fn() -> String,
    ) -> Result<Option<T>, StoreError> {
        let patience = options.limits.stall;
        match self.answer_within(patience, options, request, &action)? {
            Ok(answer) => Ok(Some(answer)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(action(), &caused(&error))),
        }
    }

    /// Waits for the answer to a request, which is noted.
    pub(crate) fn answer_within<T: Send + 'static>(
        &self,
        patience: Duration,
        options: &StoreOptions<'_>,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
        action: impl Fn() -> String,
    ) -> Result<object_store::Result<T>, StoreError> {
        let asking = self.asking(options);
        let answer = options.wait_within(patience, request)?.map_err(|_elapsed| {
            let why = stalled(patience);
            asking.stalled(&why);
            self.failed(action(), &why)
        })?;
        asking.answered(
            &answer.as_ref().map_or_else(|error| caused(error), |_| "it answered".into()),
        );
        Ok(answer)
    }

    /// A short call on files of a folder.
    fn briefly<T: Send + 'static>(
        &self,
        options: &StoreOptions<'_>,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<io::Result<T>, StoreError> {
        let asking = self.asking(options);
        let answer = options.wait(on_files(Some(options.limits.stall), work))?;
        if let Err(error) = answer.as_ref()
            && error.kind() == io::ErrorKind::TimedOut
        {
            asking.stalled(&error.to_string());
        }
        Ok(answer)
    }

    pub(crate) fn failed(&self, action: String, error: &dyn fmt::Display) -> StoreError {
        StoreError::Failed { store: Arc::clone(self.name()), action, why: redact(error) }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.inner.name)
    }
}

/// What is said of a source that gives no answer.
pub(crate) fn stalled(stall: Duration) -> String {
    format!("no answer within {stall:?}")
}
