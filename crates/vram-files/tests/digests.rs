//! Content that must have a digest, of either kind: compared in the one read of a source or image.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
extern crate vram_testkit;

use std::fs;

use vram_files::{
    Expected, ExpectedDigest, FileError, FileSource, ImageOptions, KeyRing, ReaderSource,
    SealContext, SealKey, SealParams, Source, seal_image_to, unseal_image, unseal_image_to,
    verify_image,
};
use vram_seal::{ContentHasher, HashKind, SegmentSize, SivScope, Threads};

const LEN: usize = 10 * 4096 + 5;

fn content() -> Vec<u8> {
    (0_u32..).flat_map(u32::to_le_bytes).take(LEN).collect()
}

fn key() -> SealKey {
    SealKey::from_bytes(&[7; 32])
}

fn ring() -> KeyRing {
    KeyRing::new(key())
}

fn context() -> SealContext<'static> {
    SealContext::new("m").unwrap()
}

fn params(scope: SivScope) -> SealParams {
    SealParams::new().with_segment(SegmentSize::MIN).with_scope(scope)
}

fn seal(source: &dyn Source, scope: SivScope, options: ImageOptions<'_>) -> Result<(), FileError> {
    seal_image_to(&key(), &context(), params(scope), source, Vec::new(), options).map(drop)
}

#[test]
fn an_expected_digest_of_either_kind_is_compared_in_one_read_of_the_source() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let bytes = content();
    fs::write(at("weights"), &bytes).unwrap();
    for kind in [HashKind::Blake3, HashKind::Sha256] {
        let right = ExpectedDigest::new(kind, ContentHasher::digest(kind, &bytes));
        let wrong = ExpectedDigest::new(kind, ContentHasher::digest(kind, b"other"));
        for threads in [1, 4] {
            let options = |digest| {
                ImageOptions::new().threads(Threads::exactly(threads)).expect_digest(digest)
            };
            let file = FileSource::open(at("weights")).unwrap();
            for scope in [SivScope::Segment, SivScope::Shard] {
                seal(&file, scope, options(right)).unwrap();
                let refused = seal(&file, scope, options(wrong)).unwrap_err();
                assert!(matches!(refused, FileError::DigestMismatch { .. }), "{refused}");
            }
            // A reader can be read only once.
            let reader = || ReaderSource::new(&bytes[..], u64::try_from(LEN).unwrap());
            seal(&reader(), SivScope::Segment, options(right)).unwrap();
            seal(&reader(), SivScope::Segment, options(wrong)).unwrap_err();
            let mut sink = Vec::new();
            let (context, params) = (context(), params(SivScope::Segment));
            seal_image_to(&key(), &context, params, &reader(), &mut sink, options(right)).unwrap();

            let image = at("image");
            fs::write(&image, &sink).unwrap();
            let (keys, expected) = (ring(), Expected::new("m").unwrap());
            let verify = |digest| verify_image(&keys, &expected, &image, options(digest));
            assert!(verify(right).unwrap().is_sound());
            assert!(matches!(verify(wrong), Err(FileError::DigestMismatch { .. })));
            let out = at("out");
            unseal_image(&keys, &expected, &image, &out, options(wrong)).unwrap_err();
            assert!(!out.exists());
            unseal_image(&keys, &expected, &image, &out, options(right)).unwrap();
            fs::remove_file(out).unwrap();
            let mut opened = Vec::new();
            unseal_image_to(&keys, &expected, &image, &mut opened, options(wrong)).unwrap_err();
            assert!(opened.is_empty());
            unseal_image_to(&keys, &expected, &image, &mut opened, options(right)).unwrap();
            assert_eq!(opened, bytes);
        }
    }
}
