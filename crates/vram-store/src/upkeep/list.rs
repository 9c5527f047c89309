//! What a store says that it holds. Nothing of it is proven.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::StoreError;
use crate::fetch::Answer;
use crate::manifest::{MANIFEST_LEN_MAX, Manifest, ManifestError, Unproven};
use crate::naming::id::ManifestId;
use crate::naming::layout::{MODELS, Named, manifest_key, parse};
use crate::options::{StoreEvent, StoreOptions};
use crate::store::{Object, Store};

/// A manifest in a listing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its digest, as its key says.
    pub id: ManifestId,
    /// Its revision, as its key says.
    pub revision: u64,
    /// What it states; or why it is no manifest of that name.
    pub manifest: Result<Manifest, ManifestError>,
}

/// The manifests of a store.
pub(super) struct Survey {
    pub(super) manifests: Vec<Listed>,
    /// Keys of what lies among them and is neither file nor folder, and what it is: where a link leads to may be
    /// manifests when it is there again.
    pub(super) hidden: Vec<(String, &'static str)>,
}

impl Store {
    /// Lists all manifests, or those of one model, in the order of their keys. None of them is proven.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub fn list_manifests(
        &self,
        model: Option<&str>,
        options: &StoreOptions<'_>,
    ) -> Result<Vec<Listed>, StoreError> {
        Ok(self.survey(model, options, &mut || Ok(()))?.manifests)
    }

    /// As [`list_manifests`](Self::list_manifests), with what could hide others. `each` is called before each
    /// that is read.
    pub(super) fn survey(
        &self,
        model: Option<&str>,
        options: &StoreOptions<'_>,
        each: &mut dyn FnMut() -> Result<(), StoreError>,
    ) -> Result<Survey, StoreError> {
        let prefix = model.map_or_else(|| MODELS.to_owned(), crate::naming::layout::model_folder);
        let (mut found, mut hidden) = (Vec::new(), Vec::new());
        let listed = self.list(&prefix, options)?;
        let links: BTreeSet<_> = listed.iter().filter_map(|one| one.behind_link.as_ref()).collect();
        for link in links {
            let (store, link) = (Arc::clone(self.name()), Arc::from(&**link));
            options.tell(&StoreEvent::FollowsLink { store, link });
        }
        for Object { key, odd, .. } in listed {
            let Some(Named::Manifest { revision, id, .. }) = parse(&key) else {
                hidden.extend(odd.map(|what| (key, what)));
                continue;
            };
            each()?;
            // What is wrong with one object is told of it, and keeps nothing from the others.
            let read = match self.answer(&key, MANIFEST_LEN_MAX, true, options)? {
                Answer::Bytes(bytes) => {
                    Unproven::read(&bytes.into_vec(), &id).map(|one| one.manifest().clone())
                }
                Answer::Length { found, .. } if found > MANIFEST_LEN_MAX => {
                    Err(ManifestError::TooLong { found })
                }
                other => Err(ManifestError::Unreadable { why: other.to_string() }),
            };
            // In the folder of another model, nobody who asks for that model may find it.
            let manifest = read.and_then(|manifest| {
                if manifest_key(&manifest.model, manifest.revision, &id) == key {
                    Ok(manifest)
                } else {
                    let (model, revision) = (manifest.model, manifest.revision);
                    Err(ManifestError::Another { model, revision })
                }
            });
            found.push(Listed { key, id, revision, manifest });
        }
        Ok(Survey { manifests: found, hidden })
    }
}
