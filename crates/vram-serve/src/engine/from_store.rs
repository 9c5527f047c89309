//! Loads the models that the configuration takes from a store, and repairs them from there.

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use vram_residency::{
    CancelToken, GpuChoice, KeyRing, ModelHandle, ModelPiece, RepairOptions, RepairReport,
    SourceError, VramError,
};
use vram_store::{LoadError, ManifestId, StoreError, StoreEvent, StoreOptions, Trusted, Wanted};

use super::Engine;
use super::slot::Turn;
use super::stored::{StoreSources, import_images, request_for};
use crate::config::{CacheConfig, ModelConfig, Stored};
use crate::feed::Own;
use crate::problem::Problem;

/// Where a resident model came from: a repair reads the same sources, for the same manifest.
#[derive(Debug)]
pub(crate) struct Origin {
    name: String,
    sources: StoreSources,
    manifest: Trusted,
    context: Vec<u8>,
    deadline: Duration,
}

impl Origin {
    /// The digest of the manifest.
    pub(super) const fn manifest_id(&self) -> &ManifestId {
        self.manifest.id()
    }
}

impl Engine {
    /// Imports the images of a model, and says where they came from.
    pub(super) fn load_stored(
        &self,
        config: &ModelConfig,
        stored: &Stored<'_>,
        turn: &Turn<'_>,
    ) -> Result<(ModelHandle, Arc<Origin>), Problem> {
        let keys = self.keys()?;
        let began = Instant::now();
        let sources = open(stored, self.cache.as_ref())?;
        let progress = Arc::clone(&turn.progress);
        let on_event = |event: &StoreEvent| {
            if let StoreEvent::Progress { source, .. } = event {
                progress.set_source(source);
            }
            self.tell_of(&config.name, event);
        };
        let options = || {
            StoreOptions::new()
                .deadline_since(began, stored.deadline)
                .cancel(turn.cancel.clone())
                .on_event(on_event)
        };
        let wanted = wanted(stored);
        let manifest = sources.manifest(&wanted, Some(keys), &options())?;
        let gpus = config.gpu.map_or(GpuChoice::MostRoomFirst, GpuChoice::One);
        let progress = Arc::clone(&turn.progress);
        let request = request_for(&manifest, stored.context, gpus)
            // Two revisions of one model have one id, and two names here.
            .owner(&config.name)
            .protection(config.protection.into())
            .priority(config.priority)
            .pinned(config.pin)
            .progress(move |at| progress.set(at.done, at.total))
            .cancel(turn.cancel.clone());
        let pull = sources.pull(&manifest, Some((keys, stored.context)), options());
        let loaded = import_images(&self.manager, &pull, &manifest, manifest.shards(), request);
        drop(pull);
        let model = loaded.map_err(|error| match error {
            LoadError::Store(error) => Problem::from(&error),
            LoadError::Admit(error) => self.told(&error),
            _ => Problem::internal("the images could not be loaded"),
        })?;
        tracing::info!(model = %config.name, manifest = %manifest.id(), "loaded from a store");
        let origin = Origin {
            name: config.name.clone(),
            sources,
            manifest,
            context: stored.context.to_vec(),
            deadline: stored.deadline,
        };
        Ok((model, Arc::new(origin)))
    }

    /// Repairs one shard from the sources of its model.
    pub(super) fn repair_stored(
        &self,
        origin: &Origin,
        piece: &ModelPiece,
    ) -> Result<RepairReport, Problem> {
        let keys = self.keys()?;
        let options = StoreOptions::new()
            .deadline(origin.deadline)
            .cancel(self.ending.clone())
            .on_event(|event| self.tell_of(&origin.name, event));
        let pull = origin.sources.pull(&origin.manifest, Some((keys, &origin.context)), options);
        let content = pull.content(u64::from(piece.piece.file))?;
        let repaired = self.manager.repair_from(&piece.shard, content, RepairOptions::new());
        repaired.map_err(|error| match of_store(&error) {
            Some(failure) => Problem::from(failure),
            None => self.told_of(&origin.name, &error),
        })
    }

    fn keys(&self) -> Result<&KeyRing, Problem> {
        // The configuration is checked for it.
        self.keys.as_ref().ok_or_else(|| Problem::internal("no key for images of a store"))
    }

    fn tell_of(&self, model: &str, event: &StoreEvent) {
        match event {
            StoreEvent::SourceLied(lie) => {
                let (image, what) = (lie.image.to_string(), lie.part.to_string());
                let (source, image, what) = (&*lie.source, &*image, &*what);
                self.feed.tell(&Own::SourceLied { model, source, image, what });
            }
            StoreEvent::ManifestRefused { source, manifest, why } => {
                let (manifest, what) = (manifest.to_string(), why.to_string());
                let (source, manifest, what) = (&**source, &*manifest, &*what);
                self.feed.tell(&Own::ManifestRefused { model, source, manifest, what });
            }
            StoreEvent::GaveUp { source, why } => {
                tracing::warn!(model, source = %source, "{why}; going on without");
            }
            _ => {}
        }
    }
}

/// The failure of a store that a repair met while it read the content.
fn of_store(error: &VramError) -> Option<&StoreError> {
    let VramError::Source(SourceError::Io { error, .. }) = error else { return None };
    error.get_ref()?.downcast_ref()
}

/// Opens the sources of a model.
fn open(stored: &Stored<'_>, cache: Option<&CacheConfig>) -> Result<StoreSources, StoreError> {
    let cache = cache.map(|cache| (&*cache.folder, cache.limit));
    StoreSources::open(stored.store, stored.mirrors, cache)
}

const fn wanted<'a>(stored: &Stored<'a>) -> Wanted<'a> {
    let (image, pin) = (stored.image, stored.manifest);
    Wanted { model: image.model.as_str(), revision: image.revision, pin }
}

/// The manifest that a load would take, with the first of its images opened as far as its table: so its key
/// and context are those that were given. Nothing is made for it.
pub(crate) fn look(
    stored: &Stored<'_>,
    cache: Option<&CacheConfig>,
    keys: &KeyRing,
) -> Result<Trusted, StoreError> {
    /// A check is for a person who waits.
    const PATIENCE: Duration = Duration::from_secs(20);

    let began = Instant::now();
    let options = || StoreOptions::new().deadline_since(began, PATIENCE).cancel(CancelToken::new());
    // What a load opens, the cache included, which may have what its store has no more.
    let cache = cache.map(|cache| (&*cache.folder, cache.limit));
    let sources = StoreSources::look(stored.store, stored.mirrors, cache)?;
    let manifest = sources.manifest(&wanted(stored), Some(keys), &options())?;
    if let Some(first) = manifest.shards().first() {
        let pull = sources.pull(&manifest, Some((keys, stored.context)), options());
        let _its_head_is_proven = pull.content(first.index)?;
    }
    Ok(manifest)
}
