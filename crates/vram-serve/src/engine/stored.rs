//! Models from a store: its mirrors and its cache, and the way of its images into device memory. What
//! `vram serve` and `vram load --store` have in common.

use std::path::Path;

use vram_residency::{
    AdmitRequest, ByteLen, GpuChoice, KeyRing, ModelHandle, ModelPlan, Piece, SealError, VramError,
    VramManager,
};
use vram_store::{
    Cache, LoadError, Part, Pull, ShardEntry, Store, StoreError, StoreOptions, Trusted, Wanted,
};

/// A store, the mirrors that are asked before it, and the cache that is asked first.
#[derive(Clone, Debug)]
pub struct StoreSources {
    store: Store,
    mirrors: Vec<Store>,
    cache: Option<Cache>,
}

impl StoreSources {
    /// Opens them by their addresses, as [`Store::open`] takes them. Nothing is sent yet. A folder that is not
    /// there answers nothing until it is there.
    ///
    /// # Arguments
    ///
    /// * `cache`: a folder, made if there is none, and the most bytes in it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Address`] for the first that cannot be opened; [`StoreError::File`] for the cache;
    /// [`StoreError::Config`] if the cache is one of the stores, or one lies in the other.
    pub fn open(
        store: &str,
        mirrors: &[String],
        cache: Option<(&Path, ByteLen)>,
    ) -> Result<Self, StoreError> {
        let open = |folder: &Path, limit| Cache::open(folder, limit).map(Some);
        Self::with(store, mirrors, cache, open)
    }

    /// As [`open`](Self::open), to look at what a load would find: nothing is made, kept or removed.
    pub(crate) fn look(
        store: &str,
        mirrors: &[String],
        cache: Option<(&Path, ByteLen)>,
    ) -> Result<Self, StoreError> {
        Self::with(store, mirrors, cache, |folder, limit| Cache::look(folder, limit))
    }

    fn with(
        store: &str,
        mirrors: &[String],
        cache: Option<(&Path, ByteLen)>,
        open: impl Fn(&Path, ByteLen) -> Result<Option<Cache>, StoreError>,
    ) -> Result<Self, StoreError> {
        let mirrors: Vec<_> =
            mirrors.iter().map(|one| Store::open_or_absent(one)).collect::<Result<_, _>>()?;
        let mut sources = Self { store: Store::open_or_absent(store)?, mirrors, cache: None };
        if let Some((folder, limit)) = cache {
            Cache::check_apart(folder, sources.mirrors.iter().chain([&sources.store]))?;
            sources.cache = open(folder, limit)?;
        }
        Ok(sources)
    }

    /// The store itself.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Finds a manifest, as [`Store::manifest_from`] does.
    ///
    /// # Errors
    ///
    /// Those of [`Store::manifest`] and [`Store::pinned_manifest`].
    pub fn manifest(
        &self,
        wanted: &Wanted<'_>,
        keys: Option<&KeyRing>,
        options: &StoreOptions<'_>,
    ) -> Result<Trusted, StoreError> {
        self.store.manifest_from(self.cache.as_ref(), &self.mirrors, wanted, keys, options)
    }

    /// A pull of all sources: opened under the keys, with the context of the images; without keys by
    /// digests alone.
    #[must_use]
    pub fn pull<'a>(
        &'a self,
        manifest: &'a Trusted,
        keys: Option<(&'a KeyRing, &'a [u8])>,
        options: StoreOptions<'a>,
    ) -> Pull<'a> {
        let mut pull = match keys {
            Some((keys, context)) => Pull::new(manifest, keys, context, &self.store),
            None => Pull::without_key(manifest, &self.store),
        };
        for mirror in &self.mirrors {
            pull = pull.mirror(mirror);
        }
        if let Some(cache) = &self.cache {
            pull = pull.cache(cache);
        }
        pull.options(options)
    }
}

/// The request that admits a manifest's images: its model, revision and context. The caller sets the
/// rest.
pub fn request_for<'a>(manifest: &Trusted, context: &[u8], gpus: GpuChoice) -> AdmitRequest<'a> {
    let stated = manifest.manifest();
    AdmitRequest::new(&stated.model, gpus).revision(stated.revision).context(context)
}

/// Imports images of a manifest, straight into device memory: all of them become resident as one
/// model, or none does. Room is taken for all before the first byte is fetched. A source that lies is
/// named and left out, and its image is read again from the next one.
///
/// # Arguments
///
/// * `shards`: those of the manifest that are wanted, in order.
/// * `request`: by [`request_for`].
///
/// # Errors
///
/// [`LoadError::Store`] if no source is left, at the deadline, or if the call was cancelled;
/// [`LoadError::Admit`] with the manager's own error. Nothing is resident then.
pub fn import_images(
    manager: &VramManager,
    pull: &Pull<'_>,
    manifest: &Trusted,
    shards: &[ShardEntry],
    request: AdmitRequest<'_>,
) -> Result<ModelHandle, LoadError<VramError>> {
    let plan = plan_of(shards).map_err(LoadError::Admit)?;
    let sealed = manifest.manifest().protection;
    let import = manager.import_model(request, &plan, sealed);
    let mut import = import.map_err(LoadError::Admit)?;
    for shard in shards {
        pull.load(shard.index, altered, |reader| import.import(&mut *reader))?;
    }
    import.finish().map_err(LoadError::Admit)
}

/// The plan of a manifest's images: one piece for each, in whole. Its file's number is the number of the
/// shard.
///
/// # Errors
///
/// [`VramError::Config`] for images that no plan can hold.
pub fn plan_of(shards: &[ShardEntry]) -> Result<ModelPlan, VramError> {
    let piece = |shard: &ShardEntry| {
        // A manifest has at most 65,536 shards.
        let number = u32::try_from(shard.index).unwrap_or(u32::MAX);
        Piece::new(format!("shard {number}"), number, 0, ByteLen::new(shard.plaintext_len))
    };
    let plan = ModelPlan::new(shards.iter().map(piece));
    plan.map_err(|error| VramError::Config { what: format!("the manifest's shards: {error}") })
}

/// The part of an image that an error of its import is about, as [`Pull::load`] asks for it; `None` if it
/// has another reason.
#[must_use]
pub fn altered(error: &VramError) -> Option<Part> {
    let seal: &SealError = match error {
        VramError::Seal(seal) => seal,
        VramError::Image { source, .. } => source,
        _ => return None,
    };
    Part::altered(seal)
}
