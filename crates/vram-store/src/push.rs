//! Pushing a model: images first, each read back, the manifest last.
//!
//! ```text
//!   for each shard   1 seal into a file without a name       the same content gives the same image
//!                    2 digests of its parts, and its id
//!                    3 is it there, whole? then nothing is sent; what is wrong is sent anew
//!                    4 send it; its length, first and last part are read back
//!                    5 send and read back the digests of its parts
//!   then             6 the manifest, read back whole
//!                    7 is all of it there still, behind every collection? what is gone is sent anew
//! ```
//!
//! Killed at any point, nothing names what is not whole: an image is written whole or not at all, and
//! the manifest comes after all of them.

mod image;
mod manifest;
mod settle;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use vram_files::{FileSource, ImageOptions, ImageReport, seal_image_nameless};
use vram_seal::{ContentHasher, HashKind, Protection, SealContext, SealKey, SealParams, Threads};

use crate::error::StoreError;
use crate::manifest::{Manifest, ManifestError, ShardEntry, SourceInfo};
use crate::naming::id::{ImageId, ManifestId};
use crate::options::{StoreEvent, StoreOptions};
use crate::store::Store;

/// What is pushed.
#[derive(Debug)]
pub struct Push<'a> {
    /// The key that seals the images and signs the manifest.
    pub key: &'a SealKey,
    /// The id of the model.
    pub model: &'a str,
    /// The number of this content.
    pub revision: u64,
    /// A context such as a tenant; empty for none.
    pub context: &'a [u8],
    /// The files: one shard each, in order.
    pub files: Vec<PathBuf>,
    /// The format of the files, for people.
    pub format: &'a str,
    /// Which shards each rank loads; empty for one rank with all of them.
    pub ranks: Vec<Vec<u64>>,
    /// The fleet that the model belongs to, if any.
    pub fleet: Option<&'a str>,
    /// How the images are sealed.
    pub params: SealParams,
    /// Allows images whose content everybody can read.
    pub plaintext: bool,
    /// The time of the push: RFC 3339, in seconds, UTC.
    pub created: String,
    /// Stores that may have the manifests of this revision which are wrong in this one: to mend them.
    pub mirrors: Vec<Store>,
}

/// What was pushed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pushed {
    /// The digest of the manifest: the pin for those who load.
    pub id: ManifestId,
    /// The manifest.
    pub manifest: Manifest,
    /// Images that were sent.
    pub sent: u64,
    /// Images that were there.
    pub present: u64,
    /// Images of which other bytes were there, and which were sent again.
    pub mended_images: u64,
    /// Bytes that were sent.
    pub sent_bytes: u64,
    /// Whether the manifest was there already.
    pub manifest_present: bool,
    /// Manifests of this revision that were wrong in the store, and were written again.
    pub mended: Vec<ManifestId>,
    /// Those that are wrong still: readers who pin one are refused.
    pub wrong: Vec<WrongManifest>,
}

/// A manifest whose bytes in the store are not its own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WrongManifest {
    /// Its digest, as its key says.
    pub id: ManifestId,
    /// Its key.
    pub key: String,
    /// What is wrong.
    pub why: ManifestError,
}

impl Push<'_> {
    /// Returns what the manifest will state, but for its images.
    fn check(&self) -> Result<Manifest, StoreError> {
        if self.files.is_empty() {
            return Err(StoreError::config("there is no file to push"));
        }
        if self.params.protection() != Protection::Encrypted && !self.plaintext {
            return Err(StoreError::config(
                "an authenticated image is plaintext, which everybody with access to the store can \
                 read: allow it in words",
            ));
        }
        // All of a manifest but its images, so that nothing is sealed or sent for one that cannot be.
        let shard = |index| ShardEntry {
            index,
            plaintext_len: 0,
            image: ImageId::from_bytes([0; 32]),
            image_len: 1,
            record_mac: [0; 32],
        };
        let shards = (0..as_u64(self.files.len())).map(shard).collect();
        self.manifest([0; 32], shards, [0; 32])
    }

    /// The manifest of these images, which is not signed yet.
    fn manifest(
        &self,
        context: [u8; 32],
        shards: Vec<ShardEntry>,
        listing: [u8; 32],
    ) -> Result<Manifest, StoreError> {
        let all = || (0..as_u64(shards.len())).collect();
        let manifest = Manifest {
            fleet: self.fleet.map(str::to_owned),
            model: self.model.to_owned(),
            revision: self.revision,
            context,
            key_id: self.key.id(),
            created: self.created.clone(),
            protection: self.params.protection(),
            ranks: if self.ranks.is_empty() { vec![all()] } else { self.ranks.clone() },
            shards,
            source: SourceInfo { format: self.format.to_owned(), digest: listing },
            mac: [0; 32],
        };
        match manifest.check() {
            Ok(()) => Ok(manifest),
            Err(why) => Err(StoreError::config(format!("no manifest can be made of this: {why}"))),
        }
    }
}

impl Store {
    /// Pushes a model. What is there already, whole, is not sent again; so a call that was interrupted
    /// is simply made again. What is there is read back: in a folder every byte, in a bucket the ends
    /// alone unless [`StoreOptions::read_present`] asks for all; what is wrong is sent again.
    ///
    /// # Errors
    ///
    /// [`StoreError::Taken`] if the revision is there with other content; [`StoreError::Rivals`] if another
    /// push wrote other content at the same time; [`StoreError::NotKept`] if
    /// what is read back differs; those of sealing and of the store. Nothing names what was sent so
    /// far.
    pub fn push(&self, push: &Push<'_>, options: &StoreOptions<'_>) -> Result<Pushed, StoreError> {
        let stated = push.check()?;
        let others = self.others_of(push, &stated, options)?;
        let mut listing = ContentHasher::new(HashKind::Blake3);
        let mut shards = Vec::new();
        let mut sent = Sent { total: total_len(&push.files)?, ..Sent::default() };
        let mut context = None;
        for (index, path) in (0_u64..).zip(&push.files) {
            options.go_on()?;
            let (file, report) = seal(push, index, path, options)?;
            let sealed = image::Sealed::new(index, file, &report)?;
            let entry = sealed.entry.clone();
            others.agree(push, &entry)?;
            self.push_image(&sealed, options, &mut sent)?;
            drop(sealed);
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let (name_len, len) = (as_u64(name.len()), entry.plaintext_len);
            listing.update(&name_len.to_le_bytes()).update(name.as_bytes());
            listing.update(&len.to_le_bytes()).update(report.digest.as_bytes());
            context = context.or(Some(*report.fields.binding_code()));
            shards.push(entry);
        }
        let listing = *listing.finalize().as_bytes();
        let manifest = push.manifest(context.unwrap_or_default(), shards, listing)?;
        let kept = self.push_manifest(push, manifest, options)?;
        self.is_alone(push, &kept.manifest, options)?;
        self.settle(push, &kept.manifest, options, &mut sent)?;
        Ok(Pushed {
            id: kept.manifest.id(),
            manifest: kept.manifest,
            sent: sent.images,
            present: sent.present,
            mended_images: sent.mended,
            sent_bytes: sent.bytes,
            manifest_present: kept.present,
            mended: kept.mended,
            wrong: kept.wrong,
        })
    }

    pub(super) fn not_kept(&self, key: &str) -> StoreError {
        StoreError::NotKept { store: Arc::clone(self.name()), what: key.to_owned() }
    }
}

/// What was sent so far.
#[derive(Debug, Default)]
struct Sent {
    images: u64,
    present: u64,
    mended: u64,
    bytes: u64,
    done: u64,
    total: u64,
}

impl Sent {
    fn advance(&mut self, bytes: u64, to: &Arc<str>, options: &StoreOptions<'_>) {
        self.done = self.done.saturating_add(bytes);
        // Images are longer than their content, by their tables.
        let total = self.total.max(self.done);
        let source = Arc::clone(to);
        options.tell(&StoreEvent::Progress { done: self.done, total, source });
    }
}

fn total_len(files: &[PathBuf]) -> Result<u64, StoreError> {
    let mut total = 0_u64;
    for path in files {
        let found = std::fs::metadata(path).map_err(|error| StoreError::io("open", path, error))?;
        total = total.saturating_add(found.len());
    }
    Ok(total)
}

fn seal(
    push: &Push<'_>,
    index: u64,
    path: &std::path::Path,
    options: &StoreOptions<'_>,
) -> Result<(File, ImageReport), StoreError> {
    let source = FileSource::open(path).map_err(vram_files::FileError::from)?;
    let context = SealContext::new(push.model)?
        .context(push.context)
        .shard_index(index)
        .revision(push.revision);
    let sealing = ImageOptions::new().threads(Threads::AUTO).cancel(options.token());
    Ok(seal_image_nameless(push.key, &context, push.params, &source, sealing)?)
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
