//! An image opens to the content that was sealed.

use std::fs;

use vram_residency::{
    ContentDigest, ContentHasher, Expected, FileSource, HashKind, ImageOptions, Overwrite,
    ReaderSource, SealContext, SealError, SealParams, SivScope, SliceSource, Source, Threads,
    VramError, inspect_image, verify_image,
};
use vram_test_rigs::weights;

use super::{Bench, MODEL, SEGMENT, every_kind, image_error, key, params, ring};

#[test]
fn what_is_sealed_comes_out_again_for_every_kind_and_boundary_size() {
    let bench = Bench::new();
    for params in every_kind() {
        for len in [0, 1, 15, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT, 5 * SEGMENT + 17] {
            let bytes = weights(len);
            let report = bench.seal("image", params, &bytes);
            assert_eq!(report.digest, ContentHasher::digest(HashKind::Blake3, &bytes));
            assert_eq!(report.image_len.get(), fs::metadata(bench.path("image")).unwrap().len());
            assert_eq!(bench.unseal("image", "out").unwrap(), bytes, "{params:?} {len}");
            assert!(bench.altered("image").unwrap().is_empty());
            fs::remove_file(bench.path("image")).unwrap();
        }
    }
    assert!(bench.names().is_empty());
}

#[test]
fn an_image_is_the_format_s_whatever_the_threads_and_the_kind_of_source() {
    let bench = Bench::new();
    let bytes = weights(9 * SEGMENT + 5);
    fs::write(bench.path("weights"), &bytes).unwrap();
    for params in every_kind() {
        let context = SealContext::new(MODEL).unwrap();
        let mut data = vec![0; bytes.len()];
        let sealed =
            vram_seal::seal(&key(), &context, params, Threads::ONE, &bytes, &mut data).unwrap();
        let mut expected = vram_seal::image::head(&sealed.record, &sealed.tags).unwrap();
        expected.extend_from_slice(&data);

        let file = FileSource::open(bench.path("weights")).unwrap();
        let slice = SliceSource::new(&bytes);
        let sources: [(&dyn Source, usize); 3] = [(&file, 1), (&file, 4), (&slice, 3)];
        for (source, threads) in sources {
            let options = ImageOptions::new().threads(Threads::exactly(threads));
            bench.try_seal("image", params, source, options).unwrap();
            assert!(fs::read(bench.path("image")).unwrap() == expected, "{params:?} {threads}");
            fs::remove_file(bench.path("image")).unwrap();
        }
        let once = ReaderSource::new(&bytes[..], 9 * 4096 + 5);
        let options = ImageOptions::new().threads(Threads::exactly(4));
        match bench.try_seal("image", params, &once, options) {
            Ok(_) => {
                assert!(fs::read(bench.path("image")).unwrap() == expected, "{params:?}");
                fs::remove_file(bench.path("image")).unwrap();
            }
            // Two passes over a source that can be read only once.
            Err(VramError::Config { .. }) if params.scope() == SivScope::Shard => {}
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn inspecting_needs_no_key_and_shows_a_wrong_length_without_refusing_it() {
    let bench = Bench::new();
    let report = bench.seal("image", params(), &weights(5000));
    let info = inspect_image(&bench.path("image")).unwrap();
    assert_eq!(info.record, report.record);
    assert_eq!(info.fields.plaintext_len().get(), 5000);
    assert_eq!(info.file_len, info.image_len);
    assert_eq!(info.fields.key_id(), key().id());

    let file = fs::File::options().write(true).open(bench.path("image")).unwrap();
    file.set_len(300).unwrap();
    let info = inspect_image(&bench.path("image")).unwrap();
    assert_eq!((info.file_len.get(), info.image_len), (300, report.image_len));

    fs::write(bench.path("text"), b"hello, this is not an image ".repeat(10)).unwrap();
    let refused = inspect_image(&bench.path("text")).unwrap_err();
    assert!(refused.to_string().contains("text"), "{refused}");
    assert_eq!(image_error(refused), SealError::NotASeal);
    assert!(matches!(inspect_image(bench.folder.path()), Err(VramError::Io { .. })));
    assert!(matches!(inspect_image(&bench.path("none")), Err(VramError::Io { .. })));
}

#[test]
fn progress_rises_to_the_total() {
    let bench = Bench::new();
    let bytes = weights(50 * SEGMENT);
    for params in every_kind() {
        let mut told = Vec::new();
        let options = ImageOptions::new().overwrite(Overwrite::Replace).progress(|p| told.push(p));
        bench.try_seal("image", params, &SliceSource::new(&bytes), options).unwrap();
        assert!(told.windows(2).all(|pair| pair[0].done < pair[1].done));
        let last = told.last().unwrap();
        assert_eq!(last.done, last.total);
    }
}

#[test]
fn a_digest_survives_its_journey_through_an_image() {
    let bench = Bench::new();
    let bytes = weights(70_000);
    let sealed: ContentDigest = bench.seal("image", SealParams::new(), &bytes).digest;
    let expected = Expected::new(MODEL).unwrap();
    let verdict =
        verify_image(&ring(), &expected, &bench.path("image"), ImageOptions::new()).unwrap();
    assert_eq!(verdict.digest, Some(sealed));
}
