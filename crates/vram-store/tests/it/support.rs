//! A model in a store, and what every test does with one.

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use vram_seal::{
    Expected, KeyRing, SealError, SealKey, SealParams, SegmentSize, Threads, image, open_record,
};
use vram_store::object_store::memory::InMemory;
use vram_store::object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use vram_store::{
    LoadError, Part, Pull, Push, Pushed, Sample, SealedReader, Store, StoreError, StoreEvent,
    StoreOptions, StoreVerdict, Trusted, VerifyMeans, Wanted, image_key,
};

pub(crate) const MODEL: &str = "llama-3-8b";

/// A key, files, and a store in memory that holds them as a model.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) key: SealKey,
    pub(crate) keys: KeyRing,
    pub(crate) objects: Arc<InMemory>,
    pub(crate) store: Store,
}

impl World {
    pub(crate) fn new() -> Self {
        let objects = Arc::new(InMemory::new());
        let stored: Arc<dyn ObjectStore> = objects.clone();
        let store = Store::over("bucket", stored);
        let keys = KeyRing::new(key());
        let folder = tempfile::tempdir().unwrap();
        Self { folder, key: key(), keys, objects, store }
    }

    /// Writes a file of made-up content.
    pub(crate) fn file(&self, name: &str, len: usize) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content(name, len)).unwrap();
        path
    }

    pub(crate) fn push(&self, files: Vec<PathBuf>) -> Pushed {
        self.store.push(&push(&self.key, files), &StoreOptions::new()).unwrap()
    }

    /// The bytes of the first image of a revision.
    pub(crate) fn image(&self, revision: u64) -> Vec<u8> {
        let key = image_key(&self.manifest(revision).shards()[0].image);
        let objects = Arc::clone(&self.objects);
        let read = async move {
            let found = objects.get(&key.as_str().into()).await.unwrap();
            found.bytes().await.unwrap().to_vec()
        };
        futures_util::future::FutureExt::now_or_never(read).unwrap()
    }

    pub(crate) fn manifest(&self, revision: u64) -> Trusted {
        let wanted = Wanted { model: MODEL, revision, pin: None };
        self.store.manifest(&wanted, &self.keys, &StoreOptions::new()).unwrap()
    }
}

/// Puts bytes into a store, as somebody who can write it.
pub(crate) fn put(world: &World, key: &str, bytes: Vec<u8>) {
    let (objects, key) = (Arc::clone(&world.objects), key.into());
    let put = async move { objects.put(&key, PutPayload::from(bytes)).await.unwrap() };
    futures_util::FutureExt::now_or_never(put).unwrap();
}

/// Removes an object, as somebody who can write the store.
pub(crate) fn remove(world: &World, key: &str) {
    let (objects, key) = (Arc::clone(&world.objects), key.into());
    let gone = async move { objects.delete(&key).await.unwrap() };
    futures_util::FutureExt::now_or_never(gone).unwrap();
}

/// The verdict on all that a store has.
pub(crate) fn verify(store: &Store, means: VerifyMeans<'_>) -> StoreVerdict {
    store.verify(None, means, Sample::All, &StoreOptions::new()).unwrap()
}

pub(crate) fn key() -> SealKey {
    SealKey::from_bytes(&[7; 32])
}

pub(crate) fn push(key: &SealKey, files: Vec<PathBuf>) -> Push<'_> {
    Push {
        key,
        model: MODEL,
        revision: 7,
        context: b"",
        files,
        format: "bytes",
        ranks: vec![],
        fleet: None,
        params: SealParams::new().with_segment(SegmentSize::from_log2(12).unwrap()),
        plaintext: false,
        created: "2026-11-26T11:40:00Z".into(),
        mirrors: vec![],
    }
}

/// Content that differs from place to place and from name to name.
pub(crate) fn content(name: &str, len: usize) -> Vec<u8> {
    let salt: usize = name.bytes().map(usize::from).sum();
    (0..len).map(|at| (131 * at + 17 * (at >> 8) + salt).to_le_bytes()[0]).collect()
}

/// An importer as `VramManager::import` is one: it takes the stream and verifies every segment.
pub(crate) fn admit(reader: &mut SealedReader<'_, '_>) -> Result<Vec<u8>, ImportError> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(reader, &mut bytes).map_err(|_failed| ImportError::Read)?;
    open(&bytes).map_err(ImportError::Seal)
}

#[derive(Debug)]
pub(crate) enum ImportError {
    Read,
    Seal(SealError),
}

pub(crate) fn altered(error: &ImportError) -> Option<Part> {
    match error {
        ImportError::Read => None,
        ImportError::Seal(error) => Part::altered(error),
    }
}

pub(crate) fn open(bytes: &[u8]) -> Result<Vec<u8>, SealError> {
    let key = key();
    let record = image::record(bytes)?;
    let expected = Expected::new(MODEL)?.any_protection();
    let limits = vram_seal::OpenLimits::default();
    let proven = open_record(&key, &record, &expected, limits)?;
    let (tags, data) = image::split(proven.fields(), bytes)?;
    let opener = proven.with_table(tags)?;
    let mut plain = vec![0; data.len()];
    vram_seal::unseal(&opener, Threads::exactly(1), data, &mut plain)?;
    Ok(plain)
}

/// Options of a call that soon gives up.
pub(crate) fn quick<'a>() -> StoreOptions<'a> {
    StoreOptions::new()
        .attempts(3, core::time::Duration::from_millis(1))
        .stall(core::time::Duration::from_millis(200))
}

/// Quick options, which note every event.
pub(crate) fn noting(events: &mut Vec<StoreEvent>) -> StoreOptions<'_> {
    quick().on_event(|event| events.push(event.clone()))
}

/// Loads one shard by the importer.
pub(crate) fn load(pull: &Pull<'_>, index: u64) -> Result<Vec<u8>, LoadError<ImportError>> {
    pull.load(index, altered, admit)
}

/// The error of a load that no source could serve.
pub(crate) fn refusal<T: core::fmt::Debug>(
    outcome: Result<T, LoadError<ImportError>>,
) -> StoreError {
    match outcome {
        Err(LoadError::Store(error)) => error,
        other => panic!("not refused by the store: {other:?}"),
    }
}
