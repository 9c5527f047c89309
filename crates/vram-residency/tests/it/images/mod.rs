//! Sealed images: they open to the sealed content and to nothing else, and no partial file is ever
//! left.

mod files;
mod outputs;
mod refused;
mod round_trip;
mod vectors;
mod whole_models;

use std::fs;
use std::path::PathBuf;

use vram_residency::{
    Expected, ImageOptions, ImageReport, KeyRing, Protection, SealContext, SealError, SealKey,
    SealParams, SegmentSize, SivScope, SliceSource, Source, Suite, VramError, seal_image,
    unseal_image, verify_image,
};

const MODEL: &str = "llama-3-8b";
const SEGMENT: usize = 4096;

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { folder: memory_folder() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn seal(&self, name: &str, params: SealParams, bytes: &[u8]) -> ImageReport {
        self.try_seal(name, params, &SliceSource::new(bytes), ImageOptions::new()).unwrap()
    }

    fn try_seal(
        &self,
        name: &str,
        params: SealParams,
        source: &dyn Source,
        options: ImageOptions<'_>,
    ) -> Result<ImageReport, VramError> {
        let context = SealContext::new(MODEL).unwrap();
        seal_image(&key(), &context, params, source, &self.path(name), options)
    }

    fn unseal(&self, image: &str, target: &str) -> Result<Vec<u8>, VramError> {
        let expected = Expected::new(MODEL).unwrap().any_protection();
        let (image, target) = (self.path(image), self.path(target));
        unseal_image(&ring(), &expected, &image, &target, ImageOptions::new())?;
        let bytes = fs::read(&target).unwrap();
        fs::remove_file(&target).unwrap();
        Ok(bytes)
    }

    /// The segments that the verification reports, or why it failed.
    fn altered(&self, image: &str) -> Result<Vec<u64>, VramError> {
        let expected = Expected::new(MODEL).unwrap().any_protection();
        let verdict = verify_image(&ring(), &expected, &self.path(image), ImageOptions::new())?;
        assert_eq!(verdict.is_sound(), verdict.altered.is_empty());
        Ok(verdict.altered.iter().map(|one| one.segment).collect())
    }
}

/// A temporary folder in memory if available: these tests sync thousands of small files.
fn memory_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn key() -> SealKey {
    SealKey::from_bytes(&[7; 32])
}

fn ring() -> KeyRing {
    KeyRing::new(key())
}

fn params() -> SealParams {
    SealParams::new().with_segment(SegmentSize::MIN)
}

/// Every combination of the format.
fn every_kind() -> Vec<SealParams> {
    let mut kinds = vec![params().with_protection(Protection::Authenticated)];
    for scope in [SivScope::Shard, SivScope::Segment] {
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            kinds.push(params().with_scope(scope).with_suite(suite));
        }
    }
    kinds
}

fn image_error(error: VramError) -> SealError {
    match error {
        VramError::Image { source, .. } => *source,
        other => panic!("{other:?}"),
    }
}
