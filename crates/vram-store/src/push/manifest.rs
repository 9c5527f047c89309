//! The last step of a push: the manifest, and those of the same revision that are wrong in the store.

use std::sync::Arc;

use vram_seal::ManifestKey;

use super::{Push, WrongManifest};
use crate::error::StoreError;
use crate::fetch::Answer;
use crate::manifest::{MANIFEST_LEN_MAX, Manifest, ManifestError, Unproven, Wanted, made_again};
use crate::naming::id::ManifestId;
use crate::naming::layout::manifest_key;
use crate::options::{StoreEvent, StoreOptions};
use crate::store::Store;

/// The manifest that is in the store now, and what was found beside it.
pub(super) struct Kept {
    pub(super) manifest: Manifest,
    /// Whether it was there before.
    pub(super) present: bool,
    pub(super) mended: Vec<ManifestId>,
    pub(super) wrong: Vec<WrongManifest>,
}

impl Store {
    /// Writes the manifest, unless one of the same content is there. What is wrong under the name of
    /// another one of this revision is mended first, where its bytes can be had.
    pub(super) fn push_manifest(
        &self,
        push: &Push<'_>,
        manifest: Manifest,
        options: &StoreOptions<'_>,
    ) -> Result<Kept, StoreError> {
        let code = push.key.manifest_key();
        let wanted = wanted(push);
        let (mut present, mut mended, mut wrong) = (None, Vec::new(), Vec::new());
        for id in self.manifests_of(push.model, push.revision, options)? {
            let other = match self.unproven(&wanted, &id, options) {
                Ok(Unproven { manifest, .. }) => manifest,
                // It went since it was listed.
                Err(StoreError::NotFound { .. }) => continue,
                Err(StoreError::Manifest { source, .. }) => {
                    let right = self.right_bytes(push, &manifest, &id, &code, options)?;
                    let Some(right) = right else {
                        let key = manifest_key(push.model, push.revision, &id);
                        wrong.push(self.stays_wrong(id, key, *source, options));
                        continue;
                    };
                    self.keep_manifest(&right, options)?;
                    let store = Arc::clone(self.name());
                    options.tell(&StoreEvent::ManifestMended { store, manifest: id });
                    mended.push(id);
                    right
                }
                Err(error) => return Err(error),
            };
            if other.key_id != push.key.id() {
                continue;
            }
            if let Err(why) = other.check_code(&code) {
                let key = manifest_key(push.model, push.revision, &id);
                wrong.push(self.stays_wrong(id, key, why, options));
            } else if other.same_content(&manifest) {
                present = present.or(Some(other));
            } else {
                let (model, revision) = (push.model.to_owned(), push.revision);
                return Err(StoreError::Taken { model, revision, manifest: Box::new(id) });
            }
        }
        if let Some(manifest) = present {
            return Ok(Kept { manifest, present: true, mended, wrong });
        }
        let manifest = manifest.signed(&code);
        self.keep_manifest(&manifest, options)?;
        Ok(Kept { manifest, present: false, mended, wrong })
    }

    /// Writes a signed manifest and reads it back.
    fn keep_manifest(
        &self,
        manifest: &Manifest,
        options: &StoreOptions<'_>,
    ) -> Result<(), StoreError> {
        let bytes = manifest.to_bytes();
        let key = manifest_key(&manifest.model, manifest.revision, &manifest.id());
        self.put(&key, bytes.clone(), options)?;
        if self.object(&key, MANIFEST_LEN_MAX, true, options)? != Some(bytes) {
            // It must not stay: a reader could find it.
            let _still_refused_by_its_digest = self.delete(&key, options);
            return Err(self.not_kept(&key));
        }
        Ok(())
    }

    /// The manifest of this digest, which is wrong here: of a mirror, or made again of what is pushed.
    fn right_bytes(
        &self,
        push: &Push<'_>,
        pushed: &Manifest,
        id: &ManifestId,
        code: &ManifestKey,
        options: &StoreOptions<'_>,
    ) -> Result<Option<Manifest>, StoreError> {
        for mirror in &push.mirrors {
            match mirror.unproven(&wanted(push), id, options) {
                Ok(Unproven { manifest, .. }) => return Ok(Some(manifest)),
                Err(error @ (StoreError::Deadline { .. } | StoreError::Cancelled)) => {
                    return Err(error);
                }
                Err(_not_there_either) => {}
            }
        }
        let key = manifest_key(push.model, push.revision, id);
        let altered = match self.answer(&key, MANIFEST_LEN_MAX, true, options)? {
            Answer::Bytes(bytes) => bytes.into_vec(),
            _ => return Ok(None),
        };
        Ok(made_again(pushed, &altered, id, code))
    }

    fn stays_wrong(
        &self,
        id: ManifestId,
        key: String,
        why: ManifestError,
        options: &StoreOptions<'_>,
    ) -> WrongManifest {
        let (source, told) = (Arc::clone(self.name()), Arc::new(why.clone()));
        options.tell(&StoreEvent::ManifestRefused { source, manifest: id, why: told });
        WrongManifest { id, key, why }
    }
}

const fn wanted<'a>(push: &Push<'a>) -> Wanted<'a> {
    Wanted { model: push.model, revision: push.revision, pin: None }
}
