//! Finding the manifest of a model's revision, and believing it.

use std::sync::Arc;

use vram_seal::KeyRing;

use crate::error::StoreError;
use crate::fetch::{Answer, read_range, read_whole, tried};
use crate::manifest::passed::{Origin, first_of, passed_over};
use crate::manifest::{MANIFEST_LEN_MAX, ManifestError, Trusted, Unproven};
use crate::naming::id::ManifestId;
use crate::naming::layout::{Named, manifest_key, model_folder, parse};
use crate::options::StoreOptions;
use crate::store::Store;

/// What a caller asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The id of the model.
    pub model: &'a str,
    /// Its revision.
    pub revision: u64,
    /// The digest of the manifest. With it no older manifest is accepted, and no listing is needed.
    pub pin: Option<&'a ManifestId>,
}

impl Store {
    /// Finds the manifest of a revision and proves it under the key that it names.
    ///
    /// Without a pin, the one manifest whose key the caller has is taken; two of one key are refused,
    /// unless they differ in their time alone.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], [`StoreError::Ambiguous`], [`StoreError::Manifest`], and those of
    /// reading.
    pub fn manifest(
        &self,
        wanted: &Wanted<'_>,
        keys: &KeyRing,
        options: &StoreOptions<'_>,
    ) -> Result<Trusted, StoreError> {
        if let Some(pin) = wanted.pin {
            let read = self.unproven(wanted, pin, options)?;
            return read.prove(keys, Some(pin)).map_err(|why| self.refused(pin, why));
        }
        self.listed_manifest(&[], wanted, keys, options)
    }

    /// Finds the manifest of a revision without a pin: this store's listing alone says which there are, and
    /// the bytes of each may come from the cache or a mirror. So no source brings back one that the store
    /// does not name.
    pub(super) fn listed_manifest(
        &self,
        before: &[(Origin, &Self)],
        wanted: &Wanted<'_>,
        keys: &KeyRing,
        options: &StoreOptions<'_>,
    ) -> Result<Trusted, StoreError> {
        let mut good: Vec<Trusted> = Vec::new();
        let mut faults = Vec::new();
        for id in self.manifests_of(wanted.model, wanted.revision, options)? {
            let proven = |store: &Self| {
                let read = store.unproven(wanted, &id, options)?;
                read.prove(keys, None).map_err(|why| store.refused(&id, why))
            };
            match first_of(before, self, &id, options, proven) {
                Ok((trusted, _)) => good.push(trusted),
                Err(error @ (StoreError::Deadline { .. } | StoreError::Cancelled)) => {
                    return Err(error);
                }
                // It went since it was listed.
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => faults.push((id, error)),
            }
        }
        let mut distinct = good.iter();
        let first = distinct.next();
        let mut faults = faults.into_iter();
        // The first one is the answer, if there is no better one.
        let fault = if first.is_none() { faults.next() } else { None };
        for (id, error) in faults {
            let of_another_key = matches!(&error, StoreError::Manifest { source, .. }
                if matches!(**source, ManifestError::UnknownKey { .. }));
            if !of_another_key {
                passed_over(self, &id, &error, options);
            }
        }
        let Some(first) = first else {
            return Err(fault.map_or_else(|| self.no_manifest(wanted), |(_, error)| error));
        };
        if distinct.all(|other| other.manifest().same_content(first.manifest())) {
            // Listed in the order of their digests: every reader takes the same one.
            return Ok(first.clone());
        }
        Err(StoreError::Ambiguous {
            model: wanted.model.to_owned(),
            revision: wanted.revision,
            manifests: good.iter().map(|one| *one.id()).collect(),
        })
    }

    /// Finds a manifest by its pin alone, for a caller without the key.
    ///
    /// # Errors
    ///
    /// As [`manifest`](Self::manifest); [`StoreError::Config`] without a pin.
    pub fn pinned_manifest(
        &self,
        wanted: &Wanted<'_>,
        options: &StoreOptions<'_>,
    ) -> Result<Trusted, StoreError> {
        let Some(pin) = wanted.pin else {
            let what = "without the key, a manifest is believed by its digest alone: name it";
            return Err(StoreError::config(what));
        };
        let read = self.unproven(wanted, pin, options)?;
        read.prove_by_pin(pin).map_err(|why| self.refused(pin, why))
    }

    /// The digests of all manifests of a revision, as the keys of the store say.
    pub(crate) fn manifests_of(
        &self,
        model: &str,
        revision: u64,
        options: &StoreOptions<'_>,
    ) -> Result<Vec<ManifestId>, StoreError> {
        let listed = self.list(&model_folder(model), options)?;
        let named = listed.iter().filter_map(|one| match parse(&one.key) {
            Some(Named::Manifest { revision: found, id, .. }) if found == revision => Some(id),
            _ => None,
        });
        Ok(named.collect())
    }

    /// Reads a manifest whose digest must be `id`. A store that gives other bytes is asked once more,
    /// past its caches.
    pub(crate) fn unproven(
        &self,
        wanted: &Wanted<'_>,
        id: &ManifestId,
        options: &StoreOptions<'_>,
    ) -> Result<Unproven, StoreError> {
        let key = manifest_key(wanted.model, wanted.revision, id);
        let read = |past_caches| match self.answer(&key, MANIFEST_LEN_MAX, past_caches, options)? {
            Answer::Bytes(bytes) => {
                Unproven::read(&bytes.into_vec(), id).map_err(|why| self.refused(id, why))
            }
            Answer::Length { found, .. } if found > MANIFEST_LEN_MAX => {
                Err(self.refused(id, ManifestError::TooLong { found }))
            }
            // A name without bytes is another matter than none.
            Answer::Absent => Err(match self.look(&key, options)? {
                Some(_) if !self.is_remote() => {
                    let why = "it is a link that leads nowhere".to_owned();
                    self.refused(id, ManifestError::Unreadable { why })
                }
                _ => self.no_manifest(wanted),
            }),
            other => Err(self.bad_answer(&key, &other)),
        };
        let read = match read(false) {
            Err(StoreError::Manifest { .. }) => read(true)?,
            other => other?,
        };
        let (model, revision) = (&read.manifest.model, read.manifest.revision);
        if model != wanted.model || revision != wanted.revision {
            let why = ManifestError::Another { model: model.clone(), revision };
            return Err(self.refused(id, why));
        }
        Ok(read)
    }

    /// Reads a small object whole, tried as often as allowed; `None` if there is none.
    pub(crate) fn object(
        &self,
        key: &str,
        len_max: u64,
        past_caches: bool,
        options: &StoreOptions<'_>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        match self.answer(key, len_max, past_caches, options)? {
            Answer::Bytes(bytes) => Ok(Some(bytes.into_vec())),
            Answer::Absent => Ok(None),
            other => Err(self.bad_answer(key, &other)),
        }
    }

    /// As [`object`](Self::object): whatever the store answers.
    pub(crate) fn answer(
        &self,
        key: &str,
        len_max: u64,
        past_caches: bool,
        options: &StoreOptions<'_>,
    ) -> Result<Answer, StoreError> {
        let (store, name, limits) = (self.clone(), key.to_owned(), options.limits);
        self.may_be_asked(options);
        options.wait(async move {
            let read = || read_whole(&store, &name, len_max, past_caches, &limits);
            tried(&limits, store.is_hasty(), read).await
        })
    }

    pub(crate) fn bad_answer(&self, key: &str, answer: &Answer) -> StoreError {
        let (store, action) = (Arc::clone(self.name()), format!("read {key}"));
        StoreError::Failed { store, action, why: answer.to_string() }
    }

    /// Reads a range of an object past caches; `None` if it is not there, or not of this length.
    pub(crate) fn object_range(
        &self,
        key: &str,
        range: core::ops::Range<u64>,
        object_len: u64,
        options: &StoreOptions<'_>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let (store, name, limits) = (self.clone(), key.to_owned(), options.limits);
        self.may_be_asked(options);
        let read = async move {
            let read = || read_range(&store, &name, range.clone(), object_len, true, &limits);
            tried(&limits, store.is_hasty(), read).await
        };
        match options.wait(read)? {
            Answer::Bytes(bytes) => Ok(Some(bytes.into_vec())),
            Answer::Absent | Answer::Length { .. } => Ok(None),
            other => Err(self.bad_answer(key, &other)),
        }
    }

    pub(crate) fn refused(&self, id: &ManifestId, why: ManifestError) -> StoreError {
        let store = Arc::clone(self.name());
        StoreError::Manifest { store, id: Box::new(*id), source: Box::new(why) }
    }

    fn no_manifest(&self, wanted: &Wanted<'_>) -> StoreError {
        let what = match wanted.pin {
            Some(pin) => format!("manifest {pin} of {} revision {}", wanted.model, wanted.revision),
            None => format!("manifest of {} revision {}", wanted.model, wanted.revision),
        };
        StoreError::NotFound { store: Arc::clone(self.name()), what }
    }
}
