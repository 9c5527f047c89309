//! A pushed model, and loading it into a host device.

use std::path::PathBuf;

use tempfile::TempDir;
use vram_residency::{
    ByteLen, ImportRequest, KeyRing, SealKey, SealParams, SealedShard, VramError, VramManager,
};
use vram_store::{
    LoadError, Pull, Push, Pushed, Store, StoreError, StoreOptions, Trusted, Wanted, created_at,
};
use vram_tests::repair::altered;

pub(crate) const MODEL: &str = "m";

pub(crate) fn key() -> SealKey {
    SealKey::from_bytes(&[7; 32])
}

/// A file of made-up content, and a folder as a store that has it.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) keys: KeyRing,
    pub(crate) file: PathBuf,
}

impl World {
    pub(crate) fn new(len: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model");
        let mut state = 1_u64;
        let words = (0..len.div_ceil(8)).flat_map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_le_bytes()
        });
        let mut bytes: Vec<u8> = words.collect();
        bytes.truncate(len);
        std::fs::write(&file, bytes).unwrap();
        Self { folder, keys: KeyRing::new(key()), file }
    }

    pub(crate) fn push(&self, store: &Store) -> Pushed {
        self.push_revision(store, 1)
    }

    pub(crate) fn push_revision(&self, store: &Store, revision: u64) -> Pushed {
        self.push_with(store, revision, &StoreOptions::new()).unwrap()
    }

    pub(crate) fn push_with(
        &self,
        store: &Store,
        revision: u64,
        options: &StoreOptions<'_>,
    ) -> Result<Pushed, StoreError> {
        let push = Push {
            key: &key(),
            model: MODEL,
            revision,
            context: b"",
            files: vec![self.file.clone()],
            format: "bytes",
            ranks: vec![],
            fleet: None,
            params: SealParams::new(),
            plaintext: false,
            created: created_at(std::time::SystemTime::UNIX_EPOCH),
            mirrors: vec![],
        };
        store.push(&push, options)
    }

    pub(crate) fn manifest(&self, store: &Store, pushed: &Pushed) -> Trusted {
        let wanted =
            Wanted { model: MODEL, revision: pushed.manifest.revision, pin: Some(&pushed.id) };
        store.manifest(&wanted, &self.keys, &StoreOptions::new()).unwrap()
    }
}

/// A manager over a host device with room for one shard of this length.
pub(crate) fn manager(len: u64) -> VramManager {
    let total = ByteLen::new(len.next_multiple_of(1 << 20));
    VramManager::builder().host_device(total).key(key()).build().unwrap()
}

pub(crate) fn load(
    pull: &Pull<'_>,
    manager: &VramManager,
) -> Result<SealedShard, LoadError<VramError>> {
    pull.load(0, altered, |reader| manager.import(ImportRequest::new(MODEL, 0), reader))
}
