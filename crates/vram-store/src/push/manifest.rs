//! The last step of a push: the manifest, and those of the same revision that are wrong in the store.

use std::sync::Arc;

use vram_seal::ManifestKey;

use super::{Push, WrongManifest};
use crate::error::StoreError;
use crate::fetch::Answer;
use crate::manifest::{
    MANIFEST_LEN_MAX, Manifest, ManifestError, ShardEntry, SourceInfo, Unproven, Wanted, made_again,
};
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

/// The manifests of this revision and key that are there before anything is sent.
pub(super) struct Others(Vec<(ManifestId, Manifest)>);

impl Others {
    /// Refuses an image that they do not name, before it is sent.
    pub(super) fn agree(&self, push: &Push<'_>, entry: &ShardEntry) -> Result<(), StoreError> {
        let at = usize::try_from(entry.index).unwrap_or(usize::MAX);
        let differs = |(_, other): &&(_, Manifest)| other.shards.get(at) != Some(entry);
        self.0.iter().find(differs).map_or(Ok(()), |(id, _)| Err(taken(push, id)))
    }
}

fn taken(push: &Push<'_>, id: &ManifestId) -> StoreError {
    let (model, revision) = (push.model.to_owned(), push.revision);
    StoreError::Taken { model, revision, manifest: Box::new(*id) }
}

impl Store {
    /// Finds the manifests of this revision and key; refuses those that state something else than
    /// `stated`, whose images are not known yet.
    pub(super) fn others_of(
        &self,
        push: &Push<'_>,
        stated: &Manifest,
        options: &StoreOptions<'_>,
    ) -> Result<Others, StoreError> {
        let (code, wanted) = (push.key.manifest_key(), wanted(push));
        let mut others = Vec::new();
        for id in self.manifests_of(push.model, push.revision, options)? {
            let other = match self.unproven(&wanted, &id, options) {
                Ok(Unproven { manifest, .. }) => manifest,
                // The last step mends it, or tells of it.
                Err(StoreError::NotFound { .. } | StoreError::Manifest { .. }) => continue,
                Err(error) => return Err(error),
            };
            if other.key_id != push.key.id() || other.check_code(&code).is_err() {
                continue;
            }
            let blank = |one: &Manifest| Manifest {
                context: [0; 32],
                shards: Vec::new(),
                source: SourceInfo { digest: [0; 32], ..one.source.clone() },
                ..one.clone()
            };
            let fits = other.shards.len() == stated.shards.len();
            if !fits || !blank(&other).same_content(&blank(stated)) {
                return Err(taken(push, &id));
            }
            others.push((id, other));
        }
        Ok(Others(others))
    }

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
                return Err(taken(push, &id));
            }
        }
        if let Some(manifest) = present {
            return Ok(Kept { manifest, present: true, mended, wrong });
        }
        let manifest = manifest.signed(&code);
        self.keep_manifest(&manifest, options)?;
        Ok(Kept { manifest, present: false, mended, wrong })
    }

    /// Refuses a manifest beside which another push wrote one of other content at the same time: each looks
    /// after it has written, so at least one of the two finds both.
    pub(super) fn is_alone(
        &self,
        push: &Push<'_>,
        kept: &Manifest,
        options: &StoreOptions<'_>,
    ) -> Result<(), StoreError> {
        let (code, wanted, own) = (push.key.manifest_key(), wanted(push), kept.id());
        let mut keys = Vec::new();
        for id in self.manifests_of(push.model, push.revision, options)? {
            let other = match self.unproven(&wanted, &id, options) {
                Ok(Unproven { manifest, .. }) => manifest,
                // Told before, or gone since.
                Err(StoreError::NotFound { .. } | StoreError::Manifest { .. }) => continue,
                Err(error) => return Err(error),
            };
            let ours = other.key_id == push.key.id() && other.check_code(&code).is_ok();
            if ours && !other.same_content(kept) {
                keys.push(manifest_key(push.model, push.revision, &id));
            }
        }
        if keys.is_empty() {
            return Ok(());
        }
        keys.insert(0, manifest_key(push.model, push.revision, &own));
        Err(StoreError::Rivals { model: push.model.to_owned(), revision: push.revision, keys })
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
            // Of a link that leads nowhere: the time may be that of this push.
            _ => Vec::new(),
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
