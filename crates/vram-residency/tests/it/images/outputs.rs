//! An output never replaces an input, and a writer receives the same bytes as a file.

use std::fs;
use std::io;
use std::sync::Arc;

use vram_residency::{
    Expected, FileSource, ImageOptions, ImageReport, Overwrite, SealContext, SliceSource,
    VramError, seal_image_to, unseal_image, unseal_image_to,
};
use vram_test_rigs::weights;

use super::{Bench, MODEL, SEGMENT, every_kind, key, params, ring};

#[test]
fn neither_the_source_nor_the_image_nor_a_named_input_is_ever_replaced() {
    let bench = Bench::new();
    fs::write(bench.path("source"), b"weights").unwrap();
    let source = FileSource::open(bench.path("source")).unwrap();
    bench.try_seal("image", params(), &source, ImageOptions::new()).unwrap();
    fs::write(bench.path("key"), b"a key").unwrap();
    let before = fs::read(bench.path("image")).unwrap();
    let options = || ImageOptions::new().overwrite(Overwrite::Replace).input(bench.path("key"));
    let refused = |answer: Result<ImageReport, VramError>| match answer.unwrap_err() {
        VramError::Io { source, .. } => {
            assert_eq!(source.kind(), io::ErrorKind::InvalidInput);
            assert!(source.to_string().contains("over itself"), "{source}");
        }
        other => panic!("{other}"),
    };
    let expected = Expected::new(MODEL).unwrap();
    for target in ["source", "key"] {
        refused(bench.try_seal(target, params(), &source, options()));
        // References and shared sources report the file of the inner source.
        refused(bench.try_seal(target, params(), &&source, options()));
        refused(bench.try_seal(target, params(), &Arc::new(source.clone()), options()));
    }
    for target in ["image", "key"] {
        let (image, target) = (bench.path("image"), bench.path(target));
        refused(unseal_image(&ring(), &expected, &image, &target, options()));
    }
    assert_eq!(fs::read(bench.path("source")).unwrap(), b"weights");
    assert_eq!(fs::read(bench.path("key")).unwrap(), b"a key");
    assert!(fs::read(bench.path("image")).unwrap() == before);
    assert_eq!(bench.names(), ["image", "key", "source"]);
}

#[test]
fn a_writer_gets_the_same_image_and_the_content_only_if_all_of_it_is_sound() {
    let bench = Bench::new();
    let context = SealContext::new(MODEL).unwrap();
    let expected = Expected::new(MODEL).unwrap().any_protection();
    for len in [0, 1, 3 * SEGMENT, 20 * SEGMENT + 1] {
        let bytes = weights(len);
        for params in every_kind() {
            let report = bench.seal("image", params, &bytes);
            let image = fs::read(bench.path("image")).unwrap();
            let mut written = Vec::new();
            let source = SliceSource::new(&bytes);
            let options = ImageOptions::new();
            let same =
                seal_image_to(&key(), &context, params, &source, &mut written, options).unwrap();
            assert!(written == image && same.record == report.record);

            let mut out = Vec::new();
            let unseal = |out: &mut Vec<u8>| {
                unseal_image_to(&ring(), &expected, &bench.path("image"), out, ImageOptions::new())
            };
            assert_eq!(unseal(&mut out).unwrap().digest, report.digest);
            assert!(out == bytes);
            let mut altered = image;
            *altered.last_mut().unwrap() ^= 1;
            fs::write(bench.path("image"), altered).unwrap();
            out.clear();
            assert!(unseal(&mut out).unwrap_err().is_integrity() && out.is_empty());
            fs::remove_file(bench.path("image")).unwrap();
        }
    }
}
