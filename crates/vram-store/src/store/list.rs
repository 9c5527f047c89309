//! What a store has: its objects by their keys, as it lists them.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt as _;
use object_store::ObjectMeta;

use super::{Store, caused, folder, is_there, stalled};
use crate::error::StoreError;
use crate::options::StoreOptions;

/// An object of a listing.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// Its key below the store's root.
    pub(crate) key: String,
    pub(crate) len: u64,
    pub(crate) modified: SystemTime,
    /// The first folder between the root and it that is a link: it is read, and never written or deleted.
    pub(crate) behind_link: Option<String>,
    /// What it is, if it is no file: nothing can be read of it.
    pub(crate) odd: Option<&'static str>,
}

impl Object {
    pub(crate) const fn new(key: String, len: u64, modified: SystemTime) -> Self {
        Self { key, len, modified, behind_link: None, odd: None }
    }
}

impl Store {
    /// All objects under a prefix, in the order of their keys.
    pub(crate) fn list(
        &self,
        prefix: &str,
        options: &StoreOptions<'_>,
    ) -> Result<Vec<Object>, StoreError> {
        let Some(root) = self.path_of("") else { return self.list_bucket(prefix, options) };
        self.list_folder(prefix, options, move |prefix| folder::list(&root, prefix))
    }

    /// The objects directly under a prefix. In a folder, no other folder is entered and no link followed:
    /// what is no regular file is odd.
    pub(crate) fn list_here(
        &self,
        prefix: &str,
        options: &StoreOptions<'_>,
    ) -> Result<Vec<Object>, StoreError> {
        let Some(root) = self.path_of("") else { return self.list_bucket(prefix, options) };
        self.list_folder(prefix, options, move |prefix| folder::list_here(&root, prefix))
    }

    fn list_folder(
        &self,
        prefix: &str,
        options: &StoreOptions<'_>,
        list: impl FnOnce(&str) -> std::io::Result<Vec<Object>> + Send + 'static,
    ) -> Result<Vec<Object>, StoreError> {
        let (root, name) = (self.path_of("").unwrap_or_default(), prefix.to_owned());
        let _asking = self.asking(options);
        // As many calls on files as there are objects: the deadline alone ends them.
        let found = options.on_files(move || {
            is_there(&root)?;
            list(&name)
        })?;
        found.map(sorted).map_err(|error| self.failed(format!("list {prefix}"), &error))
    }

    fn list_bucket(
        &self,
        prefix: &str,
        options: &StoreOptions<'_>,
    ) -> Result<Vec<Object>, StoreError> {
        let (objects, name) = (Arc::clone(self.objects(false)), self.key(prefix));
        let (root, stall) = (self.inner.root.clone(), options.limits.stall);
        let below = move |meta: ObjectMeta| {
            let key = meta.location.as_ref().strip_prefix(&*root)?;
            let key = key.trim_start_matches('/').to_owned();
            Some(Object::new(key, meta.size, meta.last_modified.into()))
        };
        let asking = self.asking(options);
        let list = async move {
            let mut found = Vec::new();
            let mut listed = objects.list(Some(&name));
            loop {
                match tokio::time::timeout(stall, listed.next()).await {
                    Err(_elapsed) => {
                        asking.stalled(&stalled(stall));
                        return Err(stalled(stall));
                    }
                    Ok(None) => return Ok(found),
                    Ok(Some(Ok(meta))) => {
                        asking.heard();
                        found.extend(below(meta));
                    }
                    Ok(Some(Err(object_store::Error::NotFound { .. }))) => {}
                    Ok(Some(Err(error))) => return Err(caused(&error)),
                }
            }
        };
        let found = options.wait(list)?;
        found.map(sorted).map_err(|why: String| self.failed(format!("list {prefix}"), &why))
    }
}

fn sorted(mut found: Vec<Object>) -> Vec<Object> {
    found.sort_by(|one, other| one.key.cmp(&other.key));
    found
}
