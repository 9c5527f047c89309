//! Images that are damaged, of another length, or not the expected ones.

use std::fs;

use vram_residency::{
    ByteLen, ContentHasher, Expected, HashKind, ImageOptions, KeyRing, SealError, SealKey,
    SliceSource, VramError, inspect_image, unseal_image, verify_image,
};
use vram_test_rigs::weights;

use super::{Bench, MODEL, SEGMENT, every_kind, image_error, key, params, ring};

/// P9: a change of any byte of an image is detected.
#[test]
fn any_flipped_bit_of_an_image_is_refused_and_leaves_nothing() {
    let bench = Bench::new();
    for params in every_kind() {
        // Two segments, the second a short one.
        let bytes = weights(SEGMENT + 40);
        let report = bench.seal("image", params, &bytes);
        let good = fs::read(bench.path("image")).unwrap();
        fs::remove_file(bench.path("image")).unwrap();
        let data_at = good.len() - bytes.len();
        let head = 256 + usize::try_from(report.fields.table_len().get()).unwrap();
        let positions = (0..head)
            .chain([head, head + 1, data_at - 1])
            .chain([data_at, data_at + 1, data_at + SEGMENT - 1, data_at + SEGMENT])
            .chain(good.len() - 40..good.len());
        for at in positions {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(bench.path("bad"), &bad).unwrap();
            let refused = bench.unseal("bad", "out").map(|_| ()).unwrap_err();
            assert_eq!(bench.names(), ["bad"], "byte {at}");
            if at >= data_at {
                let segment = u64::try_from((at - data_at) / SEGMENT).unwrap();
                assert!(refused.is_integrity(), "{refused}");
                assert_eq!(image_error(refused), SealError::SegmentMismatch { segment });
                assert_eq!(bench.altered("bad").unwrap(), [segment]);
            } else {
                let checked = image_error(bench.altered("bad").unwrap_err());
                assert_eq!(checked, image_error(refused), "byte {at}");
            }
        }
        fs::remove_file(bench.path("bad")).unwrap();
    }
}

#[test]
fn an_image_of_any_other_length_is_refused() {
    let bench = Bench::new();
    let bytes = weights(SEGMENT + 3);
    bench.seal("image", params(), &bytes);
    let good = fs::read(bench.path("image")).unwrap();
    let lengths = [0, 1, 7, 8, 100, 255, 256, 257, 4096, good.len() - 1, good.len() + 1];
    for len in lengths {
        let mut bad = good.clone();
        bad.resize(len, 0);
        fs::write(bench.path("image"), &bad).unwrap();
        let refused = image_error(bench.unseal("image", "out").unwrap_err());
        match refused {
            SealError::WrongLength { found, .. } => assert_eq!(found, u64::try_from(len).unwrap()),
            other => panic!("{len}: {other}"),
        }
        assert_eq!(bench.names(), ["image"]);
    }
}

#[test]
fn swapped_repeated_and_foreign_segments_are_named() {
    let bench = Bench::new();
    for params in every_kind() {
        let bytes = weights(4 * SEGMENT);
        bench.seal("image", params, &bytes);
        let good = fs::read(bench.path("image")).unwrap();
        let data_at = good.len() - bytes.len();
        let segment = |at: usize| data_at + at * SEGMENT..data_at + (at + 1) * SEGMENT;

        let mut swapped = good.clone();
        swapped.copy_within(segment(2), segment(1).start);
        swapped[segment(2)].copy_from_slice(&good[segment(1)]);
        fs::write(bench.path("image"), &swapped).unwrap();
        assert_eq!(bench.altered("image").unwrap(), [1, 2]);

        let mut repeated = good;
        repeated.copy_within(segment(0), segment(3).start);
        fs::write(bench.path("image"), &repeated).unwrap();
        assert_eq!(bench.altered("image").unwrap(), [3]);
        fs::remove_file(bench.path("image")).unwrap();
    }
}

/// P11: a valid image under another name, key or limit is refused, and the error says which.
#[test]
fn an_image_of_another_model_key_or_size_is_refused_in_words() {
    let bench = Bench::new();
    bench.seal("image", params(), &weights(100));
    let image = bench.path("image");
    let open = |keys: &KeyRing, expected: &Expected<'_>, options| {
        let refused = unseal_image(keys, expected, &image, &bench.path("out"), options);
        let verdict =
            verify_image(keys, expected, &image, ImageOptions::new().len_max(ByteLen::new(99)));
        assert!(verdict.is_err());
        assert_eq!(bench.names(), ["image"]);
        image_error(refused.unwrap_err())
    };
    let right = Expected::new(MODEL).unwrap();
    let wrong_model = Expected::new("llama-3-70b").unwrap();
    let wrong_context = Expected::in_context(MODEL, b"tenant").unwrap();
    let wrong_revision = right.revision(1);
    for expected in [&wrong_model, &wrong_context, &wrong_revision] {
        let refused = open(&ring(), expected, ImageOptions::new());
        assert!(matches!(refused, SealError::ContextMismatch { .. }), "{refused}");
    }
    let other_key = KeyRing::new(SealKey::from_bytes(&[8; 32]));
    let refused = open(&other_key, &right, ImageOptions::new());
    assert!(matches!(refused, SealError::UnknownKey { id } if id == key().id()), "{refused}");
    let refused = open(&ring(), &right, ImageOptions::new().len_max(ByteLen::new(99)));
    assert!(matches!(refused, SealError::TooLong { .. }), "{refused}");

    // A tool that only converts may accept any content.
    let report = unseal_image(
        &ring(),
        &Expected::anything(),
        &image,
        &bench.path("out"),
        ImageOptions::new(),
    );
    assert!(report.is_ok());
}

#[test]
fn an_expected_digest_decides_before_a_file_appears() {
    let bench = Bench::new();
    let bytes = weights(3 * SEGMENT);
    let right = ContentHasher::digest(HashKind::Blake3, &bytes);
    let wrong = ContentHasher::digest(HashKind::Blake3, b"something else");
    let source = SliceSource::new(&bytes);
    for params in every_kind() {
        let refused =
            bench.try_seal("image", params, &source, ImageOptions::new().expected_digest(wrong));
        assert!(matches!(refused, Err(VramError::DigestMismatch { .. })), "{refused:?}");
        assert!(bench.names().is_empty());
    }
    bench.try_seal("image", params(), &source, ImageOptions::new().expected_digest(right)).unwrap();

    let expected = Expected::new(MODEL).unwrap();
    let (image, out) = (bench.path("image"), bench.path("out"));
    let options = || ImageOptions::new().expected_digest(wrong);
    let refused = unseal_image(&ring(), &expected, &image, &out, options());
    assert!(matches!(refused, Err(VramError::DigestMismatch { .. })));
    let refused = verify_image(&ring(), &expected, &image, options());
    assert!(matches!(refused, Err(VramError::DigestMismatch { .. })));
    assert_eq!(bench.names(), ["image"]);
}

#[test]
fn a_header_that_lies_costs_no_memory() {
    let bench = Bench::new();
    bench.seal("image", params(), &weights(100));
    let mut bad = fs::read(bench.path("image")).unwrap();
    // 2^48 bytes in segments of 16 MiB: a table of 768 MiB, if the record were trusted.
    bad[14] = 24;
    bad[16..24].copy_from_slice(&(1_u64 << 48).to_le_bytes());
    bad[24..32].copy_from_slice(&(1_u64 << 24).to_le_bytes());
    fs::write(bench.path("image"), &bad).unwrap();
    assert!(inspect_image(&bench.path("image")).is_ok());
    let refused = image_error(bench.unseal("image", "out").unwrap_err());
    assert_eq!(refused, SealError::RecordMismatch);
}
