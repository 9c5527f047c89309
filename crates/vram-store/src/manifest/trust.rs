//! A manifest that may be believed: under the key, by its pin, or both.

use vram_seal::{Expected, KeyRing, RecordFields, SealRecord};

use super::{Manifest, ManifestError, ShardEntry};
use crate::naming::id::ManifestId;

/// A manifest that was proven: its code was checked under the key, or its digest compared with the
/// caller's pin. Images are read for such a manifest alone.
///
/// ```compile_fail,E0451
/// let manifest: vram_store::Manifest = todo!();
/// let trusted = vram_store::Trusted { manifest, id: todo!() }; // private fields
/// ```
#[derive(Clone, Debug)]
pub struct Trusted {
    manifest: Manifest,
    id: ManifestId,
    pinned: bool,
    keyed: bool,
}

/// A manifest as it came from a store, read but not proven.
#[derive(Clone, Debug)]
pub struct Unproven {
    pub(crate) manifest: Manifest,
    pub(crate) id: ManifestId,
}

impl Unproven {
    /// Reads bytes whose digest must be `id`.
    ///
    /// # Errors
    ///
    /// [`ManifestError`].
    pub fn read(bytes: &[u8], id: &ManifestId) -> Result<Self, ManifestError> {
        let found = ManifestId::of(bytes);
        if found != *id {
            return Err(ManifestError::Digest { expected: *id, found });
        }
        Ok(Self { manifest: Manifest::from_bytes(bytes)?, id: found })
    }

    /// What it states. Nothing of it is proven.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its digest.
    #[must_use]
    pub const fn id(&self) -> &ManifestId {
        &self.id
    }

    /// Proves the manifest under the key that it names, and by the pin if there is one.
    ///
    /// # Errors
    ///
    /// [`ManifestError::Digest`], [`ManifestError::UnknownKey`], [`ManifestError::Code`].
    pub fn prove(self, keys: &KeyRing, pin: Option<&ManifestId>) -> Result<Trusted, ManifestError> {
        self.compare(pin)?;
        let id = self.manifest.key_id;
        let key = keys.get(&id).ok_or(ManifestError::UnknownKey { id })?;
        self.manifest.check_code(&key.manifest_key())?;
        Ok(Trusted { manifest: self.manifest, id: self.id, pinned: pin.is_some(), keyed: true })
    }

    /// Accepts the manifest by its pin alone: for a mirror, a cache or a storage team without the key.
    ///
    /// # Errors
    ///
    /// [`ManifestError::Digest`].
    pub fn prove_by_pin(self, pin: &ManifestId) -> Result<Trusted, ManifestError> {
        self.compare(Some(pin))?;
        Ok(Trusted { manifest: self.manifest, id: self.id, pinned: true, keyed: false })
    }

    fn compare(&self, pin: Option<&ManifestId>) -> Result<(), ManifestError> {
        match pin {
            Some(pin) if *pin != self.id => {
                Err(ManifestError::Digest { expected: *pin, found: self.id })
            }
            _ => Ok(()),
        }
    }
}

impl Trusted {
    /// What it states.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its digest: the pin with which no older one is accepted.
    #[must_use]
    pub const fn id(&self) -> &ManifestId {
        &self.id
    }

    /// Returns true if it was compared with a pin of the caller. Without one, an older manifest of
    /// the same model, revision and key is accepted.
    #[must_use]
    pub const fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// Returns true if its code was checked under the key.
    #[must_use]
    pub const fn is_keyed(&self) -> bool {
        self.keyed
    }

    /// Its shards, in order.
    #[must_use]
    pub fn shards(&self) -> &[ShardEntry] {
        &self.manifest.shards
    }

    /// What the record of a shard is compared with when it is opened. Without a context, in that which the
    /// manifest names by its code.
    pub(crate) fn expected<'a>(
        &'a self,
        shard: &ShardEntry,
        context: Option<&'a [u8]>,
    ) -> Result<Expected<'a>, vram_seal::SealError> {
        let expected = match context {
            Some(context) => Expected::in_context(&self.manifest.model, context)?,
            // `check_record` compares the code of both with the one in the manifest.
            None => Expected::anything(),
        };
        Ok(expected
            .protection(self.manifest.protection)
            .revision(self.manifest.revision)
            .shard_index(shard.index))
    }

    /// Compares an opened record with the manifest. The record is the one whose code the manifest
    /// names, so a difference is the fault of the manifest's author.
    pub(crate) fn check_record(
        &self,
        shard: &ShardEntry,
        record: &SealRecord,
        fields: &RecordFields,
        image_len: u64,
    ) -> Result<(), ManifestError> {
        let index = shard.index;
        let differs = |field| Err(ManifestError::Record { index, field });
        if record.mac() != shard.record_mac {
            return differs("record_mac");
        }
        if fields.plaintext_len().get() != shard.plaintext_len {
            return differs("plaintext_len");
        }
        if image_len != shard.image_len {
            return differs("image_len");
        }
        if *fields.binding_code() != self.manifest.context {
            return differs("context");
        }
        if fields.key_id() != self.manifest.key_id {
            return differs("key_id");
        }
        Ok(())
    }
}
