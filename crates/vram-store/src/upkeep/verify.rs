//! Whether a store is sound: its manifests, and the images that they name.

use core::hash::BuildHasher as _;
use std::collections::BTreeSet;
use std::hash::RandomState;
use std::sync::Arc;

use vram_seal::{KeyRing, SealError};

use crate::error::{Cause, Part, StoreError};
use crate::fetch::{Answer, CallSource};
use crate::manifest::{ManifestError, ShardEntry, Trusted};
use crate::naming::id::{ImageId, ManifestId};
use crate::naming::layout::{IMAGES, Named, image_key, parse, parts_key};
use crate::naming::parts::Parts;
use crate::options::{StoreEvent, StoreOptions};
use crate::read::{ImageRead, Means, verify_only};
use crate::store::{Object, Store};
use crate::upkeep::rivals::Rivals;

/// What proves the images.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum VerifyMeans<'a> {
    /// The keys. With a context, the images of other contexts are not verified; without one, each image is
    /// verified in the context that its manifest names.
    Keys(&'a KeyRing, Option<&'a [u8]>),
    /// The digests of parts: no key is needed, and a wrong byte is found to 8 MiB.
    Keyless,
}

/// How much of each image is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sample {
    /// Every byte.
    All,
    /// So many of each hundred parts, drawn at random. A part is 8 MiB of an image; under the key, the
    /// segments of one range. Records, tables and the digests of parts are always read whole.
    Percent(u8),
}

/// Something that is wrong.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// The key of the object.
    pub key: String,
    /// The part of it that is wrong, if it is one.
    pub part: Option<Part>,
    /// What is wrong.
    pub what: String,
    /// Whether it could not be read, so that nothing is known of its bytes: a store behind a network failed.
    pub unread: bool,
}

/// What verifying a store found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StoreVerdict {
    /// Manifests that were read, and proven if there was a key.
    pub manifests: u64,
    /// Manifests of keys that the caller does not have, which were not verified.
    pub other_keys: u64,
    /// Manifests whose images are of another context than the one that was asked for: not verified.
    pub other_contexts: u64,
    /// Images that were verified, and found sound.
    pub images: u64,
    /// Images that no manifest which could be read names; they were not verified. 0 if one model was asked
    /// for.
    pub unnamed: u64,
    /// Whether the store is a cache. It has no digests of parts, and those images alone for which it has room.
    pub cache: bool,
    /// Images that a manifest names and a cache does not have; 0 for a store.
    pub absent: u64,
    /// Bytes that were read and found good.
    pub bytes: u64,
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
}

impl StoreVerdict {
    /// Returns true if nothing is wrong, also if nothing was there to verify: compare
    /// [`manifests`](Self::manifests) with 0.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    /// Notes what is wrong. Of an object that could not be read, one reason is enough.
    fn note(&mut self, found: Finding) {
        let known = |other: &Finding| other.unread && other.key == found.key;
        if !(found.unread && self.findings.iter().any(known)) {
            self.findings.push(found);
        }
    }
}

impl Store {
    /// Verifies all manifests, or those of one model, and every image that they name.
    ///
    /// # Errors
    ///
    /// Those of the store. What is wrong with objects is in the verdict.
    pub fn verify(
        &self,
        model: Option<&str>,
        means: VerifyMeans<'_>,
        sample: Sample,
        options: &StoreOptions<'_>,
    ) -> Result<StoreVerdict, StoreError> {
        let cache = self.is_cache(options)?;
        let mut verdict = StoreVerdict { cache, ..StoreVerdict::default() };
        let mut rivals = Rivals::default();
        let (mut seen, mut named) = (BTreeSet::new(), BTreeSet::new());
        let survey = self.survey(model, options, &mut || Ok(()))?;
        verdict.findings.extend(survey.hidden.into_iter().map(|(key, what)| Finding {
            key,
            part: None,
            what: format!("it is {what}, which could hide manifests"),
            unread: false,
        }));
        // In a folder of this machine, what cannot be read is wrong by itself.
        let remote = self.is_remote();
        for listed in survey.manifests {
            let trusted = match listed.manifest.and_then(|stated| {
                named.extend(stated.shards.iter().map(|shard| shard.image));
                // Read again by its digest, so that one rule decides what is believed.
                self.trusted(&listed.key, &listed.id, means, options)
            }) {
                Ok(trusted) => trusted,
                Err(ManifestError::UnknownKey { .. }) => {
                    verdict.other_keys = verdict.other_keys.saturating_add(1);
                    continue;
                }
                Err(why) => {
                    let part = why.is_wrong().then_some(Part::Manifest);
                    let (what, unread) = (why.to_string(), remote && part.is_none());
                    verdict.findings.push(Finding { key: listed.key, part, what, unread });
                    continue;
                }
            };
            // Two manifests may say different things of one image.
            let said = |shard: &&ShardEntry| seen.insert((shard.image, shard.image_len));
            let shards: Vec<_> = trusted.shards().iter().filter(said).collect();
            let mut another = false;
            for shard in shards {
                options.go_on()?;
                if cache && self.lacks(shard, options)? {
                    verdict.absent = verdict.absent.saturating_add(1);
                    continue;
                }
                let before = verdict.findings.len();
                let outcome = match means {
                    VerifyMeans::Keys(keys, context) => {
                        let means = (Means::Keys { keys, context }, sample);
                        self.verify_image(&trusted, shard, means, options, &mut verdict)
                    }
                    VerifyMeans::Keyless if cache => {
                        self.verify_whole(shard, options, &mut verdict)
                    }
                    VerifyMeans::Keyless => self.verify_parts(shard, sample, options, &mut verdict),
                };
                match outcome {
                    Ok(()) => {
                        let sound = verdict.findings.len() == before;
                        verdict.images = verdict.images.saturating_add(u64::from(sound));
                    }
                    Err(StoreError::Seal(SealError::ContextMismatch { .. })) => {
                        another = true;
                        break;
                    }
                    Err(error @ (StoreError::Deadline { .. } | StoreError::Cancelled)) => {
                        return Err(error);
                    }
                    // What is wrong with one object keeps nothing from the others.
                    Err(error) => {
                        let key = image_key(&shard.image);
                        let unread = remote && matches!(error, StoreError::Failed { .. });
                        let what = match error {
                            StoreError::Failed { action, why, .. } => format!("{action}: {why}"),
                            other => other.to_string(),
                        };
                        verdict.note(Finding { key, part: None, what, unread });
                    }
                }
            }
            let count = if another { &mut verdict.other_contexts } else { &mut verdict.manifests };
            *count = count.saturating_add(1);
            rivals.note(listed.key, trusted);
        }
        // A cache gives a manifest by its pin alone.
        if !cache {
            verdict.findings.extend(rivals.findings());
        }
        if model.is_none() {
            let unnamed = |one: &Object| matches!(parse(&one.key), Some(Named::Image(id)) if !named.contains(&id));
            let count = self.list(IMAGES, options)?.iter().filter(|one| unnamed(one)).count();
            verdict.unnamed = u64::try_from(count).unwrap_or(u64::MAX);
        }
        Ok(verdict)
    }

    fn trusted(
        &self,
        key: &str,
        id: &ManifestId,
        means: VerifyMeans<'_>,
        options: &StoreOptions<'_>,
    ) -> Result<Trusted, ManifestError> {
        let bytes = self.object(key, crate::manifest::MANIFEST_LEN_MAX, true, options);
        let unreadable = |why| ManifestError::Unreadable { why };
        let bytes = bytes.map_err(|error| unreadable(error.to_string()))?;
        let bytes = bytes.ok_or_else(|| unreadable("it is not there any more".to_owned()))?;
        let read = crate::manifest::Unproven::read(&bytes, id)?;
        match means {
            VerifyMeans::Keys(keys, _) => read.prove(keys, None),
            // Its digest is the one of its name; that nobody else put it there is not shown.
            VerifyMeans::Keyless => read.prove_by_pin(id),
        }
    }

    /// Under the key: the first altered segment is named.
    fn verify_image(
        &self,
        trusted: &Trusted,
        shard: &ShardEntry,
        (means, sample): (Means<'_>, Sample),
        options: &StoreOptions<'_>,
        verdict: &mut StoreVerdict,
    ) -> Result<(), StoreError> {
        let sources = [CallSource::new(self.clone())];
        let read = ImageRead::new(trusted, shard, means, &sources, options);
        let mut good = 0_u64;
        let outcome = verify_only(&read, &|at| drawn(at, sample), &mut |len, from| {
            good = good.saturating_add(len);
            let (done, total) = (good, shard.image_len);
            options.tell(&StoreEvent::Progress { done, total, source: Arc::from(from) });
        });
        verdict.bytes = verdict.bytes.saturating_add(good);
        let key = image_key(&shard.image);
        match outcome {
            Ok(()) => {}
            Err(StoreError::NoSource { causes, .. }) => {
                let remote = self.is_remote();
                for cause in causes {
                    let unread = remote && matches!(cause, Cause::Failed { .. });
                    let part = match &cause {
                        Cause::Lied(lie) => Some(lie.part),
                        _ => None,
                    };
                    let what = match part {
                        Some(part) => part.to_string(),
                        None => cause.to_string(),
                    };
                    verdict.note(Finding { key: key.clone(), part, what, unread });
                }
            }
            Err(error) => return Err(error),
        }
        // Readers without the key need them.
        if !verdict.cache
            && let Err(what) = self.digests_of(&shard.image, shard.image_len, options)?
        {
            let key = parts_key(&shard.image);
            verdict.findings.push(Finding { key, part: Some(Part::Parts), what, unread: false });
        }
        Ok(())
    }

    /// Without the key: every altered part is named.
    fn verify_parts(
        &self,
        shard: &ShardEntry,
        sample: Sample,
        options: &StoreOptions<'_>,
        verdict: &mut StoreVerdict,
    ) -> Result<(), StoreError> {
        let (key, digests) = (image_key(&shard.image), parts_key(&shard.image));
        let mut found = |key: &str, part, what: String| {
            verdict.findings.push(Finding { key: key.to_owned(), part, what, unread: false });
        };
        let parts = match self.digests_of(&shard.image, shard.image_len, options)? {
            Ok(parts) => Some(parts),
            Err(what) => {
                found(&digests, Some(Part::Parts), what);
                None
            }
        };
        match self.len(&key, options)? {
            Some(len) if len == shard.image_len => {}
            Some(len) => {
                let part = Part::Length { expected: shard.image_len, found: len };
                found(&key, Some(part), part.to_string());
                return Ok(());
            }
            None => {
                // What is there and no file, such as a pipe, is an error that says so.
                let _bytes = self.object_range(&key, 0..1, shard.image_len, options)?;
                found(&key, None, "it is not there, and a manifest names it".to_owned());
                return Ok(());
            }
        }
        let Some(parts) = parts else { return Ok(()) };
        let mut good = 0_u64;
        for at in (0..parts.count()).filter(|at| drawn(*at, sample)) {
            options.go_on()?;
            let Some(range) = parts.range(at) else { continue };
            let len = range.end.saturating_sub(range.start);
            let holds = || {
                let bytes = self.object_range(&key, range.clone(), shard.image_len, options)?;
                Ok::<_, StoreError>(bytes.is_some_and(|bytes| parts.holds(at, &bytes)))
            };
            // Asked once more, as every reader does: what was altered on the way is not wrong in the store.
            if holds()? || holds()? {
                good = good.saturating_add(len);
                let (done, source) = (good, Arc::clone(self.name()));
                options.tell(&StoreEvent::Progress { done, total: shard.image_len, source });
            } else {
                let part = Part::FilePart(at);
                found(&key, Some(part), part.to_string());
            }
        }
        verdict.bytes = verdict.bytes.saturating_add(good);
        Ok(())
    }

    fn digests_of(
        &self,
        image: &ImageId,
        image_len: u64,
        options: &StoreOptions<'_>,
    ) -> Result<Result<Parts, String>, StoreError> {
        let key = parts_key(image);
        let bytes = match self.answer(&key, Parts::object_len(image_len), true, options)? {
            Answer::Bytes(bytes) => bytes.into_vec(),
            Answer::Absent => return Ok(Err("it is not there".to_owned())),
            other @ (Answer::Failed(_) | Answer::Refused(_)) if self.is_remote() => {
                return Err(self.bad_answer(&key, &other));
            }
            other => return Ok(Err(format!("it cannot be read: {other}"))),
        };
        Ok(match Parts::from_bytes(&bytes, image_len) {
            Ok(parts) if parts.id() == image => Ok(parts),
            _ => Err(Part::Parts.to_string()),
        })
    }
}

/// Whether a part is among those that are read. The first one always is.
fn drawn(part: u64, sample: Sample) -> bool {
    match sample {
        Sample::All => true,
        Sample::Percent(percent) => {
            let random = RandomState::new().hash_one(part).checked_rem(100).unwrap_or(0);
            part == 0 || random < u64::from(percent)
        }
    }
}
